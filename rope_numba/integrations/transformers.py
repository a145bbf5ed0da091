"""The rotation inside models of Hugging Face transformers, on the CPU, with the models' own cosines and sines.

A model's attention layers find their rotation by its name in the module that they were written in. `use` gives the
layers of one model a `forward` that finds ours under that name; other models of the family keep theirs.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

from .. import arrays
from ..hints import hinted
from ..numbers import counted
from .families import FAMILIES, Form, Function, check_form, swapped

__all__ = ["FAMILIES", "Swap", "use"]

_used: weakref.WeakSet[Any] = weakref.WeakSet()  # the layers of all swaps
_ours: weakref.WeakSet[Function] = weakref.WeakSet()  # what they hold as forward, and their copies too


def __dir__() -> list[str]:
    return sorted(__all__)


class Swap:
    """What `use` returns: it undoes the swap, by `undo()` or at the end of a `with` block.

    Examples
    --------
    >>> swap = Swap([])
    >>> swap.undo()
    """

    def __init__(self, swapped: list[tuple[Any, Function, dict[str, Any], dict[str, Any]]]) -> None:
        self._swapped = swapped  # layer, its forward of ours, the names that finds, what they stood for

    @property
    def layers(self) -> int:
        """Number of attention layers that rotate by this package."""
        return len(self._swapped)

    def undo(self) -> None:
        """Give the layers their own rotation back; a second time it does nothing.

        Examples
        --------
        >>> Swap([]).undo()
        """
        for layer, forward, names, originals in self._swapped:
            names.update(originals)  # what has been wrapped around our forward since then keeps it
            if layer.__dict__.get("forward") is forward:
                del layer.forward
            _used.discard(layer)
        self._swapped = []

    def __enter__(self) -> Swap:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<rotation of {counted(self.layers, 'layer')} by rope_numba>"


@hinted
def use(model: Any) -> Swap:
    """Let a transformers model on the CPU rotate its queries and keys by this package's kernels.

    Cosines and sines stay the model's own: float32 results are the eager model's bit for bit, 16-bit ones are rounded
    once instead of three times (Cohere's once as well). Only this model's layers change. Rotated queries and keys are
    new tensors, as they are in transformers. The original function runs wherever it must: while training (q or k
    requires grad), under torch.compile, tracing, vmap or forward-mode autograd, on other devices, and for dtypes that
    are mixed.

    A deep copy of a used model rotates as its original does, until it is used itself.

    Parameters
    ----------
    model : torch.nn.Module
        A model of the families in `FAMILIES`, or one that holds such a model. Its vision layers keep their own code.

    Returns
    -------
    Swap
        Its `undo()` restores the model; it may be used as a context manager.

    Raises
    ------
    TypeError
        If it is not a PyTorch module.
    ValueError
        If none of its layers is of a known family, if their forward has been replaced before (by `use`, or by hooks of
        accelerate) or is wrapped in a way that cannot be copied, or if this version of transformers rotates otherwise
        than those known.

    References
    ----------
    apply_rotary_pos_emb in the modeling files of transformers 5.23 and 5.24.

    Examples
    --------
    >>> import rope_numba.integrations.transformers as rope_transformers
    >>> with rope_transformers.use(model):  # doctest: +SKIP
    ...     model.generate(**inputs)
    """
    module = getattr(sys.modules.get("torch"), "nn", None)
    if module is None or not isinstance(model, module.Module):
        raise TypeError(f"model is {arrays.kind_of(model)}; expected a torch.nn.Module of transformers")
    found = list(_layers(model))
    if not found:
        for layer in model.modules():
            for base in type(layer).__mro__[1:]:
                if _known(vars(base).get("forward")) is not None:
                    raise ValueError(
                        f"model has {arrays.kind_of(layer)} with a forward of its own; expected that of the "
                        f"{base.__name__} that it inherits from"
                    )
        raise ValueError(f"model is {arrays.kind_of(model)}; expected one with layers of {', '.join(FAMILIES)}")
    for layer, forward, _, _ in found:
        held = layer.__dict__.get("forward", forward)
        function = getattr(held, "__func__", held)  # unpickled layers hold their class's own, deep copies hold ours
        if layer in _used or (function is not forward and function not in _ours):
            raise ValueError(
                f"model has {arrays.kind_of(layer)} whose forward has been replaced; expected its class's own "
                "(undo() of an earlier use, or use() before other tools)"
            )
    copies: dict[Function, tuple[Function, dict[str, Any], dict[str, Any]]] = {}
    done: list[tuple[Any, Function, dict[str, Any], dict[str, Any]]] = []
    for layer, forward, inner, forms in found:
        if forward not in copies:
            originals = {name: inner.__globals__[name] for name in forms}
            ours = {name: swapped(forms[name], original) for name, original in originals.items()}
            for name, original in originals.items():
                check_form(f"{inner.__module__}.{name}", forms[name], original, ours[name])
            names = {**inner.__globals__, **ours}
            copy = _copied(forward, inner, names)
            if copy is forward:
                raise ValueError(
                    f"model has {arrays.kind_of(layer)} whose forward is wrapped by code that cannot be copied; "
                    "expected a wrapper that holds the function in its closure"
                )
            copies[forward] = _unless_compiling(forward, copy), names, originals
        function, names, originals = copies[forward]
        done.append((layer, types.MethodType(function, layer), names, originals))
    for layer, method, _, _ in done:  # all of them, or none
        layer.forward = method
        _used.add(layer)
    return Swap(done)


def _layers(model: Any) -> Iterator[tuple[Any, Any, Any, dict[str, Form]]]:
    """Yield each layer that calls a known function, its forward, the function in it that calls, and forms by name."""
    for layer in model.modules():
        forward = getattr(type(layer), "forward", None)
        known = _known(forward)
        if known is not None:
            yield layer, forward, *known


def _known(forward: Any) -> tuple[Any, dict[str, Form]] | None:
    """Return the function in a forward that calls known functions, and their forms by name; None if there is none."""
    for inner in _functions(forward):
        path = inner.__globals__.get("__name__", "").split(".")
        if path[:2] != ["transformers", "models"] or len(path) != 4 or path[3] != f"modeling_{path[2]}":
            continue
        called = _global_names(inner.__code__)
        forms = {name: form for name, form in FAMILIES.get(path[2], {}).items() if name in called}
        if forms:
            return inner, forms
    return None


def _functions(function: Any) -> Iterator[types.FunctionType]:
    """Yield a function, and those that it wraps: transformers' decorators hold them in a closure."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        function = waiting.pop(0)
        if isinstance(function, types.FunctionType) and id(function) not in seen:
            seen.add(id(function))
            yield function
            waiting += [getattr(function, "__wrapped__", None), *map(_content, function.__closure__ or ())]


def _global_names(code: types.CodeType) -> set[str]:
    """Return the names that some code looks up outside of itself, that of functions inside it included."""
    inside = [_global_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inside)


def _copied(function: Any, inner: Any, names: dict[str, Any], seen: tuple[Any, ...] = ()) -> Any:
    """Return a copy of a function in which inner finds other global names; itself if it does not hold inner."""
    if not isinstance(function, types.FunctionType) or function in seen:
        return function
    cells = function.__closure__ or ()
    if function is not inner:
        held = [_content(cell) for cell in cells]
        copies = [_copied(content, inner, names, (*seen, function)) for content in held]
        if all(map(operator.is_, copies, held)):
            return function
        pairs = zip(cells, copies, held, strict=True)
        cells = tuple(cell if copy is content else types.CellType(copy) for cell, copy, content in pairs)
    found = names if function is inner else function.__globals__
    copy = types.FunctionType(function.__code__, found, function.__name__, function.__defaults__, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, function)


def _content(cell: types.CellType) -> Any:
    """Return what a cell of a closure holds, or None if it is still empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _unless_compiling(function: Any, copy: Any) -> Function:
    """Return a function that calls the copy, or the function itself while it is compiled.

    torch.compile notes for every global name the module that it stands in, and so must see the function itself.
    """
    is_compiling = sys.modules["torch"].compiler.is_compiling

    @functools.wraps(function)
    def forward(*arguments: Any, **options: Any) -> Any:
        return (function if is_compiling() else copy)(*arguments, **options)

    _ours.add(forward)
    return forward

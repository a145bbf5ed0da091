"""The rotation inside models of Hugging Face transformers, on the CPU, with the models' own cosines and sines.

A model's attention layers find their rotation by its name in the module that they were written in. `use` gives the
layers of one model a `forward` that finds ours under that name; other models of the family keep theirs.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

from .. import arrays
from ..hints import hinted
from ..numbers import counted
from .families import FAMILIES, Form, Function, check_form, swapped

__all__ = ["FAMILIES", "Swap", "use"]


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
    once instead of three times (Cohere's once as well). Only this model's layers change. Their queries and keys are
    rotated in place, so a hook that keeps what a projection returned must copy it. The original function runs wherever
    it must: while training (q or k requires grad), under torch.compile, tracing, vmap or forward-mode autograd, on
    other devices, and for dtypes that are mixed.

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
        accelerate), or if this version of transformers rotates otherwise than the one known.

    References
    ----------
    apply_rotary_pos_emb in the modeling files of transformers 5.23.

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
        raise ValueError(f"model is {arrays.kind_of(model)}; expected one with layers of {', '.join(FAMILIES)}")
    for layer, forward, _ in found:
        held = layer.__dict__.get("forward", forward)
        if held is not forward and getattr(held, "__func__", None) is not forward:  # unpickled layers hold their own
            raise ValueError(
                f"model has {arrays.kind_of(layer)} whose forward has been replaced; expected its class's own "
                "(undo() of an earlier use, or use() before other tools)"
            )
    copies: dict[Function, tuple[Function, dict[str, Any], dict[str, Any]]] = {}
    done = []
    for layer, forward, forms in found:
        if forward not in copies:
            originals = {name: forward.__globals__[name] for name in forms}
            ours = {name: swapped(forms[name], original) for name, original in originals.items()}
            for name, original in originals.items():
                check_form(f"{forward.__module__}.{name}", forms[name], original, ours[name])
            names = {**forward.__globals__, **ours}
            copies[forward] = _with_names(forward, names), names, originals
        copy, names, originals = copies[forward]
        layer.forward = types.MethodType(copy, layer)
        done.append((layer, layer.__dict__["forward"], names, originals))
    return Swap(done)


def _layers(model: Any) -> Iterator[tuple[Any, Any, dict[str, Form]]]:
    """Yield each layer that calls a known function, its forward, and the functions' forms by their names."""
    for layer in model.modules():
        forward = getattr(type(layer), "forward", None)
        path = getattr(forward, "__module__", "").split(".")
        if not isinstance(forward, types.FunctionType) or path[:2] != ["transformers", "models"] or len(path) != 4:
            continue
        known = FAMILIES.get(path[2], {}) if path[3] == f"modeling_{path[2]}" else {}
        forms = {name: form for name, form in known.items() if name in forward.__code__.co_names}
        if forms:
            yield layer, forward, forms


def _with_names(function: Any, names: dict[str, Any]) -> Function:
    """Return a function that does the same but looks its global names up elsewhere, unless it is being compiled.

    torch.compile notes for every global name the module that it stands in, and so must see the function itself.
    """
    is_compiling = sys.modules["torch"].compiler.is_compiling
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__

    @functools.wraps(function)
    def forward(*arguments: Any, **options: Any) -> Any:
        return (function if is_compiling() else copy)(*arguments, **options)

    return forward

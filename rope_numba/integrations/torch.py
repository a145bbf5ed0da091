"""PyTorch tensors on the CPU, and memmaps, seen as NumPy arrays over the same memory, or refused.

PyTorch is never imported here: as long as nobody else has, there is no tensor to meet.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import BFLOAT16_BITS, TYPES
from ..texts import type_name

__all__ = [
    "as_array",
    "as_integers",
    "as_reals",
    "check_floats",
    "check_storage",
    "check_storages",
    "is_tensor",
    "memory_of",
    "note_written",
]

# By the tensor's dtype, as PyTorch writes it.
_FLOATS = ("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16")
_INTEGERS = tuple(f"torch.{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def is_tensor(x: object) -> bool:
    """Tell whether an object is a PyTorch tensor.

    Examples
    --------
    >>> is_tensor(1.5)
    False
    """
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(x, tensor)


def as_array(name: str, x: Any) -> Any:
    """Return a plain NumPy array over the memory of a tensor or a memmap; anything else comes back as it is.

    Each view of a memmap calls NumPy's Python code, which takes some microseconds; views of its plain array do not. A
    bfloat16 tensor becomes an array of `BFLOAT16_BITS`, so that ml_dtypes is not needed. A Parameter is taken as the
    tensor that it is; other subclasses may hold their numbers elsewhere and are refused. A tensor that requires grad is
    refused under no_grad too: autograd would not see what is written (its `detach()` may be given).

    Parameters
    ----------
    name : str
        The argument, for error texts.
    x : tensor, memmap, or anything else

    Raises
    ------
    TypeError
        If the tensor is of another dtype, class, layout or device.
    ValueError
        If it requires grad, carries a forward-mode tangent, has its negative bit set, or its storage has been freed or
        shrunk.

    Examples
    --------
    >>> as_array("q", "not a tensor")
    'not a tensor'
    """
    if type(x) is np.ndarray:
        return x
    if type(x) is np.memmap:
        return x.view(np.ndarray)
    if not is_tensor(x):
        return x
    check_floats(name, x)
    try:
        return memory_of(x)
    except RuntimeError:  # a wrapper that says it is dense and on the CPU: inside torch.func, or a ZeroTensor
        raise _no_memory(name) from None


def check_floats(name: str, x: Any) -> None:
    """Check that a tensor is one that `as_array` takes, apart from wrappers that only PyTorch can tell."""
    _check_place(name, x)
    if str(x.dtype) not in _FLOATS:
        raise TypeError(f"{name}.dtype is {x.dtype}; expected {TYPES}")
    if x.requires_grad:
        raise ValueError(f"{name} requires grad; expected a tensor outside autograd, such as {name}.detach()")
    if _has_tangent(x):
        raise ValueError(f"{name} carries a tangent of forward-mode autograd; expected a tensor outside it")
    if x.is_neg():
        raise ValueError(f"{name} has its negative bit set; expected numbers as they are in memory")
    check_storage(name, x)


def memory_of(x: Any) -> NDArray[Any]:
    """Return a NumPy array over the memory of a tensor that has been checked."""
    bits = x.dtype == sys.modules["torch"].bfloat16
    array: NDArray[Any] = x.view(sys.modules["torch"].int16).numpy().view(BFLOAT16_BITS) if bits else x.numpy()
    return array


def as_integers(name: str, x: Any) -> Any:
    """Return the numbers of a tensor of integers as a NumPy array; what is not a tensor comes back as it is.

    Tensors in a list are made arrays one by one.

    Raises
    ------
    TypeError
        If it holds something else, or lies elsewhere than in the CPU's memory.
    ValueError
        If its storage has been freed or shrunk.

    Examples
    --------
    >>> as_integers("positions", [3, 4])
    [3, 4]
    """
    if not is_tensor(x):
        return _each(as_integers, name, x)
    _check_place(name, x)
    if str(x.dtype) not in _INTEGERS:
        raise TypeError(f"{name} has dtype {x.dtype}; expected integers")
    return _read(name, x)


def as_reals(name: str, x: Any) -> Any:
    """Return the numbers of a tensor of any dtype as a NumPy array; what is not a tensor comes back as it is.

    Tensors in a list are made arrays one by one. Floats are widened to float64. A tensor that requires grad is taken,
    as its numbers are only read.

    Raises
    ------
    TypeError
        If it lies elsewhere than in the CPU's memory.
    ValueError
        If its storage has been freed or shrunk.

    Examples
    --------
    >>> as_reals("inv_freq", [1.0, 0.1])
    [1.0, 0.1]
    """
    if not is_tensor(x):
        return _each(as_reals, name, x)
    _check_place(name, x)
    return _read(name, x.detach())


def check_storage(name: str, x: Any) -> None:
    """Check that all elements of a tensor lie in its storage, which may have been freed or shrunk.

    PyTorch does so with `untyped_storage().resize_`, as its FSDP frees parameters, and leaves the shape as it was.
    """
    count = x.numel()
    if count == 0:
        return
    try:
        there = x.untyped_storage().nbytes()
        if not x.is_contiguous():
            count = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
        used = (x.storage_offset() + count) * x.element_size()
    except RuntimeError:  # inside torch.func
        raise _no_memory(name) from None
    if there < used:
        raise ValueError(
            f"{name} has a storage of {there} bytes and reaches {used}; expected one that was not freed or shrunk"
        )


def check_storages(name: str, x: Any) -> None:
    """Check so the tensors in dicts and lists: to compare a freed one with anything ends the process."""
    if "torch" not in sys.modules:
        return
    waiting, seen = [x], set[int]()
    while waiting:
        one = waiting.pop()
        if is_tensor(one):
            check_storage(name, one)
        elif isinstance(one, (Mapping, list, tuple)) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one


def note_written(*written: Any) -> None:
    """Tell autograd which tensors have changed, so that a backward pass that had kept one of them raises."""
    for x in written:
        if is_tensor(x):
            sys.modules["torch"].autograd.graph.increment_version(x)


def _check_place(name: str, x: Any) -> None:
    """Check that a tensor is an ordinary one, in the CPU's memory."""
    torch = sys.modules["torch"]
    if not x.is_cpu:
        raise TypeError(f"{name} is on device {x.device}; expected a tensor on the CPU")
    if type(x) not in (torch.Tensor, torch.nn.Parameter):
        raise TypeError(f"{name} is of class {type_name(x)}; expected a plain torch.Tensor (or Parameter)")
    if x.is_nested:
        raise TypeError(f"{name} is a nested tensor; expected a strided one")
    if x.layout is not torch.strided:
        raise TypeError(f"{name} has layout {x.layout}; expected torch.strided")


def _read(name: str, x: Any) -> NDArray[Any]:
    """Return the numbers of a tensor to be read, floats as float64."""
    check_storage(name, x)
    try:
        array: NDArray[Any] = (x.double() if x.is_floating_point() else x.resolve_conj()).resolve_neg().numpy()
    except RuntimeError:  # as in as_array
        raise _no_memory(name) from None
    return array


def _no_memory(name: str) -> TypeError:
    return TypeError(f"{name} has no memory of its own; expected an ordinary tensor on the CPU")


def _each(convert: Callable[[str, Any], Any], name: str, x: Any) -> Any:
    """Return a list with each tensor in it converted; what holds no tensor comes back as it is."""
    if type(x) not in (list, tuple) or "torch" not in sys.modules or set(map(type, x)) == {int}:
        return x
    parts = [convert(name, part) if is_tensor(part) or isinstance(part, (list, tuple)) else part for part in x]
    return x if all(map(operator.is_, parts, x)) else parts


def _has_tangent(x: Any) -> bool:
    forward = sys.modules["torch"].autograd.forward_ad
    return getattr(forward, "_current_level", 0) >= 0 and forward.unpack_dual(x).tangent is not None

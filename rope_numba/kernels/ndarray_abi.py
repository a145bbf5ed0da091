"""Arrays as compiled entries see them: address, shape and strides, read from NumPy's object in a call (LLVM).

For an array, Numba looks up its type, makes an object that counts references to its memory, and counts one; the same
again for each of three arrays was a third of a decode step: 0.32 us a call, and 0.08 as it is here. And a float16 array
needs no view as uint16, 0.11 us each.

An entry that takes such arguments must be called by `direct`, with objects of numpy.ndarray whose dtype is the entry's:
neither is looked at. Another number of axes, or memory that cannot be written to, is a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, make_attribute_wrapper, models, register_model, unbox

# Fields of PyArrayObject, in bytes behind what every object of Python begins with. They are part of NumPy's binary
# interface (numpy/ndarraytypes.h, PyArrayObject_fields): compiled extensions have read them so since NumPy 1.
HEAD = object.__basicsize__
ADDRESS, AXES, SHAPE, STRIDES, FLAGS = (HEAD + offset for offset in (0, 8, 16, 24, 48))
WRITEABLE = 0x0400  # NPY_ARRAY_WRITEABLE, of the flags

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class NdarrayType(types.Type):
    """The type of an array argument with so many axes, which may have to be writeable.

    It may have one axis less, if fewest says so: then a first axis of one element is put before the others.
    """

    def __init__(self, ndim: int, *, fewest: int | None = None, written: bool = False) -> None:
        self.ndim, self.fewest, self.written = ndim, ndim if fewest is None else fewest, written
        super().__init__(name=f"rope_numba.NdarrayType({ndim}, fewest={self.fewest}, written={written})")


@register_model(NdarrayType)
class _Model(models.StructModel):
    def __init__(self, manager: Any, seen: NdarrayType) -> None:
        each: Any = types.UniTuple(types.int64, seen.ndim)  # type: ignore[no-untyped-call]
        members = [("rank", types.int64), ("address", types.int64), ("shape", each), ("strides", each)]
        super().__init__(manager, seen, members)  # type: ignore[no-untyped-call]


for _name in ("rank", "address", "shape", "strides"):
    make_attribute_wrapper(NdarrayType, _name, _name)


@unbox(NdarrayType)  # type: ignore[no-untyped-call, untyped-decorator]
def _read(seen: NdarrayType, array: ir.Value, c: Any) -> NativeValue:
    """Read an array's fields, or set a TypeError."""
    builder = c.builder
    start = builder.ptrtoint(array, _I64)

    def field(offset: int, kind: ir.Type) -> ir.Value:
        place = builder.add(start, ir.Constant(_I64, offset))
        return builder.load(builder.inttoptr(place, kind.as_pointer()))

    axes = builder.sext(field(AXES, _I32), _I64)
    missing = builder.sub(ir.Constant(_I64, seen.ndim), axes)
    wrong = builder.icmp_unsigned(">", missing, ir.Constant(_I64, seen.ndim - seen.fewest))
    if seen.written:
        writeable = builder.and_(field(FLAGS, _I32), ir.Constant(_I32, WRITEABLE))
        wrong = builder.or_(wrong, builder.icmp_signed("==", writeable, ir.Constant(_I32, 0)))
    native = cgutils.create_struct_proxy(seen)(c.context, builder)  # type: ignore[no-untyped-call]
    with builder.if_else(wrong, likely=False) as (refuse, accept):
        with refuse:
            count = f"{seen.ndim}" if seen.fewest == seen.ndim else f"{seen.fewest} or {seen.ndim}"
            c.pyapi.err_set_string("PyExc_TypeError", f"not a writeable array of {count} axes")
        with accept:
            native.rank, native.address = axes, field(ADDRESS, _I64)
            for name, offset, of_one in (("shape", SHAPE, 1), ("strides", STRIDES, 0)):
                numbers = field(offset, _I64.as_pointer())
                places = [ir.Constant(_I64, axis) for axis in range(seen.ndim)]
                if seen.fewest < seen.ndim:
                    places[1:] = [builder.sub(place, missing) for place in places[1:]]
                each = [builder.load(builder.gep(numbers, [place])) for place in places]
                if seen.fewest < seen.ndim:
                    whole = builder.icmp_signed("==", missing, ir.Constant(_I64, 0))
                    each[0] = builder.select(whole, each[0], ir.Constant(_I64, of_one))
                setattr(native, name, cgutils.pack_array(builder, each))  # type: ignore[no-untyped-call]
    return NativeValue(native._getvalue(), is_error=wrong)  # type: ignore[no-untyped-call]


def entry_point_of(dispatcher: Any) -> Callable[..., Any]:
    """Return the compiled function behind a dispatcher with one signature, which looks at its arguments' types."""
    (compiled,) = dispatcher.overloads.values()
    function: Callable[..., Any] = compiled.entry_point  # which keeps its machine code alive
    return function


class _Words:
    """Memory, for NumPy to look at as whole numbers of 64 bits."""

    def __init__(self, address: int, count: int) -> None:
        kind = np.dtype(np.int64).str
        self.__array_interface__ = {"version": 3, "data": (address, True), "shape": (count,), "typestr": kind}


def layout_matches() -> bool:
    """Tell whether NumPy's arrays are still made as this module reads them."""
    for writeable in (True, False):
        x = np.zeros((3, 5, 7), np.float32)[::2, 1:]
        x.flags.writeable = writeable
        if bool(x.flags.num & WRITEABLE) != writeable:
            return False
        places = ADDRESS, AXES, SHAPE, STRIDES, FLAGS
        words = np.asarray(_Words(id(x), max(places) // 8 + 1)).tolist()  # in CPython, id is an object's address
        address, axes, shape, strides, flags = (words[place // 8] for place in places)
        if address != x.ctypes.data or axes & 0xFFFF_FFFF != x.ndim or flags & 0xFFFF_FFFF != x.flags.num:
            return False
        if any(tuple(np.asarray(_Words(at, 3))) != seen for at, seen in ((shape, x.shape), (strides, x.strides))):
            return False
    return True

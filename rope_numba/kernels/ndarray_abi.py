"""Arrays as compiled entries take them: fields read from NumPy's object when the call begins (LLVM).

For an array, Numba looks up its type, makes an object that counts references to its memory, and counts one. For three
arrays that was a third of a decode step: 0.32 us a call, and 0.08 as it is here. A float16 array needs no view as
uint16, 0.11 us each.

An entry that takes such arguments must be called by `entry_point_of`, with objects of numpy.ndarray whose dtype is the
entry's: neither is checked. Another number of axes, or memory that is not writeable, is a TypeError.
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

MOST_AXES = 4

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class NdarrayType(types.Type):
    """The type of an array argument with min_ndim to four axes, which may have to be writeable.

    In jitted code such an argument has `ndim`, `address`, and a `shape` and `strides` (bytes) of four axes: axes that
    it has not are put first, with length 1 and stride 0.
    """

    def __init__(self, min_ndim: int, *, writeable: bool = False) -> None:
        self.min_ndim, self.writeable = min_ndim, writeable
        super().__init__(name=f"rope_numba.NdarrayType({min_ndim}, writeable={writeable})")


@register_model(NdarrayType)
class _Model(models.StructModel):
    def __init__(self, manager: Any, array: NdarrayType) -> None:
        each: Any = types.UniTuple(types.int64, MOST_AXES)  # type: ignore[no-untyped-call]
        members = [("ndim", types.int64), ("address", types.int64), ("shape", each), ("strides", each)]
        super().__init__(manager, array, members)  # type: ignore[no-untyped-call]


for _name in ("ndim", "address", "shape", "strides"):
    make_attribute_wrapper(NdarrayType, _name, _name)


@unbox(NdarrayType)  # type: ignore[no-untyped-call, untyped-decorator]
def unbox_ndarray(array: NdarrayType, pointer: ir.Value, c: Any) -> NativeValue:
    """Read an array's fields, or set a TypeError."""
    builder = c.builder
    start = builder.ptrtoint(pointer, _I64)

    def field(offset: int, kind: ir.Type) -> ir.Value:
        place = builder.add(start, ir.Constant(_I64, offset))
        return builder.load(builder.inttoptr(place, kind.as_pointer()))

    ndim = builder.sext(field(AXES, _I32), _I64)
    missing = builder.sub(ir.Constant(_I64, MOST_AXES), ndim)
    wrong = builder.icmp_unsigned(">", missing, ir.Constant(_I64, MOST_AXES - array.min_ndim))
    if array.writeable:
        bits = builder.and_(field(FLAGS, _I32), ir.Constant(_I32, WRITEABLE))
        wrong = builder.or_(wrong, builder.icmp_signed("==", bits, ir.Constant(_I32, 0)))
    native = cgutils.create_struct_proxy(array)(c.context, builder)  # type: ignore[no-untyped-call]
    with builder.if_else(wrong, likely=False) as (refuse, accept):
        with refuse:
            count = "4" if array.min_ndim == MOST_AXES else f"{array.min_ndim} to {MOST_AXES}"
            c.pyapi.err_set_string("PyExc_TypeError", f"not a writeable array of {count} axes")
        with accept:
            native.ndim, native.address = ndim, field(ADDRESS, _I64)
            for name, offset, where_missing in (("shape", SHAPE, 1), ("strides", STRIDES, 0)):
                numbers, each = field(offset, _I64.as_pointer()), []
                for axis in range(MOST_AXES):
                    place = builder.sub(ir.Constant(_I64, axis), missing)
                    if axis < MOST_AXES - array.min_ndim:  # an axis that there may not be; the first one is
                        there = builder.icmp_signed(">=", place, ir.Constant(_I64, 0))
                        place = builder.select(there, place, ir.Constant(_I64, 0))
                        value = builder.load(builder.gep(numbers, [place]))
                        each.append(builder.select(there, value, ir.Constant(_I64, where_missing)))
                    else:
                        each.append(builder.load(builder.gep(numbers, [place])))
                setattr(native, name, cgutils.pack_array(builder, each))  # type: ignore[no-untyped-call]
    return NativeValue(native._getvalue(), is_error=wrong)  # type: ignore[no-untyped-call]


def entry_point_of(dispatcher: Any) -> Callable[..., Any]:
    """Return the compiled function behind a dispatcher with one signature, which looks at its arguments' types."""
    (compiled,) = dispatcher.overloads.values()
    function: Callable[..., Any] = compiled.entry_point  # which keeps its machine code alive
    return function


class _Words:
    """Memory, for NumPy to read as whole numbers of 64 bits."""

    def __init__(self, address: int, count: int) -> None:
        kind = np.dtype(np.int64).str
        self.__array_interface__ = {"version": 3, "data": (address, True), "shape": (count,), "typestr": kind}


def layout_matches() -> bool:
    """Tell whether NumPy's arrays are still made as this module reads them."""
    for writeable in (True, False):
        x = np.zeros((3, 5, 7), np.float32)[::2, 1:]
        x.flags.writeable = writeable
        places = ADDRESS, AXES, SHAPE, STRIDES, FLAGS
        words = np.asarray(_Words(id(x), max(places) // 8 + 1)).tolist()  # in CPython, id is an object's address
        address, axes, shape, strides, flags = (words[place // 8] for place in places)
        if address != x.ctypes.data or axes & 0xFFFF_FFFF != x.ndim or flags & 0xFFFF_FFFF != x.flags.num:
            return False
        if any(tuple(np.asarray(_Words(at, 3))) != seen for at, seen in ((shape, x.shape), (strides, x.strides))):
            return False
    return True

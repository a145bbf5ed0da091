"""A vector of lanes as a Numba type: loads, stores, arithmetic and orders of lanes.

`Vector(element, lanes)` is a type of jitted code. A value of that type is one LLVM vector: LLVM keeps it in as many
registers as it needs. Elements are "f32", "f64", whole numbers "u16" and "u32", and "bool" for masks. The number of
lanes is a power of two. Addresses are int64; loads and stores need the alignment of the element only. Every operation
here is IEEE's or exact: nothing is reassociated or fused. Whole numbers wrap around. Wrong uses are typing errors.

This file, `ndarray_abi.py` and `machine.py` are the only ones that write LLVM. Everything above is plain Numba.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import models, register_model

_I32 = ir.IntType(32)
_ELEMENTS = {
    "f16": ir.HalfType(),  # in memory only
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
    "u16": ir.IntType(16),
    "u32": ir.IntType(32),
    "bool": ir.IntType(1),
}
ELEMENT_BITS = {"f16": 16, "f32": 32, "f64": 64, "u16": 16, "u32": 32}
_SCALARS: dict[str, Any] = {"f32": types.float32, "f64": types.float64, "u16": types.uint16, "u32": types.uint32}
_FLOATING, _WHOLE, _NUMBERS = ("f32", "f64"), ("u16", "u32"), tuple(_SCALARS)
_Emit = Callable[..., ir.Value]  # (builder, ...): write LLVM and return its value


class Vector(types.Type):
    """The type of a number of lanes of one element type."""

    def __init__(self, element: str, lanes: int) -> None:
        _require(lanes > 0 and lanes & (lanes - 1) == 0, lanes, "a power of two as the number of lanes")
        self.element, self.lanes = element, lanes
        self.llvm = ir.VectorType(_ELEMENTS[element], lanes)
        super().__init__(name=f"Vector({element} x {lanes})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)  # type: ignore[no-untyped-call]


def intrinsic(function: Callable[..., Any]) -> Any:
    """Let jitted code call what a function returns: a signature, and a function that writes LLVM."""
    return extending.intrinsic(function)


def _lowering(emit: _Emit) -> Callable[..., ir.Value]:
    """Return a function (builder, *values) that writes LLVM in the form that Numba calls."""
    return lambda context, builder, signature, arguments: emit(builder, *arguments)


def _require(condition: bool, given: Any, expected: str) -> None:
    """Raise a typing error unless a condition holds."""
    if not condition:
        raise TypingError(f"argument is {given}; expected {expected}")


def require_vector(given: Any, elements: Sequence[str]) -> None:
    """Raise a typing error unless the argument is a vector of one of some elements."""
    accepted = " or ".join(elements)
    _require(isinstance(given, Vector) and given.element in elements, given, f"a vector of {accepted}")


# ---- Memory ---------------------------------------------------------------------------------------------------------


def loader(element: str) -> Any:
    """Return the function (address, lanes) that loads consecutive elements.

    lanes is a constant, or a vector with as many lanes. Elements "f16" become float32, by the processor's own
    instruction, which must be there (`machine.has_half`).
    """
    if element not in ELEMENT_BITS:
        raise ValueError(f"element is {element!r}; expected {', '.join(map(repr, ELEMENT_BITS))}")
    loaded = "f32" if element == "f16" else element

    def load(typingctx: Any, address: Any, lanes: Any) -> Any:
        _require(isinstance(address, types.Integer), address, "an address")
        _require(isinstance(lanes, (Vector, types.IntegerLiteral)), lanes, "a vector or a constant")
        vector = Vector(loaded, lanes.lanes if isinstance(lanes, Vector) else lanes.literal_value)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
            # As whole numbers, which LLVM loads and stores on every processor.
            kind = ir.VectorType(ir.IntType(ELEMENT_BITS[element]), vector.lanes)
            bits = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=ELEMENT_BITS[element] // 8)
            value = builder.bitcast(bits, ir.VectorType(_ELEMENTS[element], vector.lanes))
            return value if loaded == element else builder.fpext(value, vector.llvm)

        return vector(types.int64, lanes), codegen

    return extending.intrinsic(prefer_literal=True)(load)


def storer(element: str) -> Any:
    """Return the function (address, vector) that stores each lane to consecutive elements; "f16" as in `loader`."""

    def store(typingctx: Any, address: Any, value: Any) -> Any:
        _require(isinstance(address, types.Integer), address, "an address")
        require_vector(value, ["f32" if element == "f16" else element])

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
            address, stored = arguments
            if element == "f16":
                stored = builder.fptrunc(stored, ir.VectorType(ir.HalfType(), value.lanes))
            bits = builder.bitcast(stored, ir.VectorType(ir.IntType(ELEMENT_BITS[element]), value.lanes))
            pointer = builder.inttoptr(address, bits.type.as_pointer())
            builder.store(bits, pointer, align=ELEMENT_BITS[element] // 8)
            return context.get_dummy_value()

        return types.void(types.int64, value), codegen

    return intrinsic(store)


# ---- Arithmetic: vector with vector, or with a number for every lane ------------------------------------------------


def _type_in_lanes(given: Any, vector: Vector) -> Any:
    """Return the type as which each lane of a vector meets an argument: the vector's own, or that of its element."""
    if given == vector:
        return vector
    number = types.Float if vector.element in _FLOATING else types.Integer
    _require(isinstance(given, number), given, f"{vector}, or a number of its kind")
    return _SCALARS[vector.element]


def _in_lanes(builder: Any, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return a vector as it is, and a number, which is of the element type, in every lane."""
    if value.type == vector:
        return value
    undefined = ir.Constant(vector, ir.Undefined)
    return _pick(builder, builder.insert_element(undefined, value, _I32(0)), undefined, [0] * vector.count)


def _register(operation: Any, whole: _Emit, floating: Any = None, result: str = "") -> None:
    """Let jitted code use an operator between two vectors, or a vector and a number: whole ones only, or all."""

    def typer(left: Any, right: Any) -> Any:
        if not isinstance(left, Vector) or left.element not in (_NUMBERS if floating else _WHOLE):
            return None
        return Vector(result or left.element, left.lanes)(left, _type_in_lanes(right, left))

    def emit(builder: Any, left: ir.Value, right: ir.Value) -> ir.Value:
        emit_one = whole if isinstance(left.type.element, ir.IntType) else floating
        return emit_one(builder, left, _in_lanes(builder, right, left.type))

    extending.type_callable(operation)(lambda context: typer)
    for right in (Vector, types.Float, types.Integer):
        extending.lower_builtin(operation, Vector, right)(_lowering(emit))  # type: ignore[no-untyped-call]


_register(operator.add, ir.IRBuilder.add, ir.IRBuilder.fadd)
_register(operator.sub, ir.IRBuilder.sub, ir.IRBuilder.fsub)
_register(operator.mul, ir.IRBuilder.mul, ir.IRBuilder.fmul)
_register(operator.and_, ir.IRBuilder.and_)
_register(operator.or_, ir.IRBuilder.or_)
_register(operator.lshift, ir.IRBuilder.shl)  # by fewer bits than the element has, as to the right
_register(operator.rshift, ir.IRBuilder.lshr)
_register(operator.lt, lambda builder, left, right: builder.icmp_unsigned("<", left, right), result="bool")
_register(operator.gt, lambda builder, left, right: builder.icmp_unsigned(">", left, right), result="bool")
_register(operator.ge, lambda builder, left, right: builder.icmp_unsigned(">=", left, right), result="bool")
_register(operator.eq, lambda builder, left, right: builder.icmp_unsigned("==", left, right), result="bool")


def _type_neg(context: Any) -> Callable[[Any], Any]:
    return lambda vector: vector if isinstance(vector, Vector) and vector.element in _FLOATING else None


extending.type_callable(operator.neg)(_type_neg)
extending.lower_builtin(operator.neg, Vector)(_lowering(ir.IRBuilder.fneg))  # type: ignore[no-untyped-call]


@intrinsic
def select(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Return the lanes of yes (a vector, or a number for every lane) where the mask is true, else those of no."""
    require_vector(no, _NUMBERS)
    _require(mask == Vector("bool", no.lanes), mask, f"a mask of {no.lanes} lanes")

    def emit(builder: Any, chosen: ir.Value, value: ir.Value, other: ir.Value) -> ir.Value:
        return builder.select(chosen, _in_lanes(builder, value, other.type), other)

    return no(mask, _type_in_lanes(yes, no), no), _lowering(emit)


# ---- Functions of one vector, or of two of the same type ------------------------------------------------------------


def _function(n_vectors: int, elements: Sequence[str], result: Callable[[Vector], Any]) -> Callable[[_Emit], Any]:
    """Return a decorator that makes a function for jitted code of one that emits: (builder, result, *vectors)."""

    def decorate(emit: _Emit) -> Any:
        def define(vector: Any, other: Any) -> Any:
            require_vector(vector, elements)
            _require(other == vector, other, f"{vector}, as the other argument is")
            returned = result(vector)
            lowering = _lowering(lambda builder, *vectors: emit(builder, returned, *vectors))
            return returned(*[vector] * n_vectors), lowering

        def of_one(typingctx: Any, vector: Any) -> Any:
            return define(vector, vector)

        def of_two(typingctx: Any, vector: Any, other: Any) -> Any:
            return define(vector, other)

        function = of_one if n_vectors == 1 else of_two
        function.__name__ = getattr(emit, "__name__", function.__name__)  # for errors of typing
        return intrinsic(function)

    return decorate


@_function(1, _FLOATING, lambda vector: vector)
def plain_nans(builder: Any, result: Vector, value: ir.Value) -> ir.Value:
    """Return numbers whose NaNs have only the first bit of the mantissa."""
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(nan, ir.Constant(value.type, [float("nan")] * result.lanes), value)


@_function(1, _WHOLE, lambda vector: Vector(vector.element, vector.lanes // 2))
def smaller_half(builder: Any, result: Vector, value: ir.Value) -> ir.Value:
    """Return the smaller one, unsigned, of each lane of the first half and its twin in the second half."""
    low, high = (_pick(builder, value, value, range(first, first + result.lanes)) for first in (0, result.lanes))
    return builder.select(builder.icmp_unsigned("<", low, high), low, high)


@_function(1, _FLOATING, lambda vector: _SCALARS[vector.element])
def sum_lanes(builder: Any, result: Any, value: ir.Value) -> ir.Value:
    """Return the sum of all lanes: the upper half is added to the lower half until one lane is left."""
    while (lanes := value.type.count) > 1:
        lower, upper = range(lanes // 2), range(lanes // 2, lanes)
        value = builder.fadd(_pick(builder, value, value, lower), _pick(builder, value, value, upper))
    return builder.extract_element(value, _I32(0))


def _conversion(emit: _Emit, elements: Sequence[str], result: Callable[[Vector], Vector]) -> Any:
    """Return a function of one vector; emit takes (builder, value, LLVM type of the result)."""
    return _function(1, elements, result)(lambda builder, to, value: emit(builder, value, to.llvm))


def _as(element: str) -> Any:
    """Return what reads the bits of a vector as other elements, more or fewer of them if their size differs."""
    bits = ELEMENT_BITS[element]
    return _conversion(
        ir.IRBuilder.bitcast, _NUMBERS, lambda x: Vector(element, x.lanes * ELEMENT_BITS[x.element] // bits)
    )


as_f32, as_u16, as_u32 = _as("f32"), _as("u16"), _as("u32")
widen = _conversion(ir.IRBuilder.zext, ["u16"], lambda x: Vector("u32", x.lanes))
narrow = _conversion(ir.IRBuilder.trunc, ["u32"], lambda x: Vector("u16", x.lanes))  # the lower halves

# ---- Orders of lanes ------------------------------------------------------------------------------------------------


def _pick(builder: Any, first: ir.Value, second: ir.Value, choices: Sequence[int]) -> ir.Value:
    """Choose lanes of two vectors, those of the second numbered after those of the first."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_I32, len(choices)), list(choices)))


def _order(n_vectors: int, choose: Callable[[int], Sequence[int]]) -> Any:
    """Return a function of one vector or two that chooses lanes; choose takes the number of lanes of each vector."""

    @_function(n_vectors, _NUMBERS, lambda vector: Vector(vector.element, len(choose(vector.lanes))))
    def reorder(builder: Any, result: Vector, *vectors: ir.Value) -> ir.Value:
        return _pick(builder, vectors[0], vectors[-1], choose(vectors[0].type.count))

    return reorder


as_loaded = _order(1, lambda n: range(n))  # the same order
swap_neighbours = _order(1, lambda n: [lane ^ 1 for lane in range(n - n % 2)])  # (1, 0, 3, 2, ...)
evens_first = _order(1, lambda n: [*range(0, n, 2), *range(1, n, 2)])  # (0, 2, 4, ..., 1, 3, 5, ...)
lower_half = _order(1, lambda n: range(n // 2))
upper_half = _order(1, lambda n: range(n - n // 2, n))

first_of = _order(2, lambda n: range(n))
second_of = _order(2, lambda n: range(n, 2 * n))
concat = _order(2, lambda n: range(2 * n))  # the lanes of the first, then those of the second
interleave = _order(2, lambda n: [lane // 2 + lane % 2 * n for lane in range(2 * n)])  # (a0, b0, a1, b1, ...)
first_zipped = _order(2, lambda n: [lane // 2 + lane % 2 * n for lane in range(n)])  # the first half of `interleave`
second_zipped = _order(2, lambda n: [lane // 2 + lane % 2 * n for lane in range(n, 2 * n)])  # the second half of it
alternate = _order(2, lambda n: [lane + lane % 2 * n for lane in range(n)])  # (a0, b1, a2, b3, ...)
evens_of = _order(2, lambda n: range(0, 2 * n, 2))  # (0, 2, 4, ...) of both
odds_of = _order(2, lambda n: range(1, 2 * n, 2))  # (1, 3, 5, ...) of both
lower_halves = _order(2, lambda n: [*range(n // 2), *range(n, n + n // 2)])  # the first halves of both
upper_halves = _order(2, lambda n: [*range(n - n // 2, n), *range(2 * n - n // 2, 2 * n)])  # the second halves of both

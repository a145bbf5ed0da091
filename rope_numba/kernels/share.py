"""Work that one thread does, or that is shared out among Numba's threads (LLVM).

An entry that has looked at its arrays knows the work as a row of numbers. It calls `walk` with them, for all of the
work; or, if a launch is to follow, it writes them down, with the address of a function that does one share: the plan.
One launcher, for all entries, calls that function on Numba's threads. So an entry is compiled once, not a second time
as a parallel one: 2.4 s, and 0.3 for the launcher of all, instead of 2.4 and 4.6 (float32, cold).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import int64, prange, types
from numba.core import cgutils
from numba.core.compiler import Flags
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .compile import compile_kernel

# What an entry answers; any other number is the address of a plan.
ROTATED = 0  # rotated
NEEDS_CHECK = 1  # nothing was written: the call is wrong, or too unusual for an entry's quick tests; arrays.py decides
OUT_OF_MEMORY = 2  # no memory for what the work needed on its way

# One thread does less than twice this many elements of q and k together; more work takes a thread for each so many.
ELEMENTS_PER_THREAD = 1 << 17

# Python's interpreter lock is let go of for more elements than these, which take some microseconds. To give it up and
# take it back costs a decode step 0.08 us alone. Beside a thread that is busy in Python, which keeps the lock for 5 ms
# whenever it gets it, a step took 440 us so; with the lock held it takes 1.6 to 2.1 us there.
BRIEF_ELEMENTS = 1 << 15

# The words of a plan: the function's address, what became of the work, and the numbers.
_PART, _ANSWER, _NUMBERS = range(3)

_I64 = ir.IntType(64)


def planned(walk: Callable[..., None]) -> Any:
    """Return a jitted function (numbers, elements, shared) that does the work of walk(numbers, chunk, chunks).

    It belongs among a module's functions, as the cache of compiled code would not know it again in a closure. walk has
    no constants of one storage or layout, so that it is compiled once per process: the functions that it calls for
    those are among its numbers, by their addresses (`call_at`).

    With shared = 0 it does all of the work and answers ROTATED or OUT_OF_MEMORY; for many elements without Python's
    interpreter lock, which whoever calls must hold. Otherwise it answers the address of a plan, which stands
    until it is called so again: one thread at a time may ask for one.
    """

    @intrinsic
    def do_or_plan(typingctx: Any, numbers: Any, elements: Any, shared: Any) -> Any:
        if not isinstance(numbers, types.UniTuple) or numbers.dtype != types.int64:
            raise TypingError(f"numbers is {numbers}; expected a tuple of int64")
        signature = types.int64(numbers, types.int64, types.int64)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
            module = builder.module
            part = ir.Function(module, _PART_KIND, module.get_unique_name("part"))
            part.linkage = "internal"
            _write_part(context, ir.IRBuilder(part.append_basic_block()), walk, numbers, part.args)

            words = ir.ArrayType(_I64, _NUMBERS + numbers.count)
            kept = ir.GlobalVariable(module, words, module.get_unique_name("plan"))
            kept.linkage = "internal"
            kept.initializer = ir.Constant(words, None)
            passing = cgutils.alloca_once(builder, words)  # type: ignore[no-untyped-call]
            now = builder.icmp_signed("==", arguments[2], _constant(0))
            plan = builder.bitcast(builder.select(now, passing, kept), _I64.as_pointer())
            builder.store(builder.ptrtoint(part, _I64), _word(builder, plan, _PART))
            builder.store(_constant(ROTATED), _word(builder, plan, _ANSWER))
            for index in range(numbers.count):
                builder.store(builder.extract_value(arguments[0], index), _word(builder, plan, _NUMBERS + index))
            address = builder.ptrtoint(plan, _I64)
            with builder.if_then(now):
                python = context.get_python_api(builder)
                long = builder.icmp_signed(">", arguments[1], _constant(BRIEF_ELEMENTS))
                state = cgutils.alloca_once(builder, python.voidptr)  # type: ignore[no-untyped-call]
                with builder.if_then(long):
                    builder.store(python.save_thread(), state)
                builder.call(part, [address, _constant(0), _constant(1)])
                with builder.if_then(long):
                    python.restore_thread(builder.load(state))
            return builder.select(now, builder.load(_word(builder, plan, _ANSWER)), address)

        return signature, codegen

    return do_or_plan


def make_launcher() -> Callable[[int, int], int]:
    """Compile the function (plan, chunks) that carries out a plan on Numba's threads and answers as an entry does."""

    def share_out(plan: int, chunks: int) -> int:
        for chunk in prange(chunks):
            call_at(word_of(plan, _PART), (plan, int64(chunk), chunks))  # type: ignore[call-arg]
        return word_of(plan, _ANSWER)  # type: ignore[call-arg]

    return compile_kernel(share_out, "share_out", types.int64(types.int64, types.int64), parallel=True)


_PART_KIND = ir.FunctionType(ir.VoidType(), [_I64] * 3)


def _write_part(context: Any, builder: Any, walk: Any, numbers: Any, arguments: Any) -> None:
    """Write the body of the function (plan, chunk, chunks) that does one share of the work."""
    plan = builder.inttoptr(arguments[0], _I64.as_pointer())
    values = [builder.load(_word(builder, plan, _NUMBERS + index)) for index in range(numbers.count)]
    signature = types.void(numbers, types.int64, types.int64)
    flags: Any = Flags()  # type: ignore[no-untyped-call]
    flags.nrt, flags.error_model = True, "numpy"  # as compile.py has it: no division asks whether it is by zero
    walking = context.compile_subroutine(builder, walk, signature, flags=flags)
    packed = cgutils.pack_array(builder, values)  # type: ignore[no-untyped-call]
    status, _ = context.call_internal_no_propagate(
        builder, walking.fndesc, signature, [packed, arguments[1], arguments[2]]
    )
    with builder.if_then(status.is_error):
        builder.store(_constant(OUT_OF_MEMORY), _word(builder, plan, _ANSWER))
    builder.ret_void()


@intrinsic
def call_at(typingctx: Any, address: Any, numbers: Any) -> Any:
    """Call the function at an address with a tuple of numbers."""
    kind = ir.FunctionType(ir.VoidType(), [_I64] * len(numbers))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(function, cgutils.unpack_tuple(builder, arguments[1]))  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(numbers))), codegen  # type: ignore[no-untyped-call]


@intrinsic(prefer_literal=True)
def word_of(typingctx: Any, plan: Any, index: Any) -> Any:
    """Return one of the words of the plan at an address."""
    place = index.literal_value

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return builder.load(_word(builder, builder.inttoptr(arguments[0], _I64.as_pointer()), place))

    return types.int64(types.int64, index), codegen


def _word(builder: Any, plan: ir.Value, index: int) -> ir.Value:
    return builder.gep(plan, [_constant(index)])


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)

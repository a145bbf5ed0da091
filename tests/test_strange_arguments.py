"""What the drawn calls of test_hostile.py found, each by itself: arguments that only look like what they are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_same_bits, normal
from numpy.lib.stride_tricks import as_strided

import rope_numba as rn
from rope_numba.integrations import njit

LONG = 10**5000  # more digits than Python prints
BACKENDS = pytest.mark.parametrize("backend", ["numba", "numpy"])
KERNELS = pytest.mark.parametrize("rotate", [rn.rotate_interleaved, rn.rotate_half_split])


def x(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def refused(call: Callable[[], object]) -> str:
    """Return the type and text of what a call raises; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "accepted"


@pytest.mark.parametrize("sign", [1, -1], ids=["", "negative"])
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda n: rn.Rope(n), "head_dim is about {}; expected an int of ordinary size"),
        (lambda n: rn.Rope(8, rotary_dim=n), "rotary_dim is about {}; expected an int of ordinary size"),
        (lambda n: rn.Rope(8, rotary_offset=n), "rotary_offset is about {}; expected an int of ordinary size"),
        (lambda n: rn.Rope(8, max_position=n), "max_position is about {}; expected an int of ordinary size"),
        (lambda n: rn.Rope(8, theta=n), "theta is {}; expected a finite number above 0"),
        (lambda n: rn.Rope(8, layout=n), "layout is about {}; expected 'interleaved' or 'half'"),
        (lambda n: rn.Rope(8).tables(n), "n is about {}; expected an int of ordinary size"),
        (lambda n: rn.Rope(8).at(offset=0, tokens=n), "tokens is about {}; expected an int of ordinary size"),
        (
            lambda n: rn.Rope(8)(x(1, 1, 8), offset=n),
            "offset leads to position about {}; expected at most 2**53 from 0, exact in float64",
        ),
        (
            lambda n: rn.Rope(8).shift(x(1, 1, 8), n),
            "delta leads to position about {}; expected at most 2**53 from 0, exact in float64",
        ),
        (
            lambda n: rn.Rope(8)(x(1, 1, 8), positions=[n]),
            "positions reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64",
        ),
        (
            lambda n: rn.ragged_positions([0, n]),
            "cu_seqlens reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64",
        ),
        (
            lambda n: rn.frequencies.linear(8, 1e4, factor=n),
            "factor is {}; expected a finite number, 1 or more",
        ),
        (
            lambda n: rn.frequencies.yarn(8, 1e4, factor=2.0, original_max_position_embeddings=n),
            "original_max_position_embeddings is about {}; expected an int of ordinary size",
        ),
    ],
)
def test_ints_of_thousands_of_digits_are_refused_by_name(call: Callable[[int], object], text: str, sign: int) -> None:
    shown = "-2**16609" if sign < 0 else "2**16609"
    if text.startswith(("factor", "theta")):
        shown = "-inf" if sign < 0 else "inf"
    expected = f"ValueError: {text.format(shown)}"
    assert refused(lambda: call(sign * LONG)) == expected


def test_a_list_with_an_int_of_thousands_of_digits_is_refused_by_name() -> None:
    assert refused(lambda: rn.Rope([LONG])) == "TypeError: head_dim is of type list; expected an int"  # type: ignore[arg-type]
    assert refused(lambda: rn.Rope(8, theta=[LONG])) == "TypeError: theta is of type list; expected a number above 0"  # type: ignore[arg-type]


def test_classes_of_any_name_are_refused_in_one_line() -> None:
    for name, shown in (("", "a ''"), ("two\nlines", "a 'two\\nlines'"), ("Own", "an Own")):
        thing = type(name, (), {})()
        assert refused(lambda t=thing: rn.Rope(8)(t, offset=0)).startswith(f"TypeError: q is {shown}; expected ")
        assert refused(lambda t=thing: rn.Rope(8)(x(1, 1, 8), offset=t)).startswith(f"TypeError: offset is {shown}; ")


def test_what_cannot_be_shown_is_refused_by_name() -> None:
    class Own:
        def __repr__(self) -> str:
            raise RuntimeError("not to be shown")

    assert refused(lambda: rn.Rope(Own())) == "TypeError: head_dim is of type Own; expected an int"  # type: ignore[arg-type]
    wrong_out = refused(lambda: rn.Rope(8)(x(1, 1, 8), x(1, 1, 8), offset=0, out=Own()))
    assert wrong_out == "TypeError: out is of type Own; expected (q_out, k_out), None meaning in place"


@pytest.mark.parametrize(
    ("positions", "what"),
    [
        ([np.ma.masked], "holds a MaskedConstant"),
        ([[3, np.ma.masked]], "holds a MaskedConstant"),
        ([np.ma.array(1, mask=True), np.ma.array(2)], "holds a MaskedArray"),
        ([np.ma.array([1, 2], mask=[False, True])], "holds a MaskedArray"),
        ([np.array(True), np.array(3)], "holds a bool"),
        ([np.timedelta64(3)], "has dtype timedelta64"),
    ],
)
def test_what_only_looks_like_integers_in_a_list_is_refused(positions: Any, what: str) -> None:
    text = f"TypeError: positions {what}; expected integers"
    assert refused(lambda: rn.Rope(8)(x(1, 2, 1, 8), positions=positions)) == text
    text = f"TypeError: cu_seqlens {what}; expected integers of shape (sequences + 1,)"
    assert refused(lambda: rn.ragged_positions(positions)) == text


def test_a_masked_array_of_boundaries_and_a_bool_among_them_are_refused() -> None:
    wanted = "expected integers of shape (sequences + 1,)"
    assert refused(lambda: rn.ragged_positions([0, True])) == f"TypeError: cu_seqlens holds a bool; {wanted}"
    masked = np.ma.array([0, 2], mask=[False, True])
    assert refused(lambda: rn.ragged_positions(masked)).startswith("TypeError: cu_seqlens is a MaskedArray; expected ")


def test_a_length_of_time_is_no_int() -> None:
    time: Any = np.timedelta64(8)
    for name in ("head_dim", "rotary_dim", "rotary_offset", "max_position", "theta"):
        assert refused(lambda name=name: rn.Rope(**{"head_dim": 8, name: time})).startswith(f"TypeError: {name} is ")
    rope = rn.Rope(8)
    assert refused(lambda: rope(x(1, 1, 8), offset=time)).startswith("TypeError: offset is ")
    assert refused(lambda: rope(x(1, 1, 8), positions=time)).startswith("TypeError: positions ")
    assert refused(lambda: rope.shift(x(1, 1, 8), time)).startswith("TypeError: delta ")
    assert refused(lambda: rope.tables(time)).startswith("TypeError: n is ")


@pytest.mark.parametrize("delta", [np.array(3, object), np.ma.array(3), np.array(3.0), np.array(True)], ids=str)
def test_an_array_without_axes_is_a_delta_only_if_it_is_of_integers(delta: Any) -> None:
    k = x(1, 1, 8)
    assert refused(lambda: rn.Rope(8).shift(k, delta)).startswith("TypeError: delta ")
    assert (k == 1).all()


def test_a_setting_that_cannot_be_hashed_is_refused_by_its_name() -> None:
    text = refused(lambda: rn.apply_rope(x(1, 1, 8), offset=0, theta=memoryview(bytearray(8))))
    assert text.startswith("TypeError: theta is ")
    assert text.endswith("; expected a number above 0")


@BACKENDS
def test_bfloat16_bits_at_an_odd_address_are_refused(backend: str) -> None:
    # NumPy calls any address aligned for a structured dtype.
    bits = np.dtype([("bfloat16", np.uint16)])
    memory = np.zeros(65, np.uint8)
    odd = memory[1 - memory.ctypes.data % 2 :][:32].view(bits).reshape(1, 2, 8)
    rope, text = rn.Rope(8, backend=backend), "is not aligned; expected every element at a multiple of its 2 bytes"
    for _ in ("cold", "warm"):
        assert refused(lambda: rope(odd, offset=1)) == f"ValueError: q {text}"
        assert refused(lambda: rope(np.zeros((1, 2, 8), bits), odd, offset=1)) == f"ValueError: k {text}"
        assert refused(lambda: rope(np.zeros((1, 2, 8), bits), offset=1, out=odd)) == f"ValueError: out {text}"
        assert refused(lambda: rope(np.zeros((1, 2, 8), bits), offset=1)) == "accepted"


@pytest.mark.parametrize("make", [np.ma.array, lambda a: a.view(np.recarray)], ids=["masked", "recarray"])
@KERNELS
def test_the_kernel_itself_refuses_subclasses(rotate: Any, make: Any) -> None:
    arguments = {"x": x(1, 1, 8), "cos": x(1, 4), "sin": x(1, 4)}
    for name in arguments:
        given = {**arguments, name: make(arguments[name])}
        kind = type(given[name]).__name__
        text = f"TypeError: {name} is a {kind}; expected a plain numpy.ndarray (or numpy.memmap)"
        assert refused(lambda given=given: rotate(**given)) == text
    assert (arguments["x"] == 1).all()


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "in NumPy"])
@KERNELS
def test_the_kernel_itself_refuses_elements_that_overlap_and_takes_what_only_looks_so(
    rotate: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(njit, "try_load_kernels", lambda: None)
    cos, sin = rn.Rope(8).tables(3)
    memory = normal((200,))
    before = memory.tobytes()
    for strides in ((64, 16, 4), (0, 32, 4), (32, 64, 4)):
        bad = as_strided(memory, (3, 2, 8), strides)
        text = (
            f"ValueError: x has elements that overlap (strides {strides}); expected memory of its own for each element"
        )
        assert refused(lambda bad=bad: rotate(bad, cos, sin)) == text
    assert memory.tobytes() == before
    # Rows 0, 2, 4 and 3, 5, 7 of 8 channels: neither axis steps over the other.
    good = as_strided(memory, (3, 2, 8), (64, 96, 4))
    wanted = good.copy()
    rotate(wanted, cos, sin)
    rotate(good, cos, sin)
    assert_same_bits(good.copy(), wanted)
    assert memory.tobytes() != before


def test_the_kernel_itself_takes_a_head_wider_than_a_rope_can_be() -> None:
    wide = np.ones((1, 1, 1 << 20), np.float32)
    rn.rotate_interleaved(wide, np.full((1, 3), 0.0, np.float32), np.full((1, 3), 1.0, np.float32))
    assert wide[0, 0, :8].tolist() == [-1, 1, -1, 1, -1, 1, 1, 1]
    assert (wide[..., 6:] == 1).all()


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000, 0x7F800001])
@pytest.mark.parametrize("rotate", [rn.rotate_interleaved_bf16, rn.rotate_half_split_bf16])
def test_a_nan_of_any_bits_in_a_table_makes_nan_in_bfloat16(rotate: Any, bits: int) -> None:
    table = np.full((1, 9), bits, np.uint32).view(np.float32)
    ones = np.ones((1, 2, 18), ml_dtypes.bfloat16)
    rotate(ones.view(np.uint16), table, np.zeros((1, 9), np.float32))
    assert np.isnan(ones.astype(np.float32)).all()


def test_the_rotation_in_numpy_refuses_elements_that_overlap() -> None:
    memory = normal((100,))
    before = memory.tobytes()
    bad = as_strided(memory, (3, 2, 8), (16, 32, 4))
    text = "ValueError: x has elements that overlap (strides (16, 32, 4)); expected memory of its own for each element"
    assert refused(lambda: rn.reference.rotate(bad, *rn.Rope(8).tables(3))) == text
    assert memory.tobytes() == before


def test_more_rows_than_memory_can_hold_are_a_memory_error_and_nothing_is_written() -> None:
    for call in (
        lambda: rn.Rope(8).tables(2**50),
        lambda: rn.Rope(8).at(offset=0, tokens=2**50),
        lambda: rn.Rope(8)(np.empty((2**40, 0, 8), np.float32), offset=0),
        lambda: rn.ragged_positions([0, 2**50]),
    ):
        with pytest.raises(MemoryError):
            call()

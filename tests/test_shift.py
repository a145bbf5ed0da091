"""`Rope.shift`: cached keys moved to other positions, and what they are held against: the same keys, rotated there."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, ORDERS, ROUNDING, assert_same_bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rope_numba as rn

Array = NDArray[Any]

BACKENDS = ("numba", "numpy")

# What one rotation may change beside the rounding of results to their type, as a share of a pair's norm, in units of
# half a last place of the arithmetic (float64 for float64, else float32). Rounded cosines and sines, rounded products
# and a rounded sum: 2 * (|a c| + |b s|) + |a c - b s| for one member and likewise for the other, which together are
# at most 2 * sqrt(2) + 1 norms of the pair.
ARITHMETIC = 2 * math.sqrt(2) + 1


def exact(x: Array) -> Array:
    return x.astype(np.float64)


def norms_of_pairs(x: Array, layout: str) -> Array:
    """Return the norm of each pair, at the places of both of its members."""
    wide = exact(x)
    if layout == "interleaved":
        return np.repeat(np.hypot(wide[..., ::2], wide[..., 1::2]), 2, axis=-1)
    half = x.shape[-1] // 2
    return np.tile(np.hypot(wide[..., :half], wide[..., half:]), 2)


def arithmetic(dtype: str) -> float:
    return ARITHMETIC * ROUNDING["float64" if dtype == "float64" else "float32"]


def angle(*positions: int) -> float:
    """Return how far the angles of some positions may be off: a product of float64 each, frequencies at most 1."""
    return sum(map(abs, positions)) * 2.0**-53


def rope_of(layout: str = "half", backend: str = "numpy", factor: float = 1.0, **more: Any) -> rn.Rope:
    frequencies = rn.Frequencies(rn.frequencies.default(64).inv_freq, factor)
    return rn.Rope(64, frequencies=frequencies, layout=layout, backend=backend, **more)


POSITIONS = st.integers(-(2**20), 2**20)


@settings(max_examples=40)
@given(position=POSITIONS, delta=POSITIONS, factor=st.sampled_from([1.0, 1.1902380714238083]))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shift_is_a_rotation_from_scratch_at_the_new_position(
    dtype: str, layout: str, position: int, delta: int, factor: float
) -> None:
    rope = rope_of(layout, factor=factor)
    shifted, scratch = normal((2, 3, 64), dtype), normal((2, 3, 64), dtype)
    rope(shifted, offset=position)
    rope.shift(shifted, delta)
    rope(scratch, offset=position + delta)
    norms = factor * norms_of_pairs(normal((2, 3, 64), dtype), layout)
    # Three rotations, each with its arithmetic and one rounding to the type: of the cache, of what is shifted, and of
    # what it is held against. The first rounding is rotated on, so that the pair's norm counts, in all three for short.
    rounding = ROUNDING[dtype] if dtype in ("float16", "bfloat16") else 0.0
    bound = norms * (3 * (arithmetic(dtype) + rounding) + angle(position, delta, position + delta, 2, 2))
    least = 2.0**-24 if dtype == "float16" else 0.0  # below its smallest normal number, float16 rounds more coarsely
    assert (np.abs(exact(shifted) - exact(scratch)) <= bound * (1 + 1e-3) + least).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shift_in_float32_is_within_two_units_of_the_rows_norm(layout: str, backend: str) -> None:
    rope = rope_of(layout, backend)
    rng = np.random.default_rng(0)
    worst = 0.0
    for position, delta in rng.integers(-(2**17), 2**17, (40, 2)).tolist():
        shifted, scratch = normal((64, 8, 64)), normal((64, 8, 64))
        rope(shifted, offset=position)
        rope.shift(shifted, delta)
        rope(scratch, offset=position + delta)
        unit = np.spacing(np.linalg.norm(scratch, axis=-1, keepdims=True))
        worst = max(worst, float((np.abs(exact(shifted) - exact(scratch)) / unit).max()))
    assert 0.0 < worst <= 2.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_shift_of_16_bits_rounds_once(dtype: str, layout: str, backend: str) -> None:
    cached = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype]).reshape(128, 8, 64)  # every number there is
    with np.errstate(all="ignore"):
        wide = cached.astype(np.float32)
        rope_of(layout).shift(wide, -1234)
        assert_same_bits(rope_of(layout, backend).shift(cached.copy(), -1234), wide.astype(DTYPES[dtype]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shift_by_0_changes_no_bit(dtype: str, backend: str) -> None:
    rope = rope_of(backend=backend, factor=1.25)
    largest = float(np.finfo(DTYPES["float32" if dtype == "bfloat16" else dtype]).max) / 4
    for scale in (1.0, largest / 8, 1e-40 if dtype in ("float32", "bfloat16") else 1e-7):
        k = (np.random.default_rng(0).uniform(1.0, 8.0, (4, 3, 64)) * scale).astype(DTYPES[dtype])
        k[:, 1] *= -1
        before = k.copy()
        for delta in (0, [0, 0, 0, 0], np.zeros(4, np.int8), np.array(0)):
            rope.shift(k, delta)
            assert_same_bits(k, before)


@settings(max_examples=40)
@given(position=POSITIONS, delta=POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shift_and_the_shift_back_undo_each_other(dtype: str, layout: str, position: int, delta: int) -> None:
    rope = rope_of(layout)
    k = rope(normal((2, 3, 64), dtype), offset=position)
    before = k.copy()
    rope.shift(rope.shift(k, delta), -delta)
    rounding = ROUNDING[dtype] if dtype in ("float16", "bfloat16") else 0.0
    # The two angles are each other's opposites to the bit.
    bound = norms_of_pairs(before, layout) * 2 * (arithmetic(dtype) + rounding)
    least = 2.0**-24 if dtype == "float16" else 0.0
    assert (np.abs(exact(k) - exact(before)) <= bound * (1 + 1e-3) + least).all()


# The bound for 1,000 shifts. Errors of one shift are rotated by the next, so that they add up at most: 1,000 times that
# of one. In bfloat16 that is more than a key's own norm and would say nothing. There, each rounding is taken as a step
# of a walk without a direction (nearest, ties to even), none longer than 2**-8 of the pair's norm: after 1,000 of them
# no member of 1,024 is further away than 2**-8 * sqrt(2 * 1000 * log(2 * 1024 / 1e-6)) norms, but once in a million.
#
# Measured, as a share of the pair's norm, the worst of 1,024 members, after one shift and after 1,000: float64 3.8e-14,
# float32 1.0e-7 and 1.6e-5, float16 4.1e-4 and 0.018, bfloat16 3.6e-3 and 0.13. So a cache of 16 bits that is shifted
# again and again should be shifted seldom and far, not often and little.
SHIFTS = 1000
WALK = math.sqrt(2 * SHIFTS * math.log(2 * 1024 / 1e-6))
MOST_DRIFT = {
    "float64": SHIFTS * arithmetic("float64"),
    "float32": SHIFTS * arithmetic("float32"),
    "float16": SHIFTS * (arithmetic("float16") + ROUNDING["float16"]),
    "bfloat16": WALK * ROUNDING["bfloat16"] + SHIFTS * arithmetic("bfloat16"),
}


def drift(dtype: str, shifts: int) -> float:
    """Return how far keys are from those rotated from scratch after some shifts: a share of a pair's norm."""
    rope = rope_of()
    k = rope(normal((4, 4, 64), dtype), offset=1000)
    deltas = np.random.default_rng(1).integers(-8, 9, shifts)
    for delta in deltas.tolist():
        rope.shift(k, delta)
    scratch = normal((4, 4, 64), dtype).astype(np.float64)
    norms = norms_of_pairs(scratch, "half")
    rope(scratch, offset=1000 + int(deltas.sum()))
    return float((np.abs(exact(k) - scratch) / norms).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_thousand_small_shifts_drift_less_than_their_roundings_may_add_up_to(dtype: str) -> None:
    one, thousand = drift(dtype, 1), drift(dtype, SHIFTS)
    assert one < thousand < MOST_DRIFT[dtype] < 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scheme", ["yarn", "mscale"])
def test_a_shift_of_yarn_keys_keeps_their_norms_and_their_magnitude(scheme: str, backend: str) -> None:
    if scheme == "yarn":
        frequencies = rn.frequencies.yarn(64, factor=16.0, original_max_position_embeddings=4096)
    else:
        frequencies = rn.Frequencies(rn.frequencies.default(64).inv_freq, 3.7)
    assert frequencies.attention_factor > 1.1
    rope = rn.Rope(64, layout="half", frequencies=frequencies, backend=backend)
    k = rope(normal((5, 3, 64)), offset=100)
    before = k.copy()
    rope.shift(k, 40)
    rope.shift(k, -777)
    norms = norms_of_pairs(before, "half")
    assert (np.abs(norms_of_pairs(k, "half") - norms) <= 2 * arithmetic("float32") * norms * (1 + 1e-3)).all()
    scratch = rope(normal((5, 3, 64)), offset=100 + 40 - 777)
    assert (np.abs(exact(k) - exact(scratch)) <= 4 * arithmetic("float32") * norms * (1 + 1e-3)).all()


# ---- Forms of delta -------------------------------------------------------------------------------------------------


def shifted_singly(rope: rn.Rope, k: Array, deltas: Array) -> Array:
    """Return keys of (batch, tokens, heads, head_dim) with each token shifted by a call of its own."""
    result = k.copy()
    single = rn.Rope(64, frequencies=rope.frequencies, layout=rope.layout, backend="numpy")
    for place in np.ndindex(*deltas.shape):
        single.shift(result[place], int(deltas[place]))
    return result


def ordered(k: Array, order: str) -> Array:
    return np.ascontiguousarray(k.swapaxes(-3, -2)) if order == "htd" else k


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("delta", [0, 1, -1, 12, -4096, 10**12, -(10**12)])
def test_one_delta_serves_all_tokens_of_all_rows(delta: int, order: str, backend: str) -> None:
    k = normal((2, 3, 4, 64))
    rope = rope_of(backend=backend, order=order)
    expected = ordered(shifted_singly(rope, k, np.full((2, 3), delta)), order)
    for given_delta in (delta, np.int64(delta), np.array(delta)):
        got = ordered(k.copy(), order)
        assert rope.shift(got, given_delta) is got
        assert_same_bits(got, expected)
        assert_same_bits(rope.shift(ordered(k.copy(), order)[1], given_delta), expected[1])
    assert_same_bits(rope.shift(k[1, 2].copy(), delta), shifted_singly(rope, k, np.full((2, 3), delta))[1, 2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ORDERS)
def test_each_token_may_have_its_delta_and_each_row_its_own(order: str, backend: str) -> None:
    k = normal((2, 3, 4, 64))
    rope = rope_of(backend=backend, order=order)
    for deltas in (np.array([5, -3, 0]), np.array([[5, -3, 0], [-(10**6), 7, 7]]), np.array([[2], [9]]).repeat(3, 1)):
        expected = ordered(shifted_singly(rope, k, np.broadcast_to(deltas, (2, 3))), order)
        assert_same_bits(rope.shift(ordered(k.copy(), order), deltas), expected)
        assert_same_bits(rope.shift(ordered(k.copy(), order), deltas.tolist()), expected)
        assert_same_bits(rope.shift(ordered(k, order), deltas, out=ordered(np.zeros_like(k), order)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_positions_of_a_token_may_move_by_several_deltas(backend: str) -> None:
    frequencies = rn.frequencies.mrope(rn.frequencies.default(64), sections=[16, 8, 8])
    rope = rn.Rope(64, layout="half", frequencies=frequencies, backend=backend)
    rng = np.random.default_rng(0)
    positions, deltas = rng.integers(0, 1000, (3, 2, 5)), rng.integers(-50, 50, (3, 2, 5))
    k = normal((2, 5, 3, 64))
    norms = norms_of_pairs(k, "half")
    scratch = rope(k.copy(), positions=positions + deltas)
    rope.shift(rope(k, positions=positions), deltas)
    assert (np.abs(exact(k) - exact(scratch)) <= 3 * arithmetic("float32") * norms * (1 + 1e-3)).all()
    # One delta for all is the same for each of a token's positions.
    alike, one, each = k.copy(), k.copy(), k.copy()
    rope.shift(alike, np.full((3, 2, 5), -7))
    rope.shift(one, -7)
    rope.shift(each, [-7] * 5)
    assert_same_bits(one, alike)
    assert_same_bits(each, alike)
    plain = rn.Rope(64, layout="half", backend="numpy").shift(k.copy(), -7)
    assert_same_bits(one, plain)


def test_a_large_cache_is_shifted_alike_on_any_number_of_threads() -> None:
    k = normal((700, 8, 64), "bfloat16")
    expected = rope_of().shift(k.copy(), -300)
    before = numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            assert_same_bits(rope_of(backend="numba").shift(k.copy(), -300), expected)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_rotary_block_of_a_slice_of_the_cache_is_shifted(backend: str) -> None:
    rope = rn.Rope(64, rotary_dim=32, rotary_offset=8, layout="half", backend=backend)
    cache = normal((40, 3, 64), "bfloat16")
    expected = cache.copy()
    rn.Rope(32, layout="half", backend="numpy").shift(expected[9:30, :, 8:40], -9)
    rope.shift(cache[9:30], -9)
    assert_same_bits(cache, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3, 64), (4, 0, 64), (0, 4, 3, 64)], ids=str)
def test_empty_caches_are_fine(shape: tuple[int, ...], backend: str) -> None:
    k = np.empty(shape, np.float32)
    assert rope_of(backend=backend).shift(k, 5) is k
    assert rope_of(backend=backend).shift(k, [5] * shape[-3]) is k


def test_max_position_does_not_bound_deltas() -> None:
    k = rope_of(max_position=10)(normal((3, 2, 64)), offset=0)
    expected = rope_of().shift(k.copy(), 1000)
    assert_same_bits(rope_of(max_position=10).shift(k, 1000), expected)


# ---- Refused --------------------------------------------------------------------------------------------------------

DELTAS: list[tuple[Any, type[Exception], str]] = [
    (True, TypeError, "delta has dtype bool; expected integers"),
    (1.0, TypeError, "delta has dtype float64; expected integers"),
    ("3", TypeError, "delta has dtype <U1; expected integers"),
    (None, TypeError, "delta has dtype object; expected integers"),
    ([1, 2.5, 3], TypeError, "delta has dtype float64; expected integers"),
    ([1, True, 3], TypeError, "delta holds a bool; expected integers"),
    ([[1, 2], [3]], ValueError, "delta has rows of unequal length; expected (tokens,) or (batch, tokens)"),
    ([[[1, 2, 3]]], ValueError, "delta has shape (1, 1, 3); expected (tokens,) or (batch, tokens)"),
    (2**53 + 1, ValueError, f"delta leads to position {2**53 + 1}; expected at most 2**53 from 0, exact in float64"),
    (
        [0, 0, -(2**60)],
        ValueError,
        f"delta leads to position -{2**60}; expected at most 2**53 from 0, exact in float64",
    ),
    ([1, 2], ValueError, "k has 3 tokens; expected 2, the number of positions"),
    ([[1, 2, 3]], ValueError, "k has no batch axis; expected a batch of 1, as the positions have"),
    (np.ma.array([1, 2, 3]), TypeError, "delta is a MaskedArray; expected a plain numpy.ndarray or ints"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("delta", "error", "text"), DELTAS, ids=[str(delta) for delta, _, _ in DELTAS])
def test_a_wrong_delta_is_refused_and_nothing_is_written(
    delta: Any, error: type[Exception], text: str, backend: str
) -> None:
    k = normal((3, 2, 64))
    out = np.zeros_like(k)
    for where in ({}, {"out": out}):
        with pytest.raises(error) as refused:
            rope_of(backend=backend).shift(k, delta, **where)
        assert str(refused.value) == text
        assert_same_bits(k, normal((3, 2, 64)))
        assert not out.any()


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


KEYS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: None, TypeError, "k is None; expected a NumPy array of float32, float64, float16 or bfloat16"),
    (lambda: [[1.0] * 64], TypeError, "k is a list; expected a NumPy array of float32, float64, float16 or bfloat16"),
    (lambda: np.ones((3, 2, 64), int), TypeError, "k.dtype is int64; expected float32, float64, float16 or bfloat16"),
    (lambda: np.ones((3, 2, 32)), ValueError, "k has head_dim 32 (its last axis); expected 64"),
    (
        lambda: np.ones(64),
        ValueError,
        "k has 1 axis; expected (heads, head_dim) or (tokens, heads, head_dim) or (batch, tokens, heads, head_dim)",
    ),
    (
        lambda: read_only(np.ones((3, 2, 64))),
        ValueError,
        "k is read-only; expected a writeable array, as it is rotated in place",
    ),
    (
        lambda: np.ones((3, 2, 128))[..., ::2],
        ValueError,
        "k has stride 16 bytes on its last axis; expected 8, channels side by side",
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("make", "error", "text"), KEYS, ids=[text[:30] for _, _, text in KEYS])
def test_wrong_keys_are_refused_by_their_name_and_nothing_is_written(
    make: Callable[[], Any], error: type[Exception], text: str, backend: str
) -> None:
    for delta in (3, [3, 4, 5]):
        k = make()
        if not isinstance(delta, int) and (not isinstance(k, np.ndarray) or k.ndim != 3):
            continue
        with pytest.raises(error) as refused:
            rope_of(backend=backend).shift(k, delta)
        assert str(refused.value) == text
        assert not isinstance(k, np.ndarray) or (k == 1).all()


# ---- can_shift ------------------------------------------------------------------------------------------------------

TWO = {"short_factor": [1.0] * 32, "long_factor": [8.0] * 32, "original_max_position_embeddings": 4096, "factor": 32.0}
SENTENCE = "Frequencies depend on the length in use (can_shift is False)"


def scheme(name: str) -> rn.Frequencies:
    schemes = rn.frequencies
    made = {
        "default": lambda: schemes.default(64),
        "linear": lambda: schemes.linear(64, factor=2.0),
        "ntk": lambda: schemes.ntk(64, alpha=2.0),
        "yarn": lambda: schemes.yarn(64, factor=2.0, original_max_position_embeddings=4096),
        "dynamic": lambda: schemes.dynamic(64, factor=2.0, original_max_position_embeddings=4096),
        "dynamic for a length": lambda: schemes.dynamic(
            64, factor=2.0, original_max_position_embeddings=4096, seq_len=9000
        ),
        "longrope": lambda: schemes.longrope(64, **TWO),
        "longrope for a length": lambda: schemes.longrope(64, **TWO, seq_len=9000),
        "longrope of several positions": lambda: schemes.mrope(schemes.longrope(64, **TWO), sections=[16, 8, 8]),
    }
    return made[name]()


@pytest.mark.parametrize(
    ("name", "can_shift"),
    [
        ("default", True),
        ("linear", True),
        ("ntk", True),
        ("yarn", True),
        ("dynamic", False),
        ("dynamic for a length", False),
        ("longrope", False),
        ("longrope for a length", False),
        ("longrope of several positions", False),
    ],
)
def test_can_shift_is_false_where_frequencies_depend_on_length(name: str, can_shift: bool) -> None:
    frequencies = scheme(name)
    rope = rn.Rope(64, frequencies=frequencies)
    assert frequencies.depends_on_length is not can_shift
    for one in (rope, pickle.loads(pickle.dumps(rope))):
        assert one.can_shift is can_shift
        assert (SENTENCE in one.explain()) is not can_shift
        assert one.explain().count("Left to the caller:") == (not can_shift)
    # A rope of one length shifts its own keys rightly all the same.
    k, scratch = rope(normal((3, 2, 64)), offset=5), rope(normal((3, 2, 64)), offset=2)
    norms = norms_of_pairs(scratch, "interleaved")
    assert (np.abs(exact(rope.shift(k, -3)) - exact(scratch)) <= 3 * arithmetic("float32") * norms * 1.001).all()


def test_depending_on_length_is_no_part_of_equality() -> None:
    plain = rn.frequencies.default(64)
    dynamic = scheme("dynamic")  # not beyond the trained length, where it is plain
    assert dynamic.depends_on_length
    assert dynamic == plain
    assert hash(dynamic) == hash(plain)
    assert rn.Rope(64, frequencies=dynamic) == rn.Rope(64)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_depending_on_length_is_a_bool(value: Any) -> None:
    with pytest.raises(TypeError) as refused:
        rn.Frequencies([1.0], depends_on_length=value)
    assert str(refused.value) == f"depends_on_length is {value!r}; expected True or False"


@pytest.mark.parametrize(
    ("scaling", "can_shift"),
    [
        (None, True),
        ({"rope_type": "dynamic", "factor": 2.0}, False),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}, True),
    ],
)
def test_ropes_of_headers_know_whether_they_can_shift(scaling: Any, can_shift: bool) -> None:
    config = {"model_type": "llama", "head_dim": 64, "num_attention_heads": 4, "max_position_embeddings": 4096}
    if scaling:
        config["rope_scaling"] = {**scaling, "original_max_position_embeddings": 2048}
    rope = rn.Rope.from_hf(config)
    assert rope.can_shift is can_shift
    assert (SENTENCE in rope.explain()) is not can_shift

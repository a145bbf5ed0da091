"""Every frequency scheme: published values, properties, an oracle in many digits, and every refusal.

The oracle below is written from the papers and from ggml's forms of the rules, which differ from those under test:
three cases instead of a clamp, a mix of angles instead of a mix of divisors, lists that are cut instead of rules for a
pair. It computes with 50 digits.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import itertools
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from helpers import LAYOUTS, assert_same_bits, normal
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from oracle import channels_of_pair

import rope_numba as rn
from rope_numba.frequencies import ramped

schemes = rn.frequencies

LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
QWEN25 = {"factor": 4.0, "original_max_position_embeddings": 32768}
GPT_OSS = {"factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
DEEPSEEK = {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}
PHI3 = {"short_factor": [1.0] * 48, "long_factor": [1.0 + pair for pair in range(48)]}


# --- published and independently computed values, to every printed digit ---

GOLDEN: list[tuple[str, rn.Frequencies, dict[int, str]]] = [
    (
        "default, base 1e4",
        schemes.default(128),
        {1: "8.659643233601e-01", 16: "1.000000000000e-01", 32: "1.000000000000e-02", 63: "1.154781984689e-04"},
    ),
    (
        "default, base 5e5",
        schemes.default(128, 500_000.0),
        {1: "8.146172338565e-01", 32: "1.414213562373e-03", 63: "2.455140791132e-06"},
    ),
    ("linear", schemes.linear(128, factor=4.0), {0: "2.500000000000e-01", 63: "2.886954961724e-05"}),
    (
        "ntk",
        schemes.ntk(128, alpha=8.0),
        {1: "8.378480019188e-01", 32: "3.477664048115e-03", 63: "1.443477480862e-05"},
    ),
    (
        "dynamic, twice the trained length",
        schemes.dynamic(128, factor=2.0, original_max_position_embeddings=4096, seq_len=8192),
        {1: "8.509942913412e-01", 63: "3.849273282298e-05"},
    ),
    (
        "yarn of Qwen2.5",
        schemes.yarn(128, 1e6, **QWEN25),
        {
            1: "8.058421877615e-01",
            16: "3.162277660168e-02",
            32: "6.029411764706e-04",
            48: "7.905694150421e-06",
            63: "3.102344401879e-07",
        },
    ),
    (
        "yarn of gpt-oss",
        schemes.yarn(64, 150_000.0, **GPT_OSS),
        {
            1: "6.890443058882e-01",
            8: "5.081327481546e-02",
            16: "4.564839192232e-04",
            24: "4.099978481803e-06",
            31: "3.023511428119e-07",
        },
    ),
    (
        "yarn of DeepSeek-V3",
        schemes.yarn(64, **DEEPSEEK),
        {8: "1.000000000000e-01", 16: "5.500000000000e-03", 24: "2.500000000000e-05", 31: "3.333803580408e-06"},
    ),
    (
        "llama3 of Llama 3.1",
        schemes.llama3(128, 500_000.0, **LLAMA31),
        {32: "5.248461609930e-04", 48: "6.647869871181e-06", 63: "3.068925988915e-07"},
    ),
    (
        "llama3 of Llama 3.2 1B",
        schemes.llama3(64, 500_000.0, **{**LLAMA31, "factor": 32.0}),
        {16: "4.295567965594e-04", 31: "9.418306725435e-08"},
    ),
    (
        "proportional of Gemma 4",
        schemes.proportional(512, 1e6, partial_rotary_factor=0.25),
        {0: "1.000000000000e+00", 63: "3.337624694292e-02", 64: "0.000000000000e+00", 255: "0.000000000000e+00"},
    ),
]


@pytest.mark.parametrize(("frequencies", "values"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_golden_frequencies(frequencies: rn.Frequencies, values: dict[int, str]) -> None:
    assert {pair: f"{frequencies.inv_freq[pair]:.12e}" for pair in values} == values


@pytest.mark.parametrize(
    ("frequencies", "factor"),
    [
        (schemes.default(128), "1.0"),
        (schemes.linear(128, factor=4.0), "1.0"),
        (schemes.ntk(128, alpha=8.0), "1.0"),
        (schemes.dynamic(128, factor=2.0, original_max_position_embeddings=4096, seq_len=8192), "1.0"),
        (schemes.llama3(128, 500_000.0, **LLAMA31), "1.0"),
        (schemes.proportional(512, 1e6, partial_rotary_factor=0.25), "1.0"),
        (schemes.yarn(128, 1e6, **QWEN25), "1.138629436111989"),
        (schemes.yarn(64, 150_000.0, **GPT_OSS), "1.346573590279973"),
        (schemes.yarn(64, **DEEPSEEK), "1.0"),
        (schemes.longrope(96, **PHI3, original_max_position_embeddings=4096, factor=32.0), "1.1902380714238083"),
        (
            schemes.longrope(96, **PHI3, original_max_position_embeddings=4096, max_position_embeddings=131_072),
            "1.1902380714238083",
        ),
    ],
)
def test_golden_magnitudes(frequencies: rn.Frequencies, factor: str) -> None:
    assert f"{frequencies.attention_factor:.{len(factor) - 2}f}" == factor
    assert frequencies.attention_logit_scale == 1.0


def test_golden_logit_scales_of_deepseek() -> None:
    assert f"{schemes.yarn_logit_scale(40.0, 1.0):.15f}" == "1.873854207092627"  # V3
    assert f"{schemes.yarn_logit_scale(40.0, 0.707):.16f}" == "1.5896261651208736"  # V2
    assert schemes.yarn_logit_scale(40.0, 0.0) == 1.0
    assert schemes.yarn_logit_scale(1.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("arguments", "low", "high"),
    [
        ((128, 1e6, 32768, 32.0, 1.0, False), "23.5959476083381", "39.6508807104171"),
        ((128, 1e6, 32768, 32.0, 1.0, True), "23.0", "40.0"),
        ((64, 150_000.0, 4096, 32.0, 1.0, False), "8.092779115512402", "17.39802450158856"),
        ((64, 150_000.0, 4096, 32.0, 1.0, True), "8.0", "18.0"),
        ((64, 10_000.0, 4096, 32.0, 1.0, True), "10.0", "23.0"),
    ],
)
def test_golden_ramps(arguments: tuple[Any, ...], low: str, high: str) -> None:
    assert tuple(map(repr, ramped._ramp(*arguments))) == (low, high)


def test_the_base_of_dynamic_grows_with_the_length() -> None:
    # To the last bit but one: these bases were rounded to float64 themselves.
    near = {"rtol": 2.0**-51, "atol": 0}
    for length, base in ((4096, 10_000.0), (8192, 30527.7367488067), (16384, 72195.86008650938)):
        made = schemes.dynamic(128, factor=2.0, original_max_position_embeddings=4096, seq_len=length)
        np.testing.assert_allclose(made.inv_freq, schemes.default(128, base).inv_freq, **near)
    plain = schemes.default(128, 82684.62264056221)
    np.testing.assert_allclose(schemes.ntk(128, alpha=8.0).inv_freq, plain.inv_freq, **near)
    assert schemes.ntk(128, alpha=1.0) == schemes.default(128)


@pytest.mark.parametrize(
    ("width", "factor", "blended"), [(128, 8.0, range(29, 35)), (64, 32.0, range(15, 18))], ids=["3.1 8B", "3.2 1B"]
)
def test_golden_bands_of_llama3(width: int, factor: float, blended: range) -> None:
    plain = schemes.default(width, 500_000.0).inv_freq
    made = schemes.llama3(width, 500_000.0, **{**LLAMA31, "factor": factor}).inv_freq
    inside = [pair for pair in range(width // 2) if plain[pair] / factor < made[pair] < plain[pair]]
    assert inside == list(blended)
    assert (made[: blended.start] == plain[: blended.start]).all()
    assert (made[blended.stop :] == plain[blended.stop :] / factor).all()


def test_golden_streams() -> None:
    qwen3_vl = schemes.mrope(schemes.default(128), sections=[24, 20, 20], interleaved=True).streams
    assert [int((qwen3_vl == axis).sum()) for axis in range(3)] == [24, 20, 20]
    assert qwen3_vl[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert qwen3_vl[57:].tolist() == [0, 1, 2, 0, 0, 0, 0]
    qwen35 = schemes.mrope(schemes.default(64), sections=[11, 11, 10], interleaved=True).streams
    assert [int((qwen35 == axis).sum()) for axis in range(3)] == [11, 11, 10]
    qwen2_vl = schemes.mrope(schemes.default(128), sections=[16, 24, 24]).streams
    assert qwen2_vl.tolist() == [0] * 16 + [1] * 24 + [2] * 24


# --- properties ---

widths = st.integers(1, 80).map(lambda pairs: 2 * pairs)
bases = st.floats(1.5, 1e9) | st.sampled_from([10_000.0, 500_000.0, 1e6, 5e6])
factors = st.floats(1.0, 128.0) | st.sampled_from([1.0, 2.0, 4.0, 8.0, 32.0])
lengths = st.integers(7, 1 << 20) | st.sampled_from([2048, 4096, 8192, 32768])
yarns = st.fixed_dictionaries(
    {
        "factor": factors,
        "original_max_position_embeddings": lengths,
        "beta_fast": st.floats(16.0, 64.0) | st.just(32.0),
        "beta_slow": st.floats(0.5, 4.0) | st.just(1.0),
        "truncate": st.booleans(),
    }
)


def accepted(make: Callable[[], rn.Frequencies]) -> rn.Frequencies:
    """Return what a call makes, and leave out arguments for which the ramp would run backwards."""
    try:
        return make()
    except ValueError as error:
        assume("backwards" not in str(error))
        raise


@given(width=widths, theta=bases, drawn=yarns)
def test_yarn_of_factor_1_is_the_default_bit_for_bit(width: int, theta: float, drawn: dict[str, Any]) -> None:
    made = accepted(lambda: schemes.yarn(width, theta, **{**drawn, "factor": 1.0}))
    assert made == schemes.default(width, theta)


@given(width=widths, theta=bases, low=st.floats(0.1, 4.0), more=st.floats(0.1, 60.0), length=lengths)
def test_llama3_of_factor_1_is_the_default_bit_for_bit(
    width: int, theta: float, low: float, more: float, length: int
) -> None:
    given_factors = {"factor": 1.0, "low_freq_factor": low, "high_freq_factor": low + more}
    made = schemes.llama3(width, theta, **given_factors, original_max_position_embeddings=length)
    assert made == schemes.default(width, theta)


@given(width=widths, theta=bases, length=lengths, variant=st.sampled_from(["auto", "short", "long"]))
def test_longrope_of_ones_is_the_default_bit_for_bit(width: int, theta: float, length: int, variant: str) -> None:
    ones = [1.0] * (width // 2)
    made = schemes.longrope(
        width,
        theta,
        short_factor=ones,
        long_factor=ones,
        original_max_position_embeddings=length,
        factor=1.0,
        seq_len=2 * length,
        variant=variant,
    )
    assert made == schemes.default(width, theta)


@given(width=widths.filter(lambda width: width > 2), theta=bases, factor=factors, length=lengths, data=st.data())
def test_dynamic_up_to_the_trained_length_is_the_default_bit_for_bit(
    width: int, theta: float, factor: float, length: int, data: st.DataObject
) -> None:
    seq_len = data.draw(st.none() | st.integers(1, length) | st.just(length))
    made = schemes.dynamic(width, theta, factor=factor, original_max_position_embeddings=length, seq_len=seq_len)
    assert made == schemes.default(width, theta)


@given(width=widths, theta=bases)
def test_the_other_schemes_that_change_nothing_are_the_default_bit_for_bit(width: int, theta: float) -> None:
    plain = schemes.default(width, theta)
    assert schemes.linear(width, theta, factor=1.0) == plain
    assert schemes.proportional(width, theta) == plain
    assert schemes.divided(width, theta, divisors=np.ones(width // 2, np.float32)) == plain
    assert schemes.given(plain.inv_freq) == plain
    assert width == 2 or schemes.ntk(width, theta, alpha=1.0) == plain


@given(width=widths, theta=bases, factor=st.sampled_from([2.0, 4.0, 64.0]), position=st.integers(-(2**40), 2**40))
def test_linear_turns_a_position_as_the_default_turns_it_divided(
    width: int, theta: float, factor: float, position: int
) -> None:
    # Divided by a power of two, both angles are exactly the same product; other factors round once more.
    slower, plain = schemes.linear(width, theta, factor=factor).inv_freq, schemes.default(width, theta).inv_freq
    assert (position * slower == (position / factor) * plain).all()


@given(width=widths, theta=bases, factor=factors)
def test_linear_divides_and_rounds_once(width: int, theta: float, factor: float) -> None:
    quotients = [Fraction(speed) / Fraction(factor) for speed in schemes.default(width, theta).inv_freq.tolist()]
    assert schemes.linear(width, theta, factor=factor).inv_freq.tolist() == [float(quotient) for quotient in quotients]


@given(width=widths, theta=bases, drawn=yarns)
def test_yarn_is_the_default_before_its_ramp_and_linear_after_it_bit_for_bit(
    width: int, theta: float, drawn: dict[str, Any]
) -> None:
    made = accepted(lambda: schemes.yarn(width, theta, **drawn)).inv_freq
    trained, turns = drawn["original_max_position_embeddings"], (drawn["beta_fast"], drawn["beta_slow"])
    low, high = ramped._ramp(width, theta, trained, *turns, drawn["truncate"])
    pairs = np.arange(width // 2)
    assert (made[pairs <= low] == schemes.default(width, theta).inv_freq[pairs <= low]).all()
    assert (made[pairs >= high] == schemes.linear(width, theta, factor=drawn["factor"]).inv_freq[pairs >= high]).all()


@given(width=widths, theta=bases, factor=factors, length=lengths)
def test_llama3_is_the_default_for_fast_pairs_and_linear_for_slow_ones_bit_for_bit(
    width: int, theta: float, factor: float, length: int
) -> None:
    given_factors = {**LLAMA31, "factor": factor, "original_max_position_embeddings": length}
    made = schemes.llama3(width, theta, **given_factors).inv_freq
    plain = schemes.default(width, theta).inv_freq
    turns = length * plain / (2 * math.pi)
    fast, slow = turns > 4.0 + 1e-9, turns < 1.0
    assert (made[fast] == plain[fast]).all()
    assert (made[slow] == schemes.linear(width, theta, factor=factor).inv_freq[slow]).all()


@given(width=widths, theta=bases, divisors=st.data(), magnitude=st.floats(0.5, 2.0))
def test_longrope_is_division_by_its_lists_bit_for_bit(
    width: int, theta: float, divisors: st.DataObject, magnitude: float
) -> None:
    numbers = st.lists(st.floats(0.5, 80.0), min_size=width // 2, max_size=width // 2)
    short, long = divisors.draw(numbers), divisors.draw(numbers)
    lists = {"short_factor": short, "long_factor": long, "original_max_position_embeddings": 4096}
    for variant, by in (("short", short), ("long", long)):
        made = schemes.longrope(width, theta, **lists, attention_factor=magnitude, variant=variant)
        assert made == schemes.divided(width, theta, divisors=by, attention_factor=magnitude)


def test_proportional_spreads_its_frequencies_over_the_whole_head() -> None:
    gemma = schemes.proportional(512, 1e6, partial_rotary_factor=0.25).inv_freq
    assert gemma.size == 256
    assert (gemma[:64] == schemes.default(512, 1e6).inv_freq[:64]).all()
    assert (gemma[64:] == 0.0).all()
    assert (gemma[1:64] != schemes.default(128, 1e6).inv_freq[1:]).all()  # the ordinary partial rotation
    x = normal((5, 2, 512))
    rotated = rn.Rope(512, frequencies=rn.Frequencies(gemma), layout="half")(x.copy(), offset=1000)
    for first in (0, 256):
        assert_same_bits(rotated[..., first + 64 : first + 256], x[..., first + 64 : first + 256])
        assert (rotated[..., first : first + 64] != x[..., first : first + 64]).all()


@pytest.mark.parametrize(("share", "turning"), [(0.25, 64), (1.0, 256), (0.5, 128), (0.334, 85), (1 / 256, 1)])
def test_proportional_turns_the_whole_pairs_of_its_share(share: float, turning: int) -> None:
    made = schemes.proportional(512, 1e6, partial_rotary_factor=share, factor=8.0).inv_freq
    assert np.count_nonzero(made) == turning
    assert (made[:turning] == schemes.linear(512, 1e6, factor=8.0).inv_freq[:turning]).all()


def test_gemmas_divisors_in_gguf_make_the_same_frequencies_as_its_configuration() -> None:
    divisors = np.array([1.0] * 64 + [1e30] * 192, np.float32)
    assert schemes.divided(512, 1e6, divisors=divisors) == schemes.proportional(512, 1e6, partial_rotary_factor=0.25)


def test_divisors_below_ggmls_mark_only_divide() -> None:
    made = schemes.divided(4, divisors=[9.9e29, 1e30])
    assert made.inv_freq.tolist() == [1.0 / 9.9e29, 0.0]


# --- the magnitudes ---


@pytest.mark.parametrize(
    ("more", "magnitude"),
    [
        ({}, 0.1 * math.log(40.0) + 1.0),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({"mscale": 0.707, "mscale_all_dim": 1.0}, (0.0707 * math.log(40.0) + 1.0) / (0.1 * math.log(40.0) + 1.0)),
        ({"mscale": 0.707}, 0.1 * math.log(40.0) + 1.0),  # one alone says nothing, as in transformers
        ({"mscale_all_dim": 0.707}, 0.1 * math.log(40.0) + 1.0),
        ({"mscale": 0.707, "mscale_all_dim": 0.0}, 0.1 * math.log(40.0) + 1.0),
        ({"mscale": 0, "mscale_all_dim": 1.0}, 0.1 * math.log(40.0) + 1.0),
        ({"attention_factor": 1.0}, 1.0),
        ({"attention_factor": 0.7, "mscale": 0.707, "mscale_all_dim": 1.0}, 0.7),
    ],
)
def test_the_magnitude_of_yarn(more: dict[str, float], magnitude: float) -> None:
    made = schemes.yarn(64, factor=40.0, original_max_position_embeddings=4096, **more)
    assert made.attention_factor == pytest.approx(magnitude, rel=1e-15)
    assert (made.inv_freq == schemes.yarn(64, factor=40.0, original_max_position_embeddings=4096).inv_freq).all()


@pytest.mark.parametrize(
    ("more", "short", "long"),
    [
        ({"factor": 32.0}, 1.1902380714238083, 1.1902380714238083),
        ({"max_position_embeddings": 131_072}, 1.1902380714238083, 1.1902380714238083),
        ({"factor": 1.0, "max_position_embeddings": 131_072}, 1.0, 1.0),  # factor goes first
        ({"max_position_embeddings": 2048}, 1.0, 1.0),
        ({"attention_factor": 1.5, "factor": 32.0}, 1.5, 1.5),
        ({"attention_factor": 1.5}, 1.5, 1.5),
        ({"short_mscale": 1.1, "long_mscale": 1.2}, 1.1, 1.2),
        ({"short_mscale": 1.1, "long_mscale": 1.2, "attention_factor": 1.5, "factor": 32.0}, 1.1, 1.2),
        ({"long_mscale": 1.2, "factor": 32.0}, 1.1902380714238083, 1.2),
    ],
)
def test_the_magnitudes_of_longrope(more: dict[str, Any], short: float, long: float) -> None:
    for variant, magnitude in (("short", short), ("long", long)):
        made = schemes.longrope(96, **PHI3, original_max_position_embeddings=4096, variant=variant, **more)
        assert made.attention_factor == magnitude


@pytest.mark.parametrize(
    ("seq_len", "variant", "is_long"),
    [
        (None, "auto", False),
        (1, "auto", False),
        (4096, "auto", False),  # the boundary itself is short
        (4097, "auto", True),
        (131_072, "auto", True),
        (1, "long", True),
        (None, "long", True),
        (131_072, "short", False),
        (None, "short", False),
    ],
)
def test_longrope_is_long_strictly_beyond_the_trained_length(seq_len: int | None, variant: str, is_long: bool) -> None:
    made = schemes.longrope(
        96, **PHI3, original_max_position_embeddings=4096, factor=32.0, seq_len=seq_len, variant=variant
    )
    divisors = PHI3["long_factor" if is_long else "short_factor"]
    assert made == schemes.divided(96, divisors=divisors, attention_factor=1.1902380714238083)


def test_a_factor_of_1_needs_no_logarithm_of_the_trained_length() -> None:
    made = schemes.longrope(96, **PHI3, original_max_position_embeddings=1, factor=1.0)
    assert made.attention_factor == 1.0


def test_a_scheme_gives_plain_frequencies_that_pickle_and_belong_to_nobody() -> None:
    lists = {name: np.array(values) for name, values in PHI3.items()}
    made = schemes.longrope(96, **lists, original_max_position_embeddings=4096, factor=32.0, variant="long")
    kept = made.inv_freq.copy()
    lists["long_factor"][:] = 7.0
    assert (made.inv_freq == kept).all()
    assert made.inv_freq.dtype == np.float64
    shared_out = schemes.mrope(made, sections=[16, 16, 16])
    assert pickle.loads(pickle.dumps(shared_out)) == shared_out
    assert shared_out != made


# --- the oracle ---


def power(theta: float, pair: int, width: int) -> mpmath.mpf:
    return mpmath.mpf(theta) ** (-mpmath.mpf(2 * pair) / width)


def assert_near(made: rn.Frequencies, wanted: list[Any], tolerance: float = 1e-14) -> None:
    assert made.pairs == len(wanted)
    for got, true in zip(made.inv_freq.tolist(), wanted, strict=True):
        assert abs(mpmath.mpf(got) - true) <= tolerance * abs(true)


@pytest.fixture(autouse=True)
def fifty_digits() -> Any:
    with mpmath.workdps(50):
        yield


@given(width=widths, theta=bases, factor=factors)
def test_default_and_linear_are_the_oracles(width: int, theta: float, factor: float) -> None:
    plain = [power(theta, pair, width) for pair in range(width // 2)]
    assert_near(schemes.default(width, theta), plain)
    assert_near(schemes.linear(width, theta, factor=factor), [speed / mpmath.mpf(factor) for speed in plain])


@given(width=widths.filter(lambda width: width > 2), theta=bases, alpha=st.floats(1.0, 5000.0))
def test_ntk_slows_the_last_pair_by_alpha_and_the_others_in_proportion(width: int, theta: float, alpha: float) -> None:
    # Slowing by alpha ** (pair / last) is the same as the larger base, and says what that is for.
    last = width // 2 - 1
    wanted = [power(theta, pair, width) / mpmath.mpf(alpha) ** (mpmath.mpf(pair) / last) for pair in range(last + 1)]
    assert_near(schemes.ntk(width, theta, alpha=alpha), wanted)


@given(width=widths.filter(lambda w: w > 2), theta=bases, factor=factors, trained=lengths, beyond=st.floats(0.1, 64.0))
def test_dynamic_is_the_oracles(width: int, theta: float, factor: float, trained: int, beyond: float) -> None:
    seq_len = math.ceil(trained * beyond)
    made = schemes.dynamic(width, theta, factor=factor, original_max_position_embeddings=trained, seq_len=seq_len)
    longest = max(trained, seq_len)
    base = mpmath.mpf(theta) * (mpmath.mpf(factor) * longest / trained - (mpmath.mpf(factor) - 1)) ** (
        mpmath.mpf(width) / (width - 2)
    )
    assert_near(made, [base ** (-mpmath.mpf(2 * pair) / width) for pair in range(width // 2)])


@settings(max_examples=300)
@given(width=widths, theta=bases, drawn=yarns)
@example(width=64, theta=150_000.0, drawn={**GPT_OSS, "beta_fast": 32.0, "beta_slow": 1.0})
@example(width=128, theta=1e6, drawn={**QWEN25, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True})
def test_yarn_is_ggmls_form_in_many_digits(width: int, theta: float, drawn: dict[str, Any]) -> None:
    made = accepted(lambda: schemes.yarn(width, theta, **drawn))
    scale, trained = 1 / mpmath.mpf(drawn["factor"]), drawn["original_max_position_embeddings"]
    start, end = (
        width * mpmath.log(trained / (mpmath.mpf(turns) * 2 * mpmath.pi)) / (2 * mpmath.log(theta))
        for turns in (drawn["beta_fast"], drawn["beta_slow"])
    )
    if drawn["truncate"]:
        assume(all(abs(bound - mpmath.nint(bound)) > 1e-9 for bound in (start, end)))
        start, end = mpmath.floor(start), mpmath.ceil(end)
    start, end = max(mpmath.mpf(0), start), min(mpmath.mpf(width - 1), end)
    assume(start == end or end - start > 0.01)  # a steeper ramp amplifies the last bits of its bounds
    wanted = []
    for pair in range(width // 2):
        extrapolated = power(theta, pair, width)  # the angle at position 1
        interpolated_angle = scale * extrapolated
        through = (pair - start) / max(mpmath.mpf("0.001"), end - start)
        mix = 1 - min(mpmath.mpf(1), max(mpmath.mpf(0), through))
        wanted.append(interpolated_angle * (1 - mix) + extrapolated * mix)
    assert_near(made, wanted, 1e-11)
    assert float(1 + mpmath.log(drawn["factor"]) / 10) == pytest.approx(made.attention_factor, rel=1e-15)


@settings(max_examples=300)
@given(width=widths, theta=bases, factor=factors, low=st.floats(0.25, 4.0), more=st.floats(0.5, 60.0), trained=lengths)
def test_llama3_is_the_rule_of_three_bands_in_many_digits(
    width: int, theta: float, factor: float, low: float, more: float, trained: int
) -> None:
    high = low + more
    made = schemes.llama3(
        width,
        theta,
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=trained,
    )
    wanted = []
    for pair in range(width // 2):
        speed = power(theta, pair, width)
        wavelength = 2 * mpmath.pi / speed
        if wavelength < trained / mpmath.mpf(high):
            wanted.append(speed)
        elif wavelength > trained / mpmath.mpf(low):
            wanted.append(speed / mpmath.mpf(factor))
        else:
            smooth = (trained / wavelength - mpmath.mpf(low)) / (mpmath.mpf(high) - mpmath.mpf(low))
            wanted.append((1 - smooth) * speed / mpmath.mpf(factor) + smooth * speed)
    assert_near(made, wanted, 1e-12)


def test_llama3_as_divisors_in_a_gguf_file_makes_the_same_frequencies() -> None:
    # The rule of llama.cpp's converter, whose list is rope_freqs.weight.
    divisors = []
    for speed in schemes.default(128, 500_000.0).inv_freq.tolist():
        wavelength = 2 * math.pi / speed
        if wavelength < 8192 / 4.0:
            divisors.append(1.0)
        elif wavelength > 8192 / 1.0:
            divisors.append(8.0)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    exact = schemes.llama3(128, 500_000.0, **LLAMA31).inv_freq
    np.testing.assert_allclose(schemes.divided(128, 500_000.0, divisors=divisors).inv_freq, exact, rtol=1e-15)
    stored = np.array(divisors, np.float32)  # as the file has it
    np.testing.assert_allclose(schemes.divided(128, 500_000.0, divisors=stored).inv_freq, exact, rtol=6e-8)


@given(width=widths, theta=bases, trained=lengths, factor=factors, data=st.data())
def test_longrope_is_the_oracles(width: int, theta: float, trained: int, factor: float, data: st.DataObject) -> None:
    numbers = st.lists(st.floats(0.5, 80.0), min_size=width // 2, max_size=width // 2)
    short, long = data.draw(numbers), data.draw(numbers)
    seq_len = data.draw(st.integers(1, 4 * trained))
    lists = {"short_factor": short, "long_factor": long, "original_max_position_embeddings": trained}
    made = schemes.longrope(width, theta, **lists, factor=factor, seq_len=seq_len)
    divisors = short if seq_len <= trained else long
    assert_near(made, [power(theta, pair, width) / mpmath.mpf(by) for pair, by in enumerate(divisors)])
    magnitude = mpmath.sqrt(1 + mpmath.log(factor) / mpmath.log(trained))
    assert float(magnitude) == pytest.approx(made.attention_factor, rel=1e-15)


@given(data=st.data(), blocks=st.booleans())
def test_mrope_shares_pairs_out_as_slices_do(data: st.DataObject, blocks: bool) -> None:
    if blocks:
        sections = data.draw(st.lists(st.integers(1, 40), min_size=3, max_size=3))
        wanted = [axis for axis in range(3) for _ in range(sections[axis])]
    else:
        height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
        # The last of height and of width must lie within all pairs for the sections to mean what they say.
        least = max(3 * height - 1, 3 * width)
        sections = [data.draw(st.integers(max(1, least - height - width), least + 10)), height, width]
        wanted = [0] * sum(sections)
        for axis in (1, 2):
            places = range(axis, 3 * sections[axis], 3)
            for place in places:
                wanted[place] = axis
    plain = schemes.linear(2 * sum(sections), factor=3.0)
    with_magnitude = rn.Frequencies(plain.inv_freq, 1.25, None, 1.5)
    made = schemes.mrope(with_magnitude, sections=sections, interleaved=not blocks)
    assert made.streams.tolist() == wanted
    assert made.stream_count == 3
    assert (made.inv_freq == plain.inv_freq).all()
    assert (made.attention_factor, made.attention_logit_scale) == (1.25, 1.5)


@pytest.mark.parametrize("sections", [[2, 3, 3], (2, 3, 3), np.array([2, 3, 3]), np.array([2, 3, 3], np.uint8)])
def test_sections_are_a_list_or_its_like(sections: Any) -> None:
    assert schemes.mrope(schemes.default(16), sections=sections) == QWEN_VL["blocks"]


# --- positions of several axes, through a Rope ---


def turned(
    x: np.ndarray[Any, Any], positions: np.ndarray[Any, Any], frequencies: rn.Frequencies, layout: str, sign: int
) -> np.ndarray[Any, Any]:
    """Return x of shape (batch, tokens, heads, channels), each pair turned by the position of its own stream."""
    result = x.astype(np.float64)
    magnitude = frequencies.attention_factor**sign
    for row, token, pair in itertools.product(range(x.shape[0]), range(x.shape[1]), range(frequencies.pairs)):
        low, high = channels_of_pair(pair, 2 * frequencies.pairs, 0, layout)
        angle = int(positions[frequencies.streams[pair], row, token]) * float(frequencies.inv_freq[pair])
        cos, sin = magnitude * math.cos(angle), sign * magnitude * math.sin(angle)
        for head in range(x.shape[2]):
            a, b = float(x[row, token, head, low]), float(x[row, token, head, high])
            result[row, token, head, low] = a * cos - b * sin
            result[row, token, head, high] = a * sin + b * cos
    return result


QWEN_VL = {
    "blocks": schemes.mrope(schemes.default(16, 1e4), sections=[2, 3, 3]),
    "turns": schemes.mrope(schemes.default(16, 1e4), sections=[4, 2, 2], interleaved=True),
    "yarn in turns": schemes.mrope(
        schemes.yarn(16, 1e4, factor=4.0, original_max_position_embeddings=4096), sections=[3, 3, 2], interleaved=True
    ),
}
IMAGE = np.random.default_rng(3).integers(-50, 100_000, (3, 2, 5))  # (streams, batch, tokens)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", QWEN_VL)
def test_each_pair_turns_by_the_position_of_its_own_stream(name: str, layout: str, dtype: str, backend: str) -> None:
    rope = rn.Rope(20, frequencies=QWEN_VL[name], layout=layout, backend=backend)
    x = normal((2, 5, 3, 20), dtype)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    forward, back = (turned(x, IMAGE, QWEN_VL[name], layout, sign) for sign in (1, -1))
    np.testing.assert_allclose(rope(x.copy(), positions=IMAGE), forward, rtol=0, atol=8 * tolerance)
    np.testing.assert_allclose(rope.inverse(x.copy(), positions=IMAGE), back, rtol=0, atol=8 * tolerance)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_positions_of_several_axes_are_shared_by_layers_and_undone(dtype: str, backend: str) -> None:
    rope = rn.Rope(16, frequencies=QWEN_VL["turns"], layout="half", order="htd", backend=backend)
    q, k = normal((2, 4, 5, 16), dtype, 1), normal((2, 1, 5, 16), dtype, 2)
    step = rope.at(positions=IMAGE)
    once = [rope(x.copy(), positions=IMAGE) for x in (q, k)]
    for _ in range(2):
        for made, wanted in zip(step(q.copy(), k.copy()), once, strict=True):
            assert_same_bits(made, wanted)
    assert_same_bits(pickle.loads(pickle.dumps(step))(q.copy()), once[0])
    other = rn.Rope(16, frequencies=QWEN_VL["turns"], layout="half")  # tokens before heads
    flipped = other(q.transpose(0, 2, 1, 3).copy(), positions=IMAGE).transpose(0, 2, 1, 3)
    assert_same_bits(np.ascontiguousarray(flipped), once[0])
    back = rope.inverse(once[0].copy(), positions=IMAGE).astype(np.float64)
    tolerance = {"float32": 1e-6, "float64": 1e-14, "float16": 4e-3, "bfloat16": 4e-2}[dtype]
    np.testing.assert_allclose(back, q.astype(np.float64), rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", QWEN_VL)
def test_equal_streams_rotate_like_one_axis_bit_for_bit(name: str, layout: str, dtype: str, backend: str) -> None:
    shared_out = QWEN_VL[name]
    several = rn.Rope(16, frequencies=shared_out, layout=layout, backend=backend)
    plain = rn.Frequencies(shared_out.inv_freq, shared_out.attention_factor)
    one = rn.Rope(16, frequencies=plain, layout=layout, backend=backend)
    x = normal((2, 5, 3, 16), dtype)
    rows = IMAGE[0]
    equal = np.stack([rows] * 3)
    for way in ("__call__", "inverse"):
        wanted = getattr(one, way)(x.copy(), positions=rows)
        assert_same_bits(getattr(several, way)(x.copy(), positions=equal), wanted)
        assert_same_bits(getattr(several, way)(x.copy(), positions=rows), wanted)
    assert_same_bits(several.at(positions=equal)(x.copy()), one(x.copy(), positions=rows))
    assert_same_bits(several(x.copy(), positions=rows[0]), one(x.copy(), positions=rows[0]))
    assert_same_bits(several(x.copy(), offset=11), one(x.copy(), offset=11))
    assert_same_bits(several(x.copy(), offset=[3, 900]), one(x.copy(), offset=[3, 900]))


SHAPES = "expected (5,) or (2, 5), or for 3 streams (3, 5) or (3, 1, 5) or (3, 2, 5)"


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (shape, f"positions has shape {shape}; {SHAPES}")
        for shape in (
            (2, 2, 5),
            (4, 2, 5),
            (1, 2, 5),
            (3, 1, 2, 5),
            (3, 3, 5),
            (4, 5),
            (1, 5),
            (3, 4),
            (3, 2, 4),
            (3,),
            (),
        )
    ],
)
def test_positions_of_a_wrong_shape_are_refused(shape: tuple[int, ...], text: str) -> None:
    rope, q = rn.Rope(16, frequencies=QWEN_VL["blocks"]), normal((2, 5, 3, 16))
    before = q.copy()
    with pytest.raises(ValueError, match="expected") as refused:
        rope(q, positions=np.zeros(shape, np.int64))
    assert str(refused.value) == text
    assert_same_bits(q, before)


def test_a_rope_of_one_axis_refuses_positions_of_several() -> None:
    with pytest.raises(ValueError, match=r"expected \(tokens,\) or \(batch, tokens\)$"):
        rn.Rope(16)(normal((2, 5, 3, 16)), positions=IMAGE)


def test_max_position_bounds_the_positions_of_every_axis() -> None:
    rope = rn.Rope(16, frequencies=QWEN_VL["blocks"], max_position=100)
    positions = np.zeros((3, 1, 5), np.int64)
    positions[2, 0, 4] = 100
    with pytest.raises(ValueError, match="positions"):
        rope(normal((1, 5, 3, 16)), positions=positions)


# --- what is refused ---

NAN, INF = float("nan"), float("inf")
NOT_A_NUMBER = ("4", None, True, np.True_, 1j, [4.0])


def at_least(name: str, least: int) -> list[tuple[dict[str, Any], type[Exception], str]]:
    wrong = (0.5, 0.0, -4.0, np.float32(0.5)) if least else (-0.5, -4)
    return [
        *(({name: x}, ValueError, f"{name} is {float(x)}; expected {least} or more") for x in wrong),
        *(({name: x}, ValueError, f"{name} is {x}; expected a finite number, {least} or more") for x in (NAN, INF)),
        ({name: -(10**400)}, ValueError, f"{name} is -inf; expected a finite number, {least} or more"),
        ({name: 10**400}, ValueError, f"{name} is inf; expected a finite number, {least} or more"),
        *(({name: x}, TypeError, f"{name} is {x!r}; expected a number, {least} or more") for x in NOT_A_NUMBER),
    ]


def above_0(name: str) -> list[tuple[dict[str, Any], type[Exception], str]]:
    return [
        *(({name: x}, ValueError, f"{name} is {float(x)}; expected a finite number above 0") for x in (0, -1.0)),
        *(({name: x}, ValueError, f"{name} is {x}; expected a finite number above 0") for x in (NAN, INF)),
        *(({name: x}, TypeError, f"{name} is {x!r}; expected a number above 0") for x in NOT_A_NUMBER),
    ]


def a_length(name: str) -> list[tuple[dict[str, Any], type[Exception], str]]:
    return [
        *(({name: x}, ValueError, f"{name} is {x}; expected 1 position or more") for x in (0, -4096)),
        ({name: 2**53 + 1}, ValueError, f"{name} is {2**53 + 1}; expected at most 2**53 positions"),
        *(({name: x}, TypeError, f"{name} is {x!r}; expected an int") for x in (4096.0, NAN, *NOT_A_NUMBER)),
    ]


def a_list(name: str, pairs: int) -> list[tuple[dict[str, Any], type[Exception], str]]:
    short, right = [1.0] * (pairs - 1), [2.0] * pairs
    one_each = f"expected ({pairs},), one number for each pair"
    return [
        ({name: short}, ValueError, f"{name} has shape ({pairs - 1},); {one_each}"),
        ({name: [*right, 1.0]}, ValueError, f"{name} has shape ({pairs + 1},); {one_each}"),
        ({name: []}, ValueError, f"{name} has shape (0,); {one_each}"),
        ({name: [right]}, ValueError, f"{name} has shape (1, {pairs}); {one_each}"),
        *(
            ({name: [x, *short]}, ValueError, f"{name}[0] is {float(x)}; expected a finite number above 0")
            for x in (0, -1.0, NAN, INF)
        ),
        ({name: [*short, -0.5]}, ValueError, f"{name}[{pairs - 1}] is -0.5; expected a finite number above 0"),
        ({name: [True] * pairs}, TypeError, f"{name} has dtype bool; expected {pairs} numbers above 0"),
        ({name: ["1"] * pairs}, TypeError, f"{name} has dtype <U1; expected {pairs} numbers above 0"),
        ({name: [None] * pairs}, TypeError, f"{name} has dtype object; expected {pairs} numbers above 0"),
        *(
            ({name: x}, TypeError, f"{name} is {x!r}; expected {pairs} numbers above 0, one for each pair")
            for x in (None, 4.0, "auto")
        ),
        (
            {name: np.ma.masked_array(right)},
            TypeError,
            f"{name} is a masked array; expected {pairs} numbers above 0, without a mask",
        ),
        (
            {name: [[1.0], [1.0, 2.0]]},
            ValueError,
            f"{name} has rows of unequal length; expected {pairs} numbers, one for each pair",
        ),
    ]


def a_width(name: str) -> list[tuple[dict[str, Any], type[Exception], str]]:
    return [
        *(({name: x}, ValueError, f"{name} is {x}; expected an even number of channels, 2 or more") for x in (0, 7)),
        *(({name: x}, TypeError, f"{name} is {x!r}; expected an int") for x in (8.0, "8", None, True)),
        ({name: 1 << 40}, ValueError, f"{name} is 1099511627776; expected at most 1048576 channels"),
    ]


def a_base(above_one: bool) -> list[tuple[dict[str, Any], type[Exception], str]]:
    if above_one:
        return above_0("theta") + [
            ({"theta": x}, ValueError, f"theta is {x}; expected a number above 1") for x in (1.0, 0.5)
        ]
    alike = "theta is 1.0; expected another number above 0, as all pairs would turn alike"
    return [*above_0("theta"), ({"theta": 1.0}, ValueError, alike)]


RIGHT: dict[str, dict[str, Any]] = {
    "default": {"rotary_dim": 8},
    "linear": {"rotary_dim": 8, "factor": 4.0},
    "ntk": {"rotary_dim": 8, "alpha": 8.0},
    "dynamic": {"rotary_dim": 8, "factor": 2.0, "original_max_position_embeddings": 4096, "seq_len": 8192},
    "yarn": {"rotary_dim": 8, "factor": 4.0, "original_max_position_embeddings": 4096},
    "longrope": {
        "rotary_dim": 8,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 4096,
        "factor": 32.0,
    },
    "llama3": {"rotary_dim": 8, **LLAMA31},
    "proportional": {"head_dim": 8},
    "divided": {"rotary_dim": 8, "divisors": [1.0] * 4},
    "given": {"inv_freq": [1.0, 0.1]},
    "mrope": {"frequencies": schemes.default(16), "sections": [2, 3, 3]},
}
SECTIONS = "expected 3 numbers of pairs, for time, height and width, whose sum is 8"
WRONG: dict[str, list[tuple[dict[str, Any], type[Exception], str]]] = {
    "default": [*a_width("rotary_dim"), *a_base(False)],
    "linear": [*a_width("rotary_dim"), *a_base(False), *at_least("factor", 1)],
    "ntk": [
        *a_width("rotary_dim"),
        *a_base(True),
        *at_least("alpha", 1),
        (
            {"rotary_dim": 2},
            ValueError,
            "rotary_dim is 2; expected 4 or more, as a single pair cannot be slowed by its base",
        ),
        ({"alpha": 1e300}, ValueError, "alpha is 1e+300; expected a smaller number, as the base would be infinite"),
        (
            {"alpha": 1e200, "rotary_dim": 4},
            ValueError,
            "alpha is 1e+200; expected a smaller number, as the base would be infinite",
        ),
    ],
    "dynamic": [
        *a_width("rotary_dim"),
        *a_base(True),
        *at_least("factor", 1),
        *a_length("original_max_position_embeddings"),
        *(case for case in a_length("seq_len") if case[0]["seq_len"] is not None),
        (
            {"rotary_dim": 2},
            ValueError,
            "rotary_dim is 2; expected 4 or more, as a single pair cannot be slowed by its base",
        ),
        ({"factor": 1e308}, ValueError, "factor is 1e+308; expected a smaller number, as the base would be infinite"),
    ],
    "yarn": [
        *a_width("rotary_dim"),
        *a_base(True),
        *at_least("factor", 1),
        *a_length("original_max_position_embeddings"),
        *above_0("beta_fast"),
        *above_0("beta_slow"),
        ({"beta_fast": 2, "beta_slow": 3}, ValueError, "beta_fast is 2.0; expected beta_slow, 3.0, or more"),
        *(({"truncate": x}, TypeError, f"truncate is {x!r}; expected True or False") for x in (0, 1, None, "false")),
        *(case for case in above_0("attention_factor") if case[0]["attention_factor"] is not None),
        *(case for case in at_least("mscale", 0) if case[0]["mscale"] is not None),
        *(case for case in at_least("mscale_all_dim", 0) if case[0]["mscale_all_dim"] is not None),
        ({"mscale": -1.0, "attention_factor": 1.0}, ValueError, "mscale is -1.0; expected 0 or more"),
        (
            {"original_max_position_embeddings": 2, "truncate": False},
            ValueError,
            "original_max_position_embeddings is 2; expected a length for which the ramp does not run backwards, here "
            "from pair 0 to -0.49715",
        ),
        (
            {"original_max_position_embeddings": 10**9, "theta": 2.0},
            ValueError,
            "original_max_position_embeddings is 1000000000; expected a length for which the ramp does not run "
            "backwards, here from pair 88 to 7",
        ),
    ],
    "longrope": [
        *a_width("rotary_dim"),
        *a_base(False),
        *a_list("short_factor", 4),
        *a_list("long_factor", 4),
        *a_length("original_max_position_embeddings"),
        *(case for case in at_least("factor", 1) if case[0]["factor"] is not None),
        *(case for case in a_length("max_position_embeddings") if case[0]["max_position_embeddings"] is not None),
        *(case for case in above_0("attention_factor") if case[0]["attention_factor"] is not None),
        *(case for case in above_0("short_mscale") if case[0]["short_mscale"] is not None),
        *(case for case in above_0("long_mscale") if case[0]["long_mscale"] is not None),
        *(case for case in a_length("seq_len") if case[0]["seq_len"] is not None),
        *(
            ({"variant": x}, ValueError, f"variant is {x!r}; expected 'auto', 'short' or 'long'")
            for x in ("Long", "", None, 1, ["long"])
        ),
        (
            {"factor": None},
            ValueError,
            "factor is missing; expected factor, max_position_embeddings, attention_factor or short_mscale, from which "
            "the magnitude follows",
        ),
        (
            {"factor": None, "short_mscale": 1.1, "variant": "long"},
            ValueError,
            "factor is missing; expected factor, max_position_embeddings, attention_factor or long_mscale, from which "
            "the magnitude follows",
        ),
        (
            {"original_max_position_embeddings": 1},
            ValueError,
            "original_max_position_embeddings is 1; expected 2 positions or more",
        ),
    ],
    "llama3": [
        *a_width("rotary_dim"),
        *a_base(False),
        *at_least("factor", 1),
        *above_0("low_freq_factor"),
        *above_0("high_freq_factor"),
        *a_length("original_max_position_embeddings"),
        ({"high_freq_factor": 0.5}, ValueError, "high_freq_factor is 0.5; expected low_freq_factor, 1.0, or more"),
        ({"low_freq_factor": 9}, ValueError, "high_freq_factor is 4.0; expected low_freq_factor, 9.0, or more"),
    ],
    "proportional": [
        *a_width("head_dim"),
        *a_base(False),
        *above_0("partial_rotary_factor"),
        ({"partial_rotary_factor": 1.5}, ValueError, "partial_rotary_factor is 1.5; expected at most 1"),
        (
            {"partial_rotary_factor": 0.2},
            ValueError,
            "partial_rotary_factor is 0.2; expected enough for one of 4 pairs",
        ),
        *at_least("factor", 1),
    ],
    "divided": [*a_width("rotary_dim"), *a_base(False), *a_list("divisors", 4), *above_0("attention_factor")],
    "given": [
        *above_0("attention_factor"),
        ({"inv_freq": []}, ValueError, "inv_freq has shape (0,); expected one number for each pair"),
        ({"inv_freq": [1.0, NAN]}, ValueError, "inv_freq holds nan; expected finite numbers"),
        ({"inv_freq": ["1"]}, TypeError, "inv_freq has dtype <U1; expected real numbers"),
    ],
    "mrope": [
        *(
            ({"frequencies": x}, TypeError, f"frequencies is {x!r}; expected a rope_numba.Frequencies")
            for x in (None, [1.0], 16)
        ),
        (
            {"frequencies": QWEN_VL["blocks"]},
            ValueError,
            "frequencies has 3 streams; expected frequencies of one stream",
        ),
        *(({"sections": x}, TypeError, f"sections is {x!r}; {SECTIONS}") for x in (None, 8, "233", {2, 3})),
        ({"sections": np.array(8)}, TypeError, f"sections is array(8); {SECTIONS}"),
        *(
            ({"sections": x}, ValueError, f"sections is {x!r}; {SECTIONS}")
            for x in ([], [8], [4, 4], [2, 3, 4], [2, 2, 2, 2], [2, 3, 3, 0])
        ),
        *(({"sections": [x, 3, 3]}, TypeError, f"sections[0] is {x!r}; expected an int") for x in (2.0, "2", True)),
        ({"sections": [5, 3, 0]}, ValueError, "sections[2] is 0; expected 1 pair or more"),
        ({"sections": [6, 3, -1]}, ValueError, "sections[2] is -1; expected 1 pair or more"),
        *(({"interleaved": x}, TypeError, f"interleaved is {x!r}; expected True or False") for x in (1, None, "half")),
        (
            {"sections": [1, 4, 3], "interleaved": True},
            ValueError,
            "sections is [1, 4, 3]; expected sections that can take turns, which these do as [3, 3, 2]",
        ),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_each_scheme_takes_the_arguments_that_the_refusals_start_from(name: str) -> None:
    assert isinstance(getattr(schemes, name)(**RIGHT[name]), rn.Frequencies)


@pytest.mark.parametrize(
    ("name", "wrong", "error", "text"),
    [(name, *case) for name, cases in WRONG.items() for case in cases],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_argument_is_refused_by_name(
    name: str, wrong: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        getattr(schemes, name)(**{**RIGHT[name], **wrong})
    assert refused.type is error
    assert str(refused.value) == text


def test_each_argument_of_each_scheme_has_its_refusals() -> None:
    for name, cases in WRONG.items():
        tried = {argument for wrong, _, _ in cases for argument in wrong}
        assert tried == set(inspect.signature(getattr(schemes, name)).parameters)


@pytest.mark.parametrize(("name", "least"), [("factor", 1), ("mscale_all_dim", 0)])
def test_the_logit_scale_refuses_wrong_arguments(name: str, least: int) -> None:
    for wrong, error, text in at_least(name, least):
        with pytest.raises(error) as refused:
            schemes.yarn_logit_scale(**{"factor": 40.0, "mscale_all_dim": 1.0, **wrong})
        assert str(refused.value) == text


@pytest.mark.parametrize("turns", [{"beta_fast": 1.7e308}, {"beta_slow": 5e-324}], ids=str)
@pytest.mark.parametrize("truncate", [True, False])
def test_a_ramp_that_begins_or_ends_at_infinity_stops_at_the_outermost_pairs(turns: Any, truncate: bool) -> None:
    made = schemes.yarn(8, factor=4.0, original_max_position_embeddings=4096, truncate=truncate, **turns).inv_freq
    slowed = schemes.default(8).inv_freq / made
    assert slowed[0] == 1.0
    assert (np.diff(slowed) >= 0.0).all()
    assert 1.0 < slowed[3] <= 4.0


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("turns", [1.7e308, 5e-324])
def test_a_ramp_that_lies_at_infinity_is_refused(turns: float, truncate: bool) -> None:
    ends = {"beta_fast": turns, "beta_slow": turns, "original_max_position_embeddings": 4096}
    with pytest.raises(ValueError, match="expected a length for which the ramp does not run backwards"):
        schemes.yarn(8, factor=4.0, truncate=truncate, **ends)


def test_a_sequence_that_is_no_longer_than_the_ramp_needs_gives_a_steep_ramp() -> None:
    # Both bounds fall on pair 0: that pair is kept, and every other one is divided.
    made = schemes.yarn(8, factor=4.0, original_max_position_embeddings=6).inv_freq
    assert made[0] == 1.0
    np.testing.assert_allclose(made[1:], schemes.default(8).inv_freq[1:] / 4.0, rtol=1e-15)


@pytest.mark.parametrize("name", schemes.REFUSED)
def test_schemes_that_are_not_here_are_refused_by_name_with_the_reason(name: str) -> None:
    for spelled in (name, name.upper(), name.replace("_", "-")):
        with pytest.raises(ValueError, match="expected") as refused:
            schemes.refuse(spelled)
        assert str(refused.value) == (
            f"scheme is '{spelled}', which is not here ({schemes.REFUSED[name]}); expected ready-made frequencies, "
            "rope_numba.Frequencies(inv_freq=...)"
        )


@pytest.mark.parametrize("name", ["linearr", "", None, 7])
def test_unknown_schemes_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        schemes.refuse(name)
    assert str(refused.value) == (
        f"scheme is {name!r}, which is not known; expected ready-made frequencies, rope_numba.Frequencies(inv_freq=...)"
    )


def test_no_scheme_is_both_here_and_refused() -> None:
    # ntk is the one name with two meanings: what vLLM calls so is refused, the static NTK-aware rule is here.
    assert set(schemes.REFUSED) & set(dir(schemes)) == {"ntk"}


@pytest.mark.parametrize(
    "periods",
    [
        [1.0, 10.0, 100.0, 1000.0],
        [4.0, 40.0, 400.0],
        [1.5],
        [2.0, 0.2],
        [0.5, 0.5, 0.6],
        [-1.0, -10.0],
        (1.0 / schemes.yarn(64, **DEEPSEEK).inv_freq).tolist(),
    ],
)
def test_periods_in_place_of_frequencies_are_warned_of(periods: list[float]) -> None:
    with pytest.warns(UserWarning, match=r"inv_freq goes from .* as periods do; expected frequencies") as caught:
        made = schemes.given(periods, attention_factor=1.25)
    assert caught[0].filename == __file__
    assert made == rn.Frequencies(periods, 1.25)


@pytest.mark.parametrize(
    "inv_freq",
    [
        [1.0],
        [1.0, 1.0],
        [0.0, 0.0],
        [-1.0, -0.1],  # turning the other way, as NanoChat does
        [1.0, 0.1, 1.0, 0.1],  # two axes one after the other
        [0.5, 0.1, 0.9],
        schemes.proportional(512, 1e6, partial_rotary_factor=0.25).inv_freq,
        schemes.yarn(64, 150_000.0, **GPT_OSS).inv_freq.astype(np.float32),
    ],
)
def test_frequencies_are_taken_without_a_warning(inv_freq: Any) -> None:
    made = schemes.given(inv_freq, attention_factor=1.25)
    assert (made.inv_freq == np.asarray(inv_freq)).all()
    assert made.attention_factor == 1.25


# --- the documents ---

MODULES = ("plain", "interpolated", "ramped", "listed", "partial", "axes", "refused", "base")


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"rope_numba.frequencies.{module}"))
    assert results.attempted
    assert results.failed == 0


@pytest.mark.parametrize("name", sorted(set(schemes.__all__) - {"REFUSED"}))
def test_every_public_name_of_the_schemes_has_an_example(name: str) -> None:
    text = getattr(schemes, name).__doc__
    assert ">>> " in text
    assert "Raises" in text


def test_llama3_with_equal_bounds_is_a_step() -> None:
    # Llama 4 Scout: pairs that turn more than once within 8192 positions keep their speed, all others are divided.
    scaled = rn.frequencies.llama3(
        128, 500_000.0, factor=16, low_freq_factor=1.0, high_freq_factor=1.0, original_max_position_embeddings=8192
    )
    plain = [500_000.0 ** (-2.0 * pair / 128) for pair in range(64)]
    expected = [speed if 8192 * speed > 2 * math.pi else speed / 16 for speed in plain]
    np.testing.assert_allclose(scaled.inv_freq, expected, rtol=1e-14)
    assert 0 < np.sum(scaled.inv_freq > np.array(plain) / 2) < 64

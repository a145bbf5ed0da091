"""Cosines and sines beside mpmath's: the nearest number of their type, whatever the angle, on any processor."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rope_numba import cosines, exact, extremes
from rope_numba.engine import FLOAT32, FLOAT64

TYPES = {"float32": FLOAT32, "float64": FLOAT64}
MAGNITUDES = (1.0, 1.1902380714238083, 0.3)
Vector = NDArray[np.float64]


def computed(angles: Vector, factor: float, dtype: Any) -> NDArray[Any]:
    out = np.empty((2, angles.size), dtype)
    with np.errstate(all="ignore"):
        cosines.write_cosines_and_sines(angles, factor, out)
    return out


def wrong(angles: Vector, factor: float) -> int:
    """Return how many of the entries are not mpmath's, rounded once; each angle counts as four."""
    exactly = []
    # An angle of 2**653 gives 653 bits to its turns, and may lie within 2**-62 of itself beside a multiple of pi/2.
    with mpmath.workprec(860):
        for angle in angles.tolist():
            exactly.append([factor * part for part in mpmath.cos_sin(mpmath.mpf(angle))])
    different = 0
    for dtype in TYPES.values():
        with mpmath.workprec(np.finfo(dtype).nmant + 1):
            nearest = np.array([[float(+part) for part in both] for both in exactly]).T
        different += int((computed(angles, factor, dtype) != nearest).sum())
    return different


def cosines_near_a_middle(count: int, rng: np.random.Generator, dtype: Any) -> Vector:
    """Return angles whose cosine is as near to the middle between two numbers of a type as an angle allows."""
    # Small angles lie so close together that cos(x) = 1 - x**2 / 2 comes very near to any middle.
    below = (2 * rng.integers(0, 1 << 20, count) + 1) * 2.0 ** -(np.finfo(dtype).nmant + 2)
    with mpmath.workprec(200):
        return np.array([float(mpmath.acos(1 - mpmath.mpf(distance))) for distance in below.tolist()])


def sines_near_a_middle(count: int, rng: np.random.Generator) -> Vector:
    """Return angles x whose x**3 / 6 is an odd number of halves of a float64's last place: sin(x) is x less that."""
    halves = 2 * rng.integers(43, 340, count) + 1  # so that x is in the binade of 2**-22
    return np.cbrt(6.0 * halves * 2.0**-53 * 2.0**-22) * rng.choice([-1.0, 1.0], count)


def near_multiples_of_a_quarter(count: int, rng: np.random.Generator) -> Vector:
    """Return whole numbers p that are within 1 / p of a multiple of pi/2, or some times as far: its best fractions'."""
    numerators: list[int] = []
    with mpmath.workprec(260):
        rest = mpmath.pi / 2
        above, below = int(mpmath.floor(rest)), 1
        while above < 2**54:
            numerators.append(above)
            rest = 1 / (rest - mpmath.floor(rest))
            above, below = int(mpmath.floor(rest)) * above + below, above
    p = rng.choice(np.array(numerators, np.float64), count)
    times = np.rint(2.0 ** rng.uniform(0, 4, count))
    return p * np.where(p * times < 2.0**53, times, 1.0)


def near_far_turns(count: int, rng: np.random.Generator) -> Vector:
    """Return angles of which, when multiples of FAR have lost their full turns, hardly a quarter is left."""
    times = rng.integers(1, 1 << 20, count)
    with mpmath.workprec(260):
        left = [float(mpmath.fmod(n * mpmath.mpf(extremes.FAR), 2 * mpmath.pi)) for n in times.tolist()]
    return times * extremes.FAR - np.array(left) + rng.uniform(-2, 2, count)


def hard_angles(count: int) -> dict[str, Vector]:
    """Return so many angles of each kind that may go wrong."""
    rng = np.random.default_rng(count)
    inv_freq = 500_000.0 ** -(np.arange(64) / 64)
    listed = rng.integers(-402, 403, count) / cosines.STEPS
    return {
        "of positions": (rng.integers(0, 131_072, count) * inv_freq[np.arange(count) % 64]),
        "of positions to 2**53": np.rint(2.0 ** rng.uniform(0, 53, count)) * inv_freq[np.arange(count) % 64],
        "at 2**53": (2.0**53 - np.arange(count)) * rng.choice(inv_freq[:8], count),
        "beside multiples of pi/2": np.rint(2.0 ** rng.uniform(0, 30, count)) * (np.pi / 2),
        "whole, beside multiples of pi/2": near_multiples_of_a_quarter(count, rng),
        "beside listed angles": listed * (1 + rng.integers(-3, 4, count) * 2.0**-52),
        "between listed angles": listed + rng.choice([-1, 1], count) * (0.5 / cosines.STEPS),
        "where the ways of reducing meet": (
            extremes.FAR + rng.uniform(-9, 9, count) * 10.0 ** rng.integers(-6, 9, count)
        ),
        "far, of which little is left": near_far_turns(count, rng),
        "tiny": rng.choice([-1.0, 1.0], count) * 2.0 ** rng.uniform(-70, -5, count),
        "with cosines near a middle": cosines_near_a_middle(count, rng, np.float64),
        "with cosines near a middle of float32": cosines_near_a_middle(count, rng, np.float32),
        "with sines near a middle": sines_near_a_middle(count, rng),
        "of frequencies above 1": rng.integers(0, 1 << 40, count) * rng.uniform(1, 64, count),
        "of frequencies far above 1": rng.integers(1, 1 << 53, count) * 2.0 ** rng.uniform(0, 600, count),
    }


KINDS = tuple(hard_angles(1))


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_the_nearest_numbers(kind: str) -> None:
    for factor in MAGNITUDES:
        assert wrong(hard_angles(210)[kind], factor) == 0


@pytest.mark.process
@pytest.mark.parametrize("kind", KINDS)
def test_a_million_entries_are_the_nearest_numbers(kind: str) -> None:
    assert 4 * 2 * 10_500 * len(KINDS) > 1_000_000
    for factor in MAGNITUDES[:2]:
        assert wrong(hard_angles(10_500)[kind], factor) == 0


def mpmaths(angle: float, factor: float, dtype: Any) -> list[float]:
    """Return factor * cos and factor * sin, rounded once, subnormal numbers and overflows included."""
    limits, expected = np.finfo(dtype), []
    with mpmath.workprec(3400):  # of which an angle of 2**-1074 takes 3222, until its sine differs from it
        for part in mpmath.cos_sin(mpmath.mpf(angle)):
            value = mpmath.mpf(factor) * part
            exponent = mpmath.mag(value) - 1 if value else 0
            unit = max(exponent, int(limits.minexp)) - int(limits.nmant)
            steps = int(mpmath.nint(mpmath.ldexp(value, -unit)))
            size, largest = Fraction(steps) * Fraction(2) ** unit, Fraction(2) ** int(limits.maxexp)
            expected.append(float(size) if abs(size) < largest else math.copysign(math.inf, steps))
    return expected


angles_drawn = st.one_of(
    st.floats(-(2.0**54), 2.0**54),
    st.floats(-10, 10),
    st.floats(-1e-42, 1e-42),
    st.floats(-(2.0**953), 2.0**953),
    st.builds(lambda m, e: m * 2.0**e, st.floats(-2.0, 2.0), st.integers(-1074, 951)),
)
# The inverse of a magnitude is finite.
factors_drawn = st.sampled_from([1.0, 1.1386294361119891, 0.3, 1.5, 1.0 + 2.0**-24, 1e-42, 1e30, 5.6e-309, 1.7e308]) | (
    st.builds(lambda m, e: m * 2.0**e, st.floats(1.0, 2.0), st.integers(-1022, 1022))
)


@settings(max_examples=500)
@given(angle=angles_drawn, factor=factors_drawn, dtype=st.sampled_from(list(TYPES)))
def test_any_angle_and_magnitude_give_the_nearest_numbers(angle: float, factor: float, dtype: str) -> None:
    expected = mpmaths(angle, factor, TYPES[dtype])
    assert computed(np.array([angle]), factor, TYPES[dtype])[:, 0].tolist() == expected
    assert [exact.rounded(name, angle, factor, TYPES[dtype]) for name in ("cos", "sin")] == expected


# Whatever of these meet, whole numbers are asked about a few entries only.
SPEEDS = {
    "usual": 10_000.0 ** -(np.arange(64) / 64),
    "all equal": np.full(64, 0.5),
    "none": np.zeros(64),
    "of a huge base": 1e300 ** -(np.arange(64) / 64),
    "of a tiny base": 1e-250 ** -(np.arange(64) / 64),
    "just above 0": np.full(64, 5e-324),
    "below the normal range": np.linspace(1e-310, 2e-308, 64),
    "small": 2.0 ** -np.linspace(18, 60, 64),
    "smaller": np.linspace(1.0, 2.0, 64) * 1e-15,
    "far above 1": np.linspace(1.0, 2.0, 64) * 1e20,
    "2**900": np.full(64, 2.0**900),
    "equal, where cosines are next to the middle of two float32": np.full(64, 2.0**-12),
    "there, each another": 2.0**-12 * (1 + np.arange(64) * 2.0**-50),
}
FACTORS = (1.0, 1.5, 1.19, 1.0 + 2.0**-24, 1.0 + 3 * 2.0**-25, 1e-30, 1e30, 1e-300, 1e300, 5.6e-309, 1.7e308)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("speeds", SPEEDS)
def test_no_frequency_magnitude_or_position_leaves_much_to_whole_numbers(
    speeds: str, factor: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cosines, "rounded", lambda *given: asked.append(given) or 0.0)
    for first in (0, 131_000, 2**31 - 60, 2**53 - 120):
        asked.clear()
        computed(((first + np.arange(120.0))[:, None] * SPEEDS[speeds]).reshape(-1), factor, TYPES[dtype])
        # Of 15,360. Most where angles and magnitude have few bits, as then x - x**3 / 6 may be a tie, or nearly so.
        assert len(asked) <= 200


@given(st.lists(st.floats(2.0**31, 2.0**953), min_size=1, max_size=20))
def test_far_angles_lose_nothing_but_full_turns(angles: list[float]) -> None:
    parts = extremes.without_turns(np.array(angles))
    with mpmath.workprec(1300):
        for angle, *left in zip(angles, *(part.tolist() for part in parts), strict=True):
            turns = (mpmath.mpf(angle) - sum(map(mpmath.mpf, left))) / (2 * mpmath.pi)
            assert abs(turns - mpmath.nint(turns)) < 2.0**-88
            assert abs(left[0]) < 2.0**30


def test_exact_rounding_breaks_ties_to_even() -> None:
    # cos(0) is 1, so the magnitude itself is rounded: halfway between two float32, both ways.
    assert exact.rounded("cos", 0.0, 1.0 + 2.0**-24, FLOAT32) == 1.0
    assert exact.rounded("cos", 0.0, 1.0 + 3 * 2.0**-24, FLOAT32) == 1.0 + 2.0**-22
    assert exact.rounded("sin", 0.0, 1.5, FLOAT32) == 0.0
    assert exact.rounded("cos", 0.0, 1.0 + 2.0**-24, FLOAT64) == 1.0 + 2.0**-24
    for dtype in TYPES.values():
        assert_same_bits(computed(np.array([0.0]), 1.0 + 2.0**-24, dtype)[0], np.array([1.0 + 2.0**-24]).astype(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_before_they_are_rounded_results_are_half_as_far_off_as_they_may_be(kind: str, dtype: str) -> None:
    formula = cosines._one_float64 if dtype == "float32" else cosines._two_float64
    angles = hard_angles(500)[kind]
    angles = angles[np.abs(angles) >= extremes.SMALL]
    reduced = cosines._reduced(angles, bool(np.abs(angles).max(initial=0.0) >= extremes.FAR))
    parts = np.stack([np.array(np.broadcast_arrays(*result)) for result in formula(*reduced, cosines._listed(0.7))], -1)
    with mpmath.workprec(860):
        for angle, (value, rest, error) in zip(angles.tolist(), parts.transpose(1, 0, 2).tolist(), strict=True):
            for row, exact in enumerate(mpmath.cos_sin(mpmath.mpf(angle))):
                off = abs(mpmath.mpf(value[row]) + rest[row] - 0.7 * exact)
                assert 2 * off <= error[row], f"{angle.hex()}: off by {float(off / exact)} of itself"


def test_few_entries_are_left_to_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def rounded(*given: Any) -> float:
        asked.append(given)
        return 0.0

    monkeypatch.setattr(cosines, "rounded", rounded)
    angles = (np.arange(100_000, 100_500)[:, None] * 10_000.0 ** -(np.arange(64) / 64)).reshape(-1)
    for dtype, most in ((FLOAT64, 8), (FLOAT32, 1)):
        asked.clear()
        computed(angles, 1.0, dtype)
        assert len(asked) <= most  # 64,000 entries of which 1 in 50,000 and 1 in 17 million is undecided


def test_the_sine_of_a_negative_zero_is_one() -> None:
    for dtype in TYPES.values():
        cos, sin = computed(np.array([0.0, -0.0]), 1.5, dtype)
        assert cos.tolist() == [1.5, 1.5]
        assert np.signbit(sin).tolist() == [False, True]

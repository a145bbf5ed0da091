"""inv_freq beside mpmath's powers: the float64 nearest to the exact one, whatever the base, on any processor."""

from __future__ import annotations

import decimal
import hashlib
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import rope_numba as rn
from rope_numba.frequencies import powers

schemes = rn.frequencies

pairs_drawn = st.integers(1, 200) | st.sampled_from([32, 48, 64, 128, 512])
# 2**900 is the largest frequency that is accepted, which bases below 2**-900 pass.
THETAS: dict[str, SearchStrategy[float]] = {
    "as in models": st.sampled_from([1e4, 1.5e5, 160_000.0, 5e5, 1e6, 5e6, 8e6, 1e7, 1e8, 1e9, 11_158_840.0]),
    "of float32": st.floats(1.5, 2.0**127, width=32),
    "usual": st.floats(1.5, 1e12),
    "next to 1": st.integers(-1000, 1000).filter(bool).map(lambda n: 1.0 + n * 2.0**-52),
    "below 1": st.floats(2.0**-900, 1.0, exclude_max=True),
    "huge": st.floats(1e12, sys.float_info.max),
    "powers of 2": st.integers(-900, 1023).filter(bool).map(lambda n: 2.0**n),
}


def nearest(base: Any, exponent: Any) -> float:
    """Return the float64 nearest to base ** exponent."""
    with mpmath.workdps(70):
        _, mantissa, shift, _ = (mpmath.mpf(base) ** exponent)._mpf_
    return float(Fraction(int(mantissa)) * Fraction(2) ** shift)  # float() of an mpf rounds subnormal numbers twice


def exponent(pair: int, pairs: int) -> Any:
    return -mpmath.mpf(pair) / pairs


@pytest.fixture(autouse=True)
def seventy_digits() -> Any:
    with mpmath.workdps(70):
        yield


@pytest.mark.parametrize("kind", THETAS)
def test_each_frequency_is_the_float64_nearest_to_the_exact_power(kind: str) -> None:
    @given(theta=THETAS[kind], pairs=pairs_drawn, data=st.data())
    def check(theta: float, pairs: int, data: st.DataObject) -> None:
        made = schemes.default(2 * pairs, theta).inv_freq
        for pair in {0, pairs - 1, *data.draw(st.lists(st.integers(0, pairs - 1), max_size=9))}:
            assert made[pair] == nearest(theta, exponent(pair, pairs))

    check()


@pytest.mark.parametrize("theta", [1e4, 5e5, 8e6, 12_345.678])
@pytest.mark.parametrize("width", [64, 96, 128, 256])
def test_every_frequency_of_usual_models_is_the_nearest(theta: float, width: int) -> None:
    wanted = [nearest(theta, exponent(pair, width // 2)) for pair in range(width // 2)]
    assert schemes.default(width, theta).inv_freq.tolist() == wanted
    assert rn.Rope(width, theta=theta).frequencies.inv_freq.tolist() == wanted


@given(pairs=st.integers(2, 100), theta=st.floats(1.5, 1e9), alpha=st.floats(1.0, 5000.0))
def test_ntk_is_rounded_once_from_the_power_of_the_exact_base(pairs: int, theta: float, alpha: float) -> None:
    base = mpmath.mpf(theta) * mpmath.mpf(alpha) ** (mpmath.mpf(pairs) / (pairs - 1))
    wanted = [nearest(base, exponent(pair, pairs)) for pair in range(pairs)]
    assert schemes.ntk(2 * pairs, theta, alpha=alpha).inv_freq.tolist() == wanted


@given(
    pairs=st.integers(2, 64),
    theta=st.floats(1.5, 1e9),
    factor=st.floats(1.0, 128.0),
    trained=st.integers(1, 1 << 20),
    length=st.integers(1, 1 << 24),
)
def test_dynamic_is_rounded_once_from_the_power_of_the_exact_base(
    pairs: int, theta: float, factor: float, trained: int, length: int
) -> None:
    grown = mpmath.mpf(factor) * max(length, trained) / trained - (mpmath.mpf(factor) - 1)
    base = mpmath.mpf(theta) * grown ** (mpmath.mpf(pairs) / (pairs - 1))
    made = schemes.dynamic(
        2 * pairs, theta, factor=factor, original_max_position_embeddings=trained, seq_len=length
    ).inv_freq
    assert made.tolist() == [nearest(base, exponent(pair, pairs)) for pair in range(pairs)]


@given(theta=st.floats(1.5, 1e9), factor=st.floats(1.0, 128.0), data=st.data())
def test_schemes_that_divide_round_the_nearest_power_once_more(theta: float, factor: float, data: Any) -> None:
    plain = [nearest(theta, exponent(pair, 16)) for pair in range(16)]
    by = data.draw(st.lists(st.floats(0.5, 80.0), min_size=16, max_size=16))
    divided = [speed / divisor for speed, divisor in zip(plain, by, strict=True)]
    lists = {"short_factor": by, "long_factor": by, "original_max_position_embeddings": 4096, "factor": 2.0}
    assert schemes.linear(32, theta, factor=factor).inv_freq.tolist() == [speed / factor for speed in plain]
    assert schemes.proportional(32, theta, factor=factor).inv_freq.tolist() == [speed / factor for speed in plain]
    assert schemes.divided(32, theta, divisors=by).inv_freq.tolist() == divided
    assert schemes.longrope(32, theta, **lists).inv_freq.tolist() == divided


@given(st.floats(0.0, exclude_min=True, allow_infinity=False) | st.floats(0.9, 1.1))
def test_a_logarithm_is_the_nearest_float64(x: float) -> None:
    assert powers.nearest_log(x) == float(mpmath.log(mpmath.mpf(x)))


@given(factor=st.floats(1.0, 1000.0), weight=st.floats(0.5, 2.0), trained=st.integers(2, 1 << 20))
def test_magnitudes_round_once_for_each_operation(factor: float, weight: float, trained: int) -> None:
    log = float(mpmath.log(mpmath.mpf(factor)))
    made = schemes.yarn(8, factor=factor, original_max_position_embeddings=4096, mscale=weight, mscale_all_dim=1.0)
    expected = (0.1 * weight * log + 1.0) / (0.1 * log + 1.0) if factor > 1.0 else 1.0
    assert made.attention_factor == expected
    assert schemes.yarn_logit_scale(factor, 1.0) == ((0.1 * log + 1.0) ** 2 if factor > 1.0 else 1.0)
    lists = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "original_max_position_embeddings": trained}
    ratio = log / float(mpmath.log(trained))
    made = schemes.longrope(8, **lists, factor=factor)
    assert made.attention_factor == (math.sqrt(1.0 + ratio) if factor > 1.0 else 1.0)


# ---- How it is done -------------------------------------------------------------------------------------------------


def test_the_sum_of_two_float64_is_half_as_far_off_as_it_may_be() -> None:
    rng = np.random.default_rng(1)
    for base in (1.0000001, 10_000.0, 8e6, 2.0**-800, 1e300, *10.0 ** rng.uniform(0, 12, 40)):
        pairs = int(rng.integers(2, 300))
        slower = Fraction(float(rng.uniform(1, 50)))
        value, rest, exponents = powers._two_float64(powers._step(base, pairs, slower), pairs)
        for pair in range(pairs):
            exact = mpmath.mpf(base) ** exponent(pair, pairs)
            exact *= (mpmath.mpf(slower.numerator) / slower.denominator) ** exponent(pair, pairs - 1)
            made = mpmath.ldexp(mpmath.mpf(float(value[pair])) + float(rest[pair]), int(exponents[pair]))
            assert 2 * abs(made - exact) <= exact * powers.ERROR


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of what `decimal` is asked to decide from now on."""
    asked: list[Any] = []
    original = powers._by_decimal

    def counted(base: float, pairs: int, slower: Fraction, undecided: list[int]) -> list[float]:
        asked.extend(undecided)
        return original(base, pairs, slower, undecided)

    monkeypatch.setattr(powers, "_by_decimal", counted)
    powers._kept.cache_clear()
    return asked


def test_few_powers_are_left_to_decimal(decided: list[Any]) -> None:
    for theta in np.random.default_rng(0).uniform(1e4, 1e7, 1000).tolist():
        schemes.default(128, theta)
    assert len(decided) <= 16  # of 64,000, of which 1 in 32,000 is undecided


# Powers of bases next to 1, or to a power of 2 as high as there are pairs, are next to the middle of two float64.
@pytest.mark.parametrize("bits", [46, 47, 48])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1.0, 2.0**64, 2.0**-64])
def test_however_many_powers_are_undecided_one_exponential_is_computed(
    scale: float, sign: int, bits: int, decided: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Any] = []
    original = powers._logarithm
    monkeypatch.setattr(powers, "_logarithm", lambda *given: computed.append(given) or original(*given))
    theta = scale * (1 + sign * 2.0**-bits)
    assert schemes.default(128, theta).inv_freq.tolist() == [nearest(theta, exponent(pair, 64)) for pair in range(64)]
    assert len(computed) <= 2  # one for float64, one for all that it left
    assert bits < 48 or len(decided) >= 16


def test_what_float64_leaves_undecided_decimal_decides(decided: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(powers, "ERROR", 1.0)
    wanted = [nearest(8e6, exponent(pair, 64)) for pair in range(64)]
    assert powers._computed(8e6, 64, powers.ONE).tolist() == wanted
    assert len(decided) == 64


def test_a_frequency_below_float64s_normal_range_is_the_nearest_too() -> None:
    made = schemes.default(8192, sys.float_info.max).inv_freq
    assert made[-1] < sys.float_info.min
    for pair in range(4080, 4096):
        assert made[pair] == nearest(sys.float_info.max, exponent(pair, 4096))


def test_powers_are_kept_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = schemes.default(128, 765_432.1)
    monkeypatch.setattr(powers, "_two_float64", None)  # which nothing may ask again
    assert schemes.default(128, 765_432.1) == first
    assert rn.Rope(128, theta=765_432.1).frequencies == first


def test_kept_powers_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="WRITEABLE"):
        powers.powers(10_000.0, 8, powers.ONE).setflags(write=True)


def test_the_programs_own_rules_of_decimals_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = powers._computed(8e6, 64, powers.ONE).tolist()
    monkeypatch.setattr(powers, "ERROR", 1.0)
    for cached in (powers._log, powers._log_of_two, powers._listed):
        cached.cache_clear()
    with decimal.localcontext() as rules:
        rules.prec, rules.rounding, rules.Emax, rules.Emin = 3, decimal.ROUND_UP, 9, -9
        rules.traps[decimal.Inexact] = True
        assert powers._computed(8e6, 64, powers.ONE).tolist() == expected


# ---- The same bits on every processor -------------------------------------------------------------------------------

EVERY_SCHEME = """
import hashlib, math
import numpy as np
import rope_numba as rn

if {patched}:  # a C library of other last bits
    for name in ("pow", "exp", "log", "log2", "exp2"):
        right = getattr(math, name, None)
        if right is not None:
            setattr(math, name, lambda *given, right=right: math.nextafter(right(*given), math.inf))
    for name in ("power", "exp", "log", "log2", "exp2", "float_power"):
        right = getattr(np, name)
        setattr(np, name, lambda *given, right=right, **more: np.nextafter(right(*given, **more), np.inf))

schemes, trained = rn.frequencies, {{"original_max_position_embeddings": 4096}}
digest = hashlib.sha256()
for theta in (1e4, 5e5, 8e6, 1.2345e7):
    for width in (64, 96, 128):
        lists = {{"short_factor": [1.1] * (width // 2), "long_factor": [7.3] * (width // 2), **trained}}
        for made in (
            schemes.default(width, theta),
            schemes.linear(width, theta, factor=3.0),
            schemes.ntk(width, theta, alpha=7.0),
            schemes.dynamic(width, theta, factor=3.0, **trained, seq_len=9999),
            schemes.yarn(width, theta, factor=32.0, **trained),
            schemes.yarn(width, theta, factor=32.0, **trained, truncate=False, mscale=0.7, mscale_all_dim=0.9),
            schemes.longrope(width, theta, **lists, factor=11.0, seq_len=9999),
            schemes.llama3(width, theta, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **trained),
            schemes.proportional(width, theta, partial_rotary_factor=0.5, factor=8.0),
            schemes.divided(width, theta, divisors=[1.7] * (width // 2)),
        ):
            digest.update(made.inv_freq.tobytes() + np.float64(made.attention_factor).tobytes())
            digest.update(np.stack(rn.Rope(width, frequencies=made).tables(3)).tobytes())
digest.update(np.float64(schemes.yarn_logit_scale(40.0, 0.7)).tobytes())
print(digest.hexdigest())
print(hashlib.sha256(np.array([math.pow(8e6, -i / 500) for i in range(5000)])).hexdigest())
"""


def printed(patched: bool, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERY_SCHEME.format(patched=patched)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(rn.__file__).parent.parent), **environment},
        check=True,
    )
    return done.stdout.split()


def test_no_scheme_asks_the_c_library_for_a_power_or_a_logarithm() -> None:
    (ours, theirs), (ours_patched, theirs_patched) = printed(False), printed(True)
    assert ours == ours_patched
    assert theirs != theirs_patched


def test_schemes_have_the_same_bits_whatever_numpy_and_the_c_library_use() -> None:
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    plain = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable",
    }
    assert printed(False)[0] == printed(False, **plain)[0]


def test_the_bits_are_those_that_every_machine_has() -> None:
    digest = hashlib.sha256()
    for theta in (1e4, 5e5, 1e6, 8e6):
        for width in (64, 80, 96, 128, 256):
            digest.update(schemes.default(width, theta).inv_freq.astype("<f8").tobytes())
    assert digest.hexdigest() == "7ea82e7265d6ae537abd7f9e37c29280ab3763c9361bf4f7646f9a6beb67baf9"

"""The kernel inside users' own jitted code, and called from Python with tables that are not this package's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, needs_jit
from numba import njit, prange
from numba.core.errors import TypingError
from numpy.typing import NDArray
from test_fallback import WITHOUT_NUMBA, run

import rope_numba as rn

Array = NDArray[Any]

# Every function, with each type that it takes.
CASES = [
    ("rotate_interleaved", "float32"),
    ("rotate_interleaved", "float64"),
    ("rotate_half_split", "float32"),
    ("rotate_half_split", "float64"),
    ("rotate_interleaved_f16", "float16"),
    ("rotate_half_split_f16", "float16"),
    ("rotate_interleaved_bf16", "bfloat16"),
    ("rotate_half_split_bf16", "bfloat16"),
]


def numbers(tokens: int, heads: int, head_dim: int, pairs: int, dtype: str) -> tuple[Array, Array, Array]:
    """Return x with numbers of every kind, and rows of a magnitude other than 1."""
    rng = np.random.default_rng(tokens * heads * head_dim)
    x = rng.standard_normal((tokens, heads, head_dim))
    x[rng.random(x.shape) < 0.1] *= 1e-40
    x[rng.random(x.shape) < 0.1] *= 1e4
    special = rng.random(x.shape) < 0.02
    x[special] = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0], int(special.sum()))
    angles = rng.uniform(-4.0, 4.0, (tokens, pairs))
    table = np.float64 if dtype == "float64" else np.float32
    with np.errstate(all="ignore"):
        return x.astype(DTYPES[dtype]), (1.3 * np.cos(angles)).astype(table), (1.3 * np.sin(angles)).astype(table)


def given(x: Array) -> Array:
    """Return what jitted code takes: 16-bit numbers as uint16."""
    return x.view(np.uint16) if x.itemsize == 2 else x


def expected_of(name: str, x: Array, cos: Array, sin: Array) -> Array:
    result = x.copy()
    rn.reference.rotate(result, cos, sin, layout="interleaved" if "interleaved" in name else "half")
    assert not np.array_equal(given(result), given(x))
    return result


SHAPES = [(1, 1, 2, 1), (3, 5, 64, 32), (4, 3, 80, 20), (7, 2, 263, 131), (2, 9, 128, 64)]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_in_jitted_code_and_from_python_it_is_the_reference(name: str, dtype: str) -> None:
    rotate = getattr(rn, name)

    @njit
    def jitted(x: Array, cos: Array, sin: Array) -> None:
        rotate(x, cos, sin)

    for shape in SHAPES:
        x, cos, sin = numbers(*shape, dtype)
        for call in (jitted, rotate):
            rotated = x.copy()
            assert call(given(rotated), cos, sin) is None
            assert_same_bits(rotated, expected_of(name, x, cos, sin))


# Every storage once, and every layout twice: a kernel takes seconds to compile into a parallel function.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("rotate_interleaved", "float32"), ("rotate_half_split_f16", "float16")),
        (("rotate_half_split", "float64"), ("rotate_interleaved_bf16", "bfloat16")),
    ],
)
def test_under_a_users_prange_it_is_the_reference(first: tuple[str, str], second: tuple[str, str]) -> None:
    rotate_first, rotate_second = getattr(rn, first[0]), getattr(rn, second[0])

    @njit(parallel=True)
    def jitted(q: Array, q_cos: Array, q_sin: Array, k: Array, k_cos: Array, k_sin: Array) -> None:
        for t in prange(q.shape[0]):
            rotate_first(q[t : t + 1], q_cos[t : t + 1], q_sin[t : t + 1])
            rotate_second(k[t : t + 1], k_cos[t : t + 1], k_sin[t : t + 1])

    for shape in ((64, 3, 80, 36), (1, 1, 2, 1)):
        q, *q_tables = numbers(*shape, first[1])
        k, *k_tables = numbers(*shape, second[1])
        expected = expected_of(first[0], q, *q_tables), expected_of(second[0], k, *k_tables)
        jitted(given(q), *q_tables, given(k), *k_tables)
        assert_same_bits(q, expected[0])
        assert_same_bits(k, expected[1])


@pytest.mark.parametrize("name", ["rotate_interleaved", "rotate_half_split"])
def test_cosines_rewritten_between_two_calls_are_seen_by_the_second(name: str) -> None:
    rotate = getattr(rn, name)

    @njit
    def jitted(x: Array, y: Array, cos: Array, sin: Array, rows: Array) -> None:
        for row in range(rows.shape[0]):
            rotate(x, cos, sin)
            for pair in range(cos.shape[1]):
                cos[0, pair] = rows[row, 0, pair]
                sin[0, pair] = rows[row, 1, pair]
            rotate(y, cos, sin)

    for pairs in (1, 3, 16, 24, 64):
        x, cos, sin = numbers(1, 3, 2 * pairs + 1, pairs, "float32")
        y, rows = x.copy(), np.random.default_rng(pairs).standard_normal((2, 2, pairs)).astype(np.float32)
        expected_x, expected_y, row_cos, row_sin = x.copy(), y.copy(), cos, sin
        for row in rows:
            expected_x = expected_of(name, expected_x, row_cos, row_sin)
            row_cos, row_sin = row[:1], row[1:]
            expected_y = expected_of(name, expected_y, row_cos, row_sin)
        jitted(x, y, cos.copy(), sin.copy(), rows)
        assert_same_bits(x, expected_x)
        assert_same_bits(y, expected_y)


@njit
def rotate_f32(x: Array, cos: Array, sin: Array) -> None:
    rn.rotate_half_split(x, cos, sin)


BOTH = pytest.mark.parametrize("call", [rotate_f32, rn.rotate_half_split], ids=["jitted", "python"])


@BOTH
@pytest.mark.parametrize(
    "part",
    [
        lambda m: m[2:7, 1:4, 8:72],
        lambda m: m[::-1, ::2, :64],
        lambda m: m.reshape(5, 10, 96).swapaxes(0, 1)[:, :, 32:],
        lambda m: m[:1, :, :64],
    ],
    ids=["slices", "reversed", "swapped", "one token"],
)
def test_tokens_and_heads_may_have_any_strides(part: Callable[[Array], Array], call: Any) -> None:
    memory = numbers(10, 5, 96, 1, "float32")[0]
    untouched = np.ones(memory.shape, bool)
    part(untouched)[...] = False
    x, before = part(memory), memory.copy()
    _, cos, sin = numbers(x.shape[0], 1, 64, 24, "float32")
    expected = expected_of("rotate_half_split", np.ascontiguousarray(x), cos, sin)
    call(x, cos, sin)
    assert_same_bits(np.ascontiguousarray(x), expected)
    assert np.array_equal(memory[untouched].view(np.uint32), before[untouched].view(np.uint32))


@BOTH
def test_rows_may_be_parts_of_the_tables_of_a_rope(call: Any) -> None:
    rope = rn.Rope(64, layout="half")
    cos, sin = rope.tables(50)  # read-only, and rows further apart than they are long
    x, expected = (numbers(5, 3, 64, 1, "float32")[0] for _ in range(2))
    rope(expected, offset=40)
    call(x, cos[40:45], sin[40:45])
    assert_same_bits(x, expected)
    backwards = numbers(5, 3, 64, 1, "float32")[0]
    call(backwards, cos[44:39:-1], sin[44:39:-1])
    expected = numbers(5, 3, 64, 1, "float32")[0]
    rope(expected, positions=[44, 43, 42, 41, 40])
    assert_same_bits(backwards, expected)


@BOTH
@pytest.mark.parametrize("shape", [(0, 3, 8, 4), (3, 0, 8, 4), (3, 2, 8, 0), (3, 2, 0, 0)], ids=str)
def test_without_elements_there_is_nothing_to_do(shape: tuple[int, int, int, int], call: Any) -> None:
    tokens, heads, head_dim, pairs = shape
    x, row = np.ones((tokens, heads, head_dim), np.float32), np.zeros((tokens, pairs), np.float32)
    call(x, row, row)
    assert (x == 1).all()


# ---- Refused --------------------------------------------------------------------------------------------------------


def ones(*shape: int, dtype: Any = np.float32) -> Array:
    return np.ones(shape, dtype)


JITTED_SHAPES = "cos or sin has another shape than (tokens, pairs); expected a row for each token of x"
SHAPES_OF = "x, cos and sin have shapes {}; expected (tokens, heads, head_dim), and (tokens, pairs) for both tables"
STRIDE = "x, cos or sin has a stride on its last axis; expected elements side by side"

# x, cos, sin, and what is said in jitted code and from Python.
UNFIT: dict[str, tuple[tuple[Array, Array, Array], str, str]] = {
    "rows": (
        (ones(3, 2, 8), ones(2, 4), ones(2, 4)),
        JITTED_SHAPES,
        "cos has shape (2, 4); expected 3 rows, one for each token of x, of at most 4 pairs",
    ),
    "one row": (
        (ones(3, 2, 8), ones(1, 4), ones(1, 4)),
        JITTED_SHAPES,
        "cos has shape (1, 4); expected 3 rows, one for each token of x, of at most 4 pairs",
    ),
    "rows of sin": (
        (ones(3, 2, 8), ones(3, 4), ones(2, 4)),
        JITTED_SHAPES,
        SHAPES_OF.format("(3, 2, 8), (3, 4) and (2, 4)"),
    ),
    "pairs of sin": (
        (ones(3, 2, 8), ones(3, 4), ones(3, 3)),
        JITTED_SHAPES,
        SHAPES_OF.format("(3, 2, 8), (3, 4) and (3, 3)"),
    ),
    "pairs": (
        (ones(3, 2, 8), ones(3, 5), ones(3, 5)),
        "cos has more pairs than x has channels for; expected at most head_dim / 2",
        "cos has shape (3, 5); expected 3 rows, one for each token of x, of at most 4 pairs",
    ),
    "stride of x": (
        (ones(3, 2, 16)[..., ::2], ones(3, 4), ones(3, 4)),
        STRIDE,
        "x has stride 8 bytes on its last axis; expected 4",
    ),
}


@needs_jit
@pytest.mark.parametrize("case", UNFIT)
def test_arrays_that_do_not_fit_raise_and_nothing_is_written(case: str) -> None:
    arrays, in_jitted, from_python = UNFIT[case]
    for call, text in ((rotate_f32, in_jitted), (rn.rotate_half_split, from_python)):
        with pytest.raises(ValueError, match="expected") as refused:
            call(*arrays)
        assert str(refused.value) == text
        assert all((x == 1).all() for x in arrays)


@needs_jit
def test_rows_whose_pairs_are_not_side_by_side_are_refused_in_jitted_code_and_taken_from_python() -> None:
    x, cos, sin = numbers(3, 2, 8, 4, "float32")
    apart = np.repeat(cos, 2, axis=1)[:, ::2]
    with pytest.raises(ValueError, match="expected elements side by side"):
        rotate_f32(x.copy(), apart, sin)
    expected = expected_of("rotate_half_split", x, cos, sin)
    rn.rotate_half_split(x, apart, sin)
    assert_same_bits(x, expected)


READ_ONLY = np.broadcast_to(np.float32(1), (3, 2, 8))
X16 = np.ones((3, 2, 8), np.uint16)
ROWS32, ROWS64 = ones(3, 4), ones(3, 4, dtype=np.float64)

# function, arguments, and the line in jitted code and from Python.
MISTYPED: dict[str, tuple[str, tuple[Any, Any, Any], str, str]] = {
    "integers": (
        "rotate_half_split",
        (ones(3, 2, 8, dtype=np.int64), ROWS32, ROWS32),
        "x is array(int64, 3d, C); expected an array of float32 or float64 with the axes (tokens, heads, head_dim)",
        "x.dtype is int64; expected float32 or float64",
    ),
    "uint16 for float32": (
        "rotate_interleaved",
        (X16, ROWS32, ROWS32),
        "x is array(uint16, 3d, C); expected an array of float32 or float64 with the axes (tokens, heads, head_dim)",
        "x.dtype is uint16; expected float32 or float64",
    ),
    "float32 for uint16": (
        "rotate_half_split_bf16",
        (ones(3, 2, 8), ROWS32, ROWS32),
        "x is array(float32, 3d, C); expected an array of uint16 with the axes (tokens, heads, head_dim)",
        "x.dtype is float32; expected uint16",
    ),
    "a number": (
        "rotate_half_split",
        (1.5, ROWS32, ROWS32),
        "x is float64; expected an array of float32 or float64 with the axes (tokens, heads, head_dim)",
        "x is a float; expected a NumPy array",
    ),
    "float64 rows of float32": (
        "rotate_half_split",
        (ones(3, 2, 8), ROWS64, ROWS32),
        "cos is array(float64, 2d, C); expected an array of float32 with the axes (tokens, pairs)",
        "cos.dtype is float64; expected float32",
    ),
    "float32 rows of float64": (
        "rotate_half_split",
        (ones(3, 2, 8, dtype=np.float64), ROWS64, ROWS32),
        "sin is array(float32, 2d, C); expected an array of float64 with the axes (tokens, pairs)",
        "sin.dtype is float32; expected float64",
    ),
    "float64 rows of 16 bits": (
        "rotate_interleaved_f16",
        (X16, ROWS32, ROWS64),
        "sin is array(float64, 2d, C); expected an array of float32 with the axes (tokens, pairs)",
        "sin.dtype is float64; expected float32",
    ),
}


@needs_jit
@pytest.mark.parametrize("case", MISTYPED)
def test_wrong_types_are_named_in_one_line(case: str) -> None:
    name, arguments, in_jitted, from_python = MISTYPED[case]
    rotate = getattr(rn, name)

    @njit
    def jitted(x: Any, cos: Any, sin: Any) -> None:
        rotate(x, cos, sin)

    with pytest.raises(TypingError) as refused:
        jitted(*arguments)
    assert any(line.strip().endswith(in_jitted) for line in str(refused.value).splitlines()), str(refused.value)
    with pytest.raises(TypeError) as refused_here:
        rotate(*arguments)
    assert str(refused_here.value) == from_python


@needs_jit
def test_another_number_of_axes_is_refused_by_its_name() -> None:
    with pytest.raises(
        TypingError, match=r"x is array\(float32, 2d, C\); expected an array of float32 or float64 with"
    ):
        rotate_f32(ones(2, 8), ROWS32, ROWS32)
    with pytest.raises(
        TypingError, match=r"cos is array\(float32, 3d, C\); expected an array of float32 with the axes"
    ):
        rotate_f32(ones(3, 2, 8), ones(1, 3, 4), ROWS32)
    with pytest.raises(
        ValueError, match=r"have shapes \(2, 8\), \(3, 4\) and \(3, 4\); expected \(tokens, heads, head_"
    ):
        rn.rotate_half_split(ones(2, 8), ROWS32, ROWS32)


@needs_jit
def test_a_read_only_x_is_refused() -> None:
    x = ones(3, 2, 8)
    x.flags.writeable = False
    with pytest.raises(TypingError, match="expected an array that can be written to, as it is rotated in place"):
        rotate_f32(x, ROWS32, ROWS32)
    with pytest.raises(ValueError, match="x is read-only or not aligned; expected an array that can be rotated in pla"):
        rn.rotate_half_split(x, ROWS32, ROWS32)
    assert (x == 1).all()


@pytest.mark.parametrize("compiled", [True, False], ids=["by the kernel", "in NumPy"])
def test_elements_that_overlap_are_refused_from_python(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:  # as without Numba, and in a child that cannot compile
        monkeypatch.setattr("rope_numba.integrations.njit.try_load_kernels", lambda: None)
    x = np.lib.stride_tricks.as_strided(ones(40), (3, 2, 8), (32, 16, 4))
    with pytest.raises(
        ValueError, match=r"x has elements that overlap \(strides \(32, 16, 4\)\); expected memory of it"
    ):
        rn.rotate_half_split(x, ROWS32, ROWS32)
    assert (x == 1).all()


# ---- Without JIT, without Numba, and in a second process ------------------------------------------------------------

EVERY_FUNCTION = """
import numpy as np
import rope_numba as rn

def check(wrap):
    rng = np.random.default_rng(0)
    for name in sorted(rn.__all__):
        if not name.startswith("rotate_"):
            continue
        rotate = getattr(rn, name)
        jitted = wrap(rotate)
        for dtype in (np.float32, np.float64) if name[-1] != "6" else (np.float16,):
            x = rng.standard_normal((4, 3, 24)).astype(dtype)
            angles = rng.uniform(-4, 4, (4, 10))
            table = np.float64 if dtype == np.float64 else np.float32
            cos, sin = np.cos(angles).astype(table), np.sin(angles).astype(table)
            if name.endswith("_bf16"):
                x = x.view(np.uint16)
                wide = rn.reference.bfloat16_to_float32(x)
            else:
                wide = x.copy()
            rn.reference.rotate(wide, cos, sin, layout="interleaved" if "interleaved" in name else "half")
            if name.endswith("_bf16"):
                wide = rn.reference.float32_to_bfloat16(wide)
            given = x.view(np.uint16) if x.itemsize == 2 else x
            jitted(given, cos, sin)
            assert np.array_equal(given, wide.view(given.dtype)), (name, dtype)
            print(name)
"""
PRINTED = sorted(name for name, _ in CASES)


def test_with_jit_disabled_users_jitted_code_has_the_same_bits() -> None:
    code = """
from numba import njit, prange
def wrap(rotate):
    @njit(parallel=True)
    def jitted(x, cos, sin):
        for t in prange(x.shape[0]):
            rotate(x[t : t + 1], cos[t : t + 1], sin[t : t + 1])
    return jitted
check(wrap)
"""
    done = run(EVERY_FUNCTION + code, NUMBA_DISABLE_JIT="1")
    assert sorted(done.stdout.split()) == PRINTED, done.stderr


def test_without_numba_the_functions_rotate_from_python() -> None:
    done = run(WITHOUT_NUMBA + EVERY_FUNCTION + "check(lambda rotate: rotate)\nprint('numba' in sys.modules)")
    assert sorted(done.stdout.split()) == ["False", *PRINTED], done.stderr


USERS_MODULE = """
import numpy as np
from numba import njit
import rope_numba as rn

@njit(cache=True)
def decode(x, cos, sin, steps):
    for step in range(steps):
        rn.rotate_half_split(x, cos[step : step + 1], sin[step : step + 1])
    return x.sum()
"""
USE_IT = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import users_module
import rope_numba as rn
x = np.random.default_rng(0).standard_normal((1, 3, 24)).astype(np.float32)
twin = x.copy()
cos, sin = (np.ascontiguousarray(rows) for rows in rn.Rope(24).tables(6))
users_module.decode(x, cos, sin, 6)
for step in range(6):
    rn.reference.rotate(twin, cos[step : step + 1], sin[step : step + 1], layout="half")
stats = users_module.decode.stats
print((x == twin).all(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@needs_jit
def test_a_users_cached_function_is_loaded_by_a_second_process(tmp_path: Path) -> None:
    (tmp_path / "users_module.py").write_text(USERS_MODULE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", USE_IT, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.strip())
    assert printed == ["True 0 1", "True 1 0"]


@needs_jit
def test_options_of_a_users_function_change_no_bits_of_a_rope(tmp_path: Path) -> None:
    # Numba gives callees without an option the caller's: fastmath came into the cache of all processes.
    code = """
import sys
import numpy as np
from numba import njit
import rope_numba as rn
x = np.random.default_rng(0).standard_normal((50, 3, 64)).astype(np.float32)
rope, twin = (rn.Rope(64, layout="half", backend=backend) for backend in ("numba", "numpy"))
expected = twin(x.copy(), offset=0)
for option in sys.argv[1:]:
    @njit(**{option: True})
    def jitted(x, cos, sin):
        rn.rotate_half_split(x, cos, sin)
    rotated = x.copy()
    jitted(rotated, *(np.ascontiguousarray(rows) for rows in rope.tables(50)))
    print((rotated == expected).all())
print((rope(x, offset=0) == expected).all())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for option in ("fastmath", "forceinline"):  # the second process loads what the first has cached
        done = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) == {"True"}

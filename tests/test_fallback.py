"""The NumPy backend, with Numba absent, and what is said where it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits, normal

import rope_numba as rn

WITHOUT_NUMBA = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import rope_numba as rn
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_the_numpy_backend_works_without_numba() -> None:
    done = run(
        WITHOUT_NUMBA
        + """
q, k = np.ones((3, 2, 8), np.float32), np.ones((3, 1, 8), np.float16)
rope = rn.Rope(8, backend="numpy")
step = rope.at(offset=5, tokens=3)
step(q)
rope.inverse(k, positions=[1, 2, 3])
rn.apply_rope(q, q.copy(), offset=0, backend="numpy")
print(rope.tables(2)[0].shape, "numba" in sys.modules)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 4) False"


def test_the_numba_backend_names_the_other_where_numba_is_absent() -> None:
    done = run(
        WITHOUT_NUMBA
        + """
q = np.ones((1, 2, 8), np.float32)
rope = rn.Rope(8)
for _ in range(2):
    try:
        rope(q, offset=1)
    except ImportError as error:
        print(error)
print((q == 1).all())
"""
    )
    assert done.returncode == 0, done.stderr
    line = (
        "backend is 'numba', which cannot be imported (No module named 'numba'); expected it installed, "
        "or backend='numpy'"
    )
    assert done.stdout.splitlines() == [line, line, "True"]


def test_with_jit_disabled_the_rotation_runs_in_numpy() -> None:
    done = run(
        """
import numpy as np, rope_numba as rn
q = np.ones((2, 1, 4), np.float32); twin = q.copy()
rn.Rope(4)(q, offset=3); rn.Rope(4, backend="numpy")(twin, offset=3)
print((q == twin).all(), (q != 1).any())
""",
        NUMBA_DISABLE_JIT="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True True"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_rotate_is_the_rotation(dtype: str, layout: str) -> None:
    q = normal((5, 3, 20), dtype)
    expected = q.copy()
    rope = rn.Rope(20, rotary_dim=12, rotary_offset=4, layout=layout)
    rope(expected, offset=40)
    step = rope.at(offset=40, tokens=5)
    rows = step._rows32 if dtype != "float64" else rope._engines[0].rows((40, 45), np.dtype(np.float64), False)
    rn.reference.rotate(q, rows[0, :, 0], rows[0, :, 1], layout=layout, rotary_offset=4)
    assert_same_bits(q, expected)


def test_bfloat16_conversions_are_ml_dtypes() -> None:
    import ml_dtypes

    every = np.arange(1 << 16, dtype=np.uint16)
    wide = rn.reference.bfloat16_to_float32(every)
    np.testing.assert_array_equal(
        wide.view(np.uint32), every.view(ml_dtypes.bfloat16).astype(np.float32).view(np.uint32)
    )
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 1 << 32, 1_000_000, dtype=np.uint32)
    halfway = (anything & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    values = np.concatenate([anything, halfway, halfway - np.uint32(1), halfway + np.uint32(1)]).view(np.float32)
    rounded = rn.reference.float32_to_bfloat16(values).view(ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        assert_same_bits(rounded, values.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"cos": np.ones((3, 4))}, TypeError, "cos.dtype is float64; expected float32"),
        ({"sin": [[1.0]]}, TypeError, "sin is a list; expected a plain numpy.ndarray of float32"),
        (
            {"sin": np.ones((3, 1), np.float32)},
            ValueError,
            "cos has shape (3, 4) and sin (3, 1); expected (..., tokens, pairs) for both",
        ),
        (
            {"cos": np.ones((2, 4), np.float32), "sin": np.ones((2, 4), np.float32)},
            ValueError,
            "cos has shape (2, 4); expected a row for each of the 3 tokens of x",
        ),
        (
            {"cos": np.ones((1, 4), np.float32), "sin": np.ones((1, 4), np.float32)},
            ValueError,
            "cos has shape (1, 4); expected a row for each of the 3 tokens of x",
        ),
        ({"x": np.ones((3, 8), np.float32)}, ValueError, "x has 2 axes; expected (..., tokens, heads, head_dim)"),
        ({"rotary_offset": 0.0}, TypeError, "rotary_offset is 0.0; expected an int"),
    ],
)
def test_reference_rotate_refuses_what_does_not_agree(
    change: dict[str, object], error: type[Exception], text: str
) -> None:
    x = np.ones((3, 2, 8), np.float32)
    arguments = {"x": x, "cos": np.zeros((3, 4), np.float32), "sin": np.zeros((3, 4), np.float32), **change}
    with pytest.raises(error) as refused:
        rn.reference.rotate(**arguments)  # type: ignore[arg-type]
    assert str(refused.value) == text
    assert (x == 1).all()


def test_reference_rotate_refuses_a_read_only_array() -> None:
    x = np.ones((1, 1, 2), np.float32)
    x.flags.writeable = False
    row = np.zeros((1, 1), np.float32)
    with pytest.raises(ValueError, match="x is read-only; expected a writeable array, as it is rotated in place"):
        rn.reference.rotate(x, row, row)

"""Arrays that reach farther than 32 bits count, in bytes or in elements: files with holes, mapped into memory."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_same_bits
from numpy.typing import NDArray

import rope_numba as rn

Arrays = NDArray[Any]

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
Q_HEADS, K_HEADS, HEAD_DIM = 3, 2, 16
FAR = 2**31 + 4096  # elements from one index of the far axis to the next: more than an int32 counts
PAGE = 4096
CONVERSIONS = [("float32", "float32"), ("float32", "bfloat16"), ("float16", "float32")]
AXES = pytest.mark.parametrize("far", [0, 1, 2], ids=["batch", "tokens", "heads"])
EITHER_WAY = pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])

pytestmark = pytest.mark.skipif(
    sys.maxsize < 2**32 or not hasattr(os, "SEEK_DATA"), reason="long files are not mapped here, or holes not told"
)


class Mapped:
    """A file with holes, and arrays over it."""

    def __init__(self, path: Path) -> None:
        self.path, size = path, 4 * 3 * FAR + (1 << 20)
        with path.open("wb") as file:
            file.truncate(size)
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size)

    def array(self, dtype: str, heads: int, far: int, first: int, *, backwards: bool = False) -> Arrays:
        """Return (batch, tokens, heads, head_dim) of random numbers, one axis of which steps over gigabytes."""
        shape = (2, 2, heads, HEAD_DIM)
        x = np.empty(shape, DTYPES[dtype])
        strides = [FAR * x.itemsize if axis == far else stride for axis, stride in enumerate(x.strides)]
        if backwards:
            first += (shape[far] - 1) * strides[far]
            strides[far] = -strides[far]
        mapped: Arrays = np.ndarray(shape, x.dtype, self.memory, first, tuple(strides))
        mapped[...] = np.random.default_rng(heads).standard_normal(shape).astype(x.dtype)
        return mapped

    def pages(self) -> dict[int, bytes]:
        """Return the pages that hold something, by their places."""
        found, place = {}, 0
        with self.path.open("rb") as file:
            while True:
                try:
                    place = os.lseek(file.fileno(), place, os.SEEK_DATA) // PAGE * PAGE
                except OSError:  # nothing but a hole from here on
                    return found
                page = os.pread(file.fileno(), PAGE, place)
                if page.strip(b"\0"):
                    found[place] = page
                place += PAGE


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[Mapped]:
    made = Mapped(tmp_path / "holes")
    yield made
    made.path.unlink()


def see(mapped: Mapped, arrays: list[Arrays], call: Any, wanted: list[Arrays]) -> None:
    """See that a call makes arrays what they should be, and that nothing else in the file changes."""
    before, originals = mapped.pages(), [x.copy() for x in arrays]
    call()
    for x, right in zip(arrays, wanted, strict=True):
        assert_same_bits(x.copy(), right)
    for x, original in zip(arrays, originals, strict=True):
        x[...] = original
    assert mapped.pages() == before


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@EITHER_WAY
@AXES
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_beyond_32_bits_in_place(mapped: Mapped, dtype: str, far: int, backwards: bool, backend: str) -> None:
    rope = rn.Rope(HEAD_DIM, rotary_dim=12, rotary_offset=2, backend=backend)
    q = mapped.array(dtype, Q_HEADS, far, 64, backwards=backwards)
    k = mapped.array(dtype, K_HEADS, far, 2 * PAGE, backwards=backwards)
    assert abs(q.strides[far]) // q.itemsize > 2**31
    wanted = [x.copy() for x in (q, k)]
    rn.Rope(HEAD_DIM, rotary_dim=12, rotary_offset=2, backend="numpy")(*wanted, positions=[5, 3])
    see(mapped, [q, k], lambda: rope(q, k, positions=[5, 3]), wanted)
    see(mapped, [q, k], lambda: rope.at(positions=[5, 3])(q, k), wanted)


@EITHER_WAY
@AXES
@pytest.mark.parametrize(
    ("source", "target"), [("float32", "float32"), ("float32", "bfloat16"), ("float16", "float32")]
)
def test_strides_beyond_32_bits_from_one_array_into_another(
    mapped: Mapped, source: str, target: str, far: int, backwards: bool
) -> None:
    rope = rn.Rope(HEAD_DIM, rotary_dim=12, layout="half")
    q = mapped.array(source, Q_HEADS, far, 64)
    q_out = mapped.array(target, Q_HEADS, far, 3 * PAGE, backwards=backwards)
    wanted = np.empty_like(q_out.copy())
    rn.Rope(HEAD_DIM, rotary_dim=12, layout="half", backend="numpy")(q.copy(), offset=7, out=wanted)
    see(mapped, [q, q_out], lambda: rope(q, offset=7, out=q_out), [q.copy(), wanted])


@AXES
def test_an_array_whose_far_half_is_the_other_array_is_refused(mapped: Mapped, far: int) -> None:
    q = mapped.array("float32", Q_HEADS, far, 64)
    k = mapped.array("float32", Q_HEADS, far, 64 + q.strides[far])
    before = mapped.pages()
    for _ in ("cold", "warm"):
        with pytest.raises(ValueError, match=r"^k shares memory with q; expected"):
            rn.Rope(HEAD_DIM)(q, k, offset=0)
    assert mapped.pages() == before


def test_the_kernel_itself_with_strides_beyond_32_bits(mapped: Mapped) -> None:
    x = mapped.array("float32", Q_HEADS, 1, 64)[0]
    cos, sin = rn.Rope(HEAD_DIM).tables(2)
    wanted = x.copy()
    rn.reference.rotate(wanted, cos, sin)
    see(mapped, [x], lambda: rn.rotate_interleaved(x, cos, sin), [wanted])


def test_a_memmap_of_more_than_2_to_the_31_elements(tmp_path: Path) -> None:
    tokens = 2**31 // (2 * HEAD_DIM) + 3
    path = tmp_path / "cache"
    cache = np.memmap(path, np.float32, "w+", shape=(tokens, 2, HEAD_DIM))
    assert cache.size > 2**31
    last = cache[-4:]  # across the element 2**31
    last[...] = np.random.default_rng(0).standard_normal(last.shape)
    wanted = np.array(last)
    rn.Rope(HEAD_DIM, backend="numpy")(wanted, offset=7)
    rn.Rope(HEAD_DIM)(last, offset=7)
    assert_same_bits(np.array(last), wanted)
    assert not cache[-20:-4].any()
    path.unlink()

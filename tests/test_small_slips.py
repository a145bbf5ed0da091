"""Slips that a mutation check made in the package and that no other test had seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_same_bits, normal
from numpy.lib.stride_tricks import as_strided

import rope_numba as rn
from rope_numba.kernels import launch

KERNELS = {
    ("bfloat16", "interleaved"): rn.rotate_interleaved_bf16,
    ("bfloat16", "half"): rn.rotate_half_split_bf16,
    ("float16", "interleaved"): rn.rotate_interleaved_f16,
    ("float16", "half"): rn.rotate_half_split_f16,
}


@pytest.mark.parametrize("way", ["in place", "out"])
def test_large_work_is_serial_while_another_thread_launches(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    q = normal((300, 8, 128))
    assert q.size > 2 * launch.ELEMENTS_PER_THREAD
    expected = q.copy()
    rn.Rope(128, backend="numpy")(expected, offset=7)

    def not_now(*_: Any) -> Any:
        raise AssertionError("a second launch")

    monkeypatch.setattr(launch._Kernels, "get_parallel", not_now)
    with launch._launching:
        out = rn.Rope(128)(q, offset=7, out=q.copy() if way == "out" else None)
    assert_same_bits(out, expected)


@pytest.mark.parametrize(("dtype", "layout"), KERNELS)
def test_what_lies_midway_between_two_numbers_of_16_bits_becomes_the_even_one(dtype: str, layout: str) -> None:
    one, unit = (0x3F80, 2.0**-7) if dtype == "bfloat16" else (0x3C00, 2.0**-10)
    halves = np.array([1, 3, 5, 7, 9, 11, 13, 15, 17], np.float32) / 2  # 1 and so many units: each midway
    x = np.full((1, 1, 18), one, np.uint16)
    x[..., slice(1, None, 2) if layout == "interleaved" else slice(9, None)] = 0
    KERNELS[dtype, layout](x, (1 + halves * np.float32(unit))[None], np.zeros((1, 9), np.float32))
    low = x[0, 0, 0::2] if layout == "interleaved" else x[0, 0, :9]
    assert (low - one).tolist() == [0, 2, 2, 4, 4, 6, 6, 8, 8]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pairs", [11, 21, 43, 85, 150])
def test_every_pair_of_a_width_of_many_bits_is_turned_once(pairs: int, layout: str) -> None:
    x = np.zeros((1, 2, 2 * pairs), np.float32)
    low = slice(0, None, 2) if layout == "interleaved" else slice(0, pairs)
    x[..., low] = 1.0
    sin = np.arange(1, pairs + 1, dtype=np.float32)[None]
    kernel = rn.rotate_interleaved if layout == "interleaved" else rn.rotate_half_split
    kernel(x, np.zeros_like(sin), sin)
    high = slice(1, None, 2) if layout == "interleaved" else slice(pairs, None)
    assert (x[..., high] == sin).all()
    assert (x[..., low] == 0).all()


@pytest.mark.parametrize("axis", [0, 1], ids=["tokens", "heads"])
def test_steps_to_odd_addresses_are_refused_where_nothing_overlaps_either(axis: int) -> None:
    memory = np.zeros(4096, np.uint8)
    strides = [256, 64, 4]
    strides[axis] += 1
    first = -memory.ctypes.data % 64
    odd = as_strided(memory[first : first + 4].view(np.float32), (3, 2, 8), strides)
    rope = rn.Rope(8)
    for _ in ("cold", "warm"):
        with pytest.raises(
            ValueError, match=r"^q is not aligned; expected every element at a multiple of its 4 bytes$"
        ):
            rope(odd, offset=5)
        rope(np.ones((3, 2, 8), np.float32), offset=5)
    assert not memory.any()

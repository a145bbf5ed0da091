"""Arrays as compiled entries read them: what is read from NumPy's objects, and what is refused."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, normal
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba.kernels.flags import Status
from rope_numba.kernels.launch import in_place_for

pytestmark = needs_jit


@pytest.fixture(scope="module")
def readers() -> dict[int, Any]:
    """Return, by the least number of axes, a compiled function that tells what it reads of two arrays."""
    from numba import njit

    from rope_numba.kernels.ndarray_abi import NdarrayType, entry_point_of

    def fields(x: Any, y: Any) -> Any:
        return x.ndim, x.address, x.shape, x.strides, y.ndim, y.address, y.shape, y.strides

    kinds = {fewest: (NdarrayType(fewest, writeable=True), NdarrayType(fewest)) for fewest in (2, 3, 4)}
    return {fewest: entry_point_of(njit([kind])(fields)) for fewest, kind in kinds.items()}


@given(st.data())
@pytest.mark.parametrize("fewest", [2, 3, 4])
def test_fields_are_numpys_and_axes_that_are_missing_come_first(
    readers: dict[int, Any], fewest: int, data: st.DataObject
) -> None:
    memory, expected, arrays = np.zeros(1000, data.draw(st.sampled_from(["f2", "f4", "f8"]))), [], []
    for _ in range(2):
        axes = data.draw(st.integers(fewest, 4))
        shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=axes, max_size=axes)))
        steps = data.draw(st.lists(st.integers(-9, 9), min_size=axes, max_size=axes))
        strides = tuple(step * memory.itemsize for step in steps)
        x = as_strided(memory[500:], shape, strides)
        arrays.append(x)
        expected += [axes, x.ctypes.data, (1, 1, *shape)[-4:], (0, 0, *strides)[-4:]]
    arrays[1].flags.writeable = False
    assert list(readers[fewest](*arrays)) == expected


@pytest.mark.parametrize("fewest", [2, 3, 4])
def test_other_numbers_of_axes_are_refused(readers: dict[int, Any], fewest: int) -> None:
    good, memory = np.zeros((1,) * 4), np.zeros(1000)
    for axes in (0, 1, *range(2, fewest), 5, 60):
        wrong = as_strided(memory, (1,) * axes, (8,) * axes)
        text = "not a writeable array of " + ("4 axes" if fewest == 4 else f"{fewest} to 4 axes")
        for given_to in ((wrong, good), (good, wrong)):
            with pytest.raises(TypeError, match=text):
                readers[fewest](*given_to)


def test_reading_an_array_leaves_no_count_of_references_behind(readers: dict[int, Any]) -> None:
    x = np.zeros((3, 5))
    before = sys.getrefcount(x), sys.getrefcount(x[0])
    for _ in range(100):
        readers[2](x, x)
        with pytest.raises(TypeError):
            readers[3](x, x)
    assert (sys.getrefcount(x), sys.getrefcount(x[0])) == before


@pytest.mark.parametrize("storage", ["f32", "f64", "f16", "bf16"])
def test_an_entry_refuses_other_axes_and_memory_that_is_not_writeable_and_writes_nothing(storage: str) -> None:
    dtype = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.uint16}[storage]
    q, k = np.ones((1, 4, 8), dtype), np.ones((1, 2, 8), dtype)
    step = rn.Rope(8, layout="half").at(offset=3, tokens=1)
    rows = step._rows32.astype(np.float64) if storage == "f64" else step._rows32
    entry = in_place_for(storage, "half").get()
    locked = q.copy()
    locked.flags.writeable = False
    for wrong in (locked, q[0, 0], np.ones((1,) * 60, dtype)):
        for arguments in ((wrong, k), (q, wrong)):
            with pytest.raises(TypeError, match="not a writeable array of 2 to 4 axes"):
                entry(*arguments, rows, step._flags)
    for wrong in (q[0], q[None]):
        for arguments in ((wrong, k), (q, wrong)):
            assert entry(*arguments, rows, step._flags) == Status.NEEDS_CHECK
    with pytest.raises(TypeError, match="of 4 axes"):
        entry(q, k, rows[0], step._flags)
    assert (q == 1).all()
    assert (k == 1).all()


def test_compiled_functions_outlive_their_dispatchers() -> None:
    from rope_numba.kernels.in_place import InPlace
    from rope_numba.kernels.panel import HALF
    from rope_numba.kernels.storage import F32

    entry = InPlace(F32, HALF).compile_serial()
    gc.collect()
    q, k = normal((1, 4, 8)), normal((1, 2, 8), seed=1)
    expected = q.copy(), k.copy()
    rope = rn.Rope(8, layout="half", backend="numpy")
    rope(*expected, offset=3)
    step = rope.at(offset=3, tokens=1)
    assert entry(q, k, step._rows32, step._flags) == 0
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


@pytest.mark.parametrize("name", ["ADDRESS", "AXES", "SHAPE", "STRIDES", "FLAGS"])
def test_a_numpy_that_keeps_its_fields_elsewhere_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba.kernels import ndarray_abi

    assert ndarray_abi.layout_matches()
    monkeypatch.setattr(ndarray_abi, name, ndarray_abi.FLAGS if name == "ADDRESS" else ndarray_abi.ADDRESS)
    assert not ndarray_abi.layout_matches()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_read_only_array_is_refused_on_the_second_call_too(dtype: str) -> None:
    rope = rn.Rope(8, layout="half")
    step = rope.at(offset=3, tokens=1)
    q, k = normal((1, 4, 8), dtype), normal((1, 2, 8), dtype, seed=1)
    step(q, k)
    for locked in (q, k):
        before: list[NDArray[Any]] = [q.copy(), k.copy()]
        locked.flags.writeable = False
        for call in (lambda: step(q, k), lambda: rope(q, k, offset=3)):
            with pytest.raises(ValueError, match="is read-only; expected a writeable array"):
                call()
        locked.flags.writeable = True
        assert_same_bits(q, before[0])
        assert_same_bits(k, before[1])

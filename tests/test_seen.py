"""Arrays as compiled entries see them: what is read from NumPy's objects, and what is refused."""

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

pytestmark = needs_jit


EITHER = 34  # three axes or four


@pytest.fixture(scope="module")
def readers() -> dict[int, Any]:
    """Return for 2, 3 and 4 axes a compiled function that tells what it sees of two arrays."""
    from numba import njit

    from rope_numba.kernels.ndarray_abi import NdarrayType, entry_point_of

    def fields(x: Any, y: Any) -> Any:
        return x.address, x.shape, x.strides, y.address, y.shape, y.strides

    kinds = {axes: (NdarrayType(axes, written=True), NdarrayType(axes)) for axes in (2, 3, 4)}
    kinds[EITHER] = NdarrayType(4, fewest=3, written=True), NdarrayType(4, fewest=3)
    return {axes: entry_point_of(njit([kind])(fields)) for axes, kind in kinds.items()}


@given(st.data())
def test_address_shape_and_strides_are_numpys(readers: dict[int, Any], data: st.DataObject) -> None:
    axes = data.draw(st.integers(2, 4))
    numbers = st.lists(st.integers(0, 5), min_size=axes, max_size=axes)
    steps = st.lists(st.integers(-9, 9), min_size=axes, max_size=axes)
    memory, arrays = np.zeros(1000, data.draw(st.sampled_from(["f2", "f4", "f8"]))), []
    for _ in range(2):
        shape, strides = data.draw(numbers), [step * memory.itemsize for step in data.draw(steps)]
        arrays.append(as_strided(memory[500:], shape, strides))
    arrays[1].flags.writeable = False
    expected = [field for x in arrays for field in (x.ctypes.data, x.shape, x.strides)]
    assert list(readers[axes](*arrays)) == expected


@given(st.data())
def test_an_array_of_one_axis_less_has_a_first_one_of_one_element_where_that_is_taken(
    readers: dict[int, Any], data: st.DataObject
) -> None:
    memory, expected, arrays = np.zeros(1000, np.float32), [], []
    for _ in range(2):
        axes = data.draw(st.integers(3, 4))
        shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=axes, max_size=axes)))
        strides = tuple(4 * step for step in data.draw(st.lists(st.integers(-9, 9), min_size=axes, max_size=axes)))
        x = as_strided(memory[500:], shape, strides)
        arrays.append(x)
        expected += [x.ctypes.data, (1, *shape)[-4:], (0, *strides)[-4:]]
    assert list(readers[EITHER](*arrays)) == expected
    for wrong in (as_strided(memory, (1, 1), (4, 4)), as_strided(memory, (1,) * 5, (4,) * 5), memory):
        for given_to in ((wrong, arrays[1]), (arrays[0], wrong)):
            with pytest.raises(TypeError, match="not a writeable array of 3 or 4 axes"):
                readers[EITHER](*given_to)


def test_seeing_an_array_leaves_no_count_of_references_behind(readers: dict[int, Any]) -> None:
    x = np.zeros((3, 5))
    before = sys.getrefcount(x), sys.getrefcount(x[0])
    for _ in range(100):
        readers[2](x, x)
        with pytest.raises(TypeError):
            readers[3](x, x)
    assert (sys.getrefcount(x), sys.getrefcount(x[0])) == before


@pytest.mark.parametrize("storage", ["f32", "f64", "f16", "bf16"])
def test_an_entry_refuses_other_axes_and_memory_that_is_not_writeable_and_writes_nothing(storage: str) -> None:
    from rope_numba.kernels.launch import kernels_for

    dtype = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.uint16}[storage]
    q, k = np.ones((1, 4, 8), dtype), np.ones((1, 2, 8), dtype)
    step = rn.Rope(8, layout="half").at(offset=3, tokens=1)
    rows = step._rows32.astype(np.float64) if storage == "f64" else step._rows32
    entry = kernels_for(storage, "half").compiled(3)
    locked = q.copy()
    locked.flags.writeable = False
    for wrong in (locked, q[0], q[None], q[0, 0], np.ones((1,) * 60, dtype)):
        for arguments in ((wrong, k), (q, wrong)):
            with pytest.raises(TypeError, match="not a writeable array of 3 axes"):
                entry(*arguments, rows, step._flags)
    with pytest.raises(TypeError, match="of 4 axes"):
        entry(q, k, rows[0], step._flags)
    assert (q == 1).all()
    assert (k == 1).all()


def test_compiled_functions_outlive_their_dispatchers() -> None:
    from rope_numba.kernels.entry import make_entry
    from rope_numba.kernels.ndarray_abi import entry_point_of
    from rope_numba.kernels.panel import HALF
    from rope_numba.kernels.storage import F32

    entry = entry_point_of(make_entry(F32, HALF, 3))
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

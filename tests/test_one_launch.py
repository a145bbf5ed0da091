"""A parallel launch is made by one thread at a time; whoever comes meanwhile works alone."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import assert_same_bits, normal

import rope_numba as rn
from rope_numba.kernels import launch


@pytest.mark.parametrize("way", ["in place", "out"])
def test_large_work_is_serial_while_another_thread_launches(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    q = normal((300, 8, 128))
    assert q.size > 2 * launch.ELEMENTS_PER_THREAD
    expected = q.copy()
    rn.Rope(128, backend="numpy")(expected, offset=7)
    compiled = launch.Movers.compiled

    def not_now(*_: Any) -> Any:
        raise AssertionError("a second launch")

    monkeypatch.setattr(launch.Kernels, "parallel", not_now)
    monkeypatch.setattr(launch.Movers, "compiled", lambda self, wide: not_now() if wide else compiled(self, wide))
    with launch._launching:
        out = rn.Rope(128)(q, offset=7, out=q.copy() if way == "out" else None)
    assert_same_bits(out, expected)

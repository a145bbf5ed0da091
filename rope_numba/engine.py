"""What all calls of one `Rope` share: its rows and its kernels, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .frequencies import Frequencies
from .kernels.told import HEAD_MAJOR, tell
from .tables import Rows, Table, table_for

if TYPE_CHECKING:
    from .kernels.launch import Kernels

__all__ = ["FLOAT32", "FLOAT64", "Engine", "Places"]

# Positions: (first, end) where they follow one another, else an array of shape (tokens,) or (batch, tokens).
Places = tuple[int, int] | NDArray[np.int64]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Engine:
    """The rows and kernels of one set of settings."""

    __slots__ = (
        "backend",
        "frequencies",
        "head_dim",
        "kernels",
        "layout",
        "order",
        "rotary_offset",
        "serial16",
        "serial32",
        "tables",
        "told",
        "undoing",
    )

    def __init__(
        self, head_dim: int, rotary_offset: int, layout: str, order: str, frequencies: Frequencies, backend: str
    ) -> None:
        self.head_dim, self.rotary_offset, self.frequencies = head_dim, rotary_offset, frequencies
        self.layout, self.order, self.backend = layout, order, backend
        self.told = tell(HEAD_MAJOR if order == "htd" else 0, head_dim, rotary_offset)
        self.tables: dict[tuple[np.dtype[Any], bool], Table] = {}
        factor = frequencies.attention_factor
        self.undoing = frequencies if factor == 1.0 else Frequencies(frequencies.inv_freq, 1.0 / factor)
        # Kernels that have been used, by the arrays' dtype; their serial entries once more, for one look-up less.
        self.kernels: dict[np.dtype[Any], Kernels] = {}
        self.serial32: Sequence[Any] = ()
        self.serial16: dict[np.dtype[Any], Sequence[Any]] = {}

    def rows(self, places: Places, dtype: np.dtype[Any], inverse: bool) -> Rows:
        """Return the rows of some positions in float32 or float64, or those that undo them."""
        frequencies = self.undoing if inverse else self.frequencies
        held = self.tables.get((dtype, inverse))
        table = self.tables[dtype, inverse] = table_for(frequencies, dtype, held)
        rows = table.span(*places) if type(places) is tuple else table.gather(places)  # type: ignore[arg-type]
        if inverse:
            rows = rows.copy()
            np.negative(rows[:, :, 1], out=rows[:, :, 1])
        return rows

    def kernels_for(self, storage: str) -> Kernels | None:
        """Return the kernels of a storage, or None for the rotation in NumPy. The first call imports Numba."""
        if self.backend == "numpy":
            return None
        try:
            from .kernels import launch
        except ImportError as error:
            text = f"backend is 'numba', which cannot be imported ({error}); expected it installed, or backend='numpy'"
            raise ImportError(text) from None
        return None if launch.JIT_DISABLED else launch.kernels_for(storage, self.layout)

    def remember(self, storage: str, dtype: np.dtype[Any]) -> None:
        """Keep the kernels of a dtype at hand, for calls that come without a look at their arrays."""
        kernels = self.kernels_for(storage)
        if kernels is None:
            return
        self.kernels[dtype] = kernels
        if storage == "f32":
            self.serial32 = kernels.small
        elif storage != "f64":
            self.serial16[dtype] = kernels.small

"""What all calls of one `Rope` share: its rows and its kernels, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .frequencies import Frequencies
from .kernels import load_kernels
from .kernels.flags import HEAD_MAJOR, Status, pack_flags
from .tables import Rows, Table, table_for

if TYPE_CHECKING:
    from .kernels.launch import Entry, InPlaceKernels, OutOfPlaceKernels
    from .kernels.precheck import Precheck

__all__ = ["FLOAT32", "FLOAT64", "FORWARD", "INVERSE", "SHIFT", "Engine", "Places"]

# Positions: (first, end) where they follow one another, else an array of shape (tokens,), (batch, tokens) or
# (streams, batch, tokens).
Places = tuple[int, int] | NDArray[np.int64]

# What rotates q and k: for any work, and for what is probably small.
Entries = tuple["Entry", "Entry"]

GATHERED_AT_ONCE = 1 << 12  # positions of all streams, whose rows are a few MiB

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# What rows are for: to rotate, to undo that, or to move what has been rotated by some positions.
FORWARD, INVERSE, SHIFT = range(3)


class Engine:
    """The rows and kernels of one set of settings."""

    __slots__ = (
        "backend",
        "entries16",
        "entries32",
        "flags",
        "frequencies",
        "head_dim",
        "kernels",
        "layout",
        "layout_out",
        "movers",
        "order",
        "pairs_of_streams",
        "precheck",
        "rotary_offset",
        "streams",
        "tables",
    )

    def __init__(
        self,
        head_dim: int,
        rotary_offset: int,
        layout: str,
        layout_out: str,
        order: str,
        frequencies: Frequencies,
        backend: str,
    ) -> None:
        self.head_dim, self.rotary_offset = head_dim, rotary_offset
        self.layout, self.layout_out, self.order, self.backend = layout, layout_out, order, backend
        self.flags = pack_flags(HEAD_MAJOR if order == "htd" else 0, head_dim, rotary_offset)
        self.tables: dict[tuple[str, int], Table] = {}  # by type and way; hashing a dtype would take 0.2 us
        factor = frequencies.attention_factor
        plain = factor == 1.0
        # By what the rows are for.
        self.frequencies = (
            frequencies,
            frequencies if plain else frequencies.replaced(attention_factor=1.0 / factor),
            frequencies if plain else frequencies.replaced(attention_factor=1.0),
        )
        # Streams that pairs follow, each with a mask of its pairs.
        self.streams, of_pair = frequencies.stream_count, frequencies.streams
        followed = np.unique(of_pair).tolist() if self.streams > 1 else [0]
        self.pairs_of_streams = [(stream, of_pair == stream) for stream in followed]
        # Kernels that have been used, by the arrays' dtype; once more the entries of float32, and of the 16-bit dtype
        # that came last, which a Rotation compares by identity.
        self.kernels: dict[np.dtype[Any], InPlaceKernels] = {}
        self.movers: dict[tuple[Any, Any], OutOfPlaceKernels] = {}  # likewise, by the dtypes of both arrays
        self.precheck: Precheck | None = None  # what checks arrays first; once there are movers
        self.entries32: Entries = (_none_yet, _none_yet)
        self.entries16: tuple[np.dtype[Any] | None, Entries] = (None, (_none_yet, _none_yet))

    def rows(self, places: Places, dtype: np.dtype[Any], way: int) -> Rows:
        """Return the rows of some positions in float32 or float64."""
        which = dtype.char, way
        held = self.tables.get(which)
        table = table_for(self.frequencies[way], dtype, held)
        if table is not held:
            self.tables[which] = table
        if isinstance(places, tuple):
            rows = table.span(*places)
        elif places.ndim < 3:
            rows = table.gather(places)
        else:
            rows = self._rows_of_streams(table, places)
        if way == INVERSE:
            rows = rows.copy()
            np.negative(rows[:, :, 1], out=rows[:, :, 1])
        return rows

    def _rows_of_streams(self, table: Table, places: NDArray[np.int64]) -> Rows:
        """Return rows whose pairs follow the positions of their own streams."""
        streams = [stream for stream, _ in self.pairs_of_streams]
        if places.size <= GATHERED_AT_ONCE:
            gathered = table.gather(places.reshape(-1, places.shape[-1]))
            of_streams: Rows = gathered.reshape(*places.shape, *gathered.shape[2:])
            each: Iterator[Rows] = (of_streams[stream] for stream in streams)
        else:
            each = (table.gather(places[stream]) for stream in streams)
        rows = next(each)
        for (_, pairs), others in zip(self.pairs_of_streams[1:], each, strict=True):
            np.copyto(rows, others, where=pairs)
        return rows

    def kernels_for(self, storage: str) -> InPlaceKernels | None:
        """Return the kernels of a storage, in place, or None for the rotation in NumPy."""
        launch = self._launch()
        return None if launch is None else launch.in_place_for(storage, self.layout)

    def movers_for(self, source: str, target: str) -> OutOfPlaceKernels | None:
        """Return the kernels from one storage into another, or None for the rotation in NumPy."""
        launch = self._launch()
        return None if launch is None else launch.out_of_place_for(source, target, self.layout, self.layout_out)

    def _launch(self) -> ModuleType | None:
        """Return the module of the kernels, or None where they do not run. The first call imports Numba."""
        if self.backend == "numpy":
            return None
        try:
            return load_kernels()
        except ImportError as error:
            text = f"backend is 'numba', which cannot be imported ({error}); expected it installed, or backend='numpy'"
            raise ImportError(text) from None

    def prepare(self, source: str, target: str, *, in_place: bool) -> None:
        """Compile what rotates arrays in place, or from one storage into another, if it can be."""
        launch, kernels, movers = self._launch(), self.kernels_for(source), self.movers_for(source, target)
        if launch is None or kernels is None or movers is None:
            return
        if in_place and self.layout == self.layout_out:
            if kernels.available():
                kernels.get()
        else:
            self.precheck = launch.get_precheck()
            if movers.available():
                movers.get()

    def remember(self, storage: str, dtype: np.dtype[Any]) -> None:
        """Cache the kernels of a dtype for the fast path, which skips validation."""
        if self.layout != self.layout_out:  # a rotation in place is a move of an array onto itself
            self.prepare(storage, storage, in_place=True)
            self.remember_move(storage, dtype, storage, dtype)
            return
        kernels = self.kernels_for(storage)
        if kernels is None or not kernels.available():
            return
        self.kernels[dtype] = kernels
        entries = kernels.run, kernels.get()
        if storage == "f32":
            self.entries32 = entries
        elif storage != "f64":
            self.entries16 = np.dtype(dtype.type), entries  # not that of an array that was unpickled

    def remember_move(self, source: str, dtype: np.dtype[Any], target: str, dtype_out: np.dtype[Any]) -> None:
        """Cache the kernels from one dtype into another likewise; they have been used."""
        movers = self.movers_for(source, target)
        # Of two dtypes of one storage, as bfloat16 has, arrays.py decides whether one place may have both.
        if movers is not None and (dtype == dtype_out or source != target):
            self.movers[dtype, dtype_out] = movers


def _none_yet(q: NDArray[Any], k: NDArray[Any], rows: Rows, flags: int) -> int:
    """Stand for an entry before there is one."""
    return Status.NEEDS_CHECK

"""`Rotation`: a `Rope` at given positions, the object that every layer of a forward pass calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from . import arrays, reference
from .engine import FLOAT32, FLOAT64, Engine, Places
from .kernels.told import ALONE, PER_ROW, TRUSTED
from .tables import Rows

__all__ = ["Array", "KeyArray", "Rotation"]

Array = TypeVar("Array", bound=NDArray[Any])
KeyArray = TypeVar("KeyArray", bound=NDArray[Any])

_ndarray, _uint16 = np.ndarray, np.dtype(np.uint16)


class Rotation:
    """A `Rope` at given positions, made by `Rope.at` and shared by all layers.

    Calling it rotates arrays in place, without another look at positions or tables.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> step = rn.Rope(head_dim=64).at(positions=[3, 17, 5])
    >>> q = np.ones((3, 9, 64), np.float32)
    >>> step(q) is q
    True
    """

    __slots__ = (
        "_engine",
        "_inverse",
        "_places",
        "_rows32",
        "_rows64",
        "_serial16",
        "_serial32",
        "_told",
        "batch",
        "rope",
        "tokens",
    )

    def __init__(self, rope: Any, engine: Engine, places: Places, inverse: bool) -> None:
        self.rope, self._engine, self._places, self._inverse = rope, engine, places, inverse
        self._told = engine.told
        self.batch: int | None = None  # rows of a batch that positions were given for
        if type(places) is tuple:
            self.tokens = places[1] - places[0]
        else:
            self.tokens = places.shape[-1]  # type: ignore[union-attr]
            if places.ndim == 2:  # type: ignore[union-attr]
                self.batch = places.shape[0]  # type: ignore[union-attr]
                self._told |= PER_ROW
        self._rows32: Rows = engine.rows(places, FLOAT32, inverse)
        self._rows64: Rows | None = None  # made when the first float64 array comes
        self._use_entries()

    @overload
    def __call__(self, q: Array, k: None = None) -> Array: ...

    @overload
    def __call__(self, q: Array, k: KeyArray) -> tuple[Array, KeyArray]: ...

    def __call__(self, q: Any, k: Any = None) -> Any:
        """Rotate q, and k if given, in place.

        Parameters
        ----------
        q, k : array
            As for calling the `Rope`, with as many tokens (and rows of a batch) as the positions have.

        Returns
        -------
        q, or (q, k)
            The same arrays.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be taken; nothing has been written then.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> step = rn.Rope(2).at(offset=1, tokens=1)
        >>> step(np.array([[1.0, 0.0]])).round(4)
        array([[0.5403, 0.8415]])
        """
        # A decode step comes first: each of these lines costs it some 30 ns. The compiled entry answers 0 if it has
        # rotated. In every other case nothing has been written yet, and the next way is tried.
        try:
            if type(q) is _ndarray and type(k) is _ndarray:
                if q.dtype is FLOAT32 and k.dtype is FLOAT32:
                    if not self._serial32[q.ndim](q, k, self._rows32, self._told):
                        return q, k
                elif q.dtype is k.dtype and q.itemsize == 2:
                    serial = self._serial16[q.dtype][q.ndim]
                    # getfield: a view of the same memory, 80 ns sooner than view().
                    if not serial(q.getfield(_uint16), k.getfield(_uint16), self._rows32, self._told):
                        return q, k
        except (TypeError, LookupError):
            pass  # a read-only array, another number of axes, more than one token, a dtype not met before
        if self._quickly(q, k):
            self._carefully(q, k)
        return q if k is None else (q, k)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.rope, self._places, self._inverse)

    def __repr__(self) -> str:
        if isinstance(self._places, tuple):
            where = f"offset={self._places[0]}, tokens={self.tokens}"
        else:
            where = f"positions=<{' x '.join(map(str, self._places.shape))}>"
        return f"{self.rope!r}.at({where})"

    def _use_entries(self) -> None:
        """Set the serial entries that a call may take without asking how large it is: one token, and no batch."""
        self._serial32: Sequence[Any] = ()
        self._serial16: Mapping[np.dtype[Any], Sequence[Any]] = {}
        if self.tokens == 1 and self.batch is None:
            self._serial32, self._serial16 = self._engine.serial32, self._engine.serial16

    def _quickly(self, q: Any, k: Any) -> bool:
        """Let the compiled entry look at plain arrays; false if it has rotated them."""
        if type(q) is not _ndarray or not (k is None or (type(k) is _ndarray and k.dtype is q.dtype)):
            return True
        kernels = self._engine.kernels.get(q.dtype)
        rows = self._rows64 if q.itemsize == 8 else self._rows32
        if kernels is None or rows is None or not 2 <= q.ndim <= 4:
            return True
        told = self._told
        if q.itemsize == 2:
            q, k = q.view(_uint16), None if k is None else k.view(_uint16)
        if k is None:
            k, told = q[..., :0], told | ALONE
        try:
            return bool(kernels.run(q, k, rows, told))
        except TypeError:  # a read-only array, or k of another number of axes: no such kernel
            return True

    def _carefully(self, q: Any, k: Any) -> None:
        """Check everything, say what is wrong, or rotate."""
        engine = self._engine
        storage, plain_q, plain_k = arrays.accept(
            q, k, head_dim=engine.head_dim, order=engine.order, tokens=self.tokens, batch=self.batch
        )
        engine.remember(storage, q.dtype)
        self._use_entries()
        self._rotate_checked(storage, plain_q, plain_k)

    def _rotate_checked(self, storage: str, q: NDArray[Any], k: NDArray[Any] | None) -> None:
        """Rotate arrays that can be taken; those of 16 bits may come as uint16."""
        engine = self._engine
        rows = self._rows32
        if storage == "f64":
            if self._rows64 is None:
                self._rows64 = engine.rows(self._places, FLOAT64, self._inverse)
            rows = self._rows64
        kernels = engine.kernels_for(storage)
        if storage in ("f16", "bf16"):
            q, k = q.view(_uint16), None if k is None else k.view(_uint16)
        if kernels is None or not kernels.ready(q.ndim):
            cos, sin = rows[:, :, 0], rows[:, :, 1]
            for x in (q, k):
                if x is not None and x.size:
                    reference.rotate_stored(
                        storage, arrays.four_axes(x, engine.order), cos, sin, engine.layout, engine.rotary_offset
                    )
            return
        told = self._told | TRUSTED
        if k is None:
            k, told = q[..., :0], told | ALONE
        if kernels.run(q, k, rows, told):
            raise RuntimeError("the compiled kernel refused arrays that had been checked; please report this")


def _unpickled(rope: Any, places: Places, inverse: bool) -> Rotation:
    return Rotation(rope, rope._engine, places, inverse)

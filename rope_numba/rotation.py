"""`Rotation`: a `Rope` at given positions, the object that every layer of a forward pass calls."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from . import arrays, reference
from .engine import FLOAT32, FLOAT64, Engine, Places
from .hints import called_as, public_names
from .integrations.dynamo import untraced
from .integrations.torch import as_array, note_written
from .kernels.flags import HEAD_MAJOR, NO_KEY, PER_BATCH, SERIAL_ONLY, SINGLE_POSITION, SKIP_CHECKS
from .numbers import shown
from .tables import Rows

__all__ = ["Array", "KeyArray", "Rotation"]

Array = TypeVar("Array", bound=NDArray[Any])
KeyArray = TypeVar("KeyArray", bound=NDArray[Any])

REFUSED = "the compiled kernel refused arrays that had been checked; please report this"

# With fewer channels in one head of all tokens, a call is first taken for work of one thread, which it is for up to 32
# heads at least. That saves a batch of 8 tokens 0.4 us; where it was wrong, as much is lost.
FEW = 1 << 13

_ndarray, _uint16 = np.ndarray, np.dtype(np.uint16)


class Rotation:
    """A `Rope` at given positions, made by `Rope.at` and shared by all layers.

    Calling it rotates arrays in place, without another look at positions or tables. Of an indexed copy, such as
    q[mask], q stays as it was: see the Notes of `Rope`.

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
        "_batch",
        "_engine",
        "_entry16",
        "_entry32",
        "_flags",
        "_places",
        "_rope",
        "_rows32",
        "_rows64",
        "_tokens",
        "_way",
    )

    def __init__(self, rope: Any, engine: Engine, places: Places, way: int, tokens: int | None = None) -> None:
        self._rope, self._engine, self._places, self._way = rope, engine, places, way
        self._flags = engine.flags
        self._batch: int | None = None
        if type(places) is tuple:
            self._tokens = places[1] - places[0]
        else:
            self._tokens = places.shape[-1]  # type: ignore[union-attr]
            # (streams, 1, tokens) serves every row of a batch.
            if places.ndim > 1 and (places.ndim, places.shape[-2]) != (3, 1):  # type: ignore[union-attr]
                self._batch = places.shape[-2]  # type: ignore[union-attr]
                self._flags |= PER_BATCH
        if tokens is not None:  # one position, for so many tokens
            self._tokens, self._flags = tokens, self._flags | SINGLE_POSITION
        if self._tokens * (self._batch or 1) * engine.head_dim < FEW:
            self._flags |= SERIAL_ONLY
        self._rows32: Rows = engine.rows(places, FLOAT32, way)
        self._rows64: Rows | None = None  # made when the first float64 array comes
        self._use_entries()

    @overload
    def __call__(self, q: Array, k: None = None, *, out: None = None) -> Array: ...

    @overload
    def __call__(self, q: Array, k: KeyArray, *, out: None = None) -> tuple[Array, KeyArray]: ...

    @overload
    def __call__(self, q: NDArray[Any], k: NDArray[Any] | None = None, *, out: Any) -> Any: ...

    @untraced
    @called_as("a Rotation, whose positions Rope.at was given, is called as step(q, k), with out=... if need be")
    def __call__(self, q: Any, k: Any = None, *, out: Any = None) -> Any:
        """Rotate q, and k if given, in place or into other arrays.

        Parameters
        ----------
        q, k : array
            As for calling the `Rope`, with as many tokens (and rows of a batch) as the positions have.
        out : array, or (array or None, array or None)
            As for calling the `Rope`; not an indexed copy such as cache[slots].

        Returns
        -------
        q, or (q, k)
            The same arrays, or those of `out`.

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
        if out is not None:
            return self._both(q, k, out)
        # A decode step comes first: each of these lines costs it some 30 ns. The compiled entry answers 0 if it has
        # rotated. In every other case nothing has been written yet, and the next way is tried.
        try:
            if type(q) is _ndarray and type(k) is _ndarray:
                dtype = q.dtype
                if dtype is k.dtype:
                    if dtype is FLOAT32:
                        if not self._entry32(q, k, self._rows32, self._flags):
                            return q, k
                    else:
                        known, entry = self._entry16
                        if dtype is known and not entry(q, k, self._rows32, self._flags):
                            return q, k
        except TypeError:
            pass  # a read-only array, or another number of axes
        if self._quickly(q, k):
            self._carefully(q, k)
        elif k is not None and q.itemsize < 8:  # another Rotation may have compiled the entries since this was made
            self._use_entries()
        return q if k is None else (q, k)

    @property
    def rope(self) -> Any:
        """The `Rope` whose rotation this is."""
        return self._rope

    @property
    def tokens(self) -> int:
        """The number of tokens that positions were given for."""
        return self._tokens

    @property
    def batch(self) -> int | None:
        """The number of rows of a batch that positions were given for, or None where they serve every row."""
        return self._batch

    def __dir__(self) -> list[str]:
        return public_names(self, but=("alone", "let_go"))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (
            self._rope,
            self._places,
            self._way,
            self._tokens if self._flags & SINGLE_POSITION else None,
        )

    def __repr__(self) -> str:
        if isinstance(self._places, tuple):
            where = f"offset={self._places[0]}, tokens={self._tokens}"
        else:
            where = f"positions=<{' x '.join(map(str, self._places.shape))}>"
        return f"{self._rope!r}.at({where})"

    def _use_entries(self) -> None:
        """Take the entries for 32 and 16 bits that the engine knows by now."""
        few = bool(self._flags & SERIAL_ONLY)
        self._entry32 = self._engine.entries32[few]
        # In one piece, as other threads may be calling: the dtype, and what it is for.
        dtype, entries = self._engine.entries16
        self._entry16 = dtype, entries[few]

    def _quickly(self, q: Any, k: Any) -> bool:
        """Let the compiled entry look at plain arrays; false if it has rotated them."""
        if type(q) is not _ndarray or not (k is None or (type(k) is _ndarray and k.dtype is q.dtype)):
            return True
        kernels = self._engine.kernels.get(q.dtype)
        rows = self._rows64 if q.itemsize == 8 else self._rows32
        if kernels is None:  # where layouts change, a rotation in place is a move of an array onto itself
            return self._engine.layout == self._engine.layout_out or self._quickly_into(q, None, k, None)
        if rows is None or not 2 <= q.ndim <= 4:
            return True
        flags = self._flags
        if k is None:
            k, flags = q, flags | NO_KEY
        try:
            return bool(kernels.run(q, k, rows, flags))
        except TypeError:  # a read-only array, or k of another number of axes: no such kernel
            return True

    def _carefully(self, q: Any, k: Any) -> None:
        """Check everything, say what is wrong, or rotate."""
        as_given, q, k = (q, k), as_array("q", q), as_array("k", k)
        if q is not as_given[0] or k is not as_given[1]:  # tensors or memmaps: the same call with plain arrays
            self(q, k)
            note_written(*as_given)
            return
        engine = self._engine
        storage, plain_q, plain_k = arrays.accept(
            q,
            k,
            head_dim=engine.head_dim,
            order=engine.order,
            tokens=self._tokens,
            batch=self._batch,
            streams=engine.streams,
        )
        engine.remember(storage, q.dtype)
        self._use_entries()
        self._rotate_checked(storage, plain_q, plain_k)

    def let_go(self) -> None:
        """Hold rows of its own, so that the table can be dropped, and no `Rope`, which holds this."""
        if type(self._places) is tuple:  # else they have been gathered
            self._rows32 = self._rows32.copy()
        self._rope = None

    def alone(self, name: str, x: Any, out: Any) -> Any:
        """Rotate one array, in place or into another; errors call it by the name given."""
        if out is None and not self._quickly(x, None):
            return x
        if out is None or self._quickly_into(x, out, None, None):
            self._into({name: x}, (out,))
        return x if out is None else out

    def _both(self, q: Any, k: Any, out: Any) -> Any:
        """Rotate q, and k if given, into other arrays, or in place where there is none."""
        if k is None:
            return self.alone("q", q, out)
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            raise TypeError(f"out is {shown(out)}; expected (q_out, k_out), None meaning in place")
        q_out, k_out = out
        if self._quickly_into(q, q_out, k, k_out):
            self._into({"q": q, "k": k}, (q_out, k_out))
        return q if q_out is None else q_out, k if k_out is None else k_out

    def _quickly_into(self, q: Any, q_out: Any, k: Any, k_out: Any) -> bool:
        """Rotate plain arrays, of dtypes that came before, to where they go; false if that was done."""
        engine, flags, alone = self._engine, self._flags & ~SERIAL_ONLY, k is None
        if alone:
            k, k_out, flags = q, q_out, flags | NO_KEY
        q_target, k_target = q if q_out is None else q_out, k if k_out is None else k_out
        if not type(q) is type(q_target) is type(k) is type(k_target) is _ndarray or q.dtype is not k.dtype:
            return True
        q_way, k_way = self._way_into(q, q_out), self._way_into(k, k_out)
        rows = self._rows64 if q.itemsize == 8 else self._rows32
        if engine.precheck is None or q_way is None or k_way is None or rows is None:
            return True
        sizes = q.itemsize | q_target.itemsize << 8 | k_target.itemsize << 16
        try:
            if engine.precheck(q, q_target, k, k_target, rows, flags, sizes):
                return True
        except TypeError:  # a read-only array, or one of another number of axes
            return True
        moves = [(q, q_target, q_way)] if alone else [(q, q_target, q_way), (k, k_target, k_way)]
        for x, target, way in moves:
            if way(x, target, rows, flags | SKIP_CHECKS | NO_KEY):
                raise RuntimeError(REFUSED)
        return False

    def _way_into(self, x: NDArray[Any], out: NDArray[Any] | None) -> Callable[..., Any] | None:
        """Return what rotates an array in place or into another, if that was used before and can be now."""
        engine = self._engine
        if out is None and engine.layout == engine.layout_out:
            kernels = engine.kernels.get(x.dtype)
            return kernels.run if kernels is not None and kernels.available() else None
        movers = engine.movers.get((x.dtype, x.dtype if out is None else out.dtype))
        return movers.run if movers is not None and movers.available() else None

    def _into(self, inputs: dict[str, Any], outs: tuple[Any, ...]) -> None:
        """Check everything, and rotate each array to where it goes."""
        engine = self._engine
        plain = {name: as_array(name, x) for name, x in inputs.items()}
        plain_outs = tuple(as_array("out" if len(outs) == 1 else f"out[{i}]", out) for i, out in enumerate(outs))
        if any(map(operator.is_not, (*plain.values(), *plain_outs), (*inputs.values(), *outs))):
            # Tensors or memmaps: the same call with plain arrays.
            if len(outs) == 1:
                ((name, x),) = plain.items()
                self.alone(name, x, plain_outs[0])
            else:
                self._both(plain["q"], plain["k"], plain_outs)
            note_written(*(x if out is None else out for x, out in zip(inputs.values(), outs, strict=True)))
            return
        moves = arrays.accept_into(
            inputs,
            outs,
            head_dim=engine.head_dim,
            order=engine.order,
            tokens=self._tokens,
            batch=self._batch,
            streams=engine.streams,
        )
        kinds = [(arrays.storage_of("q", x), arrays.storage_of("out", target)) for x, target in moves]
        for (x, target), (source, storage) in zip(moves, kinds, strict=True):
            if x.size:
                engine.prepare(source, storage, in_place=x is target)  # an interrupt now spoils nothing
        for (x, target), (source, storage) in zip(moves, kinds, strict=True):
            self._move(source, x, storage, target)
            if x.size == 0:
                continue
            if x is target:
                engine.remember(source, x.dtype)
            else:
                engine.remember_move(source, x.dtype, storage, target.dtype)

    def _rows_for(self, storage: str) -> Rows:
        if storage != "f64":
            return self._rows32
        if self._rows64 is None:
            rows = self._engine.rows(self._places, FLOAT64, self._way)
            self._rows64 = rows.copy() if self._rope is None and type(self._places) is tuple else rows
        return self._rows64

    def _move(self, source: str, x: NDArray[Any], target: str, out: NDArray[Any]) -> None:
        """Rotate x into out, which may be x; both can be taken, and those of 16 bits may be uint16."""
        engine, rows = self._engine, self._rows_for(source)
        if x.size == 0:
            return
        if x is out and engine.layout == engine.layout_out:
            self._rotate_checked(source, x, None)
            return
        x, out = (
            arrays.four_axes(a.view(_uint16) if a.itemsize == 2 else a.view(_ndarray), engine.order) for a in (x, out)
        )
        movers = engine.movers_for(source, target)
        if movers is not None and movers.available():
            movers.run(x, out, rows, self._flags & ~HEAD_MAJOR)
            return
        cos, sin = rows[:, :, 0], rows[:, :, 1]
        layouts = engine.layout, engine.layout_out
        reference.move_stored(source, x, target, out, cos, sin, *layouts, engine.rotary_offset)

    def _rotate_checked(self, storage: str, q: NDArray[Any], k: NDArray[Any] | None) -> None:
        """Rotate arrays that can be taken; those of 16 bits may come as uint16."""
        engine, rows = self._engine, self._rows_for(storage)
        if engine.layout != engine.layout_out:
            for x in (q, k):
                if x is not None:
                    self._move(storage, x, storage, x)
            return
        kernels = engine.kernels_for(storage)
        if kernels is None or not kernels.available():
            cos, sin = rows[:, :, 0], rows[:, :, 1]
            for x in (q, k):
                if x is not None and x.size:
                    x = x.view(_uint16) if x.itemsize == 2 else x
                    reference.rotate_stored(
                        storage, arrays.four_axes(x, engine.order), cos, sin, engine.layout, engine.rotary_offset
                    )
            return
        flags = self._flags | SKIP_CHECKS
        if k is None:
            k, flags = q, flags | NO_KEY
        if kernels.run(q, k, rows, flags):
            raise RuntimeError(REFUSED)


def _unpickled(rope: Any, places: Places, way: int, tokens: int | None) -> Rotation:
    return Rotation(rope, rope._engines[way], places, way, tokens)

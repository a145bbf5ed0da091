"""`Rope`: how one model rotates, and the calls that use it."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arrays
from .engine import FLOAT32, Engine, Places
from .frequencies import Frequencies
from .rotation import Array, KeyArray, Rotation
from .settings import checked

__all__ = ["Rope", "Rotation"]


class Rope:
    """How one model rotates its queries and keys: frequencies, widths, layout and order of axes.

    Immutable, hashable, equal by value, small to pickle, safe to share between layers and threads. Calling it rotates
    arrays in place.

    Parameters
    ----------
    head_dim : int
        Channels of one head.
    theta : float
        The base, from the model's header.
    rotary_dim : int, optional
        Channels that are rotated, an even number; all of them by default.
    rotary_offset : int
        First rotated channel.
    layout : "interleaved" or "half"
        Which channels make a pair: (2i, 2i + 1), or (i, i + rotary_dim / 2).
    order : "thd" or "htd"
        The axes before head_dim: (tokens, heads) or (heads, tokens). A leading batch axis may come before them.
    frequencies : Frequencies, optional
        Ready-made frequencies, instead of theta; they set rotary_dim.
    max_position : int, optional
        The first position that is refused; none is by default.
    backend : "numba" or "numpy"
        The compiled kernels, or the same calls and bits in NumPy, without Numba.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Su et al., RoFormer, https://arxiv.org/abs/2104.09864.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> rope = rn.Rope(head_dim=64, theta=10_000.0, layout="half")
    >>> q, k = np.ones((5, 9, 64), np.float32), np.ones((5, 3, 64), np.float32)
    >>> q, k = rope(q, k, offset=0)
    """

    __slots__ = (
        "_base",
        "_end",
        "_engine",
        "_token_axis",
        "backend",
        "frequencies",
        "head_dim",
        "layout",
        "max_position",
        "order",
        "rotary_dim",
        "rotary_offset",
    )

    head_dim: int
    rotary_dim: int
    rotary_offset: int
    layout: str
    order: str
    frequencies: Frequencies
    max_position: int | None
    backend: str
    _base: float | None  # theta, if the frequencies were made from it: for the repr only
    _engine: Engine
    _token_axis: int
    _end: int  # positions below it need no second look

    def __init__(
        self,
        head_dim: int,
        *,
        theta: float = 10_000.0,
        rotary_dim: int | None = None,
        rotary_offset: int = 0,
        layout: str = "interleaved",
        order: str = "thd",
        frequencies: Frequencies | None = None,
        max_position: int | None = None,
        backend: str = "numba",
    ) -> None:
        own = checked(head_dim, theta, rotary_dim, rotary_offset, layout, order, frequencies, max_position, backend)
        shared = ("head_dim", "rotary_offset", "layout", "order", "frequencies", "backend")
        own["_engine"] = Engine(**{name: own[name] for name in shared})
        own["_token_axis"] = -3 if order == "thd" else -2
        own["_end"] = arrays.FARTHEST if max_position is None else min(arrays.FARTHEST, own["max_position"])
        for name, setting in own.items():
            object.__setattr__(self, name, setting)

    @overload
    def __call__(
        self, q: Array, k: None = None, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> Array: ...

    @overload
    def __call__(
        self, q: Array, k: KeyArray, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> tuple[Array, KeyArray]: ...

    def __call__(
        self, q: Any, k: Any = None, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> Any:
        """Rotate q, and k if given, in place.

        Parameters
        ----------
        q, k : array
            float32, float64, float16 or bfloat16; (heads, head_dim) for one token, (tokens, heads, head_dim) or
            (batch, tokens, heads, head_dim), tokens and heads the other way round in order "htd". They may differ in
            heads.
        positions : array of int, optional
            One for each token: (tokens,), or (batch, tokens), or a scalar for one token.
        offset : int or array of int, optional
            Instead of positions: that of the first token, or (batch,) of them.

        Returns
        -------
        q, or (q, k)
            The same arrays.

        Raises
        ------
        TypeError, ValueError
            If an array or a position cannot be taken; nothing has been written then.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> q = np.array([[1.0, 0.0]])
        >>> rn.Rope(2)(q, offset=1).round(4)
        array([[0.5403, 0.8415]])
        """
        return self._now(q, k, positions, offset, False)

    @overload
    def inverse(
        self, q: Array, k: None = None, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> Array: ...

    @overload
    def inverse(
        self, q: Array, k: KeyArray, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> tuple[Array, KeyArray]: ...

    def inverse(
        self, q: Any, k: Any = None, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> Any:
        """Undo a rotation, in place: turn back by the same positions and divide by the magnitude.

        Parameters, Returns and Raises are those of calling the `Rope`.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> rope, q = rn.Rope(2), np.array([[3.0, 4.0]])
        >>> rope.inverse(rope(q, offset=7), offset=7).round(6)
        array([[3., 4.]])
        """
        return self._now(q, k, positions, offset, True)

    def at(
        self, *, positions: ArrayLike | None = None, offset: ArrayLike | None = None, tokens: int | None = None
    ) -> Rotation:
        """Prepare the rotation of tokens at given positions, to be used by every layer.

        Parameters
        ----------
        positions : array of int, optional
            (tokens,), or (batch, tokens), or a scalar for one token.
        offset, tokens : int, optional
            Instead of positions: that of the first token (or (batch,) of them), and the number of tokens.

        Returns
        -------
        Rotation

        Raises
        ------
        TypeError, ValueError
            If the positions cannot be taken.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> step = rn.Rope(head_dim=64).at(offset=100, tokens=1)
        >>> q, k = np.ones((1, 9, 64), np.float32), np.ones((1, 3, 64), np.float32)
        >>> for layer in range(2):
        ...     q, k = step(q, k)
        """
        if offset is None and tokens is not None:
            raise TypeError("tokens is given without offset; expected both, or positions alone")
        if offset is not None and positions is None:
            if tokens is None:
                raise TypeError("tokens is missing; expected the number of tokens that start at offset")
            arrays.parse_count("tokens", tokens, None)
        return Rotation(
            self, self._engine, self._places(positions, offset, 0 if tokens is None else int(tokens)), False
        )

    def tables(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of positions 0 to n - 1, magnitude included.

        Parameters
        ----------
        n : int
            Number of positions.

        Returns
        -------
        cos, sin : read-only array of float32, shape (n, pairs)

        Raises
        ------
        TypeError, ValueError
            If n is not a whole number, or below 0, or beyond `max_position`.

        Examples
        --------
        >>> import rope_numba as rn
        >>> cos, sin = rn.Rope(head_dim=64).tables(4096)
        >>> cos.shape
        (4096, 32)
        """
        rows = self._engine.rows(arrays.parse_count("n", n, self.max_position), FLOAT32, False)[0]
        rows = np.asarray(memoryview(rows).toreadonly())  # which nobody can make writeable
        return rows[:, 0], rows[:, 1]

    def _now(self, q: Any, k: Any, positions: ArrayLike | None, offset: ArrayLike | None, inverse: bool) -> Any:
        if offset is None:
            return Rotation(self, self._engine, self._places(positions, None, 0), inverse)(q, k)
        if type(q) is not np.ndarray:
            arrays.storage_of("q", q)
        tokens = q.shape[self._token_axis] if q.ndim > 2 else 1
        # The way of a decode loop; whatever is not plainly right goes on to the careful reading of positions.
        if type(offset) is int and positions is None and offset >= 0 and offset + tokens <= self._end:
            return Rotation(self, self._engine, (offset, offset + tokens), inverse)(q, k)
        return Rotation(self, self._engine, self._places(positions, offset, tokens), inverse)(q, k)

    def _places(self, positions: ArrayLike | None, offset: ArrayLike | None, tokens: int) -> Places:
        """Return positions as (first, end) where they follow one another, else as an array."""
        if (positions is None) == (offset is None):
            raise TypeError(f"positions and offset are {'missing' if offset is None else 'both given'}; expected one")
        if positions is None:
            return arrays.parse_offset(offset, tokens, self.max_position)
        places = arrays.parse_positions(positions, self.max_position)
        if places.ndim == 1 and places.size and places[-1] - places[0] == places.size - 1:
            if places.size == 1 or bool((np.diff(places) == 1).all()):
                return int(places[0]), int(places[-1]) + 1
        return places

    def _arguments(self) -> dict[str, Any]:
        return {
            "head_dim": self.head_dim,
            "rotary_offset": self.rotary_offset,
            "layout": self.layout,
            "order": self.order,
            "frequencies": self.frequencies,
            "max_position": self.max_position,
            "backend": self.backend,
        }

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Rope cannot be changed; make another one to have another {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Rope cannot be changed; {name} stays")

    def __eq__(self, other: object) -> bool:
        return self._arguments() == other._arguments() if isinstance(other, Rope) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._arguments().values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._arguments(), self._base)

    def __repr__(self) -> str:
        parts = [f"head_dim={self.head_dim}"]
        if self._base is not None:
            parts.append(f"theta={self._base}")
        if self.rotary_dim != self.head_dim:
            parts.append(f"rotary_dim={self.rotary_dim}")
        if self.rotary_offset:
            parts.append(f"rotary_offset={self.rotary_offset}")
        parts += [f"layout={self.layout!r}", f"order={self.order!r}"]
        if self._base is None:
            inv_freq, factor = self.frequencies.inv_freq, self.frequencies.attention_factor
            parts.append(f"frequencies=<{inv_freq[0]:g} to {inv_freq[-1]:g}, attention_factor={factor:g}>")
        if self.max_position is not None:
            parts.append(f"max_position={self.max_position}")
        if self.backend != "numba":
            parts.append(f"backend={self.backend!r}")
        return f"Rope({', '.join(parts)})"


def _unpickled(arguments: dict[str, Any], base: float | None) -> Rope:
    rope = Rope(**arguments)
    object.__setattr__(rope, "_base", base)
    return rope

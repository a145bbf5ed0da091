"""`Rope`: how one model rotates, and the calls that use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arrays
from .engine import FLOAT32, FORWARD, INVERSE, SHIFT, Engine, Places
from .frequencies import Frequencies
from .hints import called_as, hinted
from .identity import Identity
from .integrations.dynamo import untraced
from .integrations.torch import as_array
from .literals import Backend, Layout, Order
from .positions import FARTHEST, Counts, array_if_ints, by_streams, missing, parse_count, parse_delta, parse_places
from .readable import Readable
from .recent import Recent
from .rotation import Array, KeyArray, Rotation
from .settings import checked

__all__ = ["Rope", "Rotation"]

Integers = ArrayLike | None  # positions or an offset, where one of the two is given

_ndarray = np.ndarray


class Rope(Identity, Readable):
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
    layout_out : "interleaved" or "half", optional
        The layout that is written, if it is not the one that is read: DeepSeek's models in transformers read
        interleaved pairs and write halves, and caches of llama.cpp and of transformers differ so.
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

    Notes
    -----
    Calls write to the arrays that they are given. Slices are views of the array that they are taken from. Indexing with
    a list, an array or a mask makes a copy in NumPy and in PyTorch, and `reshape` and `astype` may: such a copy is
    rotated, not the array that it was taken from, and `out=cache[slots]` is lost. Assign the result, as below.

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
    >>> cache, slots = np.zeros((100, 3, 64), np.float32), [7, 3, 42, 9, 1]
    >>> cache[slots] = k  # not out=(None, cache[slots])
    >>> cache[slots] = rope.shift(cache[slots], 7)
    """

    __slots__ = (
        "_base",
        "_end",
        "_engines",
        "_header",
        "_recent",
        "_streams",
        "_thd",
        "backend",
        "frequencies",
        "head_dim",
        "layout",
        "layout_out",
        "max_position",
        "order",
        "rotary_dim",
        "rotary_offset",
    )

    head_dim: int
    rotary_dim: int
    rotary_offset: int
    layout: Layout
    layout_out: Layout
    order: Order
    frequencies: Frequencies
    max_position: int | None
    backend: Backend
    _base: float | None  # theta, if the frequencies were made from it: for the repr only
    _engines: tuple[Engine, Engine, Engine]  # by what rows are for; one and the same unless layouts change
    _streams: int
    _thd: bool
    _end: int  # positions below it need no second look
    _recent: Recent

    @untraced
    @hinted
    def __init__(
        self,
        head_dim: int,
        *,
        theta: float = 10_000.0,
        rotary_dim: int | None = None,
        rotary_offset: int = 0,
        layout: Layout = "interleaved",
        layout_out: Layout | None = None,
        order: Order = "thd",
        frequencies: Frequencies | None = None,
        max_position: int | None = None,
        backend: Backend = "numba",
    ) -> None:
        own = checked(
            head_dim, theta, rotary_dim, rotary_offset, layout, layout_out, order, frequencies, max_position, backend
        )
        shared = {name: own[name] for name in ("head_dim", "rotary_offset", "order", "frequencies", "backend")}
        inward, outward = own["layout"], own["layout_out"]
        ways = ((inward, outward), (outward, inward), (outward, outward))  # forward, inverse, shift
        engines = {way: Engine(layout=way[0], layout_out=way[1], **shared) for way in dict.fromkeys(ways)}
        own["_engines"] = tuple(engines[way] for way in ways)
        own["_header"], own["_recent"] = None, Recent()
        own["_streams"], own["_thd"] = own["frequencies"].stream_count, order == "thd"
        own["_end"] = FARTHEST if max_position is None else min(FARTHEST, own["max_position"])
        for name, setting in own.items():
            object.__setattr__(self, name, setting)

    @overload
    def __call__(
        self, q: Array, k: None = ..., *, positions: Integers = ..., offset: Integers = ..., out: None = ...
    ) -> Array: ...

    @overload
    def __call__(
        self, q: Array, k: KeyArray, *, positions: Integers = ..., offset: Integers = ..., out: None = ...
    ) -> tuple[Array, KeyArray]: ...

    @overload
    def __call__(self, q: Any, k: Any = ..., *, positions: Integers = ..., offset: Integers = ..., out: Any) -> Any: ...

    @untraced
    @called_as("a Rope is called as rope(q, k, offset=...) or rope(q, k, positions=...), with out=... if need be")
    def __call__(
        self, q: Any, k: Any = None, *, positions: Integers = None, offset: Integers = None, out: Any = None
    ) -> Any:
        """Rotate q, and k if given, in place, or into other arrays.

        Parameters
        ----------
        q, k : array
            float32, float64, float16 or bfloat16; (heads, head_dim) for one token, (tokens, heads, head_dim) or
            (batch, tokens, heads, head_dim), tokens and heads the other way round in order "htd". They may differ in
            heads.
        positions : array of int, optional
            One for each token: (tokens,), or (batch, tokens), or a scalar for one token; all streams are equal then.
            Where frequencies follow several streams, also (streams, tokens), (streams, 1, tokens) or (streams, batch,
            tokens). Two axes that may be (batch, tokens) as well as (streams, tokens) are refused.
        offset : int or array of int, optional
            Instead of positions: that of the first token, or (batch,) of them.
        out : array, or (array or None, array or None)
            Where the results go instead: one array if there is no k, else one for each of q and k, None meaning in
            place. Of the same shape, with its own strides; of the same dtype, or float16 or bfloat16 for float32, or
            float32 for these: computed in float32, rounded once. It may be the input itself; otherwise it must not
            share an element with it. Not an indexed copy such as cache[slots]: see the Notes of `Rope`.

        Returns
        -------
        q, or (q, k)
            The same arrays, or those of `out`.

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
        recent = self._recent.single  # read once: another thread may exchange it
        if recent is not None and positions is None and out is None:
            if offset is recent[0] or (type(offset) is int and offset == recent[0]):
                if type(q) is _ndarray and q.ndim == 3 and (len(q) if self._thd else q.shape[1]) == 1:
                    return recent[1](q, k)
        return self._now(q, k, positions, offset, FORWARD, out)

    @untraced
    @hinted
    def inverse(
        self, q: Any, k: Any = None, *, positions: Integers = None, offset: Integers = None, out: Any = None
    ) -> Any:
        """Undo a rotation: turn back by the same positions and divide by the magnitude.

        Parameters, Returns and Raises are those of calling the `Rope`.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> rope, q = rn.Rope(2), np.array([[3.0, 4.0]])
        >>> rope.inverse(rope(q, offset=7), offset=7).round(6)
        array([[3., 4.]])
        """
        return self._now(q, k, positions, offset, INVERSE, out)

    @untraced
    @hinted
    def shift(self, k: Any, delta: ArrayLike, *, out: Any = None) -> Any:
        """Move cached keys, which have been rotated, by some positions, at magnitude 1.

        The result is what rotating the same keys at positions + delta gives, up to rounding, as long as frequencies are
        the same then and now. Those of the schemes "dynamic" and "longrope" change with the length in use: `can_shift`
        is False for them, and keys that were rotated for another length must not be mixed, shifted or not.

        Parameters
        ----------
        k : array
            Cached keys, as for calling the `Rope`, in the layout that it writes. Of an indexed copy, assign the result:
            `cache[slots] = rope.shift(cache[slots], 7)`.
        delta : int or array of int
            One number for all tokens, or as positions of k; of any sign.
        out : array, optional
            As for calling the `Rope`; in place by default.

        Returns
        -------
        k, or out

        Raises
        ------
        TypeError, ValueError
            If k or delta cannot be taken; nothing has been written then.

        Examples
        --------
        >>> import numpy as np
        >>> import rope_numba as rn
        >>> rope, k = rn.Rope(2), np.array([[1.0, 0.0]])
        >>> rope.shift(rope(k, offset=7), -6).round(4)  # as if it had been at position 1
        array([[0.5403, 0.8415]])
        """
        arrays.storage_of("k", as_array("k", k))
        places = parse_delta(delta, self._streams, self._counts("k", k))
        tokens = self._tokens_of(k) if isinstance(places, tuple) else None
        return Rotation(self, self._engines[SHIFT], places, SHIFT, tokens).alone("k", k, out)

    @untraced
    @hinted
    def at(self, *, positions: Integers = None, offset: Integers = None, tokens: int | None = None) -> Rotation:
        """Prepare the rotation of tokens at given positions, to be used by every layer.

        Parameters
        ----------
        positions : array of int, optional
            As for calling the `Rope`; for several streams as (streams, 1, tokens), not (streams, tokens).
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
            parse_count("tokens", tokens, None)
        places = self._places(positions, offset, 0 if tokens is None else int(tokens))
        return Rotation(self, self._engines[FORWARD], places, FORWARD)

    @untraced
    @hinted
    def tables(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of positions 0 to n - 1, magnitude included.

        Parameters
        ----------
        n : int
            Number of positions.

        Returns
        -------
        cos, sin : read-only array of float32, shape (n, pairs)
            Copies: their memory is the caller's own.

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
        rows = self._engines[FORWARD].rows(parse_count("n", n, self.max_position), FLOAT32, FORWARD)[0]
        return arrays.read_only_copy(rows[:, 0]), arrays.read_only_copy(rows[:, 1])

    def _now(self, q: Any, k: Any, positions: Integers, offset: Integers, way: int, out: Any = None) -> Any:
        if offset is None:
            if positions is None:
                raise missing(q, k)
            return self._of_positions(positions, way, self._counts("q", q))(q, k, out=out)
        if type(q) is not np.ndarray:
            arrays.storage_of("q", as_array("q", q))
        tokens = self._tokens_of(q)
        places = self._places(positions, offset, tokens, None if type(offset) is int else self._counts("q", q))
        return self._rotation(places, way)(q, k, out=out)

    def _of_positions(self, positions: Integers, way: int, counts: Counts | None) -> Callable[..., Any]:
        """Return the rotation by positions, one for each token."""
        if way == FORWARD and positions is not None:
            positions = array_if_ints("positions", positions)
            if type(positions) is _ndarray:
                if counts is not None:
                    positions = by_streams("positions", positions, self._streams, counts)
                recent = self._recent.at_several(self, positions)
                if recent is not None:
                    return recent
        return self._rotation(self._places(positions, None, 0, counts), way)

    def _rotation(self, places: Places, way: int) -> Callable[..., Any]:
        """Return the rotation by places that have been checked."""
        if way == FORWARD and type(places) is tuple and places[1] - places[0] == 1:
            return self._recent.at_single(self, places[0])
        return Rotation(self, self._engines[way], places, way)

    def _tokens_of(self, x: Any) -> int:
        """Return the number of tokens of an array."""
        tokens: int = x.shape[-3 if self._thd else -2] if x.ndim > 2 else 1
        return tokens

    def _counts(self, name: str, x: Any) -> Counts | None:
        """Return the rows of an array's batch and its tokens where streams need them, to tell one axis from another."""
        return arrays.counts_of(name, as_array(name, x), self.head_dim, self.order) if self._streams > 1 else None

    def _places(self, positions: Integers, offset: Integers, tokens: int, counts: Counts | None = None) -> Places:
        # A decode loop comes this way; whatever is not plainly right goes on to the careful reading of positions.
        if type(offset) is int and positions is None and offset >= 0 and offset + tokens <= self._end:
            return offset, offset + tokens
        return parse_places(positions, offset, tokens, self.max_position, self._streams, counts)

"""`Frequencies`: what a frequency scheme says, and all that a rotation knows of it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import read_only_copy
from ..hints import hinted, public_names
from ..integrations.dynamo import untraced
from ..integrations.torch import as_integers, as_reals
from ..numbers import element_count, positive, shown
from ..texts import escaped
from .arguments import WIDEST

__all__ = ["Frequencies"]

FASTEST = 2.0**900
MOST_STREAMS = 16


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Frequencies:
    """The angular frequency of each pair, and what goes with them: a magnitude, and for multi-axis models a stream.

    Parameters
    ----------
    inv_freq : array of float64, shape (pairs,)
        Radians that a pair turns from one position to the next. It is copied, and each access returns another read-only
        copy.
    attention_factor : float
        Magnitude of the rotation, above 0: cosines and sines are multiplied by it, so that rotated channels of q and
        of k both carry it.
    streams : array of int, shape (pairs,), optional
        For models whose tokens have several positions (time, height, width): which of them turns each pair, from 0.
        All pairs follow stream 0 by default.
    attention_logit_scale : float
        What the caller must multiply attention logits by, on top of 1 / sqrt(head_dim). The rotation does not use it.
    depends_on_length : bool
        These frequencies hold for one length of context and are others for another. See `Rope.can_shift`.
    theta : float, optional
        The base that they were made from, before any scaling; every scheme sets it. Nothing is computed from it.

    Raises
    ------
    TypeError
        If a value is not a real number, a stream not an integer, or `depends_on_length` not a bool.
    ValueError
        If `inv_freq` is not a non-empty list of finite numbers, `streams` does not fit it, or a factor is not finite
        and above 0.

    Notes
    -----
    Two are equal if they rotate alike, bit for bit, wherever they came from; `attention_logit_scale`,
    `depends_on_length` and `theta` play no part.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.Frequencies([1.0, 0.1, 0.01], attention_factor=1.2).inv_freq
    array([1.  , 0.1 , 0.01])
    """

    attention_factor: float
    attention_logit_scale: float
    depends_on_length: bool
    theta: float | None
    key: tuple[Any, ...]  # what a rotation is made of, hashable
    # What a table of rows is made of. Text and not bytes: torch.frombuffer writes to bytes too.
    table_key: tuple[str, float]
    smallest: float
    _inv_freq: NDArray[np.float64]
    _streams: NDArray[np.int64]

    @untraced
    @hinted
    def __init__(
        self,
        inv_freq: ArrayLike,
        attention_factor: float = 1.0,
        streams: ArrayLike | None = None,
        attention_logit_scale: float = 1.0,
        depends_on_length: bool = False,
        theta: float | None = None,
    ) -> None:
        values = _speeds(inv_freq)
        factor = positive("attention_factor", attention_factor)
        if not math.isfinite(1.0 / factor):
            raise ValueError(f"attention_factor is {factor}; expected a number whose inverse is finite")
        if not isinstance(depends_on_length, bool):
            raise TypeError(f"depends_on_length is {shown(depends_on_length)}; expected True or False")
        axes = np.zeros(values.size, np.int64) if streams is None else _streams(streams, values.size)
        turning = np.abs(values[values != 0.0])
        table_key = values.tobytes().hex(), factor
        own = {
            "attention_factor": factor,
            "attention_logit_scale": positive("attention_logit_scale", attention_logit_scale),
            "depends_on_length": depends_on_length,
            "theta": None if theta is None else positive("theta", theta),
            "key": (*table_key, axes.tobytes().hex()),
            "table_key": table_key,
            "smallest": float(turning.min(initial=1.0)) * min(factor, 1.0),
            "_inv_freq": values,
            "_streams": axes,
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def inv_freq(self) -> NDArray[np.float64]:
        """Radians that each pair turns from one position to the next: a read-only copy."""
        return read_only_copy(self._inv_freq)

    @property
    def streams(self) -> NDArray[np.int64]:
        """Which of a token's positions turns each pair: a read-only copy."""
        return read_only_copy(self._streams)

    @property
    def pairs(self) -> int:
        """Number of pairs: half the rotary width."""
        return int(self._inv_freq.size)

    @property
    def stream_count(self) -> int:
        """Number of positions that a token has: 1, unless pairs follow several streams."""
        return int(self._streams.max()) + 1

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Frequencies) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __dir__(self) -> list[str]:
        return public_names(self, but=("key", "smallest", "table_key"))

    def __repr__(self) -> str:
        return (
            f"Frequencies(inv_freq={self._inv_freq!r}, attention_factor={self.attention_factor!r}, "
            f"attention_logit_scale={self.attention_logit_scale!r})"
        )

    def replaced(self, **changes: Any) -> Frequencies:
        """Return the same with some values changed, by the names of the arguments.

        New `inv_freq` have no `theta`, unless it is given with them.
        """
        theta = None if "inv_freq" in changes else self.theta
        return Frequencies(**{**self._arguments(), "theta": theta, **changes})

    def _arguments(self) -> dict[str, Any]:
        return {
            "inv_freq": self.inv_freq,
            "attention_factor": self.attention_factor,
            "streams": self.streams if self.stream_count > 1 else None,
            "attention_logit_scale": self.attention_logit_scale,
            "depends_on_length": self.depends_on_length,
            "theta": self.theta,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Frequencies, tuple(self._arguments().values())


def _speeds(inv_freq: ArrayLike) -> NDArray[np.float64]:
    """Return inv_freq as a new array of float64, or raise."""
    # Not np.ma: that would import it, while another thread may be about to fork.
    if isinstance(inv_freq, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise TypeError("inv_freq is a masked array; expected real numbers without a mask")
    if element_count(inv_freq) > WIDEST // 2:
        raise ValueError(f"inv_freq has {element_count(inv_freq)} numbers; expected at most {WIDEST // 2}")
    inv_freq = as_reals("inv_freq", inv_freq)
    try:
        given = np.asarray(inv_freq)
    except ValueError:
        raise ValueError("inv_freq has rows of unequal length; expected one number for each pair") from None
    if given.dtype.kind not in "iuf":
        raise TypeError(f"inv_freq has dtype {escaped(str(given.dtype))}; expected real numbers")
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"inv_freq has shape {given.shape}; expected one number for each pair")
    values = np.array(given, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"inv_freq holds {values[~np.isfinite(values)][0]}; expected finite numbers")
    if np.abs(values).max() > FASTEST:
        raise ValueError(f"inv_freq holds {np.abs(values).max()}; expected at most 2**900, so that angles are finite")
    return values


def _streams(streams: ArrayLike, pairs: int) -> NDArray[np.int64]:
    """Return streams as a new array of int64, or raise."""
    if element_count(streams) > WIDEST // 2:
        raise ValueError(f"streams has {element_count(streams)} numbers; expected {pairs}, one for each pair")
    streams = as_integers("streams", streams)
    try:
        given = np.asarray(streams)
    except ValueError:
        raise ValueError("streams has rows of unequal length; expected one number for each pair") from None
    if given.dtype.kind not in "iu":
        raise TypeError(f"streams has dtype {escaped(str(given.dtype))}; expected integers")
    if given.shape != (pairs,):
        raise ValueError(f"streams has shape {given.shape}; expected ({pairs},), one stream for each pair")
    if given.min() < 0 or given.max() >= MOST_STREAMS:
        raise ValueError(f"streams holds {given.min()} to {given.max()}; expected 0 to {MOST_STREAMS - 1}")
    return given.astype(np.int64)

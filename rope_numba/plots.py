"""The picture of a `Rope`: how far its pairs turn, and how attention falls with distance. Needs the extra `plot`."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frequencies import Frequencies
from .numbers import counted

__all__ = ["draw"]


def draw(rope: Any, path: str | os.PathLike[str]) -> None:
    """Draw the wavelength of each pair, and the decay of the expected q.k, before and after scaling.

    Parameters
    ----------
    rope : Rope
        Best one from a model's header, which says what it was scaled from and the context lengths.
    path : str or path
        Where to write; the ending chooses the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(f"a plot needs matplotlib ({error}); expected: pip install 'rope_numba[plot]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    header = rope._header
    trained = header.trained_length if header else None
    context = header.context_length if header else None
    unscaled: Frequencies | None = header.unscaled if header else None
    if unscaled is not None and np.array_equal(unscaled.inv_freq, rope.frequencies.inv_freq):
        unscaled = None
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    _draw_wavelengths(left, rope.frequencies, unscaled, trained, context)
    _draw_decay(right, rope.frequencies, unscaled, trained, context)
    name = f"{header.model}: {header.scheme}" if header else "made from arguments"
    if header and header.layer_type:
        name += f", {header.layer_type}"
    figure.suptitle(
        f"{name}, head_dim {rope.head_dim}, {counted(rope.frequencies.pairs, 'pair')}, layout {rope.layout}"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_wavelengths(
    axes: Any, frequencies: Frequencies, unscaled: Frequencies | None, trained: int | None, context: int | None
) -> None:
    after = _wavelengths(frequencies)
    pairs = np.arange(frequencies.pairs)
    if unscaled is not None and unscaled.pairs == frequencies.pairs:
        before = _wavelengths(unscaled)
        axes.plot(pairs, before, color="grey", linestyle="--", label="before scaling")
        axes.fill_between(pairs, before, after, color="#d95f02", alpha=0.15)
        _draw_bands(axes, before, after)
    if frequencies.stream_count == 1:
        axes.plot(pairs, after, color="#d95f02", marker=".", label="wavelength")
    else:
        for stream in range(frequencies.stream_count):
            chosen = frequencies.streams == stream
            axes.plot(pairs[chosen], after[chosen], marker=".", linestyle="none", label=f"wavelength, stream {stream}")
    _draw_lengths(axes.axhline, trained, context)
    axes.set(yscale="log", xlabel="pair", ylabel="positions for one turn", title="Wavelengths")
    axes.grid(True, alpha=0.3)
    axes.legend()


def _draw_bands(axes: Any, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
    """Shade the pairs between those that a scheme leaves alone and those that it slows down in full."""
    slowed = after / before
    kept, most = slowed < 1.0 + 1e-6, slowed > np.nanmax(slowed[np.isfinite(slowed)]) * (1.0 - 1e-6)
    blended = np.flatnonzero(~kept & ~most)
    if blended.size and kept.any() and most.any():
        axes.axvspan(blended[0] - 0.5, blended[-1] + 0.5, color="#1f77b4", alpha=0.12, label="blended pairs")


def _draw_decay(
    axes: Any, frequencies: Frequencies, unscaled: Frequencies | None, trained: int | None, context: int | None
) -> None:
    farthest = max(trained or 0, context or 0, 4096)
    distances = np.unique(np.geomspace(1, farthest, 2000).astype(np.int64))
    for each, colour, style, label in (
        (unscaled, "grey", "--", "before scaling"),
        (frequencies, "#d95f02", "-", "expected q.k"),
    ):
        if each is not None:
            cosines = np.cos(distances[:, None] * each.inv_freq).mean(axis=1) * each.attention_factor**2
            axes.plot(distances, cosines, color=colour, linestyle=style, linewidth=1, label=label)
    _draw_lengths(axes.axvline, trained, context)
    axes.set(
        xscale="log",
        xlabel="distance in positions",
        ylabel="mean cosine, times the magnitude squared",
        title="Decay of q.k",
    )
    axes.grid(True, alpha=0.3)
    axes.legend()


def _draw_lengths(line: Any, trained: int | None, context: int | None) -> None:
    if trained:
        line(trained, color="black", linewidth=1, label=f"trained for {trained:,}")
    if context and context != trained:
        line(context, color="black", linewidth=1, linestyle=":", label=f"offered for {context:,}")


def _wavelengths(frequencies: Frequencies) -> NDArray[np.float64]:
    """Return positions for one turn of each pair; not a number for a pair that never turns."""
    still = frequencies.inv_freq == 0.0
    return np.where(still, math.nan, 2 * math.pi / np.where(still, 1.0, np.abs(frequencies.inv_freq)))

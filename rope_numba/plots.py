"""The picture of a `Rope`: how far its pairs turn, and how attention falls with distance. Needs the extra `plot`."""

from __future__ import annotations

import math
import os
import stat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frequencies import Frequencies
from .numbers import counted
from .texts import choice, escaped, shown

__all__ = ["check_path", "draw"]

ENDING = ".png"  # of a file whose name has none
MOST_PATH = 100  # characters of a path in an error text


def check_path(path: str | os.PathLike[str]) -> str:
    """Return where a picture can be written, with an ending, or raise.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the folder is not there, the file is no regular one, or the ending is of no kind of picture.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(f"a plot needs matplotlib ({error}); expected: pip install 'rope_numba[plot]'") from None
    name = os.fspath(path)
    given = f"--plot is {shown(name, MOST_PATH)}"
    folder, base = os.path.split(name)
    if not base:
        raise ValueError(f"{given}; expected the name of a file")
    if "\0" in name:
        raise ValueError(f"{given}, which holds a null byte; expected the name of a file")
    if not os.path.isdir(folder or os.curdir):
        raise ValueError(f"{given}, and {shown(folder, MOST_PATH)} is no folder; expected a folder that exists")
    if os.path.exists(name) and not stat.S_ISREG(os.stat(name).st_mode):
        raise ValueError(f"{given}, which is there and no regular file; expected the name of a file")
    ending = os.path.splitext(base)[1]
    known = sorted(f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes())
    if ending and ending.lower() not in known:
        raise ValueError(f"{given}; expected an ending such as {choice(('.pdf', ENDING, '.svg'))}")
    return name if ending else name + ENDING


@np.errstate(over="ignore")  # what is beyond float64 is not drawn
def draw(rope: Any, path: str | os.PathLike[str]) -> str:
    """Draw the wavelength of each pair, and the decay of the expected q.k, before and after scaling.

    Parameters
    ----------
    rope : Rope
        Best one from a model's header, which says what it was scaled from and the context lengths.
    path : str or path
        Where to write; the ending chooses the format.

    Returns
    -------
    str
        The file that was written.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there can be no such file.
    """
    name = check_path(path)
    from matplotlib.figure import Figure

    header = rope._header
    trained = header.trained_length if header else None
    context = header.context_length if header else None
    unscaled: Frequencies | None = header.unscaled if header else None
    if unscaled is not None and np.array_equal(unscaled.inv_freq, rope.frequencies.inv_freq):
        unscaled = None
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_wavelengths(left, rope.frequencies, unscaled, trained, context)
    _draw_decay(right, rope.frequencies, unscaled, trained, context)
    figure.suptitle(_title(rope), parse_math=False, usetex=False)  # a model may be called $x$
    try:
        figure.savefig(name, dpi=110, format=os.path.splitext(name)[1][1:].lower())
    except OSError as error:
        given = f"--plot is {shown(name, MOST_PATH)}"
        raise ValueError(f"{given}, which cannot be written ({error.strerror}); expected another file") from None
    return name


def _title(rope: Any) -> str:
    """Return the title of a picture, in letters that every font has."""
    header = rope._header
    name = f"{header.model}: {header.scheme}" if header else "made from arguments"
    if header and header.layer_type:
        name += f", {header.layer_type}"
    name = name.encode("ascii", "backslashreplace").decode()
    pairs = counted(rope.frequencies.pairs, "pair")
    return f"{escaped(name, 200)}, head_dim {rope.head_dim}, {pairs}, layout {rope.layout}"


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
            # One distance after the other: 2,000 of 2**19 pairs at once would take 8 GiB.
            means = np.array([np.cos(distance * each.inv_freq).mean() for distance in distances])
            cosines = means * each.attention_factor * each.attention_factor  # a power raises where it overflows
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

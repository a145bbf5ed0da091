"""Make interleaved.json and half.json: reference vectors of the rotation, by mpmath and not by this package.

    pip install mpmath
    python tests/vectors/make.py

Takes a few seconds. README.md, beside this file, describes the format.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpmath

HERE = Path(__file__).parent
DIGITS = 60  # an angle of 1e7 radians takes 7 of them, a float64 has 17

POSITIONS = (0, 1, 2, 7, 4095, 32_768, 131_072, 1_000_000, 10_000_000, -1, -4095, -1_000_000)
THETAS = (10_000.0, 500_000.0, 1_000_000.0, 12_345.678)
WIDTHS = (*range(2, 35, 2), 48, 64, 80, 96, 112, 128, 160, 192, 256, 258, 512)
# Heads that are rotated in part: (head_dim, rotary_dim, rotary_offset).
PARTS = ((80, 20, 0), (64, 48, 16), (18, 14, 2), (19, 14, 3), (96, 24, 0), (256, 64, 0), (192, 64, 128))
BLOCKS = (*((width, width, 0) for width in WIDTHS), *PARTS)

PAIRS = {
    "interleaved": "low = rotary_offset + 2 * i, high = low + 1, for i = 0 ... rotary_dim / 2 - 1",
    "half": "low = rotary_offset + i, high = low + rotary_dim / 2, for i = 0 ... rotary_dim / 2 - 1",
}
INPUT = "x[c] = (2 * ((17 * c + 5) % 61) - 61) / 32, for c = 0 ... head_dim - 1"
RULE = [
    "angle = position * theta ** (-2 * i / rotary_dim)",
    "expected[low] = x[low] * cos(angle) - x[high] * sin(angle)",
    "expected[high] = x[low] * sin(angle) + x[high] * cos(angle)",
    "expected[c] = x[c] for channels that are in no pair",
]


def main() -> None:
    """Write both files."""
    for layout in PAIRS:
        (HERE / f"{layout}.json").write_text(text(layout), encoding="ascii", newline="\n")


def text(layout: str) -> str:
    """Return a file: what it is and what made it, and one line for each case."""
    header = {
        "about": f"Rotary position embeddings, layout {layout}: exact results",
        "made_by": f"python tests/vectors/make.py, Python {platform.python_version()}, mpmath {mpmath.__version__}",
        "layout": layout,
        "pairs": PAIRS[layout],
        "input": INPUT,
        "rule": RULE,
        "precision": f"{DIGITS} decimal digits throughout, from the float64 theta, then rounded once to float64",
    }
    lines = ",\n".join(line(layout, case) for case in cases(layout))
    return f'{json.dumps(header, indent=0)[:-2]},\n"cases": [\n{lines}\n]\n}}\n'


def cases(layout: str) -> Iterator[dict[str, Any]]:
    """Yield what stands before the numbers of each case of a file.

    Every block meets every position, and thetas take turns, so that each of them meets every block and every position.
    """
    first = list(PAIRS).index(layout)  # so that a block at a position has another theta in the other layout
    for row, (head_dim, rotary_dim, rotary_offset) in enumerate(BLOCKS):
        for column, position in enumerate(POSITIONS):
            yield {
                "head_dim": head_dim,
                "rotary_dim": rotary_dim,
                "rotary_offset": rotary_offset,
                "theta": THETAS[(first + row + column) % len(THETAS)],
                "position": position,
            }


def line(layout: str, case: dict[str, Any]) -> str:
    """Return a case as it stands in a file: the shortest decimals that read back as the same float64."""
    return json.dumps({**case, "expected": rotated(layout, **case)})


def rotated(
    layout: str, *, head_dim: int, rotary_dim: int, rotary_offset: int, theta: float, position: int
) -> list[float]:
    """Return the input, rotated exactly and rounded once to float64."""
    x = [mpmath.mpf(2 * ((17 * channel + 5) % 61) - 61) / 32 for channel in range(head_dim)]
    y = list(x)
    with mpmath.workdps(DIGITS):
        for pair in range(rotary_dim // 2):
            if layout == "interleaved":
                low = rotary_offset + 2 * pair
                high = low + 1
            else:
                low = rotary_offset + pair
                high = low + rotary_dim // 2
            cos, sin = mpmath.cos_sin(position * inv_freq(theta, pair, rotary_dim))
            y[low] = x[low] * cos - x[high] * sin
            y[high] = x[low] * sin + x[high] * cos
    return [float(value) for value in y]


@functools.cache
def inv_freq(theta: float, pair: int, rotary_dim: int) -> Any:
    """Return theta ** (-2 * pair / rotary_dim) to all digits."""
    with mpmath.workdps(DIGITS):
        return mpmath.power(theta, -mpmath.mpf(2 * pair) / rotary_dim)


if __name__ == "__main__":
    main()

"""The arguments of a `Rope`, checked."""

from __future__ import annotations

from typing import Any, get_args

from .frequencies import Frequencies, default
from .kernels.flags import MAX_HEAD_DIM
from .literals import Backend, Layout, Order
from .numbers import counted, even_width, positive, shown, whole

__all__ = ["checked"]

# What other software calls the layouts.
OTHER_NAMES = {
    **dict.fromkeys(("neox", "gpt-neox", "gpt_neox", "rotate_half", "half-split", "half_split"), "half"),
    **dict.fromkeys(("normal", "adjacent", "gptj", "gpt-j", "traditional", "rotate_every_two"), "interleaved"),
}


def checked(
    head_dim: int,
    theta: float,
    rotary_dim: int | None,
    rotary_offset: int,
    layout: str,
    layout_out: str | None,
    order: str,
    frequencies: Frequencies | None,
    max_position: int | None,
    backend: str,
) -> dict[str, Any]:
    """Return what a `Rope` keeps of its arguments, or raise if one is of another kind or outside its range."""
    head_dim = whole("head_dim", head_dim)
    if not 2 <= head_dim <= MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {head_dim}; expected 2 to {MAX_HEAD_DIM} channels")
    if frequencies is None:
        if rotary_dim is None and head_dim % 2:
            raise ValueError(f"head_dim is {head_dim}; expected an even number, or rotary_dim to be given")
        width = even_width("rotary_dim", head_dim if rotary_dim is None else rotary_dim)
        base = positive("theta", theta)
    elif not isinstance(frequencies, Frequencies):
        raise TypeError(f"frequencies is {shown(frequencies)}; expected a rope_numba.Frequencies")
    elif positive("theta", theta) != 10_000.0:
        raise ValueError(f"theta is {theta}; expected it left out where frequencies are given")
    else:
        width, base = 2 * frequencies.pairs, None
        if rotary_dim is not None and whole("rotary_dim", rotary_dim) != width:
            raise ValueError(f"rotary_dim is {rotary_dim}; expected {width}, twice the number of frequencies")
    offset = whole("rotary_offset", rotary_offset)
    if frequencies is not None and width > head_dim:
        raise ValueError(
            f"frequencies has {counted(width // 2, 'pair')}; expected channels for them in head_dim, {head_dim}"
        )
    if offset < 0 or offset + width > head_dim:
        raise ValueError(
            f"rotary_offset is {offset} and rotary_dim {width}; expected them to lie in head_dim, {head_dim}"
        )
    if frequencies is None:
        frequencies = default(width, theta)
    if max_position is not None and whole("max_position", max_position) < 1:
        raise ValueError(f"max_position is {max_position}; expected 1 or more, or None")
    if layout_out is None:
        layout_out = layout
    for name, value, choices in (
        ("layout", layout, get_args(Layout)),
        ("layout_out", layout_out, get_args(Layout)),
        ("order", order, get_args(Order)),
        ("backend", backend, get_args(Backend)),
    ):
        if not isinstance(value, str) or value not in choices:
            meant = OTHER_NAMES.get(value.lower()) if isinstance(value, str) and name.startswith("layout") else None
            hint = f", which is {meant!r} here" if meant else ""
            raise ValueError(f"{name} is {shown(value)}{hint}; expected {' or '.join(map(repr, choices))}")
    return {
        "head_dim": head_dim,
        "rotary_dim": width,
        "rotary_offset": offset,
        "layout": layout,
        "layout_out": layout_out,
        "order": order,
        "frequencies": frequencies,
        "max_position": None if max_position is None else int(max_position),
        "backend": backend,
        "_base": base,  # theta, if the frequencies were made from it
    }

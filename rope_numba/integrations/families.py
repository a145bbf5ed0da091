"""How families of transformers models rotate, and the same rotation by this package's kernels.

Each modeling file has a function of its own, of one of a few forms. `swapped` makes what stands in for it: ours where
that can run, else the original.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import arrays, reference
from ..kernels import try_load_kernels
from ..kernels.flags import HEAD_MAJOR, NO_KEY, PER_BATCH, SKIP_CHECKS, pack_flags
from .torch import check_floats, check_storage, memory_of

__all__ = ["FAMILIES", "Form", "Function", "check_form", "swapped"]

Function = Callable[..., Any]


class Form(NamedTuple):
    """What a family's function does, and how it is called."""

    layout: str
    layout_out: str
    # How a table of cosines holds one for each pair: "once", as two equal halves, or each twice in a row.
    tables: str
    partial: bool = False  # whether a head may be wider than the tables
    call: str = "q, k, cos, sin"


HALF = Form("half", "half", "halves")
PARTIAL = Form("half", "half", "halves", partial=True)
ONCE = Form("half", "half", "once")
ADJACENT = Form("interleaved", "interleaved", "twice")
ADJACENT_PARTIAL = Form("interleaved", "interleaved", "halves", partial=True)
ADJACENT_TO_HALF = Form("interleaved", "half", "halves")
ONE_BY_ONE = Form("half", "half", "halves", call="x, cos, sin")
GPTJ = Form("interleaved", "interleaved", "once", call="x, sin, cos")

# By family, the functions of transformers/models/<family>/modeling_<family>.py and their forms (5.23 and 5.24).
FAMILIES: dict[str, dict[str, Form]] = {
    "cohere": {"apply_rotary_pos_emb": ADJACENT},
    "deepseek_v3": {"apply_rotary_pos_emb": HALF, "apply_rotary_pos_emb_interleave": ADJACENT_TO_HALF},
    "gemma3": {"apply_rotary_pos_emb": HALF},
    "gemma4": {"apply_rotary_pos_emb": ONE_BY_ONE},
    "glm4": {"apply_rotary_pos_emb": ADJACENT_PARTIAL},
    "gpt_neox": {"apply_rotary_pos_emb": PARTIAL},
    "gpt_oss": {"apply_rotary_pos_emb": ONCE},
    "gptj": {"apply_rotary_pos_emb": GPTJ},
    "llama": {"apply_rotary_pos_emb": HALF},
    "mistral": {"apply_rotary_pos_emb": HALF},
    "phi3": {"apply_rotary_pos_emb": PARTIAL},
    "qwen2": {"apply_rotary_pos_emb": HALF},
    "qwen2_vl": {"apply_rotary_pos_emb": HALF},
    "qwen3": {"apply_rotary_pos_emb": HALF},
    "qwen3_vl": {"apply_rotary_pos_emb": HALF},
}


def swapped(form: Form, original: Function) -> Function:
    """Return what stands in a family's module in place of its function; like that, it returns new tensors."""
    if form.call == "q, k, cos, sin":

        def apply_to_both(q: Any, k: Any, cos: Any, sin: Any, **options: Any) -> Any:
            both = [q, k]
            if _rotated(form, both, cos, sin, options.get("unsqueeze_dim", 1)):
                return tuple(both)
            return original(q, k, cos, sin, **options)

        return apply_to_both
    if form.call == "x, cos, sin":

        def apply_to_one(x: Any, cos: Any, sin: Any, **options: Any) -> Any:
            one = [x]
            rotated = _rotated(form, one, cos, sin, options.get("unsqueeze_dim", 1))
            return one[0] if rotated else original(x, cos, sin, **options)

        return apply_to_one

    def apply_gptj(x: Any, sin: Any, cos: Any) -> Any:
        one = [x]
        return one[0] if _rotated(form, one, cos, sin, 2) else original(x, sin, cos)

    return apply_gptj


def _rotated(form: Form, tensors: list[Any], cos: Any, sin: Any, unsqueeze_dim: int) -> bool:
    """Replace q and k in a list, or one of them, by rotated copies; false if the original has to run.

    Not in place: a model may use what it rotates elsewhere, such as one tensor as k and as v.
    """
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return False
    x = tensors[0]
    if x.ndim != 4 or cos.ndim != 3 or sin.shape != cos.shape or unsqueeze_dim not in (1, 2):
        return False
    if any(other.dtype != x.dtype for other in (*tensors, cos, sin)):
        return False
    try:
        for given in tensors:
            check_floats("q", given)
        for table in (cos, sin):
            check_storage("cos", table)
        if x.dtype in (torch.float16, torch.bfloat16):
            cos, sin = cos.float(), sin.float()
        rows = _rows(form, cos.numpy(), sin.numpy())
        copies = [given.clone() for given in tensors]
        written = [memory_of(copy) for copy in copies]
    except (TypeError, ValueError, RuntimeError):  # on another device, in need of gradients, not dense
        return False
    if not _apply(form, written, rows, "htd" if unsqueeze_dim == 1 else "thd"):
        return False
    tensors[:] = copies
    return True


def _rows(form: Form, cos: NDArray[Any], sin: NDArray[Any]) -> NDArray[Any]:
    """Return a model's tables as rows, (batch or 1, tokens, 2, pairs)."""
    width = cos.shape[-1]
    chosen = {"once": slice(None), "halves": slice(width // 2), "twice": slice(0, None, 2)}[form.tables]
    pairs = width if form.tables == "once" else width // 2
    rows = np.empty((*cos.shape[:-1], 2, pairs), cos.dtype)
    rows[:, :, 0], rows[:, :, 1] = cos[..., chosen], sin[..., chosen]
    return rows


def _apply(form: Form, given: list[NDArray[Any]], rows: NDArray[Any], order: str) -> bool:
    """Rotate arrays by rows, if they fit."""
    q, k = given[0], given[1] if len(given) > 1 else None
    head_dim, batch, tokens = q.shape[-1], rows.shape[0], rows.shape[1]
    width = 2 * rows.shape[3]
    if head_dim < width or (head_dim > width and not form.partial):
        return False
    storage = arrays.storage_of("q", q)
    flags = pack_flags(HEAD_MAJOR if order == "htd" else 0, head_dim, 0) | (PER_BATCH if batch > 1 else 0)
    launch = try_load_kernels()
    kernels: Any = launch.in_place_for(storage, form.layout) if launch and form.layout == form.layout_out else None
    bits = [x.view(np.uint16) if x.itemsize == 2 else x for x in given]
    if k is None:
        pair, flags = (bits[0], bits[0]), flags | NO_KEY
    else:
        pair = bits[0], bits[1]
    compiled = kernels is not None and kernels.available()
    if compiled and not kernels.run(*pair, rows, flags):
        return True
    # Packed q, k and v, a change of layouts, no compiled kernel, or arrays that do not fit.
    try:
        arrays.accept(q, k, head_dim=head_dim, order=order, tokens=tokens, batch=batch if batch > 1 else None)
    except (TypeError, ValueError):
        return False
    if compiled:
        return not kernels.run(*pair, rows, flags | SKIP_CHECKS)
    movers = launch.out_of_place_for(storage, storage, form.layout, form.layout_out) if launch else None
    for x in bits:
        x = arrays.four_axes(x, order)
        if x.size and movers is not None and movers.available():
            movers.run(x, x, rows, flags & ~HEAD_MAJOR)
        elif x.size:
            layouts = form.layout, form.layout_out
            reference.move_stored(storage, x, storage, x, rows[:, :, 0], rows[:, :, 1], *layouts, 0)
    return True


def check_form(name: str, form: Form, original: Function, ours: Function) -> None:
    """Compare the two on random numbers, bit for bit: a later transformers may rotate otherwise."""
    torch = sys.modules["torch"]
    random = torch.Generator().manual_seed(0)
    x, other = (torch.randn(2, 3, 2, 8, generator=random, dtype=torch.float32, device="cpu") for _ in range(2))
    once = torch.randn(2, 2, 3, 2 if form.partial else 4, generator=random, dtype=torch.float32, device="cpu")
    cos, sin = {"once": once, "halves": once.repeat(1, 1, 1, 2), "twice": once.repeat_interleave(2, dim=-1)}[
        form.tables
    ]
    try:
        if form.call == "q, k, cos, sin":
            theirs = original(x.transpose(1, 2), other.transpose(1, 2), cos, sin)
            mine = ours(x.clone().transpose(1, 2), other.clone().transpose(1, 2), cos, sin)
        elif form.call == "x, cos, sin":
            theirs = (original(x, cos, sin, unsqueeze_dim=2),)
            mine = (ours(x.clone(), cos, sin, unsqueeze_dim=2),)
        else:
            theirs, mine = (original(x, sin, cos),), (ours(x.clone(), sin, cos),)
        same = all(torch.equal(a, b) for a, b in zip(theirs, mine, strict=True))
    except (TypeError, ValueError, RuntimeError, LookupError):  # it takes other arguments
        same = False
    if not same:
        raise ValueError(
            f"model rotates by {name}, which is not what it was in transformers 5.23 and 5.24; expected that"
        )

"""How wide a head is, which of its channels are rotated, and which of those make pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...numbers import shown
from ...wording import argument
from ..keys import HEAD_DIM, HEADS, HIDDEN, SHARES, Found, Notes
from .config import UNNAMED, Config
from .layers import Part

__all__ = ["Widths", "read_widths"]

WIDEST = 65_536  # channels; what is wider is an error in the file, and would only cost time
MOST_HEADS = 1_000_000
LAYOUT_FLAGS = ("rope_interleave", "rope_interleaved", "rope_traditional", "rotary_emb_interleaved")


@dataclass(frozen=True)
class Widths:
    """The widths of one part, and its layout."""

    head_dim: Found
    rotary_dim: Found
    share: Found | None  # of a head's channels that turn, if it is stated
    layout: Found
    latent: bool = False  # a part of each head is rotated, as an array of its own


def read_widths(found: Config, part: Part, scheme: str, notes: Notes) -> Widths:
    """Return the widths of the layers of one part."""
    share = _share(found, part, scheme, notes)
    off = _latent_off(found)
    latent = None if off is not None else _latent(found)
    if latent is not None:
        if share is not None and share.value != 1 and scheme != "proportional":
            notes.conflict(f"{share.source} is {shown(share.value)}, but {latent.source} says what is rotated.")
        rotary = _even(latent, latent.whole(2, WIDEST, "channels"))
        return Widths(latent, rotary, share if scheme == "proportional" else None, _layout(found, notes), latent=True)
    head_dim = _head_dim(found, part, off)
    width = head_dim.whole(2, WIDEST, "channels")
    if off is not None and found.known is not None and found.layout is None:
        layout = Found("half", f"{off.source}: Llama's attention in the place of latent attention")
        return Widths(head_dim, _even(head_dim, width), None, layout)
    if scheme == "proportional":
        return Widths(head_dim, _even(head_dim, width), share, _layout(found, notes))
    rotary = _rotary_dim(found, part, head_dim, share, notes)
    return Widths(head_dim, rotary, share, _layout(found, notes))


def _latent(found: Config) -> Found | None:
    """Return the width of the rotary part of latent attention, or None if a model has none."""
    given = found.keys.get("qk_rope_head_dim")
    if given is None and found.known is not None and found.known.model.latent:
        return Found(found.known.model.head_dim, found.default)
    return given


def _latent_off(found: Config) -> Found | None:
    """Return the key that switches latent attention off, or raise if the model type has no such switch."""
    switch, width = found.keys.get("use_mla"), found.keys.get("qk_rope_head_dim")
    off = switch if switch is not None and switch.value is False else None
    if off is None and width is not None and width.value == 0 and not isinstance(width.value, bool):
        off = width
    if off is not None and found.known is not None and found.known.model.latent and not found.known.model.latent_switch:
        raise ValueError(f"{off.source} is {shown(off.value)}; expected latent attention, as {found.name} has it")
    return off


def _head_dim(found: Config, part: Part, off: Found | None) -> Found:
    model = found.known.model if found.known else None
    if model is not None and model.global_head_dim is not None and part.layer_type == "full_attention":
        own = _layers_own(found, part) or found.keys.get("global_head_dim")
        return own or Found(model.global_head_dim, found.default)
    given = found.keys.get(*HEAD_DIM)
    if given is not None and not (off is not None and given.value == 0):
        return given
    if model is not None and model.head_dim is not None and off is None:
        return Found(model.head_dim, found.default)
    hidden = found.keys.get(*HIDDEN) or Found(model.hidden_size if model else None, found.default)
    heads = found.keys.get(*HEADS) or Found(model.heads if model else None, found.default)
    for one, names in ((hidden, HIDDEN), (heads, HEADS)):
        if one.value is None:
            raise ValueError(f"{names[0]} is missing; expected it, or head_dim")
    other = found.keys.get("encoder_num_attention_heads")
    if other is not None and other.value != heads.value:
        raise ValueError(f"{other.source} is {shown(other.value)}; expected {shown(heads.value)}, as {heads.source} is")
    channels, number = hidden.whole(1, 2**40, "channels"), heads.whole(1, MOST_HEADS, "heads")
    return Found(channels // number, f"{hidden.source} // {heads.source}")


def _layers_own(found: Config, part: Part) -> Found | None:
    """Return the head width that newer files list layer by layer."""
    layers = found.keys.inner("per_layer_config")
    if layers is None:
        return None
    indexes = set(part.indexes)
    for name in layers.values:
        inner = layers.inner(name)
        own = inner.get("head_dim") if inner is not None else None
        if own is not None and re.fullmatch("[0-9]{1,8}", str(name)) and int(name) in indexes:
            return own
    return None


def _share(found: Config, part: Part, scheme: str, notes: Notes) -> Found | None:
    """Return the share of channels that turn, from the part's dict, from the file, or from the model type."""
    inner, outer = part.rope.get("partial_rotary_factor"), part.share or found.keys.get(*SHARES)
    model = found.known.model if found.known else None
    if part.rope.label is not None or inner is None:
        share = outer or inner
    else:
        share = notes.agreed([inner, *([outer] if outer else [])], "the second was taken")
    if share is None and model is not None and model.partial not in (None, 1.0):
        return Found(model.partial, found.default)
    if share is not None and share.value != 1 and model is None:
        found.guess(
            notes,
            f"{share.source} is {shown(share.value)}, which transformers ignores for most model types unless "
            "frequencies are scaled: it was followed.",
        )
    ignored = scheme == "default" and model is not None and model.partial is None and not model.latent
    if share is not None and share.value != 1 and ignored:
        notes.conflict(
            f"{share.source} is {shown(share.value)}, which transformers ignores for model_type "
            f"{shown(found.model_type)} unless frequencies are scaled: it was followed."
        )
    return share


def _rotary_dim(found: Config, part: Part, head_dim: Found, share: Found | None, notes: Notes) -> Found:
    width = head_dim.whole(2, WIDEST, "channels")
    direct = found.keys.get("rotary_dim")
    if direct is None and share is None and found.known is not None and found.known.model.rotary_dim is not None:
        if "rotary_dim" in found.keys.values:
            raise ValueError(f"{found.keys.source('rotary_dim')} is null; expected an even number of channels")
        direct = Found(found.known.model.rotary_dim, found.default)
    if direct is not None and found.known is not None and not found.known.model.reads_rotary_dim and share is None:
        notes.conflict(
            f"{direct.source} is {shown(direct.value)}, which transformers' code of model_type "
            f"{shown(found.model_type)} does not look at, and rotates {width}: it was followed, as in training."
        )
    if share is None:
        if direct is None:
            return _even(head_dim, width)
        return _even(direct, direct.whole(2, width, "channels, which head_dim has"))
    part_of = share.positive()
    if part_of > 1.0:
        raise ValueError(f"{share.source} is {part_of}; expected above 0 and at most 1")
    rotary = int(width * part_of)  # truncated, as transformers does
    if rotary < 2:
        raise ValueError(f"{share.source} is {part_of}, or {rotary} of {width} channels; expected 2 channels or more")
    if rotary % 2:
        raise ValueError(
            f"{share.source} is {part_of}, or {rotary} of {width} channels; expected an even number (transformers "
            "rotates one more, with frequencies of the odd number)"
        )
    if direct is not None and direct.value != rotary:
        notes.conflict(
            f"{direct.source} is {shown(direct.value)}, but {share.source} makes {rotary}: the second was taken."
        )
    return Found(rotary, f"{share.source} of {head_dim.source}" if rotary != width else share.source)


def _even(found: Found, width: int) -> Found:
    if width % 2:
        raise ValueError(f"{found.source} is {width}; expected an even number of channels, as all of them are rotated")
    return Found(width, found.source)


def _layout(found: Config, notes: Notes) -> Found:
    flag = found.keys.get(*LAYOUT_FLAGS)
    model = found.known.model if found.known else None
    stated = None if flag is None else "interleaved" if flag.flag() else "half"
    if found.layout is not None:
        usual = stated if model is None or model.flagged else None
        usual = usual or (model.layout if model is not None else None)
        if usual not in (None, found.layout):
            notes.conflict(f"{argument('layout')} is {found.layout!r}, where the file says {usual!r}: it was followed.")
        return Found(found.layout, f"argument {argument('layout')}")
    if flag is not None and stated is not None and (model is None or model.flagged):
        return Found(stated, flag.source)
    if model is None:
        unnamed = found.named == UNNAMED
        which = "No key names the model type" if unnamed else f"{found.named} {found.name} is unknown"
        found.guess(
            notes,
            f"{which}: layout 'half' was assumed, as most models have it in transformers. The wrong layout gives "
            "fluent nonsense: make sure.",
        )
        why = "no key names the model type" if unnamed else f"{found.named} is unknown"
        return Found("half", f"assumed, as {why}")
    if flag is not None and flag.flag() != (model.layout == "interleaved"):
        notes.conflict(f"{flag.source} is {flag.value}, which models of type {shown(found.model_type)} do not look at.")
    return Found(model.layout, f"model_type {shown(found.model_type)}")

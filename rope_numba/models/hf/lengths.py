"""How long a context the model was trained for, and for how long a one it is offered."""

from __future__ import annotations

from ...numbers import shown
from ..keys import CONTEXT, Found, Notes
from .config import Config
from .layers import Part
from .named import TRAINED

__all__ = ["LONGEST", "context_of", "note_others", "offered", "ratio", "trained_of"]

LONGEST = 2**53
CHUNKED = "dual_chunk_attention_config"
# Keys beside the dict of RoPE that change the rotation, or the logits, with the length of the text.
BY_LENGTH = ("use_dynamic_ntk", "use_logn_attn", "use_logn", "logn_attn", "ntk_alpha", "use_xpos", "use_scaled_rope")


def context_of(found: Config) -> Found | None:
    """Return the length that the file, or the model type, gives for its context."""
    given = found.keys.get(*CONTEXT)
    if given is None and found.known is not None and found.known.model.context is not None:
        return Found(found.known.model.context, found.default)
    if given is not None:
        given.whole(1, LONGEST, "positions")
    return given


def trained_of(found: Config, part: Part, context: Found | None, notes: Notes) -> Found:
    """Return the length before stretching.

    Beside a flat dict, the key at the top goes before the dict's, as in transformers, which does so for Phi-3.
    """
    top, own = found.keys.get(TRAINED), part.rope.get(TRAINED)
    if part.rope.label is not None or part.nested:
        top, own = own, top
    stated = notes.agreed([one for one in (top, own) if one is not None], "the second was taken")
    if stated is None and found.known is not None and found.known.model.original is not None:
        stated = Found(found.known.model.original, found.default)
    if stated is not None:
        return stated
    if context is None:
        raise ValueError(f"{part.rope.lacking(TRAINED)} is missing; expected a number of positions")
    notes.conflict(f"{part.rope.lacking(TRAINED)} is missing: {context.source} was taken for it, {context.value}.")
    return context


def ratio(context: Found | None, trained: Found) -> Found | None:
    """Return how many times longer the context is than the training, where no factor says it."""
    if context is None or context.source == trained.source:
        return None
    longer = context.whole(1, LONGEST, "positions") / trained.whole(1, LONGEST, "positions")
    return Found(longer, f"{context.source} / {trained.source}")


def offered(
    scheme: str, trained: Found | None, factor: Found | None, context: Found | None, notes: Notes
) -> tuple[Found | None, Found | None]:
    """Return the trained length and the offered one; None where nobody says it."""
    if scheme in ("linear", "ntk"):
        return None, context  # which does not tell whether it counts before or after stretching
    if trained is None:
        return context, context
    if scheme not in ("dynamic", "yarn") or factor is None:
        return trained, context
    stretched = int(min(trained.value * float(factor.value), LONGEST))
    source = f"{trained.source} * {factor.source}"
    if scheme == "yarn" and context is not None and context.value not in (trained.value, stretched):
        notes.conflict(f"{source} is {stretched}, but {context.source} is {context.value}.")
    if context is not None and context.value >= stretched:
        return trained, context
    return trained, Found(stretched, source)


def note_others(found: Config, context: Found | None, seq_len: int | None, notes: Notes) -> None:
    """Note what stands beside the dict of RoPE and changes positions; warn where the lengths in use are concerned."""
    chunks = found.keys.inner(CHUNKED)
    if chunks is not None and chunks.values:
        boundary = chunks.get("original_max_position_embeddings", "chunk_size")
        most = None if boundary is None else boundary.whole(1, LONGEST, "positions")
        longest = seq_len if seq_len is not None else None if context is None else context.value
        beyond = "" if most is None else f" beyond {most}"
        sentence = f"{chunks.path} (dual chunk attention) changes positions{beyond}, which is not done here."
        if most is not None and longest is not None and longest <= most:
            notes.conflict(sentence)
        else:
            found.guess(notes, sentence)
    for flag in found.keys.all(BY_LENGTH):
        if flag.value is not False:
            text = (
                f"{flag.source} is {shown(flag.value)}, which changes rotation or logits by length, and was left out."
            )
            found.guess(notes, text)

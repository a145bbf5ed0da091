"""Which scheme a dict names, and whether its keys belong to it."""

from __future__ import annotations

from ...frequencies import refuse
from ...numbers import shown
from ..keys import MOST_CONFLICTS, Found, Keys, Notes
from .config import Config
from .layers import Part

__all__ = ["SECTIONS", "TRAINED", "TURNS", "scheme_of"]

TRAINED = "original_max_position_embeddings"
SECTIONS = "mrope_section"
TURNS = "interleaved"  # next to sections, Qwen3-TTS's name for mrope_interleaved
# What other software calls them. deepseek_yarn differs from yarn in what it takes for granted of mscale and
# mscale_all_dim, 1 and 0, which makes the same magnitude.
ALIASES = {"su": "longrope", "mrope": "default", "deepseek_yarn": "yarn"}

MAGNITUDE = ("attention_factor", "attn_factor", "mscale", "mscale_all_dim")
SCHEMES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "ntk": ("alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),  # HunYuan lists all of them
    "dynamic": ("factor",),
    "yarn": ("factor", TRAINED, "beta_fast", "beta_slow", "truncate", "extrapolation_factor", "finetuned", *MAGNITUDE),
    "longrope": ("factor", TRAINED, "short_factor", "long_factor", "short_mscale", "long_mscale", "attention_factor"),
    "llama3": ("factor", TRAINED, "low_freq_factor", "high_freq_factor"),
    "proportional": ("factor",),
}
COMMON = (
    *("rope_type", "type", "rope_theta", "partial_rotary_factor"),
    *("mrope_section", "mrope_interleaved", "max_position_embeddings", "llama_4_scaling_beta"),
)
KNOWN = frozenset(COMMON).union(*SCHEMES.values())
# Keys that are of use only with a scheme: without one, transformers ignores them in silence.
SCALING = ("alpha", "factor", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor")


def scheme_of(found: Config, part: Part, notes: Notes) -> str:
    """Return the scheme of a part: the name of a function of `rope_numba.frequencies`."""
    rope = part.rope
    named = _named(found, rope, notes)
    scheme: str = ALIASES.get(named.value, named.value)
    alpha = rope.get("alpha")
    if scheme == "yarn" and found.known is not None and found.known.model.yarn_is_longrope:
        scheme = "longrope"
    elif scheme == "dynamic" and alpha is not None and alpha.value != 0:
        scheme = "ntk"
    elif scheme not in SCHEMES or scheme == "ntk":  # the type of this name is vLLM's, and another rule
        try:
            refuse(named.value)
        except ValueError as error:
            raise ValueError(str(error).replace("scheme", named.source, 1)) from None
    others = [name for name, value in rope.values.items() if value is not None and name not in COMMON]
    others = [
        name for name in others if name not in SCHEMES[scheme] and not (name == TURNS and SECTIONS in rope.values)
    ]
    for name in others:
        if name in KNOWN:
            notes.conflict(f"{rope.source(name)} is {shown(rope.values[name])}, which scheme {scheme!r} does not use.")
    for name in [name for name in others if name not in KNOWN][: MOST_CONFLICTS + 1]:
        found.relax(notes, f"{rope.source(name)} is not a known key of scheme {scheme!r}")
    notes.fact("scheme", scheme, named.source if scheme == named.value else f"{named.source}, {named.value!r}")
    return scheme


def _named(found: Config, rope: Keys, notes: Notes) -> Found:
    """Return the name of the scheme, as the dict has it."""
    names = rope.all(("rope_type", "type"))
    for one in names:
        if not isinstance(one.value, str):
            raise TypeError(f"{one.source} is {shown(one.value)}; expected the name of a scheme")
    if len({ALIASES.get(one.value, one.value) for one in names}) > 1:
        notes.agreed(names, "the second was taken")
    if names:
        return names[0]
    if rope.label is None and any(rope.get(name) is not None for name in SCALING):
        found.relax(notes, f"{rope.source('rope_type')} is missing; expected the scheme that the other keys belong to")
    return Found("default", "no scheme is named")

"""Configurations that are refused: of other positions, of images and sound, and of dicts that lie deeper."""

from __future__ import annotations

import re

from ...numbers import shown
from ...wording import argument
from ..keys import SHARES, THETAS, Found, Keys
from .config import DICTS, TEXT_PART_OF, Config
from .defaults import CERTAIN, NO_ROTATION, REFUSED_MODELS, SWITCHES, TEXT_PARTS, type_of_class

__all__ = ["ROPE_KEYS", "class_of", "classes_of", "inner_rope", "refuse", "speaking"]

ROPE_KEYS = (*DICTS, *THETAS, *SHARES, "rotary_dim", "qk_rope_head_dim")
OTHER_POSITIONS = ("absolute", "alibi", "learned", "learned_absolute", "nope", "none", "relative", "relative_key")
DEEPEST = 4  # dicts within dicts that are searched for keys of RoPE
BY_HAND = "rope_numba.Frequencies(inv_freq=...)"

# Words in the names of types that encode images, videos or sound, as transformers and published files have them.
TOWER = re.compile(
    "vision|visual|image|video|audio|speech|acoustic|vit(_|$)|clip|dino|pixtral|sam[23]?_|mlcd|eomt|sapiens|vjepa|beit"
    "|swin|whisper|wav2vec|hubert|conformer|parakeet|(^|_)l?asr(_|$)|mimi|codec|vqgan|vqmodel|vqvae|tokenizer|token2wav"
    "|bigvgan"
    "|_dit$|_perceiver$|_perciever$|lightglue|loftr|radio|resnet"
)
# Keys of such encoders, which no text model has without a vocabulary or a length beside it.
TOWER_KEYS = ("patch_size", "image_size", "num_mel_bins", "spatial_merge_size", "temporal_patch_size", "depth")
VOCABULARY = "vocab_size"
TEXT_MARKS = (VOCABULARY, "max_position_embeddings", "vision_config")

# Keys whose presence changes the rotation in a way that is not here; null and false count as absent.
UNSUPPORTED = {
    "rotary_emb_scale_base": "xPos is not supported",
    "rotary_scaling_factor": "a base that grows with the length (Nomic's) is not supported",
}


def refuse(found: Config) -> None:
    """Raise for configurations that do not rotate, or not as is read here."""
    keys, kind = found.keys, found.model_type
    _refuse_type(found, kind, found.named)
    of_class = class_of(keys)
    if of_class is not None and TEXT_PARTS.get(of_class.value, of_class.value) in REFUSED_MODELS:
        _refuse_type(found, of_class.value, of_class.source)
    refuse_tower(found)
    name = TEXT_PARTS.get(kind, kind)
    if name in SWITCHES:
        key, wanted = SWITCHES[name]
        if keys.values.get(key) != wanted:
            given = keys.values.get(key)
            raise ValueError(f"{keys.source(key)} is {shown(given)}; expected {wanted!r}, as RoPE is used only then")
    if keys.values.get("alibi") is True:
        so = ", so the model has no rotary position embeddings" if found.known else "; expected false, with RoPE"
        raise ValueError(f"{keys.source('alibi')} is True{so}")
    positions = keys.get("position_embedding_type")
    if found.known is None and positions is not None and positions.value in OTHER_POSITIONS:
        said = speaking(keys)
        but = "no key speaks of RoPE" if said is None else f"{said.source} is {shown(said.value)}"
        found.relax(found.notes, f"{positions.source} is {positions.value!r}, and {but}; expected 'rotary' or 'rope'")
    for key, why in UNSUPPORTED.items():
        value = keys.get(key)
        if value is not None and value.value is not False:
            raise ValueError(f"{value.source} is {shown(value.value)}; expected null, as {why}")
    if found.known is not None and found.known.model.needs_theta and _theta_free(keys):
        raise ValueError(f"rope_theta is missing; expected it, as models of type {kind!r} use RoPE only with it")


def _refuse_type(found: Config, kind: str, source: str) -> None:
    """Raise for types that do not rotate, or rotate in a way of their own."""
    if kind in NO_ROTATION:
        said, inner = None, None
        if NO_ROTATION[kind] not in CERTAIN:
            said, inner = speaking(found.keys), inner_rope(found.keys)
        if said is None and inner is None:
            raise ValueError(f"{source} is {shown(kind)}, which has no rotary position embeddings: {NO_ROTATION[kind]}")
        if said is None and inner is not None:
            raise ValueError(
                f"{inner.source} is {shown(inner.value)}, where models of type {shown(kind)} do not rotate in "
                f"transformers; expected another model, or {argument(BY_HAND)} made by hand"
            )
        if said is not None and found.layout is None:
            raise ValueError(
                f"{source} is {shown(kind)}, whose models do not rotate in transformers ({NO_ROTATION[kind]}), but "
                f"{said.source} is {shown(said.value)}; expected the type of a model that rotates, or "
                f"{argument('layout=')} ('half' or 'interleaved')"
            )
    name = TEXT_PARTS.get(kind, kind)
    if name in REFUSED_MODELS:
        raise ValueError(
            f"{source} is {shown(kind)}, which rotates in a way of its own ({REFUSED_MODELS[name]}); expected "
            f"another model, or {argument(BY_HAND)} made by hand"
        )


def refuse_tower(found: Config) -> None:
    """Raise for an encoder of images or sound, by its type's name, or by keys that only those have."""
    keys, kind = found.keys, found.model_type
    wrapper = kind in TEXT_PARTS
    if found.known is not None and not wrapper:
        return
    key = keys.get(*TOWER_KEYS)
    marked = any(keys.get(name) is not None for name in TEXT_MARKS)
    if found.known is None and TOWER.search(kind.lower()) and not found.named.startswith(TEXT_PART_OF):
        if keys.get(VOCABULARY) is not None and speaking(keys) is not None:  # a text model that also sees or hears
            return
        what = f"{found.named} is {shown(kind)}, which by its name encodes images or sound"
    elif key is not None and not marked:
        what = f"{key.source} is {shown(key.value)}, so that this part of {found.name} encodes images or sound"
    else:
        return
    raise ValueError(
        f"{what}, and may have several axes of positions; expected the configuration of a text model, with "
        f"{VOCABULARY} and keys of RoPE, or {argument(BY_HAND)} made by hand"
    )


def class_of(keys: Keys) -> Found | None:
    """Return the model type of the first class in `architectures` that the tables know."""
    for name in classes_of(keys):
        kind = type_of_class(name.value) if isinstance(name.value, str) else None
        if kind is not None:
            return Found(kind, f"{name.source}, {shown(name.value)},")
    return None


def classes_of(keys: Keys) -> list[Found]:
    """Return the entries of `architectures`, which is a list of names, or one name."""
    classes = keys.get("architectures")
    if classes is None:
        return []
    if not isinstance(classes.value, list):
        return [classes] if isinstance(classes.value, str) else []
    return [Found(name, f"{classes.source}[{place}]") for place, name in enumerate(classes.value)]


def speaking(keys: Keys) -> Found | None:
    """Return the first key that speaks of RoPE in a dict, if one does."""
    flags = [found for found in keys.all(("rope", "use_rope", "rotary")) if found.value is True]
    positions = [found for found in keys.all(("position_embedding_type",)) if found.value in ("rotary", "rope")]
    values = [found for found in keys.all(ROPE_KEYS) if found.value]
    return next(iter(flags + positions + values), None)


def inner_rope(keys: Keys, depth: int = DEEPEST) -> Found | None:
    """Return the first key that speaks of RoPE in the dicts of a dict, text models before encoders."""
    if not depth:
        return None
    names = [name for name, value in keys.values.items() if isinstance(value, dict) and isinstance(name, str)]
    for name in sorted(
        (name for name in names if name not in DICTS), key=lambda name: bool(TOWER.search(name.lower()))
    ):
        inner = Keys(keys.values[name], keys.source(name))
        if inner.values.get("rope") is False:  # MPT's attn_config, with values that are used only if it is true
            continue
        said = speaking(inner) or inner_rope(inner, depth - 1)
        if said is not None:
            return said
    return None


def _theta_free(keys: Keys) -> bool:
    dicts = [keys.inner(name) for name in DICTS]
    return keys.get(*THETAS) is None and all(inner is None or inner.get("rope_theta") is None for inner in dicts)

"""Keys of a configuration, looked up under all their names; what is found remembers where it stood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..numbers import counted, positive, shown, whole
from .header import Fact

__all__ = [
    "CONTEXT",
    "HEADS",
    "HEAD_DIM",
    "HIDDEN",
    "LAYERS",
    "MORE_CONFLICTS",
    "MOST_CONFLICTS",
    "SHARES",
    "THETAS",
    "Found",
    "Keys",
    "Notes",
    "indexer_duty",
    "listed",
    "unrotated",
]

# All names that published configurations use for one thing, the ones that transformers uses today first.
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_num_attention_heads")
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "head_size", "d_kv")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
THETAS = ("rope_theta", "global_rope_theta", "rope_global_theta", "rope_theta_global", "rotary_emb_base", "rope_base")
SHOWN_LAYERS = 8  # of those that are not rotated
SHARES = ("partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent", "rotary_emb_fraction")
MOST_CONFLICTS = 20  # that are told; a file may hold any number of unknown keys
MORE_CONFLICTS = "More was left out, and is not listed."
LONGEST_NAME = 60  # characters of a key that stand without quotes


@dataclass(frozen=True)
class Found:
    """A value, and where it stood: a key with its path, or a default."""

    value: Any
    source: str

    def positive(self) -> float:
        """Return the value as a float above 0, or raise and name its key."""
        return positive(self.source, self.value)

    def whole(self, least: int, most: int, unit: str) -> int:
        """Return the value as an int within bounds, or raise and name its key."""
        number = whole(self.source, self.value)
        if not least <= number <= most:
            raise ValueError(f"{self.source} is {number}; expected {least} to {most} {unit}")
        return number

    def flag(self) -> bool:
        """Return the value as a bool, or raise and name its key."""
        if not isinstance(self.value, bool):
            raise TypeError(f"{self.source} is {shown(self.value)}; expected true or false")
        return self.value


@dataclass(frozen=True)
class Keys:
    """A dict of a configuration, and the path at which it lies in there. Null counts as missing, as everywhere."""

    values: dict[str, Any]
    path: str = ""
    label: str | None = None  # what all values come from, if it is no dict of the file: a default
    origins: dict[str, str] = field(default_factory=dict)  # of keys that were taken over from another dict

    def source(self, name: str) -> str:
        """Return where a key stands, with its path."""
        if self.label is not None:
            return self.label
        if name in self.origins:
            return self.origins[name]
        if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
            name = shown(name, LONGEST_NAME)
        return f"{self.path}.{name}" if self.path else name

    def lacking(self, name: str) -> str:
        """Return where a key would stand that is missing."""
        return replace(self, label=None).source(name)

    def get(self, *names: str) -> Found | None:
        """Return the first of these keys that has a value."""
        return next(iter(self.all(names)), None)

    def all(self, names: Iterable[str]) -> list[Found]:
        """Return those of these keys that have a value."""
        return [Found(self.values[name], self.source(name)) for name in names if self.values.get(name) is not None]

    def inner(self, name: str) -> Keys | None:
        """Return the dict under a key, or None if there is none, or raise if it is something else."""
        value = self.values.get(name)
        if value is None or isinstance(value, Keys):
            return value
        if not isinstance(value, dict):
            raise TypeError(f"{self.source(name)} is {shown(value)}; expected an object or null")
        return Keys(value, self.source(name))


@dataclass
class Notes:
    """What a reader has to say of what it read: facts, contradictions, and what the caller has to do."""

    facts: list[Fact] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    duties: list[str] = field(default_factory=list)

    def fact(self, name: str, value: Any, source: str) -> None:
        """Note a resolved value."""
        self.facts.append(Fact(name, value, source, MEANINGS[name]))

    def conflict(self, sentence: str) -> None:
        """Note a contradiction, once."""
        if sentence not in self.conflicts:
            self.conflicts.append(sentence)

    def duty(self, sentence: str) -> None:
        """Note what the caller has to do, once."""
        if sentence not in self.duties:
            self.duties.append(sentence)

    def copy(self) -> Notes:
        """Return notes that go on from these."""
        return Notes(list(self.facts), list(self.conflicts), list(self.duties))

    def agreed(self, founds: list[Found], rule: str) -> Found | None:
        """Return the first of several places of one value, and note which of the others contradict it."""
        for other in founds[1:]:
            if other.value != founds[0].value:
                first = founds[0]
                self.conflict(
                    f"{other.source} is {shown(other.value)}, but {first.source} is {shown(first.value)}: {rule}."
                )
        return founds[0] if founds else None


def listed(found: Found, kinds: tuple[type, ...], wanted: str) -> list[Any]:
    """Return a value as a list of values of some kinds, or raise and name its key."""
    if not isinstance(found.value, (list, tuple)):
        raise TypeError(f"{found.source} is {shown(found.value)}; expected {wanted}")
    for place, value in enumerate(found.value):
        if not isinstance(value, kinds):
            raise TypeError(f"{found.source}[{place}] is {shown(value)}; expected {wanted}")
    return list(found.value)


def indexer_duty(layout: str, which: str = "") -> str:
    """Return what the caller has to do for the indexer of sparse attention, whose rotation is its own.

    `which` says which of its channels are rotated, if they are not the first.
    """
    where = f", in {which}their channels" if which else ""
    return f"Queries and keys of the indexer rotate in layout {layout!r}{where}, by the same frequencies."


def unrotated(labels: tuple[str | None, ...]) -> str | None:
    """Return the sentence that says which layers are not rotated, or None if all are."""
    without = [index for index, label in enumerate(labels) if label is None]
    if not without:
        return None
    which = ", ".join(map(str, without[:SHOWN_LAYERS]))
    more = f" and {len(without) - SHOWN_LAYERS} more" if len(without) > SHOWN_LAYERS else ""
    verb = "is" if len(without) == 1 else "are"
    return f"{len(without)} of {counted(len(labels), 'layer')} {verb} not rotated (counted from 0): {which}{more}."


MEANINGS = {
    "model": "the kind of model, which decides what the header leaves unsaid",
    "layer_type": "the layers that this holds for",
    "scheme": "the rule by which frequencies are made, a function of rope_numba.frequencies",
    "theta": "the base: pair i of n turns by theta ** (-i / n) per position before any scaling; larger is slower",
    "head_dim": "channels of a head, as this rotation takes them",
    "rotary_dim": "channels of a head that are rotated",
    "rotary_offset": "the first rotated channel",
    "layout": "which channels make a pair: neighbours (interleaved), or those half the rotary width apart (half)",
    "partial_rotary_factor": "share of a head's channels, or of its pairs, that turn",
    "factor": "how many times the context is stretched: slow pairs turn that many times more slowly",
    "alpha": "how many times more slowly the slowest pair turns",
    "original_max_position_embeddings": "positions of the training before the context was stretched",
    "seq_len": "the length of context that the frequencies are made for",
    "beta_fast": "pairs that turn more often than this within the trained length keep their speed",
    "beta_slow": "pairs that turn less often than this within the trained length are slowed by the factor",
    "truncate": "whether the ramp between fast and slow pairs is widened to whole pairs",
    "mscale": "weight of the logarithm of the factor in the magnitude's numerator",
    "mscale_all_dim": "weight of the logarithm of the factor in the magnitude's denominator",
    "low_freq_factor": "pairs that turn less often than this within the trained length are slowed by the factor",
    "high_freq_factor": "pairs that turn more often than this within the trained length keep their speed",
    "short_factor": "what each pair's frequency is divided by, in contexts up to the trained length",
    "long_factor": "what each pair's frequency is divided by, in contexts beyond the trained length",
    "short_mscale": "the magnitude in contexts up to the trained length",
    "long_mscale": "the magnitude in contexts beyond the trained length",
    "variant": "which of the two lists of divisors is in use",
    "sections": "pairs that follow a token's time, height and width, for models that see images",
    "sections_order": "whether those pairs stand in blocks or take turns",
    "attention_factor": "the magnitude: cosines and sines, and so rotated q and k, are multiplied by it",
    "attention_logit_scale": "what attention logits are multiplied by, beside 1 / sqrt(width of a query head)",
    "direction": "the sense of the rotation; -1 is against everybody else's",
    "trained_length": "positions that the model was trained for, before any scaling",
    "context_length": "positions that the model is offered for, scaling included",
}

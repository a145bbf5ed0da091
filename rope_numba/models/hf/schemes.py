"""From the dict that speaks of RoPE to frequencies: what each scheme is told, and where that comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ... import frequencies
from ...frequencies import Frequencies
from ...numbers import shown
from ...wording import argument
from ..keys import CONTEXT, Found, Notes
from .config import Config
from .layers import Part
from .lengths import LONGEST, context_of, ratio, trained_of
from .named import TRAINED
from .widths import Widths

__all__ = ["Resolved", "resolve"]

UNNOTED = ("rotary_dim", "head_dim", "theta", "max_position_embeddings")  # arguments that are noted elsewhere


@dataclass(frozen=True)
class Resolved:
    """The frequencies of one part, and what they were made from."""

    scheme: str
    frequencies: Frequencies
    unscaled: Frequencies
    arguments: Arguments
    context: Found | None  # the positions that the model is offered for, as far as the file says


@dataclass
class Arguments:
    """Arguments of a scheme, and where each came from, so that an error names the key."""

    notes: Notes
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, found: Found | None) -> None:
        """Pass an argument on, if it was found, and note it."""
        if found is None:
            return
        self.values[name], self.sources[name] = found.value, found.source
        if name not in UNNOTED:
            self.notes.fact(name, found.value if _is_plain(found.value) else shown(found.value), found.source)

    def found(self, name: str) -> Found | None:
        """Return an argument, if it was taken."""
        return Found(self.values[name], self.sources[name]) if name in self.sources else None

    def call(self, scheme: Callable[..., Frequencies]) -> Frequencies:
        """Call a scheme's function; what it complains of is told by the name of the key."""
        try:
            return scheme(**self.values)
        except (TypeError, ValueError) as error:
            text = str(error)
            for name, source in self.sources.items():
                if text.startswith((f"{name} ", f"{name}[")):
                    text = source + text[len(name) :]
                    break
            raise type(error)(text) from None


def _is_plain(value: object) -> bool:
    """Return whether a value can be shown as it is: a number, a text, or a list of numbers."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(each, (int, float)) for each in value)
    return isinstance(value, (int, float, str))


def resolve(found: Config, part: Part, scheme: str, widths: Widths, seq_len: int | None, notes: Notes) -> Resolved:
    """Return the frequencies of one part of a model."""
    arguments = Arguments(notes)
    arguments.take("rotary_dim", widths.head_dim if scheme == "proportional" else widths.rotary_dim)
    arguments.take("theta", _theta(found, part, notes))
    unscaled = arguments.call(frequencies.default)
    context = context_of(found)
    if scheme == "default":
        return Resolved(scheme, unscaled, unscaled, arguments, context)
    TELLERS[scheme](found, part, arguments, context, seq_len)
    if scheme == "proportional":
        arguments.take("partial_rotary_factor", widths.share)
    made = arguments.call(getattr(frequencies, scheme))
    if scheme == "yarn":
        made = _extra_magnitude(part, made, notes)
    return Resolved(scheme, made, unscaled, arguments, context)


def _theta(found: Config, part: Part, notes: Notes) -> Found:
    """Return the base: of the part's dict, else of the file, else of the model type."""
    inner = None if part.rope.label else part.rope.get("rope_theta")
    given = [one for one in (inner, part.theta) if one is not None]
    theta = notes.agreed(given, "the second was taken") or part.usual.get("rope_theta")
    if theta is None and found.known is not None and found.known.model.theta_dict:
        attention = found.keys.inner(found.known.model.theta_dict)
        theta = None if attention is None else attention.get("rope_theta")
    if theta is None and found.known is not None:
        theta = Found(found.known.model.theta, found.default)
    if theta is None:
        found.guess(notes, "No key gives rope_theta: 10000 was assumed.")
        theta = Found(10_000.0, "default of this package")
    notes.fact("theta", theta.value, theta.source)
    return theta


def _required(part: Part, name: str, wanted: str = "a number, 1 or more") -> Found:
    value = part.rope.get(name)
    if value is None:
        raise ValueError(f"{part.rope.lacking(name)} is missing; expected {wanted}")
    return value


def _tell_linear(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    to.take("factor", _required(part, "factor"))


def _tell_ntk(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    to.take("alpha", part.rope.get("alpha"))


def _tell_proportional(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    to.values["head_dim"], to.sources["head_dim"] = to.values.pop("rotary_dim"), to.sources.pop("rotary_dim")
    to.take("factor", part.rope.get("factor"))


def _tell_dynamic(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    to.take("factor", _required(part, "factor"))
    if context is None:
        raise ValueError(f"{found.keys.source(CONTEXT[0])} is missing; expected the trained length, in positions")
    to.take(TRAINED, context)
    to.take("seq_len", context if seq_len is None else Found(seq_len, argument("seq_len")))
    if seq_len is None:
        to.notes.duty(
            f"The frequencies hold for contexts of up to {context.value} positions. For a longer one, give its length "
            f"as {argument('seq_len=')}, for all queries and keys that meet."
        )


def _tell_yarn(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    trained = trained_of(found, part, context, to.notes)
    to.take("factor", part.rope.get("factor") or ratio(context, trained) or _required(part, "factor"))
    to.take(TRAINED, trained)
    for name in ("beta_fast", "beta_slow"):
        turns = part.rope.get(name)
        to.take(name, None if turns is not None and turns.value == 0 else turns)  # 0 means missing to transformers
    for name in ("truncate", "attention_factor", "mscale", "mscale_all_dim"):
        to.take(name, part.rope.get(name))
    extra = part.rope.get("extrapolation_factor")
    if extra is not None and extra.value != 1:
        raise ValueError(f"{extra.source} is {shown(extra.value)}; expected 1, the only one that is supported")


def _tell_longrope(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    trained = trained_of(found, part, context, to.notes)
    boundary = trained.whole(1, LONGEST, "positions")
    for name in ("short_factor", "long_factor"):
        to.take(name, _required(part, name, "a list of numbers, one for each pair"))
    to.take(TRAINED, trained)
    for name in ("factor", "attention_factor", "short_mscale", "long_mscale"):
        to.take(name, part.rope.get(name))
    to.take("max_position_embeddings", context)
    if seq_len is not None:
        to.take("seq_len", Found(seq_len, argument("seq_len")))
        variant = "long" if seq_len > boundary else "short"
        to.notes.fact("variant", variant, f"{argument('seq_len')}, against {trained.source}")
        return
    to.notes.fact("variant", "short", f"{argument('seq_len')} was not given")
    to.notes.duty(
        f"The short factors are in use, as {argument('seq_len')} was not given. They hold for contexts of up to "
        f"{boundary} positions; for a longer one, give its length as {argument('seq_len=')}, for all queries and keys "
        "that meet."
    )


def _tell_llama3(found: Config, part: Part, to: Arguments, context: Found | None, seq_len: int | None) -> None:
    to.take("factor", _required(part, "factor"))
    for name in ("low_freq_factor", "high_freq_factor"):
        to.take(name, _required(part, name, "a number above 0"))
    to.take(TRAINED, trained_of(found, part, context, to.notes))


TELLERS = {
    "linear": _tell_linear,
    "ntk": _tell_ntk,
    "proportional": _tell_proportional,
    "dynamic": _tell_dynamic,
    "yarn": _tell_yarn,
    "longrope": _tell_longrope,
    "llama3": _tell_llama3,
}


def _extra_magnitude(part: Part, made: Frequencies, notes: Notes) -> Frequencies:
    """Multiply YaRN's magnitude by a key of old files, which transformers does not read."""
    extra = part.rope.get("attn_factor")
    if extra is None or extra.value == 1:
        return made
    notes.conflict(f"{extra.source} is {shown(extra.value)}: it multiplies the magnitude, but not in transformers.")
    product = made.attention_factor * extra.positive()
    notes.facts = [fact for fact in notes.facts if fact.name != "attention_factor"]
    notes.fact("attention_factor", product, f"{extra.source}, times what YaRN has without it")
    return made.replaced(attention_factor=product)

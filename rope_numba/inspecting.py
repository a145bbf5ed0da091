"""What `python -m rope_numba inspect MODEL` does: read a header, explain its rotation, draw it."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .explain import as_dict, explain
from .layers import ropes_from_gguf, ropes_from_hf
from .literals import Layout
from .models.local import FileError, is_folder, open_regular
from .rope import Rope
from .texts import escaped
from .wording import naming

__all__ = ["inspect_model", "report"]

WANTED = "a GGUF file, a config.json or its folder, or a params.json"
MOST_LINE = 1000  # characters of a line about a file
MOST_NAME = 240  # characters of the model's path before an error
MOST_STEM = 40  # characters of a layer type in the name of a file
# What the arguments of the readers are called here.
OPTIONS = {
    "config": "MODEL",
    "path": "MODEL",
    "layer_type": "--layer-type",
    "layout": "--layout",
    "layout=": "--layout",
    "None": "no --layer-type",
    "seq_len": "--seq-len",
    "seq_len=": "--seq-len",
    "strict=False": "--lenient",
    "rope_numba.Frequencies(inv_freq=...)": "for rope_numba.Frequencies in Python",
}


def report(model: str, *, plot: str | None, **how: Any) -> tuple[str, str]:
    """Return what is to be printed of a model, and what went wrong, each of them empty if the other is not.

    Parameters
    ----------
    model, plot, how
        As for `inspect_model`.
    """
    with naming(OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        if plot is not None:
            try:
                from .plots import check_path

                check_path(plot)
            except (ImportError, ValueError) as error:
                return "", escaped(str(error), MOST_LINE)
        try:
            return inspect_model(model, plot=plot, **how), ""
        except (ImportError, OSError, TypeError, ValueError) as error:
            reason = (error.reason if isinstance(error, FileError) else "") or str(error)
            return "", f"{escaped(model, MOST_NAME) or repr(model)}: {escaped(reason, MOST_LINE)}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {escaped(str(message), MOST_LINE)}", file=sys.stderr)


def inspect_model(
    model: str,
    *,
    layer_type: str | None = None,
    seq_len: int | None = None,
    layout: Layout | None = None,
    strict: bool = True,
    as_json: bool = False,
    plot: str | None = None,
) -> str:
    """Return the explanation of a model's rotation, for each of its layer types or for one of them.

    Parameters
    ----------
    model : str
        A GGUF file, a config.json or its folder, or a params.json.
    layer_type, seq_len, layout, strict
        As for `Rope.from_hf`.
    as_json : bool
        JSON instead of text.
    plot : str, optional
        Where to draw it; for several layer types their names come before the ending.

    Raises
    ------
    ImportError, OSError, TypeError, ValueError
        As the readers do, and `plots.draw`.
    """
    gguf = is_gguf(model)
    layers: tuple[str | None, ...] = ()
    if layer_type is None:
        ropes, layers = (ropes_from_gguf if gguf else ropes_from_hf)(
            model, seq_len=seq_len, layout=layout, strict=strict
        )
    else:
        read = Rope.from_gguf if gguf else Rope.from_hf
        ropes = {layer_type: read(model, layer_type=layer_type, seq_len=seq_len, layout=layout, strict=strict)}
    labels = distinct({name: escaped(name) for name in ropes})
    plots = drawn(ropes, plot) if plot is not None else []
    if as_json:
        told: dict[str, Any] = {"ropes": {labels[name]: as_dict(rope) for name, rope in ropes.items()}}
        told["layers"] = [None if layer is None else labels[layer] for layer in layers]
        return json.dumps(told | ({"plots": plots} if plots else {}), indent=2)
    parts = [explain(rope) for rope in ropes.values()]
    if len(ropes) > 1 or None in layers:
        named = tuple(None if layer is None else labels[layer] for layer in layers)
        parts.append("Layers:\n" + "\n".join(f"  {line}" for line in runs_of(named)))
    if plots:
        parts.append("Drawn:\n" + "\n".join(f"  {escaped(path, MOST_LINE)}" for path in plots))
    return "\n\n".join(parts)


def is_gguf(model: str) -> bool:
    """Tell by its name or its first bytes whether a file is a GGUF file."""
    if is_folder("path", model, WANTED):
        return False
    with open_regular("path", model, WANTED) as file:
        return model.lower().endswith(".gguf") or file.read(4) == b"GGUF"


def drawn(ropes: dict[str, Rope], plot: str) -> list[str]:
    """Draw each of the Ropes; returns the files that were written."""
    from .plots import draw

    path = Path(plot)
    stems = distinct({name: re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:MOST_STEM] for name in ropes})
    paths = [path if len(ropes) == 1 else path.with_stem(f"{path.stem}_{stems[name]}") for name in ropes]
    return [draw(rope, path) for rope, path in zip(ropes.values(), paths, strict=True)]


def distinct(labels: dict[str, str]) -> dict[str, str]:
    """Return labels of names, numbered where two are alike."""
    seen: set[str] = set()
    for name, label in labels.items():
        numbered = (label if number == 1 else f"{label}~{number}" for number in range(1, len(labels) + 1))
        labels[name] = next(each for each in numbered if each not in seen)
        seen.add(labels[name])
    return labels


def runs_of(layers: Iterable[str | None]) -> list[str]:
    """Return which layers use which type, those that follow one another on one line."""
    layers, lines, first = tuple(layers), [], 0
    for index in range(1, len(layers) + 1):
        if index == len(layers) or layers[index] != layers[first]:
            which = str(first) if index - first == 1 else f"{first} to {index - 1}"
            kind = layers[first]
            lines.append(f"{which}: {'no rotation' if kind is None else kind or repr(kind)}")
            first = index
    return lines

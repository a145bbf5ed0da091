"""What `python -m rope_numba inspect MODEL` does: read a header, explain its rotation, draw it."""

from __future__ import annotations

import json
from pathlib import Path

from .explain import as_dict, explain
from .layers import ropes_from_gguf, ropes_from_hf
from .rope import Rope

__all__ = ["inspect_model"]


def inspect_model(
    model: str,
    *,
    layer_type: str | None = None,
    seq_len: int | None = None,
    strict: bool = True,
    as_json: bool = False,
    plot: str | None = None,
) -> str:
    """Return the explanation of a model's rotation, for each of its layer types or for one of them.

    Parameters
    ----------
    model : str
        A GGUF file, a config.json or its folder, or a params.json.
    layer_type, seq_len, strict
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
    gguf = is_gguf(Path(model))
    layers: tuple[str | None, ...] = ()
    if layer_type is None:
        ropes, layers = (ropes_from_gguf if gguf else ropes_from_hf)(model, seq_len=seq_len, strict=strict)
    else:
        read = Rope.from_gguf if gguf else Rope.from_hf
        ropes = {layer_type: read(model, layer_type=layer_type, seq_len=seq_len, strict=strict)}
    if plot:
        from .plots import draw

        for name, rope in ropes.items():
            path = Path(plot)
            draw(rope, path if len(ropes) == 1 else path.with_stem(f"{path.stem}_{name}"))
    if as_json:
        return json.dumps({"ropes": {name: as_dict(rope) for name, rope in ropes.items()}, "layers": layers}, indent=2)
    parts = [explain(rope) for rope in ropes.values()]
    if len(ropes) > 1 or None in layers:
        parts.append("Layers:\n" + "\n".join(f"  {line}" for line in runs_of(layers)))
    return "\n\n".join(parts)


def is_gguf(path: Path) -> bool:
    """Tell by its first bytes whether a file is a GGUF file."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def runs_of(layers: tuple[str | None, ...]) -> list[str]:
    """Return which layers use which type, those that follow one another on one line."""
    lines, first = [], 0
    for index in range(1, len(layers) + 1):
        if index == len(layers) or layers[index] != layers[first]:
            which = str(first) if index - first == 1 else f"{first} to {index - 1}"
            lines.append(f"{which}: {layers[first] or 'no rotation'}")
            first = index
    return lines

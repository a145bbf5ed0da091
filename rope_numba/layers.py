"""Models whose layers rotate in several ways: a `Rope` for each way, and which layer uses which."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from .hints import hinted
from .integrations.dynamo import untraced
from .literals import Backend, Layout, Order
from .readable import rope_of_header
from .rope import Rope
from .texts import shown

if TYPE_CHECKING:
    from .models.header import LayerHeaders

__all__ = ["LayerRopes", "ropes_from_gguf", "ropes_from_hf"]

MOST_SHOWN = 8  # entries of LayerRopes in its repr; the names are the file's own, and may be of any length


class LayerRopes(NamedTuple):
    """The Ropes of a model by layer type, and the layer type of each layer.

    Examples
    --------
    >>> import rope_numba as rn
    >>> config = {"model_type": "gemma3_text", "num_hidden_layers": 6}
    >>> ropes, layers = rn.ropes_from_hf(config)
    >>> layers[4:]
    ('sliding_attention', 'full_attention')
    >>> [ropes[layer].theta for layer in layers[4:]]
    [10000.0, 1000000.0]
    """

    ropes: dict[str, Rope]
    layers: tuple[str | None, ...]  # None for a layer without rotation

    def __repr__(self) -> str:
        ropes = [f"{shown(name)}: {rope!r}" for name, rope in islice(self.ropes.items(), MOST_SHOWN)]
        layers = [shown(layer) for layer in self.layers[:MOST_SHOWN]]
        ropes += [f"... {len(self.ropes)} in all"] * (len(self.ropes) > MOST_SHOWN)
        layers += [f"... {len(self.layers)} in all"] * (len(self.layers) > MOST_SHOWN)
        comma = "," if len(self.layers) == 1 else ""
        return f"LayerRopes(ropes={{{', '.join(ropes)}}}, layers=({', '.join(layers)}{comma}))"


@untraced
@hinted
def ropes_from_hf(
    config: Any,
    *,
    seq_len: int | None = None,
    layout: Layout | None = None,
    strict: bool = True,
    order: Order = "thd",
    max_position: int | None = None,
    backend: Backend = "numba",
) -> LayerRopes:
    """Make the Ropes of all layers of a model from its Hugging Face configuration.

    Parameters
    ----------
    config, seq_len, layout, strict, order, max_position, backend
        As for `Rope.from_hf`.

    Returns
    -------
    LayerRopes
        (ropes, layers): a Rope for each layer type, and for each layer its type, or None if it has no rotation.

    Raises
    ------
    TypeError, ValueError
        As `Rope.from_hf`.

    References
    ----------
    The configuration classes of transformers 5.23.0.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> config = {"model_type": "smollm3", "head_dim": 128, "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}
    >>> found = rn.ropes_from_hf(config)
    >>> found.layers
    ('all', 'all', 'all', None)
    >>> steps = {name: rope.at(offset=0, tokens=5) for name, rope in found.ropes.items()}
    >>> for layer in found.layers:
    ...     q, k = np.ones((5, 16, 128), np.float32), np.ones((5, 4, 128), np.float32)
    ...     if layer is not None:  # this layer is rotated
    ...         q, k = steps[layer](q, k)
    """
    from .models.hf import read_hf_layers

    return _ropes(read_hf_layers(config, seq_len=seq_len, layout=layout, strict=strict), order, max_position, backend)


@untraced
@hinted
def ropes_from_gguf(
    path: str | os.PathLike[str],
    *,
    seq_len: int | None = None,
    layout: Layout | None = None,
    strict: bool = True,
    order: Order = "thd",
    max_position: int | None = None,
    backend: Backend = "numba",
) -> LayerRopes:
    """Make the Ropes of all layers of a model from the header of its GGUF file.

    Parameters
    ----------
    path, seq_len, layout, strict, order, max_position, backend
        As for `Rope.from_gguf`.

    Returns
    -------
    LayerRopes
        (ropes, layers): a Rope for each layer type, and for each layer its type, or None if it has no rotation.

    Raises
    ------
    OSError, TypeError, ValueError
        As `Rope.from_gguf`.

    References
    ----------
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's `llama-model.cpp`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> ropes, layers = rn.ropes_from_gguf("model.gguf")  # doctest: +SKIP
    """
    from .models.gguf import read_gguf_layers

    return _ropes(read_gguf_layers(path, seq_len=seq_len, layout=layout, strict=strict), order, max_position, backend)


def _ropes(found: LayerHeaders, order: Order, max_position: int | None, backend: Backend) -> LayerRopes:
    ropes = {name: rope_of_header(Rope, header, order, max_position, backend) for name, header in found.headers.items()}
    return LayerRopes(ropes, found.layers)

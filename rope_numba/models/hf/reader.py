"""The public functions."""

from __future__ import annotations

from ...literals import Layout
from ..header import Header, LayerHeaders
from .assembly import all_headers, one_header
from .files import opened
from .opening import read_config
from .params import is_params, read_params

__all__ = ["read_hf", "read_hf_layers"]


def read_hf(
    config: object,
    *,
    layer_type: str | None = None,
    seq_len: int | None = None,
    layout: Layout | None = None,
    strict: bool = True,
) -> Header:
    """Return what a model's configuration says of its rotation.

    Parameters
    ----------
    config : path, dict or configuration object
        A config.json, a folder that holds one, its content, or an object that has `to_dict()`, as those of
        transformers. A params.json of Mistral is read too.
    layer_type : str, optional
        For models whose layers rotate in several ways, those that are meant: "full_attention".
    seq_len : int, optional
        The longest context that will be reached, in positions, for schemes that depend on it (dynamic, longrope).
    layout : "interleaved" or "half", optional
        The layout of the weights, for a model type that no table knows: it goes before what is known of a type, too.
    strict : bool
        Whether an unknown model type (without `layout`), an unknown key among those of RoPE, and what contradicts
        itself are errors; they are warnings otherwise, and layout "half" is assumed of an unknown type.

    Returns
    -------
    Header

    Raises
    ------
    TypeError, ValueError
        If the file is not a configuration, or a key contradicts another, has no possible value, is missing, or is
        unknown; if the model has no rotary position embeddings, or rotates in a way that is not here; if layers differ
        and `layer_type` is not given.

    Warns
    -----
    UserWarning
        What `strict` would have refused, and what was guessed.

    References
    ----------
    transformers 5.23.0, `modeling_rope_utils.py` and `configuration_utils.py`.

    Examples
    --------
    >>> from rope_numba.models.hf import read_hf
    >>> header = read_hf({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 5e5})
    >>> header.head_dim, header.layout, header.scheme
    (128, 'half', 'default')
    """
    try:
        values, origin = opened(config)
        read = read_params if is_params(values) else read_config
        return one_header(read(values, origin, strict, layout), layer_type, seq_len)
    except RecursionError:
        raise ValueError("config is nested too deeply; expected a model's configuration") from None


def read_hf_layers(
    config: object, *, seq_len: int | None = None, layout: Layout | None = None, strict: bool = True
) -> LayerHeaders:
    """Return what a model's configuration says of the rotation of each of its layers.

    Parameters
    ----------
    config, seq_len, layout, strict
        As for `read_hf`.

    Returns
    -------
    LayerHeaders
        One header for each way in which layers rotate, and for each layer which it is. It names no layer if the
        configuration does not say how many there are, or of which type each is.

    Raises
    ------
    TypeError, ValueError
        As for `read_hf`, but for layers that differ.

    Examples
    --------
    >>> from rope_numba.models.hf import read_hf_layers
    >>> both = read_hf_layers({"model_type": "gemma3_text", "num_hidden_layers": 6})
    >>> both.layers[3:]
    ('sliding_attention', 'sliding_attention', 'full_attention')
    >>> [float(header.frequencies.inv_freq[64]) for header in both.headers.values()]
    [0.01, 0.001]
    """
    try:
        values, origin = opened(config)
        read = read_params if is_params(values) else read_config
        return all_headers(read(values, origin, strict, layout), seq_len)
    except RecursionError:
        raise ValueError("config is nested too deeply; expected a model's configuration") from None

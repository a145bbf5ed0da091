"""The reader of Mistral's own params.json, which lies beside the weights in Mistral's own format."""

from __future__ import annotations

from typing import Any

from ..numbers import shown
from .header import Header
from .hf.assembly import one_header
from .hf.params import read_params

__all__ = ["read_mistral"]


def read_mistral(
    params: dict[str, Any], *, layer_type: str | None = None, seq_len: int | None = None, strict: bool = True
) -> Header:
    """Return what a params.json says of its model's rotation.

    Parameters
    ----------
    params : dict
        The content of the file: dim, n_heads, head_dim, rope_theta, and yarn if the context was stretched.
    layer_type : None
        All layers of these models are alike.
    seq_len : int, optional
        The longest context that will be reached; no scheme of these models depends on it.
    strict : bool
        Whether an unknown key among those of yarn is an error; it is a warning otherwise.

    Returns
    -------
    Header
        In layout "interleaved", which is that of the weights in Mistral's own format.

    Raises
    ------
    TypeError, ValueError
        If a key has no possible value, is missing or unknown.

    References
    ----------
    mistral-inference, `rope.py`; vLLM, `transformers_utils/configs/mistral.py`, for yarn.

    Examples
    --------
    >>> from rope_numba.models.mistral import read_mistral
    >>> header = read_mistral({"dim": 4096, "n_layers": 32, "head_dim": 128, "n_heads": 32, "rope_theta": 1e6})
    >>> header.layout, header.rotary_dim
    ('interleaved', 128)
    """
    if not isinstance(params, dict):
        raise TypeError(f"params is {shown(params)}; expected a dict")
    return one_header(read_params(params, "a dict", strict), layer_type, seq_len)

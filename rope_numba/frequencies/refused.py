"""Schemes that are not here, by name: they are refused with a reason, and never approximated by one that is."""

from __future__ import annotations

from typing import NoReturn

from ..hints import hinted
from ..numbers import shown
from ..wording import argument

__all__ = ["REFUSED", "refuse"]

# Names as headers and runtimes write them, in lower case and with underscores.
REFUSED: dict[str, str] = {
    "axial": "it turns patches of an image by row and column",
    "dual_chunk": "it turns each query by several positions, one for every distance of chunks, in Qwen2.5-1M",
    "ernie": "height and width alternate first and time comes last, in Ernie 4.5 VL",
    "fope": "it mixes several trained frequencies in each pair",
    "mllama4": "it turns patches of an image by row and column, counted from 1, in Llama 4's vision tower",
    "neomme": "row and column alternate from pair to pair",
    "ntk": "the type of this name in vLLM is another rule than NTK-aware scaling, which frequencies.ntk is",
    "openpangu": "its axes take turns in an order of their own",
    "telechat3_yarn": "its magnitude grows with 0.07 times the logarithm of the factor, where YaRN has 0.1",
    "video_rope": "height and width alternate first and time comes last, in Ming",
    "vision": "it turns patches of an image by row and column",
    "xdrope": "it has four axes, on whose pairs transformers and vLLM disagree, in HunYuan-VL",
    "xpos": "its magnitude changes with the position, and differs between queries and keys",
    "yarn_log": "it mixes the logarithms of frequencies, where YaRN mixes frequencies, in Grok",
}


@hinted
def refuse(name: str) -> NoReturn:
    """Raise the error for a scheme that is not here.

    Parameters
    ----------
    name : str
        The scheme, as the header names it; upper case and hyphens make no difference.

    Raises
    ------
    ValueError
        Always: it says why, if the scheme is one of `REFUSED`, and what to do instead.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.REFUSED["fope"]
    'it mixes several trained frequencies in each pair'
    >>> rn.frequencies.refuse("fope")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: scheme is 'fope', which is not here (it ...); expected ready-made frequencies, ...
    """
    reason = REFUSED.get(name.lower().replace("-", "_")) if isinstance(name, str) else None
    raise ValueError(
        f"scheme is {shown(name)}, which is not {f'here ({reason})' if reason else 'known'}; expected ready-made "
        f"frequencies, {argument('rope_numba.Frequencies(inv_freq=...)')}"
    )

"""What a `Rope` has to do with model headers: it is made from one, and explains itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from .frequencies import Frequencies
from .hints import hinted
from .integrations.dynamo import untraced
from .literals import Backend, Layout, Order

if TYPE_CHECKING:
    from .models.header import Header

__all__ = ["Readable", "rope_of_header"]

Made = TypeVar("Made", bound="Readable")


class Readable:
    """The part of a `Rope` that reads headers of models."""

    __slots__ = ()

    frequencies: Frequencies
    _header: Header | None  # what it was made from, if by a reader: for explain() only

    @classmethod
    @untraced
    @hinted
    def from_hf(
        cls: type[Made],
        config: Any,
        *,
        layer_type: str | None = None,
        seq_len: int | None = None,
        layout: Layout | None = None,
        strict: bool = True,
        order: Order = "thd",
        max_position: int | None = None,
        backend: Backend = "numba",
    ) -> Made:
        """Make the Rope of a model from its Hugging Face configuration, or from Mistral's own params.json.

        Parameters
        ----------
        config : path, dict, or configuration object
            A config.json or the folder that holds it, its contents, or what transformers makes of it.
        layer_type : str, optional
            For models whose layers rotate in several ways: which of them, such as "sliding_attention". See also
            `ropes_from_hf`.
        seq_len : int, optional
            Positions that will be used, for schemes that depend on it ("dynamic", "longrope").
        layout : "interleaved" or "half", optional
            The layout of the weights, for a model type that is not known. Where a type is known, it is not needed, and
            goes before what is known.
        strict : bool
            Refuse model types that are not known (without `layout`), and keys of the rotation that are not; with
            False, warn, and assume layout "half" of such a type.
        order, max_position, backend
            As for making a `Rope`.

        Returns
        -------
        Rope
            Ask its `explain()` where each value came from.

        Raises
        ------
        TypeError, ValueError
            If the model has no rotation, or the header is not understood, wholly, or contradicts itself. A path that
            leads to no file gives a FileNotFoundError that is a ValueError too.

        References
        ----------
        The configuration classes and `modeling_rope_utils.py` of transformers 5.23.0.

        Examples
        --------
        >>> import rope_numba as rn
        >>> config = {"model_type": "llama", "head_dim": 128, "num_attention_heads": 32, "rope_theta": 500000.0}
        >>> rn.Rope.from_hf(config)
        Rope(head_dim=128, layout='half', order='thd', frequencies=<1 to 2.45514e-06, attention_factor=1>)
        """
        from .models.hf import read_hf

        header = read_hf(config, layer_type=layer_type, seq_len=seq_len, layout=layout, strict=strict)
        return rope_of_header(cls, header, order, max_position, backend)

    @classmethod
    @untraced
    @hinted
    def from_gguf(
        cls: type[Made],
        path: str | os.PathLike[str],
        *,
        layer_type: str | None = None,
        seq_len: int | None = None,
        layout: Layout | None = None,
        strict: bool = True,
        order: Order = "thd",
        max_position: int | None = None,
        backend: Backend = "numba",
    ) -> Made:
        """Make the Rope of a model from the header of its GGUF file.

        Parameters
        ----------
        path : str or path
            The file; of one in several parts, the first.
        layer_type, seq_len, layout, strict, order, max_position, backend
            As for `from_hf`.

        Returns
        -------
        Rope
            Ask its `explain()` where each value came from.

        Raises
        ------
        OSError
            If the file cannot be opened; it is a ValueError too.
        TypeError, ValueError
            If it is no GGUF file, or damaged, or its rotation is not understood.

        References
        ----------
        https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's `llama-model.cpp`.

        Examples
        --------
        >>> import rope_numba as rn
        >>> rope = rn.Rope.from_gguf("model.gguf")  # doctest: +SKIP
        """
        from .models.gguf import read_gguf

        header = read_gguf(path, layer_type=layer_type, seq_len=seq_len, layout=layout, strict=strict)
        return rope_of_header(cls, header, order, max_position, backend)

    @property
    def theta(self) -> float | None:
        """The base that the frequencies were made from, before any scaling; None for ready-made frequencies.

        It is what headers call `rope_theta` or `rope.freq_base`, or the default that was taken where they are silent.
        NTK-aware scaling enlarges it: that larger base is not kept.
        """
        return self.frequencies.theta

    @property
    def attention_factor(self) -> float:
        """Magnitude of the rotation: what rotated channels of q and of k are multiplied by. 1.0 for most models."""
        return self.frequencies.attention_factor

    @property
    def attention_logit_scale(self) -> float:
        """What the caller must multiply attention logits by, on top of 1 / sqrt(head_dim): 1.0 for most models."""
        return self.frequencies.attention_logit_scale

    @property
    def can_shift(self) -> bool:
        """Whether cached keys may be shifted at any time: False where frequencies depend on the length in use.

        Those of the schemes "dynamic" and "longrope" do. Keys that were rotated for one length do not fit queries that
        are rotated for another, shifted or not; as long as one `Rope` rotates them all, `shift` is right here too.
        """
        return not self.frequencies.depends_on_length

    @untraced
    def explain(self) -> str:
        """Say what this Rope does and where each value came from, in words.

        Returns
        -------
        str
            Some lines of text: every value and its source, the wavelengths beside the trained context, what the
            model's header contradicts itself in, and what is left to the caller.

        Examples
        --------
        >>> import rope_numba as rn
        >>> print(rn.Rope(head_dim=128, theta=500_000.0).explain().splitlines()[0])
        Rope made from arguments: default frequencies, interleaved layout
        """
        from .explain import explain

        return explain(self)


def rope_of_header(kind: type[Made], header: Header, order: Order, max_position: int | None, backend: Backend) -> Made:
    """Make a Rope from what a reader found, and let it remember that."""
    make: Any = kind
    rope: Made = make(
        header.head_dim,
        rotary_offset=header.rotary_offset,
        layout=header.layout,
        order=order,
        frequencies=header.frequencies,
        max_position=max_position,
        backend=backend,
    )
    object.__setattr__(rope, "_header", header)
    return rope

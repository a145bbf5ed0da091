"""The reader of Hugging Face's config.json, in the dialects of transformers 4 and 5."""

from __future__ import annotations

from .reader import read_hf, read_hf_layers

__all__ = ["read_hf", "read_hf_layers"]

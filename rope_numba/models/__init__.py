"""Readers of model headers: a config.json, a params.json or a GGUF file becomes a `Header`.

They need NumPy and nothing else: neither transformers nor gguf.
"""

from __future__ import annotations

from .header import Fact, Header, LayerHeaders

__all__ = ["Fact", "Header", "LayerHeaders"]

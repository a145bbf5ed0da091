"""The reader of GGUF files: what llama.cpp's keys, tensors and architectures say of the rotation."""

from __future__ import annotations

from .reader import read_gguf, read_gguf_layers

__all__ = ["read_gguf", "read_gguf_layers"]

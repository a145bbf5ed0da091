"""GGUF files written by the gguf package, and frequencies worked out apart from the reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from rope_numba.models.gguf import read_gguf
from rope_numba.models.header import Header

FULL, SLIDING = "full_attention", "sliding_attention"
Write = Callable[..., Path]


def written(path: Path, architecture: str, tensors: dict[str, Any] | None = None, **values: Any) -> Path:
    """Write a file; each value is added by the method of that name of the gguf package's writer.

    The base is 10,000 if none is given, and missing if it is None.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {"rope_freq_base": 10_000.0, **values}.items():
        if value is None:
            continue
        if key.startswith("raw_"):  # keys that the writer has no method for
            writer.add_float32(f"{architecture}.{key[4:].replace('__', '.')}", value)
        else:
            getattr(writer, f"add_{key}")(value)
    for key, data in (tensors or {}).items():
        writer.add_tensor(key, np.asarray(data, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_loosely(path: Path) -> Header:
    """Read a file of which something is in doubt, and fail unless each doubt is warned of."""
    with pytest.warns(UserWarning, match=".") as warned:
        header = read_gguf(path, strict=False)
    assert {str(warning.message) for warning in warned} <= set(header.conflicts)
    return header


def plain(width: int, theta: float) -> NDArray[np.float64]:
    return np.array([1.0 / theta ** (2.0 * pair / width) for pair in range(width // 2)])


def ramped(width: int, theta: float, factor: float, trained: int, fast: float = 32.0, slow: float = 1.0) -> Any:
    """Return YaRN's frequencies as ggml works them out, pair by pair, in float64."""
    low, high = (width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (fast, slow))
    low, high = max(0, math.floor(low)), min(width - 1, math.ceil(high))
    out = []
    for pair, speed in enumerate(plain(width, theta)):
        kept = 1.0 - min(1.0, max(0.0, (pair - low) / max(0.001, high - low)))
        out.append(speed / factor * (1.0 - kept) + speed * kept)
    return np.array(out)


def llama3_divisors(width: int, theta: float, factor: float, low: float, high: float, trained: int) -> list[float]:
    """Return what llama.cpp's converter writes for Llama 3.1, by its three bands."""
    divisors = []
    for speed in plain(width, theta):
        length = 2 * math.pi / speed
        if length < trained / high:
            divisors.append(1.0)
        elif length > trained / low:
            divisors.append(factor)
        else:
            smooth = (trained / length - low) / (high - low)
            divisors.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return divisors


def close(header: Header, expected: NDArray[np.float64], rtol: float = 1e-14) -> None:
    np.testing.assert_allclose(header.frequencies.inv_freq, expected, rtol=rtol, atol=0.0)


LLAMA = {"head_count": 32, "embedding_length": 4096, "context_length": 8192, "block_count": 4}
HEAD_128 = {"key_length": 128, "block_count": 4, "context_length": 8192}


YARN = {"rope_scaling_type": gguf.RopeScalingType.YARN, "rope_scaling_orig_ctx_len": 32768}
QWEN = {"key_length": 128, "context_length": 131072, "rope_freq_base": 1e6, "rope_scaling_factor": 4.0, **YARN}
DEEPSEEK = {
    "key_length": 576,
    "key_length_mla": 192,
    "rope_dimension_count": 64,
    "block_count": 4,
    "head_count": 128,
    "context_length": 163840,
    "rope_scaling_factor": 40.0,
    **YARN,
    "rope_scaling_orig_ctx_len": 4096,
}
HEAD_128 = {"key_length": 128, "block_count": 4, "context_length": 8192}
WINDOWS = {"key_length": 256, "block_count": 12, "context_length": 131072, "sliding_window": 1024}


def phi3(write: Write, **more: Any) -> Path:
    short = [1.0 + 0.01 * pair for pair in range(48)]
    long = [1.0 + pair for pair in range(48)]
    tensors = {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    values = {"head_count": 32, "embedding_length": 3072, "rope_dimension_count": 96, "context_length": 131072}
    lengths = {"rope_scaling_orig_ctx_len": 4096, "rope_scaling_attn_factors": 1.1902380714238083}
    # As the converter writes it, there is no scaling type.
    return write("phi3", tensors, **{**values, **lengths, "sliding_window": 262144, **more})

"""What the comparisons of the config.json reader with transformers share.

transformers forms angles in float32, from frequencies in float32: an angle of p * w radians is off by a few times
p * w * 2**-24, so that results may differ by that times the length of the pair, beside 1e-5.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba.models import Header

Array = NDArray[Any]
ROUNDINGS = 8 * 2.0**-24


def load_peer() -> Any:
    """Return torch and transformers, or skip; in CI, fail."""
    missing = [package for package in ("torch", "transformers") if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install '.[peers]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of their own imports
        import torch
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    transformers.logging.set_verbosity_error()
    return SimpleNamespace(torch=torch, configs=CONFIG_MAPPING, names=CONFIG_MAPPING_NAMES, version=transformers)


def rotate_ours(header: Header, x: Array, positions: Any, order: str) -> Array:
    width = header.head_dim if x.shape[-1] == header.head_dim else header.rotary_dim
    rope = rn.Rope(width, frequencies=header.frequencies, layout=header.layout, order=order, backend="numpy")
    result = x.astype(np.float64)
    rope(result, positions=positions)
    return result


def allowed(header: Header, x: Array, positions: Any, order: str) -> Array:
    """Return how far float32 angles may lead away, for each element."""
    width = header.head_dim if x.shape[-1] == header.head_dim else header.rotary_dim
    speeds, pairs = np.abs(header.frequencies.inv_freq), header.frequencies.pairs
    channels = np.zeros(width)
    rotated = 2 * pairs
    channels[:rotated] = np.repeat(speeds, 2) if header.layout == "interleaved" else np.tile(speeds, 2)
    size = np.abs(x).max(axis=-1, keepdims=True) * 1.5 * header.frequencies.attention_factor
    places = np.asarray(positions, np.float64)
    places = places.max(axis=0) if places.ndim == 3 else places
    places = places.reshape(-1, 1, 1) if order == "thd" else places.reshape(1, -1, 1)
    return 1e-5 + size * places * channels * ROUNDINGS


def in_half_order(x: Array, pairs: int) -> Array:
    """Return interleaved channels in the order in which DeepSeek-V3's code leaves them."""
    return np.concatenate([x[..., : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2], x[..., 2 * pairs :]], axis=-1)


def assert_rotated_alike(header: Header, before: Array, after: Array, positions: Any, order: str, moved: bool) -> None:
    ours, tolerance = rotate_ours(header, before, positions, order), allowed(header, before, positions, order)
    if moved:
        pairs = header.frequencies.pairs
        ours, tolerance = in_half_order(ours, pairs), in_half_order(np.broadcast_to(tolerance, ours.shape), pairs)
    assert (np.abs(ours - after) <= tolerance).all(), float((np.abs(ours - after) - tolerance).max())
    assert np.abs(after - before).max() > 0.1

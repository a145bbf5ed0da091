"""Mutated configurations end in a header that makes a `Rope`, or in a ValueError or TypeError of one line.

With HYPOTHESIS_PROFILE=long 20,000 are drawn, eight in ten of them from published configurations.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rope_numba as rn
from rope_numba.models import Header
from rope_numba.models.hf import read_hf, read_hf_layers
from rope_numba.models.hf.types import MODELS

HERE = Path(__file__).parent / "configs"
PUBLISHED = [path for path in sorted(HERE.glob("*.json")) if path.stem not in ("golden", "sources")]
MADE: list[dict[str, Any]] = [
    {"model_type": "novel", "head_dim": 64, "rope_theta": 1e4, "rope_local_base_freq": 5e3, "num_hidden_layers": 4},
    {
        "model_type": "granite_swa",
        "num_hidden_layers": 2,
        "layer_rope_theta": [1e4, 0],
        "layer_types": ["full_attention", "sliding_attention"],
    },
    {
        "model_type": "step3p5",
        "rope_theta": [5e6, 1e4],
        "partial_rotary_factors": [0.5, 1.0],
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    {
        "dim": 512,
        "n_heads": 4,
        "rope_theta": 1e6,
        "yarn": {"factor": 16, "original_max_position_embeddings": 1024, "alpha": 1, "beta": 32, "apply_scale": False},
        "llama_4_scaling": {"original_max_position_embeddings": 1024, "beta": 0.1},
    },
]
BASES: list[dict[str, Any]] = [json.loads(path.read_text()) for path in PUBLISHED] + MADE

NUMBERS = [0, 1, -1, 2, 3, 7, 63, 64, 96, 128, 4096, 2**31, 2**53 + 1, 10**12, 10**30, -(10**12), 10**400]
FLOATS = [0.0, -0.0, 0.5, 1.0, 1.5, 0.7, 1e-300, 1e300, 5e-324, math.nan, math.inf, -math.inf]
WORDS = ["", "x", "yarn", "linear", "dynamic", "longrope", "llama3", "mrope", "default", "proportional", "su", "axial"]
WORDS += ["full_attention", "sliding_attention", "LLLG", "novel\nline", "\x00", "ü" * 300, *sorted(MODELS)[::9]]
KEYS = sorted(
    {key for base in BASES for key in base} | {"rope_parameters", "rope_scaling", "text_config", "layer_types"}
)
KEYS += ["head_dim", "rotary_dim", "partial_rotary_factor", "mrope_section", "mrope_interleaved", "alpha", "factor"]
KEYS += ["type", "rope_type", "short_factor", "long_factor", "truncate", "no_rope_layers", "sliding_window_pattern"]
KEYS += ["per_layer_config", "global_head_dim", "qk_rope_head_dim", "rope_interleave", "attn_config", "novel\nkey"]

scalars = st.sampled_from([None, True, False, *NUMBERS, *FLOATS, *WORDS])
inner_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
lists = st.builds(
    lambda value, length: [value] * length, scalars, st.sampled_from([1, 2, 3, 8, 32, 36, 48, 64, 20_000])
)


@st.composite
def whole_dicts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a dict that speaks of RoPE, of one scheme, with a value or two that do not fit."""
    scheme = draw(
        st.sampled_from(["linear", "dynamic", "yarn", "longrope", "llama3", "proportional", "default", "mrope"])
    )
    rope: dict[str, Any] = {
        "rope_type": scheme,
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "short_factor": [1.0] * 64,
        "long_factor": [2.0] * 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    for _ in range(draw(st.integers(0, 3))):
        rope[draw(st.sampled_from(KEYS))] = draw(scalars | lists)
    return rope


values = st.one_of(
    inner_values, lists, whole_dicts(), st.dictionaries(st.sampled_from(WORDS), whole_dicts(), max_size=2)
)


def places(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all dicts within a configuration, itself first."""
    found = [config]
    for value in config.values():
        if isinstance(value, dict):
            found += places(value)
    return found


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    config = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.sampled_from(places(config)))
        key = draw(st.sampled_from([*place, *KEYS] if draw(st.booleans()) else list(place) or KEYS))
        if draw(st.integers(0, 5)) == 0:
            place.pop(key, None)
        else:
            place[key] = draw(values)
    return config


def attempt(read: Any, config: Any, told: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what strict would have refused
            return read(config, **told), None
    except (ValueError, TypeError) as error:
        return None, error


def assert_ends_well(config: Any, **how: Any) -> None:
    """Fail unless reading gives headers that make Ropes, or an error of one line."""
    for read in (read_hf, read_hf_layers):
        told = {name: value for name, value in how.items() if name != "layer_type" or read is read_hf}
        found, refused = attempt(read, config, told)
        if refused is not None:
            assert type(refused) in (ValueError, TypeError)
            assert str(refused)
            assert "\n" not in str(refused)
            assert len(str(refused)) < 1_000
            continue
        for header in [found] if isinstance(found, Header) else found.headers.values():
            assert np.isfinite(header.frequencies.inv_freq).all()
            assert header.rotary_dim <= header.head_dim
            assert all("\n" not in text for text in (*header.conflicts, *header.duties))
            rope = rn.Rope(header.head_dim, frequencies=header.frequencies, layout=header.layout, backend="numpy")
            assert rope.rotary_dim == header.rotary_dim


HOW = st.fixed_dictionaries(
    {},
    optional={
        "layer_type": st.sampled_from([None, "full_attention", "sliding_attention", "novel", 5]),
        "seq_len": st.sampled_from([None, 1, 4096, 4097, 10**9, 2**53, 0, -1, 1.5]),
        "strict": st.booleans(),
    },
)


@settings(max_examples=8 * settings().max_examples)
@given(config=mutants(), how=HOW)
def test_a_mutated_configuration_ends_in_headers_or_in_one_line(config: Any, how: dict[str, Any]) -> None:
    assert_ends_well(config, **how)


@given(config=st.dictionaries(st.sampled_from(KEYS), values, max_size=12), how=HOW)
def test_a_configuration_of_nothing_but_noise_ends_in_headers_or_in_one_line(config: Any, how: dict[str, Any]) -> None:
    assert_ends_well(config, **how)


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    text = bytearray(draw(st.sampled_from(PUBLISHED)).read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 12)))
        text[start:stop] = draw(
            st.sampled_from([b"", b"null", b"NaN", b"-Infinity", b"1e999", b"[", b"}", b'"', b"\xff", b"0", b"9" * 20])
            | st.binary(max_size=4)
        )
    return bytes(text)


@given(content=broken_texts(), how=HOW)
def test_a_damaged_file_ends_in_headers_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, how: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_bytes(content)
    assert_ends_well(path, **how)


@pytest.mark.parametrize(
    "value", [*NUMBERS, *FLOATS, *WORDS, None, True, [], {}, [[]], {"a": {"b": {}}}, object(), {1, 2}]
)
@pytest.mark.parametrize("path", [path.stem for path in PUBLISHED[::4]])
def test_each_key_may_hold_anything(path: str, value: Any) -> None:
    base = json.loads((HERE / f"{path}.json").read_text())
    for number, place in enumerate(places(base)):
        for key in place:
            config = copy.deepcopy(base)
            places(config)[number][key] = value
            assert_ends_well(config)

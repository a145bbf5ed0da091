"""Every scheme against transformers: its functions as they are, the same functions in float64, and whole modules.

transformers computes in float32, so that its rules are compared twice: as it runs them, to what float32 can hold, and
with its own code made to compute in float64, to 1e-12.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rope_numba as rn

pytestmark = pytest.mark.peers

schemes = rn.frequencies
Drawn = dict[str, Any]


@pytest.fixture(scope="module")
def peer() -> Any:
    missing = [package for package in ("torch", "transformers") if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install '.[peers]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of their own imports
        import torch
        import transformers
        from transformers import modeling_rope_utils

    transformers.logging.set_verbosity_error()
    return SimpleNamespace(torch=torch, transformers=transformers, rope=modeling_rope_utils)


@contextlib.contextmanager
def in_float64(peer: Any) -> Iterator[None]:
    """Let transformers' functions compute in float64 wherever they ask for float32."""
    torch = peer.torch

    class Doubled(torch.Tensor):  # type: ignore[misc, name-defined]
        def float(self) -> Any:
            return self.double()

    class DoubleTorch:
        float = float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def arange(self, *arguments: Any, **options: Any) -> Any:
            return torch.arange(*arguments, **options).as_subclass(Doubled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer.rope, "torch", DoubleTorch())
        yield


# --- drawn configurations ---


@st.composite
def heads(draw: st.DrawFn, largest_base: float) -> tuple[Drawn, int, float]:
    """Return a configuration's width and base, the rotary width, and the base."""
    width = 2 * draw(st.integers(2, 80))
    head_dim, share = draw(st.sampled_from([(width, None), (width, 1.0), (2 * width, 0.5), (4 * width, 0.25)]))
    theta = draw(st.floats(100.0, largest_base) | st.sampled_from([10_000.0, 500_000.0, 1e6]))
    rope: Drawn = {"rope_theta": theta} if share is None else {"rope_theta": theta, "partial_rotary_factor": share}
    config = {"head_dim": head_dim, "hidden_size": 2 * head_dim, "num_attention_heads": 2, "rope_parameters": rope}
    return config, width, theta


factors = st.floats(1.0, 64.0) | st.sampled_from([1.0, 2, 4.0, 8, 32.0])
lengths = st.integers(256, 1 << 18) | st.sampled_from([2048, 4096, 8192, 32768])


@st.composite
def drawn_case(draw: st.DrawFn, kind: str, largest_base: float) -> tuple[Drawn, int | None, rn.Frequencies, float]:
    """Return a configuration, a length, our frequencies, and how much the rule amplifies the errors of its inputs."""
    config, width, theta = draw(heads(largest_base))
    rope, factor, trained = config["rope_parameters"], draw(factors), draw(lengths)
    config["max_position_embeddings"] = 4 * trained
    rope["rope_type"] = kind
    seq_len, amplified = None, 1.0
    if kind == "linear":
        rope["factor"] = factor
        ours = schemes.linear(width, theta, factor=factor)
    elif kind == "dynamic":
        rope["factor"], config["max_position_embeddings"] = factor, trained
        seq_len = draw(st.none() | st.integers(1, 16 * trained))
        ours = schemes.dynamic(width, theta, factor=factor, original_max_position_embeddings=trained, seq_len=seq_len)
    elif kind == "yarn":
        options = {
            "factor": factor,
            "original_max_position_embeddings": trained,
            **draw(st.sampled_from([{}, {"truncate": True}, {"truncate": False}])),
            **draw(st.sampled_from([{}, {"beta_fast": 32, "beta_slow": 1.0}, {"beta_fast": 24.0, "beta_slow": 2}])),
            **draw(st.sampled_from([{}, {"attention_factor": 1.25}])),
            **draw(st.fixed_dictionaries({}, optional=dict.fromkeys(("mscale", "mscale_all_dim"), st.floats(0, 2)))),
        }
        rope.update(options)
        ours = schemes.yarn(width, theta, **options)
        amplified = factor
    elif kind == "longrope":
        numbers = st.lists(st.floats(1.0, 64.0), min_size=width // 2, max_size=width // 2)
        options = {
            "short_factor": draw(numbers),
            "long_factor": draw(numbers),
            "original_max_position_embeddings": trained,
            **draw(st.sampled_from([{"factor": factor}, {}, {"attention_factor": 1.25}])),
        }
        rope.update(options)
        # Their rule for a missing length is "short", and for one of 0 as well.
        seq_len = draw(st.none() | st.integers(1, 4 * trained) | st.sampled_from([trained, trained + 1]))
        ours = schemes.longrope(width, theta, **options, max_position_embeddings=4 * trained, seq_len=seq_len)
    elif kind == "llama3":
        low = draw(st.sampled_from([1, 1.0, 0.5, 2.0]))
        options = {
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": low + draw(st.sampled_from([3, 1.0, 7.5])),
            "original_max_position_embeddings": trained,
        }
        rope.update(options)
        ours = schemes.llama3(width, theta, **options)
        amplified = factor * options["high_freq_factor"] / (options["high_freq_factor"] - low)
    else:
        share = draw(st.sampled_from([0.25, 0.5, 1.0, 0.334, 0.7]))
        assume(int(share * width // 2))
        config["head_dim"], config["hidden_size"] = width, 2 * width
        rope["partial_rotary_factor"] = share
        options = draw(st.sampled_from([{}, {"factor": factor}]))
        rope.update(options)
        ours = schemes.proportional(width, theta, partial_rotary_factor=share, **options)
    return config, seq_len, ours, amplified


KINDS = ("linear", "dynamic", "yarn", "longrope", "llama3", "proportional")


def theirs(peer: Any, config: Drawn, seq_len: int | None) -> tuple[np.ndarray[Any, Any], float]:
    made = peer.transformers.LlamaConfig(**config)
    inv_freq, factor = peer.rope.ROPE_INIT_FUNCTIONS[made.rope_parameters["rope_type"]](made, seq_len=seq_len)
    return inv_freq.double().numpy(), factor


def test_every_scheme_of_transformers_is_compared_here(peer: Any) -> None:
    assert set(peer.rope.ROPE_INIT_FUNCTIONS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200)
@given(data=st.data())
def test_frequencies_are_transformers_as_it_runs(peer: Any, kind: str, data: st.DataObject) -> None:
    config, seq_len, ours, amplified = data.draw(drawn_case(kind, 1e6))
    inv_freq, factor = theirs(peer, config, seq_len)
    np.testing.assert_allclose(ours.inv_freq, inv_freq, rtol=1e-6 * amplified, atol=0)
    assert ours.attention_factor == factor


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200)
@given(data=st.data())
def test_frequencies_are_transformers_in_float64(peer: Any, kind: str, data: st.DataObject) -> None:
    config, seq_len, ours, amplified = data.draw(drawn_case(kind, 1e9))
    with in_float64(peer):
        inv_freq, factor = theirs(peer, config, seq_len)
    np.testing.assert_allclose(ours.inv_freq, inv_freq, rtol=1e-13 * amplified, atol=0)
    assert ours.attention_factor == factor


# --- whole modules, with positions of three axes ---

POSITIONS = np.random.default_rng(5).integers(0, 400, (3, 2, 7))
SECTIONED = [
    ("qwen2_vl", "Qwen2VLTextConfig", "Qwen2VLRotaryEmbedding", [16, 24, 24], False, "half"),
    ("qwen3_vl", "Qwen3VLTextConfig", "Qwen3VLTextRotaryEmbedding", [24, 20, 20], True, "half"),
    ("qwen3_5", "Qwen3_5TextConfig", "Qwen3_5TextRotaryEmbedding", [11, 11, 10], True, "half"),
    ("glm4v", "Glm4vTextConfig", "Glm4vTextRotaryEmbedding", [8, 12, 12], False, "interleaved"),
]


@pytest.mark.parametrize(
    ("model", "config", "module", "sections", "interleaved", "layout"), SECTIONED, ids=[case[0] for case in SECTIONED]
)
def test_three_axes_rotate_as_in_transformers(
    peer: Any, model: str, config: str, module: str, sections: list[int], interleaved: bool, layout: str
) -> None:
    torch = peer.torch
    home = f"transformers.models.{model}"
    made = getattr(importlib.import_module(f"{home}.configuration_{model}"), config)(
        hidden_size=512,
        num_attention_heads=4,
        head_dim=128 if sum(sections) == 64 else 256,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": sections,
            "partial_rotary_factor": {"qwen3_5": 0.25, "glm4v": 0.25}.get(model, 1.0),
        },
    )
    modeling = importlib.import_module(f"{home}.modeling_{model}")
    head_dim = made.head_dim
    q = np.random.default_rng(6).standard_normal((2, 4, 7, head_dim)).astype(np.float32)
    cos, sin = getattr(modeling, module)(made)(torch.from_numpy(q), torch.from_numpy(POSITIONS))
    wanted = modeling.apply_rotary_pos_emb(torch.from_numpy(q), torch.from_numpy(q), cos, sin)[0].numpy()
    frequencies = schemes.mrope(schemes.default(2 * sum(sections), 1e6), sections=sections, interleaved=interleaved)
    rope = rn.Rope(head_dim, frequencies=frequencies, layout=layout, order="htd")
    # Their angles are float32: at 400 radians they are off by up to 4e-5.
    np.testing.assert_allclose(rope(q.copy(), positions=POSITIONS), wanted, rtol=0, atol=3e-4)
    other = np.roll(POSITIONS, 1, axis=0)
    assert np.abs(rope(q.copy(), positions=other) - wanted).max() > 0.1  # the axes are not interchangeable


# --- where we differ on purpose ---


def test_where_the_ramp_runs_backwards_transformers_turns_it_round(peer: Any) -> None:
    # No pair turns once within 2 positions, so that YaRN would divide all; none is. With ggml's ramp all but one are.
    config = {"head_dim": 8, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 8}
    options = {"factor": 4.0, "original_max_position_embeddings": 2, "truncate": False}
    rope = {"rope_type": "yarn", "rope_theta": 10_000.0, **options}
    inv_freq, _ = theirs(peer, {**config, "rope_parameters": rope}, None)
    np.testing.assert_allclose(inv_freq, schemes.default(8).inv_freq, rtol=1e-6)
    with pytest.raises(ValueError, match="backwards"):
        schemes.yarn(8, **options)


def test_transformers_rounds_an_odd_width_up_with_exponents_of_the_odd_one(peer: Any) -> None:
    config = {"head_dim": 10, "hidden_size": 20, "num_attention_heads": 2, "max_position_embeddings": 64}
    rope = {"rope_type": "linear", "factor": 1.0, "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    inv_freq, _ = theirs(peer, {**config, "rope_parameters": rope}, None)
    np.testing.assert_allclose(inv_freq, [10_000.0 ** (-2 * pair / 5) for pair in range(3)], rtol=1e-6)
    with pytest.raises(ValueError, match="even number of channels"):
        schemes.linear(5, factor=1.0)


def test_transformers_takes_bad_values_that_are_refused_here(peer: Any) -> None:
    config = {"head_dim": 8, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 64}
    rope = {"rope_type": "linear", "factor": -2.0, "rope_theta": 10_000.0}
    inv_freq, _ = theirs(peer, {**config, "rope_parameters": rope}, None)
    assert (inv_freq < 0).all()
    with pytest.raises(ValueError, match=r"factor is -2\.0; expected 1 or more"):
        schemes.linear(8, factor=-2.0)


def test_phi_3_5_moe_in_transformers_has_the_long_magnitude_with_the_short_frequencies(peer: Any) -> None:
    # Its module asks for the frequencies without a length, and so never gets the long ones; vLLM and we do.
    torch = peer.torch
    from transformers.models.phimoe.configuration_phimoe import PhimoeConfig
    from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding

    lists: Drawn = {
        "short_factor": [1.0] * 8,
        "long_factor": [1.0 + pair for pair in range(8)],
        "original_max_position_embeddings": 64,
        "short_mscale": 1.1,
        "long_mscale": 1.2,
    }
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "factor": 2.0, **lists}
    config = PhimoeConfig(hidden_size=32, num_attention_heads=2, max_position_embeddings=128, rope_parameters={**rope})
    positions = torch.arange(100)[None]
    cos = PhimoeRotaryEmbedding(config)(torch.zeros(1), positions)[0][0, :, :8].double().numpy()
    long = schemes.longrope(16, **lists, seq_len=100)
    assert long.attention_factor == 1.2
    short_with_long = rn.Frequencies(schemes.longrope(16, **lists, variant="short").inv_freq, 1.2)
    np.testing.assert_allclose(cos, rn.Rope(16, frequencies=short_with_long).tables(100)[0], rtol=0, atol=1e-4)
    assert np.abs(cos - rn.Rope(16, frequencies=long).tables(100)[0]).max() > 1.0


# --- beside the rotation ---


@pytest.mark.parametrize("model", ["deepseek_v2", "deepseek_v3"])
@pytest.mark.parametrize(("factor", "mscale_all_dim"), [(40.0, 1.0), (40.0, 0.707), (1.0, 1.0), (32.0, 0.0)])
def test_the_logit_scale_is_that_of_deepseek(peer: Any, model: str, factor: float, mscale_all_dim: float) -> None:
    modeling = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    scaling = modeling.yarn_apply_mscale({"rope_type": "yarn", "factor": factor, "mscale_all_dim": mscale_all_dim}, 1.0)
    assert math.isclose(schemes.yarn_logit_scale(factor, mscale_all_dim), scaling, rel_tol=1e-15)

"""The reader of config.json against whole models of transformers, built tiny with random weights.

Each model is run on a few tokens at chosen positions while the function that rotates its queries and keys is watched:
what went in is rotated by a `Rope` of the model's header, and has to come out as theirs. That also tells which layers
are rotated, and by which of several frequencies.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from hf_peers import assert_rotated_alike, load_peer

from rope_numba.models.hf import read_hf, read_hf_layers

pytestmark = pytest.mark.peers

POSITIONS = (0, 1, 5, 100, 2047, 4096, 8191)
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2}
LATENT: dict[str, Any] = {
    **EXPERTS,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 8.0, "original_max_position_embeddings": 1024}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0],
    "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
    "original_max_position_embeddings": 4096,
}
GPTJ = {"n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 8192, "rotary_dim": 8, "vocab_size": 32}
GEMMA_3 = {
    **TINY,
    "head_dim": 32,
    "num_hidden_layers": 6,
    "sliding_window_pattern": 3,
    "rope_theta": 2e6,
    "rope_local_base_freq": 5_000.0,
}
HYBRID = {"num_experts": 4, "num_experts_per_tok": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2}
SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
# model_type, what its configuration is made with, the class of the model.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", TINY, "LlamaModel"),
    "llama, llama3": ("llama", {**TINY, "rope_parameters": LLAMA_3}, "LlamaModel"),
    "llama, linear": (
        "llama",
        {**TINY, "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
        "LlamaModel",
    ),
    "llama, yarn": ("llama", {**TINY, "rope_parameters": YARN}, "LlamaModel"),
    "mistral": ("mistral", TINY, "MistralModel"),
    "ministral3": ("ministral3", {**TINY, "head_dim": 32}, "Ministral3Model"),
    "qwen2": ("qwen2", TINY, "Qwen2Model"),
    "qwen3": ("qwen3", {**TINY, "head_dim": 32}, "Qwen3Model"),
    "qwen2_vl": ("qwen2_vl_text", {**TINY, "rope_parameters": SECTIONS}, "Qwen2VLTextModel"),
    "qwen3_vl": (
        "qwen3_vl_text",
        {**TINY, "head_dim": 16, "rope_parameters": {**SECTIONS, "mrope_section": [4, 2, 2]}},
        "Qwen3VLTextModel",
    ),
    "gemma2": ("gemma2", {**TINY, "head_dim": 32}, "Gemma2Model"),
    "gemma3": ("gemma3_text", {**TINY, "head_dim": 32, "num_hidden_layers": 6}, "Gemma3TextModel"),
    "gemma3, old dialect": (
        "gemma3_text",
        {**GEMMA_3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        "Gemma3TextModel",
    ),
    "gemma4": (
        "gemma4_text",
        {**TINY, "head_dim": 16, "global_head_dim": 32, "num_hidden_layers": 6, "hidden_size_per_layer_input": 0},
        "Gemma4TextModel",
    ),
    "phi3": ("phi3", {**TINY, "partial_rotary_factor": 0.5}, "Phi3Model"),
    "phi3, long": (
        "phi3",
        {**TINY, "rope_parameters": LONGROPE, "original_max_position_embeddings": 4096},
        "Phi3Model",
    ),
    "gpt_oss": ("gpt_oss", {**TINY, "head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2}, "GptOssModel"),
    "deepseek_v2": ("deepseek_v2", {**TINY, **LATENT}, "DeepseekV2Model"),
    "deepseek_v3": (
        "deepseek_v3",
        {**TINY, **LATENT, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
        "DeepseekV3Model",
    ),
    "deepseek_v3, not interleaved": ("deepseek_v3", {**TINY, **LATENT, "rope_interleave": False}, "DeepseekV3Model"),
    "glm4": ("glm4", {**TINY, "head_dim": 32}, "Glm4Model"),
    "cohere": ("cohere", TINY, "CohereModel"),
    "cohere2": ("cohere2", TINY, "Cohere2Model"),
    "gptj": ("gptj", GPTJ, "GPTJModel"),
    "gpt_neox": ("gpt_neox", TINY, "GPTNeoXModel"),
    "stablelm": ("stablelm", TINY, "StableLmModel"),
    "phi": ("phi", TINY, "PhiModel"),
    "llama4": ("llama4_text", {**TINY, "head_dim": 16, "num_local_experts": 2}, "Llama4TextModel"),
    "smollm3": ("smollm3", TINY, "SmolLM3Model"),
    "smollm3, each second layer": ("smollm3", {**TINY, "no_rope_layers": [0, 1, 0, 1]}, "SmolLM3Model"),
    "exaone4": ("exaone4", {**TINY, "sliding_window": 4096}, "Exaone4Model"),
    "exaone4, no window": (
        "exaone4",
        {**TINY, "sliding_window": None, "layer_types": ["full_attention"] * 4},
        "Exaone4Model",
    ),
    "olmo3": ("olmo3", {**TINY, "rope_scaling": {**YARN, "rope_theta": 500_000.0}}, "Olmo3Model"),
    "modernbert": (
        "modernbert",
        {**TINY, "cls_token_id": 1, "sep_token_id": 2, "_attn_implementation": "eager"},
        "ModernBertModel",
    ),
    "nanochat": ("nanochat", TINY, "NanoChatModel"),
    "qwen3_next": (
        "qwen3_next",
        {**TINY, "head_dim": 32, **HYBRID},
        "Qwen3NextModel",
    ),
    "granite_swa": ("granite_swa", {**TINY, "layer_rope_theta": [1e5, 0.0, 0.0, 0.0]}, "GraniteSWAModel"),
    "helium": ("helium", {**TINY, "head_dim": 16}, "HeliumModel"),
    "ernie4_5": ("ernie4_5", {**TINY, "head_dim": 16}, "Ernie4_5Model"),
}
WATCHED = ("apply_rotary_pos_emb", "apply_rotary_pos_emb_interleave", "apply_rotary_emb")


@pytest.fixture(scope="module")
def peer() -> Any:
    return load_peer()


class Watch:
    """Stands in for a module's rotation and keeps what goes in and comes out."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls: list[list[tuple[Any, Any]]] = []

    def __call__(self, *given: Any, **named: Any) -> Any:
        result = self.function(*given, **named)
        results = result if isinstance(result, tuple) else (result,)
        taken = [*given, *named.values()][: len(results)]
        self.calls.append(
            [(x.detach().numpy().copy(), y.detach().numpy()) for x, y in zip(taken, results, strict=True)]
        )
        return result


def run(peer: Any, kind: str, arguments: dict[str, Any], name: str, positions: Any) -> tuple[Any, list[Any], bool]:
    """Run a model; return its configuration, all rotations in order, and whether they leave channels in half order."""
    torch = peer.torch
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peer.configs[kind](**arguments)
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
        model = getattr(module, name)(config).eval()
        watches = {}
        for function in WATCHED:
            if hasattr(module, function):
                watches[function] = Watch(getattr(module, function))
                setattr(module, function, watches[function])
        try:
            with torch.no_grad():
                places = torch.tensor(positions)
                tokens = torch.arange(places.shape[-1])[None] % 29 + 1
                model(input_ids=tokens, position_ids=places)
        finally:
            for function, watch in watches.items():
                setattr(module, function, watch.function)
    called = {function: watch for function, watch in watches.items() if watch.calls}
    assert len(called) == 1, f"{list(called)} were called"
    function, watch = next(iter(called.items()))
    return config, watch.calls, function.endswith("_interleave")


@pytest.mark.parametrize("case", MODELS)
def test_a_whole_model_rotates_as_its_header_says(peer: Any, case: str) -> None:
    kind, arguments, name = MODELS[case]
    streams = 3 if "vl" in kind else 1
    positions = np.array([[POSITIONS]] * streams) if streams > 1 else np.array([POSITIONS])
    if streams > 1:
        positions[1, 0, 2:] += 3
        positions[2, 0, 1:] += 7
    config, calls, moved = run(peer, kind, arguments, name, positions)
    read = read_hf_layers(config, seq_len=8192)
    rotated = [label for label in read.layers if label is not None]
    pairs = [pair for call in calls for pair in call]
    assert len(pairs) == 2 * len(rotated)
    order = "thd" if kind in ("gptj", "llama4_text", "gemma4_text") else "htd"
    for index, (before, after) in enumerate(pairs):
        header = read.headers[rotated[index // 2]]
        if moved and header.layout == "half":
            pytest.fail("read as half, but the model takes interleaved channels")
        if streams > 1:
            assert_rotated_alike(header, before, after, positions, order, moved)
        else:
            assert_rotated_alike(header, before[0], after[0], POSITIONS, order, moved)


def test_dynamic_frequencies_are_those_of_the_longest_position(peer: Any) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    arguments = {**TINY, "max_position_embeddings": 2048, "rope_parameters": rope}
    config, calls, _ = run(peer, "llama", arguments, "LlamaModel", [POSITIONS])
    header = read_hf(config, seq_len=8192)
    for before, after in calls[0]:
        assert_rotated_alike(header, before[0], after[0], POSITIONS, "htd", False)
    assert read_hf(config).frequencies == read_hf(config, seq_len=2048).frequencies == read_hf(config).unscaled


@pytest.mark.parametrize(("last", "variant"), [(4094, "short"), (4095, "short"), (4096, "long")])
def test_longrope_changes_its_list_where_transformers_does(peer: Any, last: int, variant: str) -> None:
    arguments = {**TINY, "rope_parameters": LONGROPE, "original_max_position_embeddings": 4096}
    positions = (0, 1, 100, 2000, last)
    config, calls, _ = run(peer, "phi3", arguments, "Phi3Model", [positions])
    header = read_hf(config, seq_len=last + 1)
    assert {fact.name: fact.value for fact in header.facts}["variant"] == variant
    for before, after in calls[0]:
        assert_rotated_alike(header, before[0], after[0], positions, "htd", False)


def test_the_logits_scale_of_latent_attention_is_what_transformers_adds(peer: Any) -> None:
    rope = {**YARN, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707}
    for kind, name in (("deepseek_v2", "DeepseekV2Model"), ("deepseek_v3", "DeepseekV3Model")):
        config = peer.configs[kind](**{**TINY, **LATENT, "rope_parameters": rope})
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
        attention = getattr(module, name)(config).layers[0].self_attn
        header = read_hf(config)
        width = LATENT["qk_nope_head_dim"] + LATENT["qk_rope_head_dim"]
        assert attention.scaling == pytest.approx(header.frequencies.attention_logit_scale * width**-0.5, rel=1e-12)
        assert header.frequencies.attention_factor == 1.0

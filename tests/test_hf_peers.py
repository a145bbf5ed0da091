"""The reader of config.json against transformers: every row of its table, by the classes and functions of its type."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hf_peers import Array, assert_rotated_alike, load_peer

from rope_numba.models.hf import read_hf, read_hf_layers
from rope_numba.models.hf.defaults import NO_ROTATION, REFUSED_MODELS, SWITCHES, TEXT_PARTS
from rope_numba.models.hf.types import MODELS

pytestmark = pytest.mark.peers

POSITIONS = (0, 1, 2, 3, 7, 15, 100, 1000, 4095, 8191)


@pytest.fixture(scope="module")
def peer() -> Any:
    return load_peer()


@pytest.fixture(autouse=True)
def their_warnings_are_theirs() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# What makes a configuration whole whose defaults do not fit one another, or that rotates only if told to.
MADE_WHOLE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [3], "num_hidden_layers": 4},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 20,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 50_000.0},
            "full_attention": None,
        },
    },
    "esm": {"position_embedding_type": "rotary"},
    "glm4_moe": {"head_dim": 128},
    "glm4v_moe_text": {"head_dim": 128},
    "glm4v_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "glm_image_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "granitemoehybrid": {"position_embedding_type": "rope", "layer_types": ["full_attention"] * 32},
    "qwen3_omni_moe_text": {"head_dim": 128},
    "qwen4_exp_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
    # Its code does not look at rotary_dim, of which its configuration has a default; we do.
    "minimax_m3_vl_text": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
}
# Modules with several rotary classes, of which this is the language model's.
ROTARY = {
    "granite4_vision_text": "Granite4VisionTextRotaryEmbedding",
    "qwen2_5_omni_text": "Qwen2_5OmniRotaryEmbedding",
    "qwen3_omni_moe_text": "Qwen3OmniMoeThinkerTextRotaryEmbedding",
}


def module_of(config: Any) -> Any:
    name = type(config).__module__.replace("configuration_", "modeling_")
    if importlib.util.find_spec(name) is None:  # a type with Llama's code
        name = "transformers.models.llama.modeling_llama"
    return importlib.import_module(name)


def classes_of(module: Any, pattern: str) -> list[Any]:
    return [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and re.search(pattern, name) and "Vision" not in name
        if value.__module__ == module.__name__
    ]


def rotary_of(kind: str, config: Any) -> Any:
    """Return the rotary module of a model, or None if it has none (GPT-J before transformers 5.24)."""
    module = module_of(config)
    classes = [getattr(module, ROTARY[kind])] if kind in ROTARY else classes_of(module, "Rotary")
    return classes[0](config) if classes else None


def speeds_of(rotary: Any, layer_type: str | None) -> tuple[Array, float]:
    if hasattr(rotary, "inv_freq"):
        return rotary.inv_freq.double().numpy(), float(rotary.attention_scaling)
    if layer_type is None:
        layer_type = next(iter(rotary.rope_type))
    speeds = getattr(rotary, f"{layer_type}_inv_freq").double().numpy()
    return speeds, float(getattr(rotary, f"{layer_type}_attention_scaling"))


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"codegen", "gptj"}))
@pytest.mark.parametrize("form", ["a configuration object", "its dict", "its saved file"])
def test_a_model_types_frequencies_are_those_of_its_rotary_module(peer: Any, kind: str, form: str) -> None:
    config = peer.configs[kind](**MADE_WHOLE.get(kind, {}))
    forms = {"a configuration object": config, "its dict": config.to_dict()}
    given = forms[form] if form in forms else json.loads(config.to_json_string())  # which leaves defaults out
    if kind == "minimax_m3_vl_text":
        given = {**config.to_dict(), "rotary_dim": None}
    if form == "its saved file" and kind == "olmo_hybrid":
        given["rope_theta"] = 10_000.0  # without which ours takes it for one of the released ones, which do not rotate
    for header in read_hf_layers(given).headers.values():
        speeds, factor = speeds_of(rotary_of(kind, config), header.layer_type)
        np.testing.assert_allclose(np.abs(header.frequencies.inv_freq), speeds, rtol=2e-6)
        assert header.frequencies.attention_factor == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"olmo_hybrid"}))
def test_an_empty_configuration_of_a_type_is_read_with_the_defaults_of_its_class(peer: Any, kind: str) -> None:
    config, row = peer.configs[kind](), MODELS[kind]
    heads = getattr(config, "num_attention_heads", None)
    assert (config.hidden_size, heads) == (row.hidden_size, row.heads)
    assert getattr(config, "max_position_embeddings", None) == row.context
    if kind in MADE_WHOLE:
        return  # whose defaults do not fit one another
    told = {"model_type": kind}
    types = getattr(config, "layer_types", None)
    if types:
        told["layer_types"] = list(types)  # what an empty file cannot say is how many layers there are
    for header in read_hf_layers(told).headers.values():
        if kind in ("codegen", "gptj"):  # which list sines and cosines, and have no frequencies to compare with
            assert header.rotary_dim == config.rotary_dim
            continue
        rotary = rotary_of(kind, config)
        speeds, factor = speeds_of(rotary, header.layer_type)
        np.testing.assert_allclose(np.abs(header.frequencies.inv_freq), speeds, rtol=2e-6)
        assert header.frequencies.attention_factor == pytest.approx(factor, rel=1e-15)


def default_head_dim(peer: Any, kind: str) -> int | None:
    """Return the head width that a class has whatever its other sizes are; None if it follows from them."""
    field = getattr(peer.configs[kind], "__dataclass_fields__", {}).get("head_dim")
    return None if field is None or not isinstance(field.default, int) else field.default


@pytest.mark.parametrize("kind", sorted(name for name, row in MODELS.items() if not row.latent))
def test_a_rows_head_width_is_the_classs_own(peer: Any, kind: str) -> None:
    if kind == "jetmoe":
        assert MODELS[kind].head_dim == peer.configs[kind]().kv_channels
    else:
        assert MODELS[kind].head_dim == default_head_dim(peer, kind)


@pytest.mark.parametrize("kind", sorted(name for name, row in MODELS.items() if row.latent))
def test_a_row_of_latent_attention_has_the_width_of_the_rotary_part(peer: Any, kind: str) -> None:
    assert MODELS[kind].head_dim == peer.configs[kind]().qk_rope_head_dim


@pytest.mark.parametrize("kind", sorted(name for name, row in MODELS.items() if row.pattern))
def test_a_types_order_of_layers_is_the_one_of_its_class(peer: Any, kind: str) -> None:
    for count in (7, 24):
        config = peer.configs[kind](num_hidden_layers=count)
        told = {**MADE_WHOLE.get(kind, {}), "model_type": kind, "num_hidden_layers": count}
        told |= {"rope_theta": 1e4} if kind == "olmo_hybrid" else {}  # without which its released files do not rotate
        told.pop("layer_types", None)
        layers = read_hf_layers(told).layers if count > 4 else ()
        for ours, theirs in zip(layers, config.layer_types, strict=False):
            assert ours in (theirs, "all", None)


def partial_is_read(peer: Any, kind: str) -> bool:
    config = peer.configs[kind]()
    classes = [type(rotary_of(kind, peer.configs[kind](**MADE_WHOLE.get(kind, {}))))]
    del config
    return any("partial_rotary_factor" in inspect.getsource(one.compute_default_rope_parameters) for one in classes)


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"codegen", "gptj"}))
def test_a_row_knows_whether_its_code_rotates_a_part_of_a_head(peer: Any, kind: str) -> None:
    assert (MODELS[kind].partial is not None) == partial_is_read(peer, kind)


def test_every_text_part_is_that_of_the_multimodal_types_class(peer: Any) -> None:
    for name, part in TEXT_PARTS.items():
        config = peer.configs[name]()
        found = getattr(config, "text_config", None)
        assert found is not None
        assert TEXT_PARTS.get(found.model_type, found.model_type) == part, name


@pytest.mark.parametrize("kind", sorted(name for name, part in TEXT_PARTS.items() if part in MODELS))
def test_a_multimodal_configuration_is_read_as_its_text_part(peer: Any, kind: str) -> None:
    config = peer.configs[kind]()
    own = MADE_WHOLE.get(TEXT_PARTS[kind])
    if own is not None:
        config = peer.configs[kind](text_config={"model_type": TEXT_PARTS[kind], **own})
    whole, part = read_hf_layers(config), read_hf_layers(config.text_config)
    assert whole.layers == part.layers
    for name, header in whole.headers.items():
        assert header.frequencies == part.headers[name].frequencies
        assert (header.head_dim, header.layout) == (part.headers[name].head_dim, part.headers[name].layout)


def code_of(peer: Any, kind: str) -> str:
    spec = peer.configs[kind].__module__.replace("configuration_", "modeling_")
    return inspect.getsource(importlib.import_module(spec))


def rotary_calls(code: str) -> set[str]:
    """Return the functions called in attention classes that rotate."""
    found = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef) and "Attention" in node.name and "Vision" not in node.name:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
                    if re.match(r"apply_(rotary|multimodal)", inner.func.id):
                        found.add(inner.func.id)
    return found


@pytest.mark.parametrize("kind", sorted(NO_ROTATION))
def test_a_type_without_rotation_calls_no_rotation(peer: Any, kind: str) -> None:
    if kind not in peer.names or kind in ("gpt-sw3", "mt5"):  # other names of GPT-2 and T5
        kind = {"gpt-sw3": "gpt2", "mt5": "t5"}[kind]
    assert rotary_calls(code_of(peer, kind)) == set()


@pytest.mark.parametrize("kind", sorted(set(REFUSED_MODELS) - {"baichuan", "chatglm", "phi3small", "qwen"}))
def test_every_refused_type_is_one_of_transformers(peer: Any, kind: str) -> None:
    assert kind in peer.names
    with pytest.raises(ValueError, match="rotates in a way of its own"):
        read_hf({"model_type": kind, "rope_theta": 10_000.0})


def test_a_switch_is_a_key_of_its_class(peer: Any) -> None:
    for kind, (key, wanted) in SWITCHES.items():
        assert getattr(peer.configs[kind](), key) != wanted


def test_mixture_types_with_a_rope_of_transformers_are_known_or_refused(peer: Any) -> None:
    """Types of language models that this table does not know; a new transformers may add some."""
    unknown = set()
    for kind in peer.names:
        try:
            config = peer.configs[kind]()
        except Exception:  # two of them cannot be made without arguments
            continue
        rope = getattr(config, "rope_parameters", None)
        if rope and getattr(config, "vocab_size", None) and kind not in MODELS and kind not in REFUSED_MODELS:
            unknown.add(kind)
    unknown -= {
        name for name in unknown if re.search(r"audio|vision|encoder|decoder|tts|asr|speech|talker|timestamp", name)
    }
    assert unknown - set(TEXT_PARTS) <= UNKNOWN


UNKNOWN = {
    "EvollaModel",  # of proteins and texts
    # Of transformers 5.24, and not read yet.
    "dory",
    "sarvam_mla",  # read, by the code of deepseek_v3
    "sarvam_moe",  # the same, of glm4_moe
    "csm",
    "csm_depth_decoder_model",
    "esmc",
    "evolla",
    "higgs_audio_v2",
    "idefics",
    "kyutai_speech_to_text",
    "moonshine_streaming",
    "moshi",
    "muse_glimmer_assistant",
    "zamba2",
}


# ---- The models' own code on random queries and keys ----


# Types whose attention classes hand the function only what is to be rotated of a head.
GIVEN_THE_PART = ("persimmon", "phi", "recurrent_gemma", "stablelm")
# A type whose attention class has another name than others.
FUNCTIONS = {
    "granite4_vision_text": "apply_rotary_pos_emb",
    "hy_v4": "apply_rotary_pos_emb",
    "longcat_flash": "apply_rotary_pos_emb_interleave",
}


def function_of(module: Any, kind: str) -> Any:
    names = {FUNCTIONS[kind]} if kind in FUNCTIONS else rotary_calls(inspect.getsource(module))
    interleaved = {name for name in names if name.endswith("_interleave")}
    return getattr(module, next(iter(interleaved or names)))


def test_transformers_still_rotates_halves_of_hy_v4_which_its_header_says(peer: Any) -> None:
    """Should it rotate neighbours one day, as every other code of these weights does, the row's note is to go."""
    code = inspect.getsource(function_of(module_of(peer.configs["hy_v4"]()), "hy_v4"))
    assert "rotate_half(q)" in code
    assert "repeat_interleave" not in code
    assert "neighbours" in read_hf({"model_type": "hy_v4"}).conflicts[0]


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"codegen", "gptj", "hy_v4"}))
def test_queries_and_keys_are_rotated_as_the_types_own_functions_do(peer: Any, kind: str) -> None:
    torch = peer.torch
    config = peer.configs[kind](**MADE_WHOLE.get(kind, {}))
    rotary, function = rotary_of(kind, config), function_of(module_of(config), kind)
    given = {**config.to_dict(), "rotary_dim": None} if kind == "minimax_m3_vl_text" else config
    positions = np.array(POSITIONS)
    for header in read_hf_layers(given).headers.values():
        rng = np.random.default_rng(0)
        q, k = (rng.standard_normal((1, heads, len(positions), header.head_dim)) for heads in (4, 2))
        q, k = q.astype(np.float32), k.astype(np.float32)
        places = torch.tensor(positions)[None]
        if header.frequencies.stream_count > 1:
            places = places.expand(3, -1, -1)
        per_type = () if hasattr(rotary, "inv_freq") else (header.layer_type or next(iter(rotary.rope_type)),)
        tables = rotary(torch.from_numpy(q), places, *per_type)
        tables = tables if isinstance(tables, tuple) else (tables,)
        parameters = list(inspect.signature(function).parameters)
        width = header.rotary_dim if kind in GIVEN_THE_PART else header.head_dim
        tokens_first = "freqs_cis" in parameters and kind == "llama4_text"
        order = "thd" if tokens_first else "htd"
        pair = [torch.from_numpy(x[..., :width]) for x in (q, k)]
        pair = [x.transpose(1, 2) for x in pair] if tokens_first else pair
        both = "k" in parameters or "xk" in parameters
        results = function(*pair, *tables) if both else [function(x, *tables) for x in pair]
        for x, rotated in zip(pair, results, strict=True):
            moved = function.__name__.endswith("_interleave")
            assert_rotated_alike(header, x[0].numpy(), rotated[0].numpy(), positions, order, moved)

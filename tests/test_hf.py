"""What the reader of config.json makes of published configurations, and of every key that it knows."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rope_numba as rn
from rope_numba.models import Header
from rope_numba.models.hf import read_hf, read_hf_layers
from rope_numba.models.hf.defaults import TEXT_PARTS
from rope_numba.models.hf.types import MODELS

HERE = Path(__file__).parent / "configs"
GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((HERE / "golden.json").read_text())
SOURCES: dict[str, dict[str, str]] = json.loads((HERE / "sources.json").read_text())
SIZES: dict[str, Any] = {"hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 4096}
LLAMA: dict[str, Any] = {"model_type": "llama", **SIZES}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LLAMA_3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 2048,
}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0 + pair / 100 for pair in range(32)],
    "long_factor": [1.0 + pair for pair in range(32)],
    "original_max_position_embeddings": 1024,
}


def config_of(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return loaded


def sources(header: Header) -> dict[str, str]:
    return {fact.name: fact.source for fact in header.facts}


def values(header: Header) -> dict[str, Any]:
    return {fact.name: fact.value for fact in header.facts}


# ---- Published configurations ----

CASES = [
    pytest.param(name, place, id=f"{name} {entry['call'] or ''}")
    for name, entries in GOLDEN.items()
    for place, entry in enumerate(entries)
]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_a_published_configuration_gives_the_golden_values(name: str, place: int) -> None:
    golden = GOLDEN[name][place]
    header = read_hf(HERE / f"{name}.json", **golden["call"])
    for key in ("scheme", "head_dim", "rotary_dim", "layout", "trained_length", "context_length"):
        assert getattr(header, key) == golden[key], key
    exact = [float(value) for value in golden["inv_freq"]]
    np.testing.assert_allclose(header.frequencies.inv_freq, exact, rtol=5e-15)
    assert header.frequencies.attention_factor == pytest.approx(float(golden["attention_factor"]), rel=5e-16)
    assert header.frequencies.attention_logit_scale == pytest.approx(float(golden["attention_logit_scale"]), rel=5e-16)
    assert header.frequencies.streams.tolist() == (golden["axes"] or [0] * len(exact))
    assert header.rotary_offset == 0


@pytest.mark.parametrize(("name", "place"), CASES)
def test_a_published_configuration_has_no_conflict(name: str, place: int) -> None:
    assert read_hf(HERE / f"{name}.json", **GOLDEN[name][place]["call"]).conflicts == ()


def test_every_stored_configuration_has_its_source_and_its_golden_values() -> None:
    files = {path.stem for path in HERE.glob("*.json")} - {"golden", "sources"}
    assert files == set(GOLDEN) == set(SOURCES)
    assert all(source["model"] and source["verified"] for source in SOURCES.values())


def test_the_golden_values_are_what_their_script_makes_without_this_package() -> None:
    path = HERE / "make_golden.py"
    assert "rope_numba" not in path.read_text().split('"""', 2)[2]
    spec = importlib.util.spec_from_file_location("make_golden", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.RULES) == set(GOLDEN)
    for name in ("llama_3_1_8b", "gpt_oss_20b", "phi_3_5_moe_shortened"):
        assert script.RULES[name](config_of(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_reading_changes_nothing_in_the_dict_and_gives_the_same_again(name: str) -> None:
    config = config_of(name)
    before = copy.deepcopy(config)
    first, second = read_hf_layers(config), read_hf_layers(config)
    assert config == before
    assert first == second


@pytest.mark.parametrize("name", GOLDEN)
def test_a_rope_is_made_of_every_header(name: str) -> None:
    for entry in GOLDEN[name]:
        header = read_hf(config_of(name), **entry["call"])
        rope = rn.Rope(header.head_dim, frequencies=header.frequencies, layout=header.layout, backend="numpy")
        assert rope.rotary_dim == header.rotary_dim
        rope(np.ones((1, 1, header.head_dim), np.float32), offset=7)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_fact_has_a_source_a_meaning_and_a_value_that_json_holds(name: str) -> None:
    for header in read_hf_layers(config_of(name)).headers.values():
        found = values(header)
        assert {"model", "scheme", "theta", "head_dim", "rotary_dim", "layout", "attention_factor"} <= set(found)
        assert len(found) == len(header.facts)
        assert all(fact.source and fact.meaning for fact in header.facts)
        json.dumps(found)


# ---- What may be handed over ----


class Configured:
    """Looks like a configuration object of transformers."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return self.values


def test_a_path_a_folder_a_dict_and_an_object_are_read_alike(tmp_path: Path) -> None:
    config = config_of("llama_3_1_8b")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    ways = (tmp_path / "config.json", str(tmp_path / "config.json"), tmp_path, config, Configured(config))
    headers = [read_hf(way) for way in ways]
    assert len({(header.head_dim, header.layout, header.frequencies) for header in headers}) == 1
    assert [header.origin for header in headers] == [
        str(tmp_path / "config.json"),
        str(tmp_path / "config.json"),
        str(tmp_path / "config.json"),
        "a dict",
        "a Configured",
    ]


def test_a_folder_with_only_params_json_is_read_as_mistrals(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(config_of("mistral_7b_v0_3_params")))
    assert read_hf(tmp_path).layout == "interleaved"


def in_new_dialect(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as transformers 5 writes it: theta and partial rotation in the dict."""
    new = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    rope = dict(config.get("rope_scaling") or {})
    rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type") or "default"
    rope["rope_theta"] = config.get("rope_theta", 10_000.0)
    for name in ("partial_rotary_factor", "rotary_pct"):
        if name in new:
            rope["partial_rotary_factor"] = new.pop(name)
    return {**new, "rope_parameters": rope}


FLAT = ["llama_2_7b", "llama_3_1_8b", "mistral_7b_v0_3", "qwen2_5_7b_yarn", "qwen2_vl_7b", "deepseek_v3", "gpt_oss_20b"]
FLAT += ["glm_4_9b_0414", "gpt_neox_20b", "stablelm_3b_4e1t", "phi_3_mini_128k", "internlm2_7b"]


@pytest.mark.parametrize("name", FLAT)
def test_both_dialects_give_the_same(name: str) -> None:
    old, new = read_hf(config_of(name)), read_hf(in_new_dialect(config_of(name)))
    assert (old.head_dim, old.layout, old.scheme, old.frequencies) == (
        *(new.head_dim, new.layout, new.scheme),
        new.frequencies,
    )
    assert sources(new)["theta"] == "rope_parameters.rope_theta"


# ---- Keys and their names ----


@pytest.mark.parametrize("name", ["rope_theta", "global_rope_theta", "rope_global_theta", "rotary_emb_base"])
def test_theta_is_found_under_all_its_names(name: str) -> None:
    header = read_hf({**LLAMA, name: 123_456.0})
    assert header.frequencies == rn.frequencies.default(64, 123_456.0)
    assert sources(header)["theta"] == name


def test_theta_of_the_dict_goes_before_the_one_at_the_top_which_is_told() -> None:
    header = read_hf({**LLAMA, "rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert values(header)["theta"] == 5e5
    assert header.conflicts == (
        "rope_theta is 1000000.0, but rope_parameters.rope_theta is 500000.0: the second was taken.",
    )


def test_a_theta_that_stands_nowhere_is_the_model_types_or_assumed_aloud() -> None:
    assert values(read_hf({"model_type": "mixtral", **SIZES}))["theta"] == 1_000_000.0
    with pytest.warns(UserWarning, match="No key gives rope_theta: 10000 was assumed"):
        header = read_hf(
            {"model_type": "novel", **SIZES, "rope_scaling": {"type": "linear", "factor": 2.0}}, layout="half"
        )
    assert sources(header)["theta"] == "default of this package"
    assert "No key gives rope_theta: 10000 was assumed." in header.conflicts


def test_dbrx_has_its_theta_in_the_dict_of_attention() -> None:
    header = read_hf({"model_type": "dbrx", **SIZES, "attn_config": {"rope_theta": 500_000}})
    assert (values(header)["theta"], sources(header)["theta"]) == (500_000, "attn_config.rope_theta")


@pytest.mark.parametrize("name", ["partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent"])
def test_the_partial_rotation_is_found_under_all_its_names(name: str) -> None:
    header = read_hf({"model_type": "gpt_neox", **SIZES, name: 0.5})
    assert (header.head_dim, header.rotary_dim) == (64, 32)
    assert sources(header)["rotary_dim"] == f"{name} of hidden_size // num_attention_heads"


@pytest.mark.parametrize(
    ("head_dim", "share", "rotary_dim"), [(192, 0.334, 64), (128, 0.5, 64), (100, 0.29, 28), (64, 1.0, 64), (6, 0.4, 2)]
)
def test_a_share_of_channels_is_truncated(head_dim: int, share: float, rotary_dim: int) -> None:
    header = read_hf({"model_type": "glm4", "head_dim": head_dim, "partial_rotary_factor": share})
    assert header.rotary_dim == rotary_dim
    assert header.frequencies == rn.frequencies.default(rotary_dim)


def test_a_rotary_dim_is_taken_as_it_is() -> None:
    assert read_hf(config_of("gpt_j_6b")).rotary_dim == 64
    header = read_hf({"model_type": "minimax_m2", "head_dim": 128, "rotary_dim": 64})
    assert (header.rotary_dim, sources(header)["rotary_dim"]) == (64, "rotary_dim")
    both = {"model_type": "minimax_m2", "head_dim": 128, "rotary_dim": 32, "partial_rotary_factor": 0.5}
    assert read_hf(both).conflicts == ("rotary_dim is 32, but partial_rotary_factor makes 64: the second was taken.",)


def test_a_share_that_transformers_ignores_is_followed_and_told() -> None:
    header = read_hf({**LLAMA, "partial_rotary_factor": 0.5})
    assert header.rotary_dim == 32
    assert header.conflicts == (
        "partial_rotary_factor is 0.5, which transformers ignores for model_type 'llama' unless frequencies are "
        "scaled: it was followed.",
    )


@pytest.mark.parametrize(
    ("keys", "source"),
    [
        ({"head_dim": 80}, "head_dim"),
        ({"kv_channels": 80}, "kv_channels"),
        ({"attention_head_dim": 80}, "attention_head_dim"),
        ({"head_dim": None, "hidden_size": 640, "num_attention_heads": 8}, "hidden_size // num_attention_heads"),
        ({"n_embd": 640, "n_head": 8}, "n_embd // n_head"),
        ({"d_model": 640, "num_heads": 8}, "d_model // num_heads"),
    ],
)
def test_the_head_width_is_found_under_all_its_names(keys: dict[str, Any], source: str) -> None:
    header = read_hf({"model_type": "novel", "rope_theta": 1e4, **keys}, layout="half")
    assert (header.head_dim, sources(header)["head_dim"]) == (80, source)


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"])
def test_the_context_is_found_under_all_its_names(name: str) -> None:
    header = read_hf({"model_type": "novel", "head_dim": 64, "rope_theta": 1e4, name: 777}, layout="half")
    assert (header.trained_length, header.context_length) == (777, 777)


def test_sparse_multimodal_files_take_the_rest_from_their_type() -> None:
    header = read_hf(config_of("gemma_3_4b"), layer_type="full_attention")
    found = sources(header)
    assert found["factor"] == "text_config.rope_scaling.factor"
    assert found["head_dim"] == "default of model_type 'gemma3_text'"
    assert found["theta"] == "default of model_type 'gemma3_text' for layers of type 'full_attention'"


# ---- Where the language model stands ----


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_the_text_part_is_found_under_all_its_names(name: str) -> None:
    header = read_hf({"model_type": "novel_vl", "rope_theta": 1.5, name: {**LLAMA, "rope_theta": 7e4}})
    assert (header.model, values(header)["theta"], sources(header)["theta"]) == ("llama", 7e4, f"{name}.rope_theta")
    assert header.conflicts == (f"rope_theta and {name}.rope_theta differ: the second was taken.",)


def test_a_text_part_without_a_type_has_that_of_the_type_around_it() -> None:
    inner = {"hidden_size": 512, "num_attention_heads": 8, "rope_theta": 1e6}
    header = read_hf({"model_type": "gemma3", "text_config": inner}, layer_type="sliding_attention")
    assert (header.model, sources(header)["model"]) == ("gemma3_text", "the text part of model_type")


def test_a_language_model_two_dicts_down_is_found() -> None:
    text = {
        "model_type": "qwen2_5_omni_text",
        **SIZES,
        "rope_scaling": {"mrope_section": [8, 12, 12], "type": "default"},
    }
    header = read_hf({"model_type": "qwen2_5_omni", "thinker_config": {"text_config": text}})
    assert header.frequencies.stream_count == 3
    assert sources(header)["sections"] == "thinker_config.text_config.rope_scaling.mrope_section"


@pytest.mark.parametrize("kind", sorted(name for name, part in TEXT_PARTS.items() if part in MODELS))
def test_a_multimodal_type_with_all_in_one_dict_is_read_as_its_text_part(kind: str) -> None:
    part = TEXT_PARTS[kind]
    row = MODELS[part]
    flat = {"model_type": kind, "head_dim": 64, "qk_rope_head_dim": 64 if row.latent else None}
    if row.sections:
        flat["rope_parameters"] = {"rope_type": "default", "mrope_section": [12, 10, 10], "partial_rotary_factor": 1.0}
    layers = read_hf_layers(flat)
    assert {header.layout for header in layers.headers.values()} == {row.layout}


def test_an_unknown_type_is_read_by_the_general_rules_and_says_that_its_layout_is_assumed() -> None:
    with pytest.warns(UserWarning, match="layout 'half' was assumed"):
        header = read_hf({"model_type": "novel", **SIZES, "rope_theta": 5e5, "rope_scaling": LLAMA_3}, strict=False)
    assert (header.layout, header.scheme) == ("half", "llama3")
    assert sources(header)["layout"] == "assumed, as model_type is unknown"
    assert header.conflicts == (
        "model_type 'novel' is unknown: layout 'half' was assumed, as most models have it in transformers. The wrong "
        "layout gives fluent nonsense: make sure.",
    )


def test_the_first_architecture_stands_for_a_missing_type() -> None:
    header = read_hf({"architectures": ["NovelForCausalLM"], **SIZES, "rope_theta": 1e4}, layout="half")
    assert (header.model, sources(header)["model"]) == ("NovelForCausalLM", "architectures[0]")


# ---- Schemes ----


def test_old_names_of_schemes_are_known() -> None:
    phi = {"model_type": "phi3", **SIZES, "max_position_embeddings": 4096}
    new = read_hf({**phi, "rope_scaling": LONGROPE})
    for name in ("su", "longrope", "yarn"):  # Phi-3's yarn meant longrope
        old = {**LONGROPE, "type": name}
        del old["rope_type"]
        assert read_hf({**phi, "rope_scaling": old}).frequencies == new.frequencies
    deepseek = read_hf({**LLAMA, "rope_scaling": {**YARN, "rope_type": "deepseek_yarn"}})
    assert deepseek.frequencies == read_hf({**LLAMA, "rope_scaling": YARN}).frequencies
    assert sources(deepseek)["scheme"] == "rope_scaling.rope_type, 'deepseek_yarn'"


def test_rope_type_goes_before_type_and_a_difference_is_told() -> None:
    header = read_hf({**LLAMA, "rope_scaling": {**YARN, "type": "linear"}})
    assert header.scheme == "yarn"
    assert header.conflicts[0] == (
        "rope_scaling.type is 'linear', but rope_scaling.rope_type is 'yarn': the second was taken."
    )
    same = {"rope_type": "default", "type": "mrope", "mrope_section": [8, 12, 12]}
    assert read_hf({"model_type": "qwen2_vl", **SIZES, "rope_scaling": same}).conflicts == ()


def test_keys_of_another_scheme_are_told() -> None:
    header = read_hf({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0, "low_freq_factor": 1.0}})
    assert header.conflicts == ("rope_scaling.low_freq_factor is 1.0, which scheme 'linear' does not use.",)


def test_alpha_makes_dynamic_a_static_scheme() -> None:
    hunyuan = {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    header = read_hf({"model_type": "hunyuan_v1_dense", **SIZES, "rope_scaling": {**hunyuan, "type": "dynamic"}})
    assert (header.scheme, header.conflicts) == ("ntk", ())
    assert header.frequencies == rn.frequencies.ntk(64, 10_000.0, alpha=1000.0)
    without = {"type": "dynamic", "factor": 2.0, "alpha": 0}
    assert read_hf({**LLAMA, "rope_scaling": without}).scheme == "dynamic"


def test_dynamic_starts_from_the_files_context_and_depends_on_seq_len() -> None:
    config = {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 1024}}
    header, longer = read_hf(config), read_hf(config, seq_len=8192)
    assert header.frequencies == rn.frequencies.default(64)
    assert (header.trained_length, header.context_length) == (4096, 8192)
    assert longer.frequencies == rn.frequencies.dynamic(
        64, factor=2.0, original_max_position_embeddings=4096, seq_len=8192
    )
    assert "does not use" in header.conflicts[0]
    assert any("seq_len=" in duty for duty in header.duties)
    assert not longer.duties


def test_longrope_says_which_list_is_in_use_and_until_when() -> None:
    config = {"model_type": "phi3", **SIZES, "original_max_position_embeddings": 1024, "rope_scaling": LONGROPE}
    header = read_hf(config)
    assert values(header)["variant"] == "short"
    assert header.duties[0].startswith("The short factors are in use, as seq_len was not given.")
    assert "up to 1024 positions" in header.duties[0]
    assert values(read_hf(config, seq_len=1024))["variant"] == "short"
    longer = read_hf(config, seq_len=1025)
    assert values(longer)["variant"] == "long"
    assert not longer.duties
    np.testing.assert_allclose(longer.frequencies.inv_freq, longer.unscaled.inv_freq / LONGROPE["long_factor"])


def test_the_length_at_the_top_goes_before_the_one_in_the_dict() -> None:
    config = {"model_type": "phi3", **SIZES, "original_max_position_embeddings": 2048, "rope_scaling": LONGROPE}
    header = read_hf(config)
    assert header.trained_length == 2048
    assert header.conflicts == (
        "rope_scaling.original_max_position_embeddings is 1024, but original_max_position_embeddings is 2048: the "
        "second was taken.",
    )


def test_a_missing_trained_length_is_the_context_and_told() -> None:
    header = read_hf({**LLAMA, "rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert (header.trained_length, header.context_length) == (4096, 16384)
    assert header.conflicts == (
        "rope_scaling.original_max_position_embeddings is missing: max_position_embeddings was taken for it, 4096.",
    )


def test_a_missing_factor_of_yarn_is_the_ratio_of_lengths() -> None:
    rope = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 1024}
    header = read_hf({**LLAMA, "rope_parameters": rope})
    assert (values(header)["factor"], sources(header)["factor"]) == (
        4.0,
        "max_position_embeddings / rope_parameters.original_max_position_embeddings",
    )


def test_lengths_that_contradict_the_factor_are_told() -> None:
    header = read_hf({**LLAMA, "max_position_embeddings": 10_000, "rope_scaling": YARN})
    assert header.conflicts == (
        "rope_scaling.original_max_position_embeddings * rope_scaling.factor is 16384, but max_position_embeddings is "
        "10000.",
    )
    assert header.context_length == 16384


def test_the_magnitude_of_yarn_is_the_files_or_computed() -> None:
    plain = read_hf({**LLAMA, "rope_scaling": YARN})
    assert plain.frequencies.attention_factor == 0.1 * math.log(4.0) + 1.0
    assert sources(plain)["attention_factor"] == "0.1 * log(factor) + 1"
    given = read_hf({**LLAMA, "rope_scaling": {**YARN, "attention_factor": 1.25}})
    assert (given.frequencies.attention_factor, sources(given)["attention_factor"]) == (
        1.25,
        "rope_scaling.attention_factor",
    )
    weighted = read_hf({**LLAMA, "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}})
    assert weighted.frequencies.attention_factor == 1.0
    assert sources(weighted)["attention_factor"].startswith("m(mscale) / m(mscale_all_dim)")


def test_an_old_multiplier_of_the_magnitude_is_followed_and_told() -> None:
    header = read_hf({**LLAMA, "rope_scaling": {**YARN, "attn_factor": 2.0}})
    assert header.frequencies.attention_factor == pytest.approx(2.0 * (0.1 * math.log(4.0) + 1.0), rel=1e-15)
    assert header.conflicts == (
        "rope_scaling.attn_factor is 2.0: it multiplies the magnitude, but not in transformers.",
    )
    both = read_hf({**LLAMA, "rope_scaling": {**YARN, "attn_factor": 2.0, "attention_factor": 1.5}})
    assert both.frequencies.attention_factor == values(both)["attention_factor"] == 3.0
    one = read_hf({**LLAMA, "rope_scaling": {**YARN, "attn_factor": 1, "finetuned": True, "extrapolation_factor": 1}})
    assert (one.frequencies, one.conflicts) == (read_hf({**LLAMA, "rope_scaling": YARN}).frequencies, ())


def test_a_beta_of_0_means_the_usual_one() -> None:
    usual = read_hf({**LLAMA, "rope_scaling": YARN}).frequencies
    assert read_hf({**LLAMA, "rope_scaling": {**YARN, "beta_fast": 0, "beta_slow": 0}}).frequencies == usual


def test_null_counts_as_missing_everywhere() -> None:
    empty = dict.fromkeys(("rope_scaling", "rope_parameters", "head_dim", "partial_rotary_factor", "rope_theta"))
    assert read_hf({**LLAMA, **empty}).frequencies == rn.frequencies.default(64)
    nothing = dict.fromkeys(("attention_factor", "mscale", "anything at all"))
    assert read_hf({**LLAMA, "rope_scaling": {**YARN, **nothing}}).conflicts == ()


def test_two_dicts_that_say_the_same_are_one() -> None:
    both = {**LLAMA, "rope_scaling": {"rope_type": "yarn", **YARN, "beta_fast": 16.0}, "rope_parameters": YARN}
    header = read_hf(both)
    assert sources(header)["beta_fast"] == "rope_scaling.beta_fast"
    assert sources(header)["factor"] == "rope_parameters.factor"


# ---- Layout ----


def test_the_flag_of_interleaving_decides_where_the_type_looks_at_it() -> None:
    latent = {"model_type": "deepseek_v3", "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
    assert read_hf(latent).layout == "interleaved"
    header = read_hf({**latent, "rope_interleave": False})
    assert (header.layout, sources(header)["layout"]) == ("half", "rope_interleave")
    unknown = {"model_type": "novel", "head_dim": 64, "rope_theta": 1e4, "rope_interleave": True}
    assert read_hf(unknown, strict=False).layout == "interleaved"
    told = read_hf({**LLAMA, "rope_interleave": True})
    assert told.layout == "half"
    assert told.conflicts == ("rope_interleave is True, which models of type 'llama' do not look at.",)


def test_nanochat_turns_the_other_way() -> None:
    header = read_hf({"model_type": "nanochat", **SIZES})
    assert (header.frequencies.inv_freq < 0.0).all()
    assert values(header)["direction"] == -1


# ---- What is left to the caller ----


def test_latent_attention_says_which_channels_rotate_and_what_multiplies_logits() -> None:
    header = read_hf(config_of("deepseek_v3"))
    assert "the last 64 of 192 channels of each query head" in header.duties[0]
    assert header.duties[1].startswith("Multiply attention logits by 1.87385421, beside 1 / sqrt(")
    assert sources(header)["attention_logit_scale"] == "rope_scaling.mscale_all_dim and rope_scaling.factor"
    assert header.frequencies.attention_logit_scale == rn.frequencies.yarn_logit_scale(40.0, 1.0)
    dense = read_hf(config_of("ministral_3_8b"))
    assert dense.frequencies.attention_logit_scale == 1.0


def test_queries_scaled_by_position_are_told() -> None:
    assert read_hf(config_of("ministral_3_8b")).duties == (
        "Multiply each query by 1 + 0.1 * log(1 + floor(position / 16384)), after the rotation.",
    )
    scout = read_hf(config_of("llama_4_scout"))
    assert scout.duties[-1] == (
        "In layers that are not rotated, multiply each query by 1 + 0.1 * log(1 + floor((position + 1) / 8192))."
    )
    assert not any(
        "query" in duty for duty in read_hf({**config_of("llama_4_scout"), "attn_temperature_tuning": 0}).duties
    )


def test_multi_axis_models_say_which_positions_they_take() -> None:
    assert read_hf(config_of("qwen3_vl_8b")).duties[0].startswith("Tokens of images and videos have three positions")


def test_sections_are_the_files_or_the_types() -> None:
    assert read_hf(config_of("qwen2_vl_7b")).frequencies.streams.tolist() == [0] * 16 + [1] * 24 + [2] * 24
    usual = read_hf({"model_type": "qwen2_vl", "head_dim": 128})
    assert (values(usual)["sections"], sources(usual)["sections"]) == (
        [16, 24, 24],
        "default of model_type 'qwen2_vl_text'",
    )
    unknown = {
        "model_type": "novel",
        "head_dim": 16,
        "rope_theta": 1e4,
        "rope_scaling": {"mrope_section": [2, 3, 3, 0]},
    }
    with pytest.warns(UserWarning, match="take turns: blocks were assumed"):
        header = read_hf(unknown, layout="half")
    assert header.frequencies.streams.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert "No key says whether the sections of mrope_section take turns: blocks were assumed." in header.conflicts
    unknown["rope_scaling"] = {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
    assert read_hf(unknown, layout="half").frequencies.streams.tolist() == [0, 1, 2, 0, 1, 2, 0, 0]


def test_scaled_frequencies_keep_their_scheme_beside_several_axes() -> None:
    rope = {**YARN, "mrope_section": [8, 12, 12]}
    header = read_hf({"model_type": "qwen2_vl", **SIZES, "rope_scaling": rope})
    assert (header.scheme, header.frequencies.stream_count) == ("yarn", 3)
    assert header.frequencies.attention_factor > 1.1


# ---- Layers ----


def test_layers_that_are_alike_have_one_header() -> None:
    read = read_hf_layers(config_of("llama_3_1_8b"))
    assert list(read.headers) == ["all"]
    assert read.layers == ("all",) * 32
    assert read.headers["all"] == read_hf(config_of("llama_3_1_8b"))


def test_gemma_3_has_local_and_global_layers() -> None:
    read = read_hf_layers(config_of("gemma_3_4b"))
    assert list(read.headers) == ["sliding_attention", "full_attention"]
    assert [index for index, kind in enumerate(read.layers) if kind == "full_attention"] == [5, 11, 17, 23, 29]
    assert len(read.layers) == 34
    for kind, header in read.headers.items():
        assert header == read_hf(config_of("gemma_3_4b"), layer_type=kind)
        assert header.layer_type == kind


def test_the_old_and_the_nested_form_of_layers_that_differ_are_read_alike() -> None:
    old = {
        "model_type": "gemma3_text",
        "head_dim": 64,
        "num_hidden_layers": 6,
        "rope_theta": 2e6,
        "rope_local_base_freq": 5e3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    new = {
        "model_type": "gemma3_text",
        "head_dim": 64,
        "num_hidden_layers": 6,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
        },
    }
    for kind in ("full_attention", "sliding_attention"):
        assert read_hf(old, layer_type=kind).frequencies == read_hf(new, layer_type=kind).frequencies
    assert read_hf_layers(old).layers == read_hf_layers(new).layers


def test_the_theta_of_gemma_3_is_that_of_its_global_layers_only() -> None:
    config = {"model_type": "gemma3_text", "head_dim": 64, "rope_theta": 2e6}
    assert values(read_hf(config, layer_type="full_attention"))["theta"] == 2e6
    assert values(read_hf(config, layer_type="sliding_attention"))["theta"] == 1e4


def test_modernbert_begins_with_a_global_layer_and_scales_both_kinds() -> None:
    config = {
        "model_type": "modernbert",
        "num_hidden_layers": 5,
        "global_attn_every_n_layers": 4,
        "global_rope_theta": 2e5,
        "local_rope_theta": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    }
    read = read_hf_layers(config)
    assert [kind == "full_attention" for kind in read.layers] == [True, False, False, False, True]
    assert read.headers["full_attention"].frequencies == rn.frequencies.linear(64, 2e5, factor=2.0)
    assert read.headers["sliding_attention"].frequencies == rn.frequencies.linear(64, 2e4, factor=2.0)


@pytest.mark.parametrize("name", ["local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta"])
def test_a_second_theta_makes_two_kinds_of_layers_whatever_the_type(name: str) -> None:
    config = {
        "model_type": "novel",
        "head_dim": 64,
        "rope_theta": 1e6,
        name: 1e4,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    read = read_hf_layers(config, layout="half")
    assert read.layers == ("sliding_attention", "full_attention")
    assert read.headers["sliding_attention"].frequencies == rn.frequencies.default(64, 1e4)
    assert read.headers["full_attention"].frequencies == rn.frequencies.default(64, 1e6)


def test_layers_that_are_not_rotated_are_none() -> None:
    every_fourth = tuple(None if (index + 1) % 4 == 0 else "all" for index in range(8))
    for config in (
        {"model_type": "smollm3", "num_hidden_layers": 8},
        {"model_type": "llama4", "num_hidden_layers": 8, "no_rope_layers": []},
        {"model_type": "smollm3", "num_hidden_layers": 8, "no_rope_layers": [1, 1, 1, 0] * 2},
        {"model_type": "cohere2", "num_hidden_layers": 8},
        {"model_type": "exaone4", "num_hidden_layers": 8, "sliding_window_pattern": "LLLG"},
        {"model_type": "afmoe", "num_hidden_layers": 8, "global_attn_every_n_layers": 4},
    ):
        read = read_hf_layers(config)
        assert read.layers == every_fourth, config
        assert read.headers["all"].duties[0] == "2 of 8 layers are not rotated (counted from 0): 3, 7."
    assert read_hf_layers({"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layer_interval": 2}).layers == (
        *("all", None),
        *("all", None),
    )


@pytest.mark.parametrize("kind", ["exaone4", "exaone_moe", "kolibri1"])
def test_some_types_rotate_all_their_layers_if_they_have_no_window(kind: str) -> None:
    config = {"model_type": kind, "num_hidden_layers": 4, "sliding_window": None, "sliding_window_pattern": 0}
    assert read_hf_layers(config).layers == ("all",) * 4


def test_layers_without_attention_are_none() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    assert read_hf_layers({"model_type": "qwen3_next", "layer_types": kinds}).layers == (None, None, None, "all")
    unknown = read_hf_layers({"model_type": "bamba", "num_hidden_layers": 4})
    assert unknown.layers == ()
    assert (
        "Which layers have attention, and so rotate, is not known: no key that is read says it."
        in unknown.headers["all"].conflicts
    )


def test_a_layer_type_that_is_set_to_null_is_not_rotated() -> None:
    config = {
        "model_type": "beam",
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": None},
    }
    read = read_hf_layers(config)
    assert (list(read.headers), read.layers) == (["all"], ("all", None))
    with pytest.raises(ValueError, match="those layers are not rotated"):
        read_hf(config, layer_type="full_attention")


def test_layer_types_beyond_the_number_of_layers_are_for_drafting() -> None:
    config = {"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": ["full_attention"] * 3}
    assert read_hf_layers(config).layers == ("all", "all")


def test_a_theta_for_each_layer_is_grouped_by_layer_type() -> None:
    config = {
        "model_type": "step3p5",
        "head_dim": 128,
        "rope_theta": [5e6, 1e4, 1e4],
        "num_hidden_layers": 3,
        "partial_rotary_factors": [0.5, 1.0, 1.0],
        "rope_scaling": LLAMA_3,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    }
    read = read_hf_layers(config)
    full, sliding = read.headers["full_attention"], read.headers["sliding_attention"]
    assert (full.scheme, full.rotary_dim, sliding.scheme, sliding.rotary_dim) == ("llama3", 64, "default", 128)
    assert sources(full)["theta"] == "rope_theta[0]"


def test_a_theta_of_0_means_a_layer_without_rotation() -> None:
    config = {
        "model_type": "granite_swa",
        "num_hidden_layers": 4,
        "layer_rope_theta": [5e5, 0, 0, 5e5],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    }
    read = read_hf_layers(config)
    assert [label is not None for label in read.layers] == [True, False, False, True]
    assert {values(header)["theta"] for header in read.headers.values()} == {5e5}


def test_gemma_4_has_wider_heads_in_its_global_layers() -> None:
    config = config_of("gemma_4_text")
    full = read_hf(config, layer_type="full_attention")
    assert (full.head_dim, full.rotary_dim, full.scheme) == (512, 512, "proportional")
    assert np.count_nonzero(full.frequencies.inv_freq) == 64
    text = dict(config["text_config"])
    del text["global_head_dim"]
    text["per_layer_config"] = {f"{index:02}": {"head_dim": 256} for index in range(5, 30, 6)}
    own = read_hf({"model_type": "gemma4", "text_config": text}, layer_type="full_attention")
    assert (own.head_dim, sources(own)["head_dim"]) == (256, "text_config.per_layer_config.05.head_dim")


def test_gemma_4_ends_with_a_global_layer_whatever_its_file_says() -> None:
    config = {"model_type": "gemma4_text", "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
    read = read_hf_layers(config)
    assert read.layers[-1] == "full_attention"
    assert any(
        "where this model type has 'full_attention'" in text for text in read.headers["full_attention"].conflicts
    )


def test_a_layer_type_may_be_named_where_all_rotate_alike() -> None:
    config = config_of("gpt_oss_20b")
    assert read_hf(config, layer_type="sliding_attention") == read_hf(config)


def test_keys_beside_dicts_of_layer_types_are_told() -> None:
    rope = {"hybrid": {"rope_theta": 5e6, "rope_type": "default", "partial_rotary_factor": 0.5}, "rope_type": "default"}
    header = read_hf({"model_type": "zaya", "head_dim": 128, "layer_types": ["hybrid"] * 2, "rope_parameters": rope})
    assert header.conflicts == ("rope_parameters.rope_type stands beside dicts for layer types, and was not used.",)
    assert header.rotary_dim == 64


# ---- What strict refuses and a warning allows ----


def test_an_unknown_key_is_a_warning_without_strict() -> None:
    config = {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0, "facktor": 3.0}}
    with pytest.warns(UserWarning, match=r"rope_scaling\.facktor is not a known key of scheme 'linear'"):
        header = read_hf(config, strict=False)
    assert header.frequencies == rn.frequencies.linear(64, factor=2.0)
    assert header.conflicts == ("rope_scaling.facktor is not a known key of scheme 'linear': it was left out.",)


def test_a_model_that_says_nothing_of_rope_is_read_without_strict() -> None:
    with pytest.warns(UserWarning, match=".") as warned:
        header = read_hf({"model_type": "novel", "head_dim": 64}, strict=False)
    assert [f"{warning.message}." for warning in warned] == list(header.conflicts)
    assert header.frequencies == rn.frequencies.default(64)
    assert header.conflicts[0] == "No key speaks of RoPE: everything about it is assumed."


# ---- Mistral's own file ----


def test_params_json_has_the_same_frequencies_in_the_other_layout() -> None:
    own, other = read_hf(config_of("mistral_7b_v0_3_params")), read_hf(config_of("mistral_7b_v0_3"))
    assert own.frequencies == other.frequencies
    assert (own.layout, other.layout) == ("interleaved", "half")
    assert read_hf_layers(config_of("mistral_7b_v0_3_params")).layers == ("all",) * 32


@pytest.mark.parametrize(("apply_scale", "magnitude"), [(False, 1.0), (True, 0.1 * math.log(16.0) + 1.0), (None, None)])
def test_yarn_of_params_json_has_its_magnitude_only_if_asked_for(
    apply_scale: bool | None, magnitude: float | None
) -> None:
    yarn = {"factor": 16, "original_max_position_embeddings": 16384, "beta": 32, "alpha": 1, "apply_scale": apply_scale}
    header = read_hf({"dim": 4096, "n_heads": 32, "head_dim": 128, "rope_theta": 1e6, "yarn": yarn})
    assert header.scheme == "yarn"
    assert header.frequencies.attention_factor == (magnitude or 0.1 * math.log(16.0) + 1.0)
    assert sources(header)["beta_fast"] == "yarn.beta"
    same = rn.frequencies.yarn(128, 1e6, factor=16, original_max_position_embeddings=16384)
    assert (header.frequencies.inv_freq == same.inv_freq).all()


def test_params_json_tells_of_queries_scaled_by_position() -> None:
    params = {"dim": 64, "n_heads": 2, "rope_theta": 1e6}
    params["llama_4_scaling"] = {"original_max_position_embeddings": 16384, "beta": 0.1}
    assert read_hf(params).duties == (
        "Multiply each query by 1 + 0.1 * log(1 + floor(position / 16384)), after the rotation.",
    )

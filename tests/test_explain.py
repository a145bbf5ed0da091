"""What a Rope says of itself, and what the command line prints of a model."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_files
import pytest

import rope_numba as rn
from rope_numba import explain
from rope_numba.__main__ import main

CONFIGS = sorted(p for p in (Path(__file__).parent / "configs").glob("*.json") if p.stem not in ("golden", "sources"))
LLAMA = {
    "model_type": "llama",
    "head_dim": 128,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "num_hidden_layers": 2,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "num_attention_heads": 128,
    "hidden_size": 7168,
    "num_hidden_layers": 2,
    "rope_theta": 10000,
    "max_position_embeddings": 163840,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    },
}


def written(tmp_path: Path, config: dict[str, object]) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_arguments_are_named_as_the_source_of_a_rope_that_was_made_from_them() -> None:
    text = rn.Rope(96, theta=5e5, rotary_dim=48, rotary_offset=16, layout="half", order="htd", max_position=9).explain()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and line[2] != " "}
    for name, value in {
        "head_dim": "96",
        "rotary_dim": "48",
        "rotary_offset": "16",
        "layout": "half",
        "order": "htd",
        "theta": "500000",
        "attention_factor": "1",
        "max_position": "9",
    }.items():
        assert lines[name].split()[1] == value
        assert "argument" in lines[name] or name == "attention_factor"


def test_a_header_explains_each_value_by_its_key() -> None:
    text = rn.Rope.from_hf(LLAMA).explain()
    assert text.startswith("Rope of llama, from a dict: llama3 frequencies, half layout\n")
    for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
        assert f"rope_scaling.{key}" in text
    assert "32 of 64 pairs do not turn once within the 8,192 positions that the model was trained for." in text
    assert "With this scaling it is offered for 131,072 positions." in text


def test_what_is_left_to_the_caller_is_said_with_its_value() -> None:
    rope = rn.Rope.from_hf(DEEPSEEK)
    assert rope.attention_logit_scale == pytest.approx(1.873854207092627, rel=1e-15)
    assert "1.87385421" in rope.explain().split("Left to the caller:")[1]


def test_pairs_that_never_turn_are_counted() -> None:
    rope = rn.Rope(16, frequencies=rn.frequencies.proportional(16, partial_rotary_factor=0.5))
    assert "4 of 8 pairs never turn." in rope.explain()
    assert "No pair turns" in rn.Rope(2, frequencies=rn.Frequencies([0.0])).explain()


def test_ropes_from_headers_are_equal_to_those_made_by_hand_and_pickle_small() -> None:
    import pickle

    rope = rn.Rope.from_hf(LLAMA)
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    by_hand = rn.Rope(128, layout="half", frequencies=rn.frequencies.llama3(128, 500_000.0, **scaling))  # type: ignore[arg-type]
    assert rope == by_hand
    assert hash(rope) == hash(by_hand)
    assert len(pickle.dumps(rope)) < 8 << 10
    assert pickle.loads(pickle.dumps(rope)) == rope


def test_order_max_position_and_backend_are_the_callers() -> None:
    rope = rn.Rope.from_hf(LLAMA, order="htd", max_position=131_072, backend="numpy")
    assert (rope.order, rope.max_position, rope.backend) == ("htd", 131_072, "numpy")
    assert rn.Rope.from_hf(LLAMA).max_position is None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_stored_config_is_explained(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for word in ("head_dim", "rotary_dim", "theta", "layout", "Wavelengths"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 240


def test_configs_are_there() -> None:
    assert len(CONFIGS) >= 25


def test_json_holds_the_same_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", written(tmp_path, LLAMA), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (one,) = told["ropes"].values()
    rope = rn.Rope.from_hf(LLAMA)
    assert one["inv_freq"] == rope.frequencies.inv_freq.tolist()
    assert (one["head_dim"], one["layout"], one["scheme"]) == (128, "half", "llama3")
    assert {fact["name"] for fact in one["facts"]} >= {"theta", "factor", "layout", "head_dim"}
    assert len(told["layers"]) == 2


def test_layers_that_differ_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "gemma3_text",
        "head_dim": 256,
        "hidden_size": 2560,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window_pattern": 6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "max_position_embeddings": 131072,
    }
    path = written(tmp_path, config)
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert "0 to 4: sliding_attention" in text
    assert "5: full_attention" in text
    assert main(["inspect", path, "--layer-type", "full_attention"]) == 0
    assert "Layers:" not in capsys.readouterr().out


def test_a_picture_is_drawn_for_each_layer_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", written(tmp_path, LLAMA), "--plot", str(tmp_path / "one.png")]) == 0
    data = (tmp_path / "one.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000
    assert "llama3" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "GGUF", '{"model_type": "gpt2", "n_embd": 768}'])
def test_what_is_no_header_is_refused_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model"
    path.write_text(text)
    assert main(["inspect", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{path}: ")
    assert told.err.count("\n") == 1


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "/no/such/file"]) == 2
    assert capsys.readouterr().err == "/no/such/file: No such file or directory\n"


def test_inspecting_needs_no_numba(tmp_path: Path) -> None:
    path = written(tmp_path, LLAMA)
    code = "import sys; sys.modules['numba'] = None; from rope_numba.__main__ import main; "
    code += f"sys.exit(main(['inspect', {path!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_quotes_the_explanation_of_llama_3_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parent.parent
    monkeypatch.chdir(root)
    assert main(["inspect", "tests/configs/llama_3_1_8b.json"]) == 0
    assert capsys.readouterr().out.rstrip() in (root / "README.md").read_text()


COPIES: dict[str, Callable[[rn.Rope], rn.Rope]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle, protocol {protocol}": lambda rope, protocol=protocol: pickle.loads(pickle.dumps(rope, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "pickle of a pickle": lambda rope: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(rope)))),
    "the Rope of a copied Rotation": lambda rope: copy.deepcopy(rope.at(offset=3, tokens=2)).rope,
    "the Rope of a pickled Rotation": lambda rope: pickle.loads(pickle.dumps(rope.at(offset=3, tokens=2))).rope,
    "one of a pickled list": lambda rope: pickle.loads(pickle.dumps([rope, rope]))[1],
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_explains_itself_as_its_original_does(way: str, tmp_path: Path) -> None:
    path = gguf_files.written(tmp_path / "model.gguf", "deepseek2", **gguf_files.DEEPSEEK)
    ropes = {
        "arguments": rn.Rope(96, theta=5e5, rotary_dim=48),
        "a dict": rn.Rope.from_hf(LLAMA, max_position=99, order="htd"),
        "a file": rn.Rope.from_hf(written(tmp_path, DEEPSEEK)),
        "a GGUF file": rn.Rope.from_gguf(path),
        "layers": next(iter(rn.ropes_from_hf(LLAMA).ropes.values())),
    }
    duties = 0
    for rope in ropes.values():
        twin = COPIES[way](rope)
        assert (twin, hash(twin), repr(twin)) == (rope, hash(rope), repr(rope))
        assert twin.explain() == rope.explain()
        assert explain.as_dict(twin) == explain.as_dict(rope)
        duties += "Left to the caller:" in twin.explain()
    assert duties >= 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_header_travels_in_a_few_kilobytes(path: Path) -> None:
    for rope in rn.ropes_from_hf(path, strict=False).ropes.values():
        assert len(pickle.dumps(rope)) < 16 << 10

"""`theta` of a Rope and of Frequencies: the base that they were made from, wherever they came from."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import FULL, HEAD_128, SLIDING, WINDOWS, written

import rope_numba as rn
from rope_numba.__main__ import main

CONFIGS = sorted(p for p in (Path(__file__).parent / "configs").glob("*.json") if p.stem not in ("golden", "sources"))
BASE = 123_456.0
LENGTH = {"original_max_position_embeddings": 4096}
ONES = [1.0] * 8
SCHEMES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "ntk": {"alpha": 8.0},
    "dynamic": {"factor": 2.0, **LENGTH, "seq_len": 16_384},
    "yarn": {"factor": 4.0, **LENGTH},
    "longrope": {"short_factor": ONES, "long_factor": ONES, "factor": 4.0, **LENGTH},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LENGTH},
    "proportional": {"partial_rotary_factor": 0.5},
    "divided": {"divisors": ONES},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_keeps_the_base_before_scaling(scheme: str) -> None:
    frequencies = getattr(rn.frequencies, scheme)(16, BASE, **SCHEMES[scheme])
    assert frequencies.theta == BASE
    assert rn.Rope(16, frequencies=frequencies).theta == BASE


def test_no_scheme_is_left_out() -> None:
    others = {"Frequencies", "REFUSED", "refuse", "given", "mrope", "yarn_logit_scale"}
    assert set(rn.frequencies.__all__) - others == set(SCHEMES)


def test_ready_made_frequencies_have_no_theta() -> None:
    for frequencies in (rn.Frequencies([1.0, 0.1]), rn.frequencies.given([1.0, 0.1])):
        assert frequencies.theta is None
        assert rn.Rope(4, frequencies=frequencies).theta is None
    default = rn.frequencies.default(4, BASE)
    assert default.replaced(inv_freq=[1.0, 0.5]).theta is None
    assert default.replaced(attention_factor=2.0).theta == BASE
    assert rn.Frequencies([1.0, 0.1], theta=100).theta == 100.0


def test_sections_keep_theta() -> None:
    shared = rn.frequencies.mrope(rn.frequencies.default(16, BASE), sections=[4, 2, 2])
    assert rn.Rope(16, frequencies=shared).theta == BASE


def test_a_rope_has_the_theta_of_its_argument_or_the_default() -> None:
    assert rn.Rope(64).theta == 10_000.0
    assert rn.Rope(64, theta=500_000).theta == 500_000.0
    assert type(rn.Rope(64, theta=500_000).theta) is float


@pytest.mark.parametrize("rope", [rn.Rope(8, theta=BASE), rn.Rope(8, frequencies=rn.frequencies.ntk(8, BASE, alpha=2))])
def test_copies_and_pickles_keep_theta(rope: rn.Rope) -> None:
    for same in (copy.copy(rope), copy.deepcopy(rope), pickle.loads(pickle.dumps(rope))):
        assert same == rope
        assert same.theta == BASE
    assert rope.at(offset=3, tokens=2).rope.theta == BASE


def test_theta_plays_no_part_in_equality() -> None:
    made, listed = rn.frequencies.default(8, BASE), rn.Frequencies(rn.frequencies.default(8, BASE).inv_freq)
    assert made == listed
    assert hash(made) == hash(listed)


@pytest.mark.parametrize("theta", [0.0, -1.0, float("nan"), "1e4", True])
def test_an_impossible_theta_of_frequencies_is_refused(theta: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^theta is "):
        rn.Frequencies([1.0], theta=theta)


def stated(rope: rn.Rope) -> float:
    """Return the base that the explanation states."""
    (line,) = (line for line in rope.explain().splitlines() if line.split()[:1] == ["theta"])
    return float(line.split()[1])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_gives_each_layer_type_the_theta_that_it_states(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ropes = rn.ropes_from_hf(path).ropes
    assert main(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["ropes"]
    for name, rope in ropes.items():
        assert rope.theta == stated(rope) == told[name]["theta"]
        plain = rope._header.unscaled if rope._header else None
        assert plain is not None
        width = 2 * plain.pairs
        np.testing.assert_allclose(plain.inv_freq, stated(rope) ** (-np.arange(0, width, 2) / width), rtol=1e-13)


def test_layers_that_differ_have_their_own_theta(tmp_path: Path) -> None:
    config = {"model_type": "gemma3_text", "num_hidden_layers": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    assert {name: rope.theta for name, rope in rn.ropes_from_hf(config).ropes.items()} == {SLIDING: 1e4, FULL: 1e6}
    path = written(tmp_path / "m.gguf", "gemma3", **WINDOWS, rope_freq_base=1e6, rope_freq_base_swa=20_000.0)
    assert {name: rope.theta for name, rope in rn.ropes_from_gguf(path).ropes.items()} == {SLIDING: 2e4, FULL: 1e6}


def test_a_gguf_file_gives_theta_or_its_default(tmp_path: Path) -> None:
    write = partial(written, tmp_path / "m.gguf", "llama", **HEAD_128)
    for values in ({"rope_freq_base": BASE}, {"rope_freq_base": BASE, "raw_rope__scaling__factor": 4.0}):
        rope = rn.Rope.from_gguf(write(**values))
        assert rope.theta == stated(rope) == pytest.approx(BASE, rel=1e-7)
    assert rn.Rope.from_gguf(write()).theta == 10_000.0


def test_json_of_a_rope_from_arguments_has_theta_by_name() -> None:
    from rope_numba.explain import as_dict

    assert as_dict(rn.Rope(8, theta=BASE))["theta"] == BASE
    assert as_dict(rn.Rope(2, frequencies=rn.Frequencies([1.0])))["theta"] is None
    scaled = rn.Rope(8, frequencies=rn.frequencies.yarn(8, BASE, factor=4.0, **LENGTH))  # type: ignore[arg-type]
    assert stated(scaled) == BASE

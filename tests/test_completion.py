"""What completion and `dir` show: the public interface, and nothing else."""

from __future__ import annotations

import importlib
import rlcompleter

import numpy as np
import pytest

import rope_numba as rn

ROPE = rn.Rope(8)
THINGS = {
    "rope": ROPE,
    "step": ROPE.at(offset=3, tokens=1),
    "frequencies": ROPE.frequencies,
}
MODULES = [f"rope_numba.{name}" for name in ("frequencies", "layouts", "reference", "integrations.transformers")]
SHOWN = {
    "rope": {
        *("at", "attention_factor", "attention_logit_scale", "backend", "can_shift", "explain", "frequencies"),
        *("from_gguf", "from_hf", "head_dim", "inverse", "layout", "layout_out", "max_position", "order"),
        *("rotary_dim", "rotary_offset", "shift", "tables", "theta"),
    },
    "step": {"batch", "rope", "tokens"},
    "frequencies": {
        *("attention_factor", "attention_logit_scale", "depends_on_length", "inv_freq", "pairs", "replaced"),
        *("stream_count", "streams", "theta"),
    },
}


@pytest.mark.parametrize("name", THINGS)
def test_an_object_shows_its_public_names(name: str) -> None:
    assert set(dir(THINGS[name])) == SHOWN[name]
    for attribute in dir(THINGS[name]):
        getattr(THINGS[name], attribute)


@pytest.mark.parametrize("name", ["rope", "frequencies"])
def test_the_completer_of_pythons_prompt_shows_the_same(name: str) -> None:
    matches = rlcompleter.Completer(dict(THINGS)).attr_matches(f"{name}.")  # type: ignore[attr-defined]
    assert {match.partition(".")[2].rstrip("()") for match in matches} == SHOWN[name]


def test_what_a_used_object_holds_does_not_show() -> None:
    ROPE(np.ones((1, 2, 8), np.float32), offset=0)
    assert set(dir(ROPE)) == SHOWN["rope"]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_shows_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    for attribute in dir(module):
        getattr(module, attribute)


def test_every_public_module_is_among_them() -> None:
    modules = {f"rope_numba.{name}" for name in rn.__all__ if type(getattr(rn, name)) is type(rn)}
    assert modules <= set(MODULES)

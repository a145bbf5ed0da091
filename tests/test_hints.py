"""Wrong keywords and too many arguments: one line that names what is probably meant, on every public callable."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rope_numba as rn
from rope_numba import hints
from rope_numba.integrations import transformers

ROPE = rn.Rope(8)
STEP = ROPE.at(offset=3, tokens=1)
Q, K = np.ones((1, 4, 8), np.float32), np.ones((1, 2, 8), np.float32)

# Every public callable that takes keywords. Calling a Rope and a Rotation, which layers do, is looked at below.
CALLS: dict[str, Callable[..., Any]] = {
    **{name: getattr(rn, name) for name in rn.__all__ if inspect.isfunction(getattr(rn, name))},
    **{
        f"{module}.{name}": getattr(getattr(rn, module), name)
        for module in ("frequencies", "layouts", "reference")
        for name in getattr(rn, module).__all__
        if inspect.isfunction(getattr(getattr(rn, module), name))
    },
    **{name: getattr(ROPE, name) for name in ("inverse", "shift", "at", "tables", "from_hf", "from_gguf")},
    "Rope": rn.Rope,
    "Frequencies": rn.Frequencies,
    "use": transformers.use,
}
CONVERSIONS = {
    "reference.bfloat16_to_float32",
    "reference.float32_to_bfloat16",
}  # called by every rotation
NAMES = sorted(set(CALLS) - CONVERSIONS)


def keywords_of(name: str) -> list[str]:
    """Return what a callable takes by keyword."""
    parameters = inspect.signature(CALLS[name]).parameters.values()
    own = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if name == "apply_rope":
        own += [one for one in inspect.signature(rn.Rope).parameters if one != "head_dim"]
    return own


def refusal(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(TypeError) as refused:
        call(*arguments, **keywords)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
    return str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_keyword_is_answered_by_the_right_one(name: str) -> None:
    for right in keywords_of(name):
        for wrong in {f"{right}_", right.upper(), right.replace("_", ""), f"{right}{right[-1]}"} - {right}:
            text = refusal(CALLS[name], **{wrong: None})
            if len(right) > 2:
                assert re.search(
                    rf"\(\) got an unexpected keyword argument '{wrong}'; did you mean .*\b{right}\b", text
                )


@pytest.mark.parametrize("name", NAMES)
def test_a_keyword_of_nothing_known_is_answered_by_all_that_are_taken(name: str) -> None:
    text = refusal(CALLS[name], zzzzzz=1)
    assert "got an unexpected keyword argument 'zzzzzz'; expected " in text
    for right in keywords_of(name):
        assert re.search(rf"\b{right}\b", text)


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_other_software_uses_are_answered_by_ours(name: str) -> None:
    taken = [one.replace("_", "") for one in keywords_of(name)]
    for right in keywords_of(name):
        for word in hints.ELSEWHERE.get(right, "").split():
            if word not in taken:  # else it is another argument, misspelt
                assert re.search(rf"; did you mean .*\b{right}\b", refusal(CALLS[name], **{word: None}))


def test_the_table_of_other_names_speaks_of_arguments_that_there_are() -> None:
    taken = {right for name in NAMES for right in keywords_of(name)}
    assert set(hints.ELSEWHERE) <= taken
    words = " ".join(hints.ELSEWHERE.values()).split()
    assert all(word == word.lower().replace("_", "") for word in words)
    assert set(hints.FLAGS) <= set(hints.ELSEWHERE["layout"].split())


@pytest.mark.parametrize(
    ("call", "wrong", "meant"),
    [
        ("Rope", {"base": 1e4}, "theta"),
        ("Rope", {"rope_theta": 1e4}, "theta"),
        ("Rope", {"dim": 64}, "head_dim or rotary_dim"),
        ("Rope", {"rotary_width": 64}, "rotary_dim"),
        ("Rope", {"partial_rotary_factor": 0.5}, "rotary_dim"),
        ("Rope", {"max_position_embeddings": 64}, "max_position"),
        ("Rope", {"inv_freq": [1.0]}, "frequencies"),
        ("Rope", {"is_neox_style": True}, "layout='half'"),
        ("Rope", {"is_neox": False}, "layout='interleaved'"),
        ("Rope", {"interleaved": True}, "layout='interleaved'"),
        ("Rope", {"interleaved": 0}, "layout='half'"),
        ("Rope", {"traditional": False}, "layout='half'"),
        ("Rope", {"interleaved": None}, "layout"),
        ("Rope", {"interleaved": np.ones(3)}, "layout"),
        ("apply_rope", {"base": 1e4}, "theta"),
        ("apply_rope", {"pos": 3}, "positions or offset"),
        ("at", {"position_ids": [3]}, "positions"),
        ("at", {"start_pos": 3}, "offset"),
        ("at", {"seqlen": 3}, "tokens"),
        ("inverse", {"cache_position": [3]}, "positions or offset"),
        ("shift", {"offset": 3}, "delta"),
        ("from_hf", {"path": "config.json"}, "config"),
        ("from_hf", {"context_length": 3}, "seq_len or max_position"),
        ("ropes_from_gguf", {"filename": "m.gguf"}, "path"),
        ("frequencies.default", {"dim": 64}, "rotary_dim"),
        ("frequencies.yarn", {"base": 1e4}, "theta"),
        ("layouts.permute", {"to": "half"}, "target"),
        ("warmup", {"dtype": "float32"}, "dtypes"),
    ],
)
def test_names_that_are_often_met(call: str, wrong: dict[str, Any], meant: str) -> None:
    q = (Q,) if call in ("apply_rope", "inverse") else ()
    text = refusal(CALLS[call], *q, **wrong)
    assert text.endswith(f"() got an unexpected keyword argument '{next(iter(wrong))}'; did you mean {meant}?")


def test_a_method_is_named_by_the_class_that_it_is_called_on() -> None:
    class Own(rn.Rope):
        pass

    assert refusal(rn.Rope, 8, base=1).startswith("Rope() got ")
    assert refusal(ROPE.at, pos=1).startswith("Rope.at() got ")
    assert refusal(rn.Rope.from_hf, path=1).startswith("Rope.from_hf() got ")
    assert refusal(Own, base=1).startswith("Own() got ")
    assert refusal(Own(8).at, pos=1).startswith("Own.at() got ")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rn.Rope(8, 1e4), "Rope() takes only head_dim by position, but 2 were given; expected theta=, "),
        (lambda: ROPE.at(3), "Rope.at() takes nothing by position, but 1 was given; expected positions=, offset= or "),
        (lambda: ROPE.inverse(Q, K, 3), "Rope.inverse() takes only q and k by position, but 3 were given; expected "),
        (lambda: ROPE.shift(K, K, 3), "Rope.shift() takes only k and delta by position, but 3 were given; expected "),
        (lambda: ROPE.tables(3, 4), "Rope.tables() takes only n by position, but 2 were given"),
        (lambda: rn.Rope.from_hf({}, 4096), "Rope.from_hf() takes only config by position, but 2 were given; "),
        (lambda: rn.apply_rope(Q, K, 3), "apply_rope() takes only q and k by position, but 3 were given; expected "),
        (lambda: ROPE(Q, K, 3), "a Rope is called as rope(q, k, offset=...) or rope(q, k, positions=...), "),
        (lambda: ROPE(Q, K, pos=3), "a Rope is called as rope(q, k, offset=...) or rope(q, k, positions=...), "),
        (lambda: ROPE(k=K, offset=3), "a Rope is called as rope(q, k, offset=...) or rope(q, k, positions=...), "),
        (lambda: STEP(Q, K, 3), "a Rotation, whose positions Rope.at was given, is called as step(q, k), "),
        (lambda: STEP(Q, K, offset=3), "a Rotation, whose positions Rope.at was given, is called as step(q, k), "),
    ],
)
def test_what_goes_by_name_is_said_where_it_is_given_by_position(call: Callable[[], Any], text: str) -> None:
    before = Q.copy(), K.copy()
    assert refusal(call).startswith(text)
    assert (before[0] == Q).all()
    assert (before[1] == K).all()


@pytest.mark.parametrize("call", [ROPE, ROPE.inverse, rn.apply_rope])
@pytest.mark.parametrize(
    ("k", "what"),
    [
        (5, "k is an int"),
        ([5], "k is a list"),
        (range(5), "k is a range"),
        (np.int64(5), "k is an int64"),
        (np.arange(5), "k.dtype is int64"),
        (np.arange(5, dtype=np.uint8), "k.dtype is uint8"),
    ],
)
def test_integers_where_k_is_expected_are_taken_for_positions_without_a_name(call: Any, k: Any, what: str) -> None:
    text = refusal(call, Q, k)
    assert text.startswith(f"{what}; expected ")
    assert text.endswith(", and positions by name: offset= or positions=")


@pytest.mark.parametrize("call", [ROPE, ROPE.inverse, rn.apply_rope])
def test_without_positions_arrays_of_the_wrong_kind_are_named_first(call: Any) -> None:
    assert refusal(call, 5, Q).startswith("q is an int; expected a NumPy array")
    assert refusal(call, [[1.0]]).startswith("q is a list; expected a NumPy array")
    assert refusal(call, Q, K) == "positions and offset are missing; expected one"
    assert refusal(call, Q) == "positions and offset are missing; expected one"


def test_signatures_docstrings_and_pickles_are_those_of_the_functions_themselves() -> None:
    assert str(inspect.signature(rn.frequencies.default)).startswith("(rotary_dim: 'int', theta: 'float' = 10000.0)")
    assert list(inspect.signature(rn.Rope).parameters)[:2] == ["head_dim", "theta"]
    assert list(inspect.signature(ROPE).parameters) == ["q", "k", "positions", "offset", "out"]
    for call in (rn.apply_rope, rn.ropes_from_hf, rn.frequencies.yarn, ROPE.at, ROPE.__call__, rn.Rope.from_hf):
        again = pickle.loads(pickle.dumps(call))
        assert again.__doc__ == call.__doc__


def test_calls_that_layers_make_are_not_wrapped() -> None:
    for kind in (rn.Rope, rn.Rotation):
        assert not hasattr(kind.__call__, "__wrapped__")
        assert not kind.__call__.__code__.co_flags & (inspect.CO_VARKEYWORDS | inspect.CO_VARARGS)


HERE = {"model_type": "llama", "head_dim": 64, "num_hidden_layers": 2, "rope_theta": 1e4}


@pytest.mark.parametrize(
    "warn",
    [
        lambda: rn.frequencies.given([2.0, 3.0]),
        lambda: rn.Rope.from_hf({**HERE, "rope_unheard": 1}, strict=False),
        lambda: rn.ropes_from_hf({**HERE, "rope_unheard": 1}, strict=False),
        lambda: rn.Rope.from_hf({**HERE, "rope_parameters": {"unheard": 1}}, strict=False),
        lambda: rn.ropes_from_hf({**HERE, "rope_parameters": {"unheard": 1}}, strict=False),
        lambda: importlib.import_module("rope_numba.models.hf").read_hf({**HERE, "rope_unheard": 1}, strict=False),
    ],
)
def test_a_warning_points_at_the_line_that_called_this_package(warn: Callable[[], object]) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warn()
    assert [one.filename for one in warned] == [__file__]

"""`Rope` and `Rotation` as objects: immutable, equal by value, small, and the same however they are used."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal

import rope_numba as rn


def test_ropes_are_equal_by_value() -> None:
    assert rn.Rope(64) == rn.Rope(64, theta=10_000.0, rotary_dim=64)
    assert hash(rn.Rope(64)) == hash(rn.Rope(64, theta=10_000))
    assert rn.Rope(64) == rn.Rope(64, frequencies=rn.frequencies.default(64))
    assert rn.Rope(64) != 64


@pytest.mark.parametrize(
    "other",
    [
        {"head_dim": 128},
        {"theta": 10_001.0},
        {"rotary_dim": 32},
        {"layout": "half"},
        {"order": "htd"},
        {"max_position": 10},
        {"backend": "numpy"},
        {"frequencies": rn.Frequencies(rn.frequencies.default(64).inv_freq, 1.5)},
    ],
)
def test_a_rope_with_another_setting_is_another(other: dict[str, object]) -> None:
    changed = rn.Rope(**{"head_dim": 64, **other})  # type: ignore[arg-type]
    assert changed != rn.Rope(64)
    assert len({changed, rn.Rope(64), rn.Rope(64)}) == 2


def test_ropes_with_another_offset_differ() -> None:
    assert rn.Rope(64, rotary_dim=32) != rn.Rope(64, rotary_dim=32, rotary_offset=32)


@pytest.mark.parametrize(
    "rope",
    [
        rn.Rope(128, theta=500_000.0, layout="half"),
        rn.Rope(576, rotary_dim=64, rotary_offset=512, order="htd", max_position=4096, backend="numpy"),
        rn.Rope(512, frequencies=rn.Frequencies(rn.frequencies.default(512).inv_freq, 1.2)),
    ],
)
def test_a_pickle_is_small_and_comes_back_equal(rope: rn.Rope) -> None:
    rope.at(offset=0, tokens=1000)  # tables do not travel
    data = pickle.dumps(rope)
    assert len(data) < 8 << 10
    back = pickle.loads(data)
    assert back == rope
    assert hash(back) == hash(rope)
    assert repr(back) == repr(rope)
    assert copy.deepcopy(rope) == rope


def test_a_rope_cannot_be_changed() -> None:
    rope = rn.Rope(64)
    for name in ("head_dim", "layout", "anything"):
        with pytest.raises(AttributeError, match="a Rope cannot be changed"):
            setattr(rope, name, 128)
    with pytest.raises(AttributeError, match="a Rope cannot be changed"):
        del rope.layout
    with pytest.raises(ValueError, match="read-only"):
        rope.frequencies.inv_freq[0] = 2.0
    assert rope == rn.Rope(64)


def test_frequencies_do_not_follow_the_array_they_came_from() -> None:
    given = np.array([1.0, 0.5])
    frequencies = rn.Frequencies(given)
    given[0] = 7.0
    assert frequencies == rn.Frequencies([1.0, 0.5])


def test_repr_tells_what_matters() -> None:
    rope = rn.Rope(128, theta=500_000.0)
    assert repr(rope) == "Rope(head_dim=128, theta=500000.0, layout='interleaved', order='thd')"
    rope = rn.Rope(64, rotary_dim=32, rotary_offset=8, layout="half", max_position=99, backend="numpy")
    assert repr(rope) == (
        "Rope(head_dim=64, theta=10000.0, rotary_dim=32, rotary_offset=8, layout='half', order='thd', "
        "max_position=99, backend='numpy')"
    )
    ready = rn.Rope(4, frequencies=rn.Frequencies([1.0, 0.25], 1.5))
    assert "frequencies=<1 to 0.25, attention_factor=1.5>" in repr(ready)
    assert repr(rn.Rope(2).at(offset=7, tokens=3)).endswith(".at(offset=7, tokens=3)")
    assert repr(rn.Rope(2).at(positions=[[3, 1]])).endswith(".at(positions=<1 x 2>)")


def test_a_step_is_the_same_as_the_call_in_every_layer_and_dtype() -> None:
    rope = rn.Rope(64, layout="half")
    step = rope.at(positions=[3, 99, 4])
    for dtype in (*DTYPES, *DTYPES):  # each twice: the first call of a dtype takes another way than the next
        q, k = normal((3, 4, 64), dtype), normal((3, 2, 64), dtype, seed=1)
        expected_q, expected_k = q.copy(), k.copy()
        rope(expected_q, expected_k, positions=[3, 99, 4])
        step(q, k)
        assert_same_bits(q, expected_q)
        assert_same_bits(k, expected_k)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decode_step_is_the_same_first_and_later(dtype: str) -> None:
    rope = rn.Rope(64)
    step = rope.at(offset=12, tokens=1)
    results = []
    for _ in range(3):
        q, k = normal((1, 4, 64), dtype), normal((1, 2, 64), dtype, seed=1)
        step(q, k)
        results.append((q, k))
    alone = normal((1, 4, 64), dtype)
    step(alone)
    for q, k in results:
        assert_same_bits(q, results[0][0])
        assert_same_bits(k, results[0][1])
        assert_same_bits(q, alone)


def test_apply_rope_is_a_rope_made_and_called() -> None:
    q, k = normal((3, 4, 64)), normal((3, 2, 64), seed=1)
    expected_q, expected_k = q.copy(), k.copy()
    settings = {"theta": 500_000.0, "layout": "half", "rotary_dim": 32, "rotary_offset": 16}
    rn.Rope(64, **settings)(expected_q, expected_k, offset=9)  # type: ignore[arg-type]
    rn.apply_rope(q, k, offset=9, **settings)  # type: ignore[call-overload]
    assert_same_bits(q, expected_q)
    assert_same_bits(k, expected_k)


def test_frequencies_are_those_of_the_specification() -> None:
    made = rn.frequencies.default(128, 500_000.0).inv_freq
    # Printed values from the specification of the scheme, to their last digit.
    assert f"{rn.frequencies.default(128).inv_freq[1]:.12e}" == "8.659643233601e-01"
    assert f"{rn.frequencies.default(128).inv_freq[63]:.12e}" == "1.154781984689e-04"
    assert f"{made[63]:.12e}" == "2.455140791132e-06"


def test_positive_positions_turn_towards_the_second_channel() -> None:
    q = np.array([[1.0, 0.0]])
    rn.Rope(2)(q, offset=1)
    np.testing.assert_allclose(q, [[np.cos(1.0), np.sin(1.0)]], rtol=1e-15)


def test_a_rotations_pickle_is_small_and_rotates_alike() -> None:
    rope = rn.Rope(64, layout="half")
    for step in (rope.at(offset=7, tokens=3), rope.at(positions=[[1, 5, 2], [9, 9, 9]])):
        shape = (3, 4, 64) if step.batch is None else (2, 3, 4, 64)
        q, again = normal(shape), normal(shape)
        step(q)
        data = pickle.dumps(step)
        assert len(data) < 8 << 10
        back = pickle.loads(data)
        assert back.rope == rope
        back(again)
        assert_same_bits(again, q)


def test_an_unknown_setting_of_apply_rope_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"apply_rope\(\) got an unexpected keyword argument 'base'"):
        rn.apply_rope(normal((1, 1, 8)), offset=0, base=10_000.0)  # type: ignore[call-overload]


def test_a_magnitude_without_a_finite_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="attention_factor is 1e-310; expected a number whose inverse is finite"):
        rn.Frequencies([1.0], 1e-310)


def test_frequencies_beyond_finite_angles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inv_freq holds 1e\+301; expected at most 2\*\*900"):
        rn.Frequencies([1.0, -1e301])


@pytest.mark.parametrize(
    ("layout", "meant"),
    [("neox", "half"), ("rotate_half", "half"), ("NORMAL", "interleaved"), ("gpt-j", "interleaved")],
)
def test_other_names_of_layouts_are_refused_with_the_name_here(layout: str, meant: str) -> None:
    with pytest.raises(ValueError, match=r"^layout is") as refused:
        rn.Rope(8, layout=layout)
    assert str(refused.value) == f"layout is {layout!r}, which is {meant!r} here; expected 'interleaved' or 'half'"


def test_one_position_for_each_row_of_a_batch_is_told_its_shape() -> None:
    with pytest.raises(ValueError, match="token") as refused:
        rn.Rope(8)(normal((3, 1, 2, 8)), positions=[5, 1234, 77])
    expected = "q has 1 token; expected 3, the number of positions; one for each row of the batch has shape (3, 1)"
    assert str(refused.value) == expected


def test_the_magnitude_is_at_hand() -> None:
    assert rn.Rope(4, frequencies=rn.Frequencies([1.0, 0.5], 1.25)).attention_factor == 1.25


def test_what_a_rotation_says_of_itself_cannot_be_set() -> None:
    rope = rn.Rope(8)
    step = rope.at(positions=[[1, 2, 3], [4, 5, 6]])
    assert (step.rope, step.tokens, step.batch) == (rope, 3, 2)
    for name in ("rope", "tokens", "batch"):
        with pytest.raises(AttributeError):
            setattr(step, name, 1)


def test_layers_that_ask_for_one_position_in_turn_share_one_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba import recent
    from rope_numba import rope as module

    made = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments[2])
        return real(*arguments)

    real = module.Rotation
    for place in (module, recent):
        monkeypatch.setattr(place, "Rotation", counted)
    rope, q = rn.Rope(8), np.ones((1, 2, 8), np.float32)
    expected = rn.Rope(8, backend="numpy")(q.copy(), offset=5)
    made.clear()
    asked: list[dict[str, Any]] = [
        {"offset": 5},
        {"positions": [5]},
        {"positions": np.array([5])},
        {"offset": np.int64(5)},
    ]
    for where in asked:
        x = q.copy()
        rope(x, **where)
        assert (x == expected).all()
    assert made == [(5, 6)]
    rope(q, offset=6)
    rope.inverse(q, offset=6)
    assert made == [(5, 6), (6, 7), (6, 7)]


def test_layers_that_ask_for_the_same_positions_in_turn_share_one_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba import recent

    made, real = [], recent.Rotation

    def counted(*arguments: Any) -> Any:
        made.append(np.asarray(arguments[2]).tolist())
        return real(*arguments)

    monkeypatch.setattr(recent, "Rotation", counted)
    rope, q = rn.Rope(8), np.ones((3, 2, 8), np.float32)
    for positions in (np.array([7, 3, 5]), [7, 3, 5], np.array([5, 3, 7])[::-1]):
        rope(q, positions=positions)
    assert made == [[7, 3, 5]]
    rope(q, positions=np.array([7, 3, 6]))
    rope(q[None], positions=np.array([[7, 3, 6]]))
    assert made == [[7, 3, 5], [7, 3, 6], [[7, 3, 6]]]

"""What a small argument can make memory and work grow to: refused by count, before NumPy makes an array of it."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rope_numba as rn
from rope_numba import layouts
from rope_numba.numbers import element_count
from rope_numba.positions import integers

schemes = rn.frequencies
PLAIN = schemes.default(64)
ROW = [1] * 2**20
# Arguments that take little memory, and whose arrays would take all there is.
LONG: dict[str, Any] = {
    "a range": range(2**40),
    "a range that Python cannot count": range(2**80),
    "one row many times": [ROW] * 2**20,
    "one array many times": [np.broadcast_to(np.int64(1), 2**30)] * 4,
    "a view that repeats": np.broadcast_to(np.int64(1), (2**20, 2**20)),
}
ENTRANCES: dict[str, Callable[[Any], Any]] = {
    "positions": lambda given: rn.Rope(64, backend="numpy").at(positions=given),
    "positions of a call": lambda given: rn.Rope(64, backend="numpy")(np.ones((1, 1, 64)), positions=given),
    "delta": lambda given: rn.Rope(64, backend="numpy").shift(np.ones((1, 1, 64)), given),
    "offset": lambda given: rn.Rope(64, backend="numpy").at(offset=given, tokens=1),
    "cu_seqlens": lambda given: rn.ragged_positions(given),
    "offset of ragged": lambda given: rn.ragged_positions([0, 3], given),
    "inv_freq": lambda given: rn.Frequencies(given),
    "given": lambda given: schemes.given(given),
    "streams": lambda given: rn.Frequencies([1.0], streams=given),
    "divisors": lambda given: schemes.divided(8, divisors=given),
    "short_factor": lambda given: schemes.longrope(
        8, short_factor=given, long_factor=[1.0] * 4, original_max_position_embeddings=4, factor=1.0
    ),
    "sections": lambda given: schemes.mrope(PLAIN, sections=given),
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**26


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("long", LONG)
def test_an_argument_of_too_many_numbers_is_refused_before_memory_is_taken(
    long: str, entrance: str, little_memory: None
) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        ENTRANCES[entrance](LONG[long])


def test_a_width_beyond_any_head_has_no_permutation(little_memory: None) -> None:
    for head_dim in (2**20 + 2, 2**40):
        with pytest.raises(ValueError, match="expected at most 1048576 channels"):
            layouts.indices(head_dim, source="half", target="interleaved")


@pytest.mark.parametrize(
    "given", [range(0), range(7), range(9, 2, -3), range(-(2**53), 2**53, 2**52), range(5, 6, 10**30)]
)
def test_a_range_is_read_as_a_list_of_its_numbers(given: range) -> None:
    made = integers("positions", given, "")
    assert made.dtype == np.int64
    assert made.tolist() == list(given)


def test_lists_of_lists_of_ints_are_looked_at_by_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rope_numba.positions.is_int", None)  # which is asked about single elements
    for given in ([[1, 2], [3, 4]], [[[1, 2]], [[3, 4]]], range(2)):
        assert integers("positions", given, "").tolist() == [*given]


def test_elements_are_counted_along_the_first_of_each_axis() -> None:
    own: list[Any] = []
    own.append(own)
    for given, count in ((5, 1), ([], 0), ([[]] * 3, 0), ("text", 1), ((1, 2), 2), ([[1, 2]] * 3, 6), (own, 1)):
        assert element_count(given) == count


CONFIG = {"model_type": "llama", "head_dim": 64, "num_hidden_layers": 2}
PART = {"rope_type": "default", "rope_theta": 1e4}


def test_a_configuration_has_few_layer_types_with_values_of_their_own() -> None:
    for count in (64, 65):
        config = {**CONFIG, "rope_parameters": {f"kind{i}": {**PART, "rope_theta": 1e4 + i} for i in range(count)}}
        if count == 64:
            assert len(rn.ropes_from_hf(config).ropes) == 64
        else:
            with pytest.raises(ValueError, match="rope_parameters makes 65 types of layers; expected 64 at most"):
                rn.ropes_from_hf(config)


@pytest.mark.parametrize(
    "keys",
    [
        lambda names: {"rope_parameters": {**PART, **names}},
        lambda names: {"rope_parameters": {"full_attention": PART, **names}},
        lambda names: names,
    ],
    ids=["flat", "beside dicts", "top"],
)
def test_of_many_contradictions_few_are_listed(keys: Any) -> None:
    def read(count: int) -> rn.Rope:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return rn.Rope.from_hf({**CONFIG, **keys({f"rope_x{i}": 1 for i in range(count)})}, strict=False)

    few, many = (read(count).explain() for count in (10, 1000))
    assert few.count("was left out") == 10
    assert many.count("was left out") == 21  # twenty, and a line that says that there are more


@pytest.mark.parametrize(
    "frequencies",
    [
        schemes.default(2**17),
        rn.Frequencies([1.0, 0.1], attention_factor=1e200),
        rn.Frequencies([2.0**900, 0.1, 5e-324, 0.0]),
    ],
    ids=["a wide head", "a magnitude whose square is infinite", "extreme frequencies"],
)
def test_a_plot_of_extremes_is_drawn_in_little_memory(frequencies: rn.Frequencies, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib.pyplot")
    from rope_numba.plots import draw

    rope = rn.Rope(2 * frequencies.pairs, frequencies=frequencies, backend="numpy")
    tracemalloc.start()
    draw(rope, tmp_path / "plot.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert most < 2**27


@pytest.mark.parametrize("scheme", [{}, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}])
def test_layers_of_many_types_cannot_make_the_pairs_of_one_many_times_over(scheme: dict[str, Any]) -> None:
    kinds = {f"t{i}": {"rope_theta": 1e4 + i, **scheme} for i in range(64)}
    config = {"model_type": "novel", "num_hidden_layers": 64, "layer_types": list(kinds), "rope_parameters": kinds}
    assert len(rn.ropes_from_hf({**config, "head_dim": 512}, layout="half").ropes) == 64
    for read in (rn.ropes_from_hf, rn.Rope.from_hf):
        with pytest.raises(ValueError, match="layers of 64 types have more than 131072 pairs together; expected"):
            read({**config, "head_dim": 2**16}, layout="half")
    assert rn.Rope.from_hf({**config, "head_dim": 2**16}, layer_type="t1", layout="half").head_dim == 2**16

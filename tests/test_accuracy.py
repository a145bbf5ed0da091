"""The script that measures accuracy: it sees errors as large as they are, and ours are as small as is derived."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import oracle
import pytest
from helpers import DTYPES, LAYOUTS, ROUNDING
from numpy.typing import NDArray

import rope_numba

ROOT = Path(__file__).resolve().parents[1]
POSITIONS = [0, 7, 4095, 1_000_000, 10_000_000, -1000]
FLOAT32_ANGLES = "NumPy expression, float32 angles"

Array = NDArray[Any]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_script", ROOT / "benchmarks" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


script = loaded()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Return a function that runs the whole script as if no peer were installed, and returns what it says."""

    def run(capture: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict[str, Any]]:
        file = tmp_path_factory.mktemp("accuracy") / "figures.json"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(script, "installed", lambda package: False)
            script.main(["--positions", *map(str, POSITIONS), "--json", str(file), *arguments])
        return capture.readouterr().out, json.loads(file.read_text())

    return run


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the lines of (implementation, dtype), measured once for the tests below."""
    own = [other for other in script.OTHERS if not other.packages]
    lines, left_out = script.measure(own, POSITIONS, list(DTYPES), 128, 10_000.0)
    assert left_out == {}
    assert {line["layout"] for line in lines} == {"both"}
    return {(line["implementation"], line["dtype"]): line for line in lines}


def bound(dtype: str, position: int) -> float:
    """Derive the most that a component of ours may be off, in ulp at the length n of its pair.

    In units u = 2**-24 (2**-53 for float64 data): the rounded cosine and sine leave n * u at most; their products
    n * u; the sum n * u. The angle's own error, at
    most |position| * 2**-52, turns the pair by as much. A result of 16 bits is rounded once more, by half an ulp.
    An ulp is never below n * u of the dtype.
    """
    u = 2.0**-53 if dtype == "float64" else 2.0**-24
    furthest = max(abs(position), abs(position + script.TOKENS - 1))
    in_units_of_n: float = (3 * u + furthest * 2.0**-52) * 1.0001  # products of errors
    return in_units_of_n / ROUNDING[dtype] + (0.5 if "16" in dtype else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ours_stays_within_the_derived_bound_at_every_position(dtype: str, figures: dict[Any, Any]) -> None:
    line = figures["rope_numba", dtype]
    for position, units, absolute in zip(POSITIONS, line["ulp"], line["absolute"], strict=True):
        assert 0.4 < units <= bound(dtype, position)  # of thousands of roundings, one comes near to its half
        assert absolute <= bound(dtype, position) * 2 * ROUNDING[dtype] * np.sqrt(2.0)  # a pair is at most that long


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_angles_hold_at_ten_million_tokens(dtype: str, figures: dict[Any, Any]) -> None:
    units = dict(zip(POSITIONS, figures["rope_numba", dtype]["ulp"], strict=True))
    assert units[10_000_000] <= units[0] + 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_angles_of_float32_are_seen_to_be_off(dtype: str, figures: dict[Any, Any]) -> None:
    assert {row.dtype.name for row in script.usual_rows(np.array([3]), 8, 500.0, np.float32)} == {"float32"}
    absolute = dict(zip(POSITIONS, figures[FLOAT32_ANGLES, dtype]["absolute"], strict=True))
    assert absolute[0] <= 2 * ROUNDING[dtype] + 1e-6  # the expression itself is right
    # float32 numbers near a million are 1/16 apart, so rounding moves an angle there by up to 1/32.
    assert absolute[1_000_000] > 1e-3
    assert absolute[10_000_000] > 1e-1


def test_the_script_runs_without_any_peer(
    run: Callable[..., tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    text, report = run(capsys, "--dtypes", "float32", "bfloat16")
    assert [(line["implementation"], line["dtype"]) for line in report["lines"]] == [
        (name, dtype) for dtype in ("float32", "bfloat16") for name in ("rope_numba", FLOAT32_ANGLES)
    ]
    peers = {other.name: other.packages for other in script.OTHERS if other.packages}
    assert len(peers) == 4
    for name, packages in peers.items():
        assert f"Left out: {name}: {' and '.join(packages)} not installed." in text
    for words in ("mpmath", "An ulp is", "Machine: ", "numba", f"rope_numba {rope_numba.__version__}"):
        assert words in text


def test_the_markdown_table_has_a_row_for_each_line_and_a_column_for_each_position(
    run: Callable[..., tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    text, report = run(capsys, "--dtypes", "float16", "--markdown", "--head-dim", "6", "--theta", "500")
    assert "position * 500 ** (-2 * i / 6)" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert len(rows) == 2 * (2 + len(report["lines"]))
    for table, key in ((rows[: len(rows) // 2], "absolute"), (rows[len(rows) // 2 :], "ulp")):
        assert table[0][2:] == ["0", "7", "4,095", "1,000,000", "10,000,000", "-1,000"]
        for row, line in zip(table[2:], report["lines"], strict=True):
            assert row[:2] == [line["implementation"], "float16"]
            shown = [float(cell.replace(",", "")) for cell in row[2:]]
            np.testing.assert_allclose(shown, line[key], rtol=0.05)  # two significant digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.24e-7, "1.2e-7"),
        (0.0996, "0.10"),
        (0.5, "0.50"),
        (1.4, "1.4"),
        (9.96, "10"),
        (2210.0, "2,200"),
        (99_900.0, "1.0e5"),
        (6.1e15, "6.1e15"),
        (np.inf, "inf"),
    ],
)
def test_figures_have_two_significant_digits(value: float, text: str) -> None:
    assert script.digits(value) == text


@pytest.mark.parametrize("markdown", [False, True])
def test_a_line_names_its_layout_where_the_layouts_differ(markdown: bool) -> None:
    line = {"implementation": "some", "dtype": "float32", "absolute": [1e-7], "ulp": [1.0]}
    for layout, name in (("half", "some (half) "), ("interleaved", "some (interleaved) "), ("both", "some ")):
        text = script.tables([{**line, "layout": layout}], [0], markdown)
        starts = [row.lstrip("| ") for row in text.splitlines() if "some" in row]
        assert len(starts) == 2
        assert all(row.startswith(name) and row.count("(") == name.count("(") for row in starts)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_truth_is_the_rotation_of_the_paper(layout: str) -> None:
    positions = np.array([0, 1, 5, 100, -3])
    pairs = script.draw(5, 16, "float64")
    high, low = script.exact_rotation(pairs, *script.exact_rows(positions, 16, 500.0))
    x = script.lay_out(pairs, layout)
    expected = oracle.rotate(x, positions.tolist(), oracle.inv_freq(16, 500.0), layout=layout)
    np.testing.assert_allclose(script.lay_out(high, layout), expected, rtol=0, atol=1e-13)
    assert np.all(np.abs(low) <= np.spacing(np.abs(high)) / 2)
    np.testing.assert_array_equal(script.pairs_of(x, layout), pairs)


def test_the_truth_has_more_digits_than_float64() -> None:
    # The first 32 digits of cos(1) and sin(1), as a sum of two float64 each.
    high, low = script.exact_rotation(np.array([[[[1.0], [0.0]]]]), *script.exact_rows(np.array([1]), 2, 10_000.0))
    digits = [54030230586813971740093660744297, 84147098480789650665250232163029]
    for large, small, expected in zip(high.ravel().tolist(), low.ravel().tolist(), digits, strict=True):
        assert abs((Fraction(large) + Fraction(small)) * 10**32 - expected) < 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_correctly_rounded_result_is_half_an_ulp_off_and_a_moved_one_as_far_as_it_was_moved(dtype: str) -> None:
    positions = np.arange(3 * script.TOKENS)
    true = script.exact_rotation(script.draw(len(positions), 16, dtype), *script.exact_rows(positions, 16, 10_000.0))
    got = true[0].astype(DTYPES[dtype])
    absolute, units = script.largest_errors(got, true, dtype)
    assert all(0.3 < unit <= 0.5 for unit in units)
    assert all(error <= np.sqrt(2.0) * ROUNDING[dtype] for error in absolute)

    length = np.hypot(*true[0][script.TOKENS, 0, :, 3])
    ulp = 2.0 ** (np.floor(np.log2(length)) + 1) * ROUNDING[dtype]
    got[script.TOKENS, 0, 1, 3] += 8 * ulp  # of the second of three positions
    moved_absolute, moved = script.largest_errors(got, true, dtype)
    assert 7 <= moved[1] <= 9
    assert 7 * ulp <= moved_absolute[1] <= 9 * ulp
    assert moved[0::2] == units[0::2]


def undone(x: Array, positions: Array, layout: str, theta: float) -> Array:
    return script.numpy_expression(x, -positions, layout, theta)


def other_layout(x: Array, positions: Array, layout: str, theta: float) -> Array:
    return script.numpy_expression(x, positions, LAYOUTS[LAYOUTS.index(layout) - 1], theta)


def untouched(x: Array, positions: Array, layout: str, theta: float) -> Array:
    positions[...] = 0  # what an implementation does to its arguments must not reach others
    return x


@pytest.mark.parametrize("rotate", [undone, other_layout, untouched])
def test_a_wrong_rotation_is_measured_as_wrong(rotate: Callable[..., Array]) -> None:
    wrong, right = script.Implementation("wrong", rotate), script.Implementation("right", partial(script.ours, "numpy"))
    lines, _ = script.measure([wrong, right], [0, 7, 4095], ["float32", "bfloat16"], 16, 10_000.0)
    for line in lines:
        if line["implementation"] == "wrong":
            assert min(line["absolute"]) > 0.5  # four tokens from 0 hold more than the one that is not turned
        else:
            assert max(line["ulp"]) < 4


def test_a_result_with_a_nan_is_infinitely_wrong() -> None:
    def rotate(x: Array, positions: Array, layout: str, theta: float) -> Array:
        rotated = script.numpy_expression(x, positions, layout, theta)
        rotated[-1, -1, -1] = np.nan
        return rotated

    lines, _ = script.measure([script.Implementation("with a NaN", rotate)], [0, 7], ["float32"], 16, 10_000.0)
    for line in lines[1:]:
        assert line["ulp"][0] < 4
        assert line["ulp"][1] == line["absolute"][1] == np.inf


def test_a_result_of_another_dtype_or_shape_is_left_out() -> None:
    wide = script.Implementation("wide", lambda x, *_: x.astype(np.float64))
    short = script.Implementation("short", lambda x, *_: x[:1])
    lines, left_out = script.measure([wide, short], [0], ["float32"], 16, 10_000.0)
    assert [line["implementation"] for line in lines] == ["rope_numba"]
    assert re.match(r"gave float64 of shape", left_out["wide"])
    assert re.match(r"gave float32 of shape \(1, ", left_out["short"])


def test_backends_that_differ_in_a_bit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_bit(x: Array, *settings: Any) -> Array:
        rotated = script.ours("numpy", x, *settings)
        rotated[0, 0, 0] = np.nextafter(rotated[0, 0, 0], np.float32(2))
        return rotated

    monkeypatch.setattr(script, "FALLBACK", script.Implementation("off by one", one_bit))
    with pytest.raises(RuntimeError, match="rope_numba: float32 interleaved: the backends numba and numpy differ"):
        script.measure([], [0], ["float32"], 16, 10_000.0)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes import this package, installed or not."""
    search_path = [str(Path(str(rope_numba.__file__)).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, search_path)))


@pytest.mark.usefixtures("importable")
def test_a_process_of_its_own_gives_the_same_result_and_its_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    expression = next(other for other in script.OTHERS if other.name == FLOAT32_ANGLES)
    job = {dtype: script.draw(2, 16, dtype) for dtype in DTYPES}, np.array([3, -4]), 10_000.0
    apart, here = script.rotate_apart(expression, *job), script.rotate_all(expression, *job)
    assert list(apart) == list(here) == [(dtype, layout) for dtype in DTYPES for layout in script.LAYOUTS]
    for key, pairs in here.items():
        assert apart[key].dtype == pairs.dtype
        assert script.same_bits(apart[key], pairs)
    with pytest.raises(script.LeftOutError, match="its process ended with 1: KeyError: 'nobody'"):
        script.rotate_apart(script.Implementation("nobody", expression.rotate), *job)


def test_a_process_that_aborts_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aborting = tmp_path / "aborting.py"
    aborting.write_text("import os; os.abort()")
    monkeypatch.setattr(script, "__file__", str(aborting))
    peer = script.Implementation("peer", script.numpy_expression, packages=("numpy",))
    lines, left_out = script.measure([peer], [0], ["float32"], 16, 10_000.0)
    assert [line["implementation"] for line in lines] == ["rope_numba"]
    assert re.match(r"its process ended with -?\d+: ", left_out["peer"])


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("peer", [other for other in script.OTHERS if other.packages], ids=lambda peer: peer.name)
def test_a_peer_that_is_installed_is_called_as_it_wants_to_be(peer: Any) -> None:
    missing = [package for package in peer.packages if not script.installed(package)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (extra `peers`)")
    lines, left_out = script.measure([peer], [0, -7], ["float32", "float16", "bfloat16"], 64, 500.0)
    assert left_out == {}
    assert {line["dtype"] for line in lines if line["implementation"] == peer.name} == set(peer.dtypes)
    for line in lines:
        # Angles up to 7 that are off by some units of float32, or rows rounded to 16 bits.
        assert max(line["absolute"]) < {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[line["dtype"]]

"""Texts from outside: no output holds their escape sequences, line breaks or lone surrogates, or all of a long one."""

from __future__ import annotations

import json
import os
import warnings
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf_hostile import ARCHITECTURE, STRING, WIDTH, header, key, tensor

import rope_numba as rn
from rope_numba import plots
from rope_numba.__main__ import main
from rope_numba.explain import as_dict
from rope_numba.models.header import Fact
from rope_numba.plots import draw
from rope_numba.texts import choice, escaped, shown

NASTY = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "two\nlines",
    "over\rwritten",
    "\u2028\x85\x0b\x0c",
    "\ud800",
    "\udcff",
    "\u202egnp.exe",
    "\u2066\u200f\ufeff\u00ad",
    "$\\frac{1}{$",
    "$x^2$",
    "\\input{/etc/hosts}",
    "{0} %n",
    "a/../b",
    "\x00",
    "",
    "'\"\\",
    "\U000e0041" * 200,
    "ü" * 300,
    "m" * 100_000,
    "\x1b" * 100_000,
]
texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=90)
MOST_LINE = 1100  # characters of a line of any output


def assert_printable(text: str) -> None:
    """Fail unless a line can be printed anywhere, and does nothing there but stand."""
    assert text.isprintable(), ascii(text[:300])
    assert len(text) <= MOST_LINE, len(text)


def strings_in(value: Any) -> Iterator[str]:
    """Yield every text in what JSON holds, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def refused(call: Callable[[], object]) -> str | None:
    """Return the text of the error that a call raises, if it does."""
    try:
        call()
    except (AttributeError, TypeError, ValueError) as error:
        return str(error)
    return None


# --- the one function


@given(text=texts, most=st.integers(12, 200))
def test_an_escaped_text_is_printable_and_no_longer_than_is_asked(text: str, most: int) -> None:
    for shorter in (escaped(text, most), shown(text, most)):
        assert shorter.isprintable()
        assert len(shorter) <= most
    if text.isprintable() and len(text) <= most:
        assert escaped(text, most) == text
    if len(repr(text)) <= most:
        assert shown(text, most) == repr(text)


@given(text=texts)
def test_what_is_cut_ends_in_dots_and_never_within_an_escape(text: str) -> None:
    kept = escaped(text, 40).removesuffix("...")
    assert "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).startswith(kept)
    if escaped(text, 40) != escaped(text, 10**6):
        assert any(escaped(text[:count], 10**6) == kept for count in range(41))


def test_a_list_of_names_shows_the_first_few() -> None:
    assert choice([f"n{i}" for i in range(1000)]).endswith("'n7' or 992 more")
    assert len(choice(["x" * 1000] * 1000)) < 500


# --- headers

HALF = ["--layout", "half"]  # of types that are not known


def configs(text: str) -> Iterator[dict[str, Any]]:
    """Yield configurations that hold a text where one may stand."""
    base = {"model_type": "novel", "head_dim": 16, "num_hidden_layers": 2, "rope_theta": 1e4}
    yield {**base, "model_type": text}
    yield {**base, "model_type": None, "architectures": [text]}
    yield {**base, "text_config": {**base, "model_type": text}}
    yield {**base, "layer_types": [text, "other"], "rope_parameters": {text: {"rope_theta": 1e4}, "other": {}}}
    yield {**base, "layer_types": [text, "other"], "rope_parameters": {text: {"rope_theta": 1e4}, "other": None}}
    yield {**base, "layer_types": [text, text], "no_rope_layers": [0, 1]}
    yield {**base, "layer_types": [text, "other"], "rope_theta": [1e4, 2e4]}
    yield {**base, f"rope{text}": 1}
    yield {**base, f"rope_{text}": text}
    yield {**base, "rope_scaling": {"rope_type": "linear", "factor": 2.0, text: text}}
    yield {**base, "rope_scaling": {text: text}}
    yield {**base, "rope_scaling": {"rope_type": text}}
    yield {**base, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": text}}
    yield {
        **base,
        "rope_scaling": {"rope_type": "default", "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": text},
    }
    yield {**base, "position_embedding_type": text}
    yield {**base, "qk_rope_head_dim": 16, "qk_nope_head_dim": 10**4000}
    yield {**base, "partial_rotary_factor": 0.5, "rotary_dim": text}
    for name in ("head_dim", "rope_theta", "rotary_dim", "rope_scaling", "num_hidden_layers", "layer_types", "yarn"):
        yield {**base, name: text}
        yield {**base, name: [text]}
    yield {"dim": 64, "n_heads": 4, "rope_theta": 1e4, "yarn": {text: 1, "factor": text}}
    yield {"model_type": "gemma4_text", "num_hidden_layers": 2, "per_layer_config": {text: {"head_dim": 64}}}
    yield {"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window_pattern": text}


def assert_read_cleanly(config: dict[str, Any], text: str) -> None:
    """Read a configuration in every way; fail unless errors, warnings, explanations and JSON are printable."""
    for strict, layer_type in ((True, None), (False, None), (False, text), (False, "other")):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                rope = rn.Rope.from_hf(config, layer_type=layer_type, strict=strict)
            except (TypeError, ValueError) as error:
                assert_printable(str(error))
                continue
        for warning in warned:
            assert_printable(str(warning.message))
        for line in rope.explain().split("\n"):
            assert_printable(line)
        for inner in strings_in(json.loads(json.dumps(as_dict(rope)))):
            assert_printable(inner)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_no_hostile_text_of_a_configuration_comes_out_raw(text: str) -> None:
    for config in configs(text):
        assert_read_cleanly(config, text)


@given(text=texts, data=st.data())
def test_no_text_of_a_configuration_comes_out_raw(text: str, data: st.DataObject) -> None:
    assert_read_cleanly(data.draw(st.sampled_from(list(configs(text)))), text)


def files(text: str) -> Iterator[bytes]:
    """Yield GGUF files that hold a text where one may stand."""
    raw = text.encode("utf-8", "surrogatepass")
    usual = [ARCHITECTURE, WIDTH]
    yield header([key("general.architecture", STRING, raw), WIDTH])
    yield header([*usual, key(b"olmo.rope." + raw, STRING, raw)])
    yield header([*usual, key(raw, STRING, raw), key(raw, STRING, raw)])
    yield header([*usual, key("olmo.rope.scaling.type", STRING, raw)])
    yield header([*usual, key("olmo.block_count", STRING, raw)])
    yield header([*usual, key("general.alignment", STRING, raw)])
    for name in (raw, b"rope_freqs" + raw):
        named = tensor("", (1,), 0, 0)[8:]
        entry = len(name).to_bytes(8, "little") + name + named
        yield header(usual, [entry])
        yield header(usual, [entry, entry])
        yield header(usual, [entry[:-1]])


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=5 * settings().max_examples)
@given(text=texts, data=st.data())
def test_no_text_of_a_gguf_file_comes_out_raw(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.gguf"
    path.write_bytes(data.draw(st.sampled_from(list(files(text[:30_000])))))
    for strict in (True, False):
        try:
            rope = rn.Rope.from_gguf(path, strict=strict)
        except (TypeError, ValueError) as error:
            assert_printable(str(error))
            continue
        for line in rope.explain().split("\n"):
            assert_printable(line)


@given(text=texts)
def test_no_path_or_argument_reaches_an_error_raw(text: str) -> None:
    readers: list[Callable[..., object]] = [rn.Rope.from_hf, rn.Rope.from_gguf, rn.ropes_from_hf, rn.ropes_from_gguf]
    for reader in readers:
        for given_path in (f"/no-such-folder/{text}", f"/no-such-folder/{text}.gguf", f"x{text}/config.json"):
            message = refused(lambda reader=reader, path=given_path: reader(path))  # type: ignore[misc]
            assert message is not None
            assert_printable(message)
    llama = {"model_type": "llama", "head_dim": 16, "rope_theta": 1e4}
    for name in ("layer_type", "seq_len", "strict", "order", "max_position", "backend"):
        assert_printable(refused(lambda name=name: rn.Rope.from_hf(llama, **{name: text})) or "")  # type: ignore[misc]


@given(text=texts)
def test_no_python_name_or_argument_reaches_an_error_raw(text: str) -> None:
    named: Any = type(text.replace("\0", "").encode("utf-8", "replace").decode(), (), {})
    rope = rn.Rope(8)
    calls: list[Callable[[], object]] = [
        lambda: rn.Rope(text),  # type: ignore[arg-type]
        lambda: rn.Rope(named()),
        lambda: rn.Rope.from_hf(named()),
        lambda: rn.Rope(8, layout=text),  # type: ignore[arg-type]
        lambda: rn.frequencies.refuse(text),
        lambda: rn.layouts.indices(8, source=text, target="half"),
        lambda: rn.layouts.permute(named(), 8, axis=0, source="half", target="half"),
        lambda: rn.reference.rotate(np.ones((1, 1, 2)), np.ones((1, 1)), np.ones((1, 1)), text),
        lambda: rn.apply_rope(np.ones((1, 8), np.float32), offset=0, **{text: 1}),  # type: ignore[arg-type]
        lambda: getattr(rn, text),
        lambda: setattr(rope, text, 1),
        lambda: delattr(rope, text),
        lambda: rope(named(), offset=0),
        lambda: rope(np.ones((1, 8), np.float32), offset=named()),
        lambda: rope(np.ones((1, 8), np.float32), positions=named()),
    ]
    for call in calls:
        message = refused(call)
        if message is not None:
            assert_printable(message)


@pytest.mark.parametrize("fields", [["\x1b[31m"], [f"f{i}" for i in range(2000)]])
def test_the_fields_of_a_dtype_are_escaped_and_cut(fields: list[str]) -> None:
    dtype = np.dtype([(name, np.float32) for name in fields])
    rope = rn.Rope(8)
    for call in (
        lambda: rope(np.zeros((1, 8), dtype), offset=0),
        lambda: rope(np.zeros((1, 8), np.float32), positions=np.zeros(1, dtype)),
        lambda: rn.Frequencies(np.zeros(4, dtype)),
        lambda: rn.Frequencies(np.zeros(4), streams=np.zeros(4, dtype)),
        lambda: rn.frequencies.divided(8, divisors=np.zeros(4, dtype)),
        lambda: rn.rotate_half_split(np.zeros((1, 1, 8), dtype), np.zeros((1, 4)), np.zeros((1, 4))),
        lambda: rn.reference.rotate(np.zeros((1, 1, 8)), np.zeros((1, 4), dtype), np.zeros((1, 4), dtype)),
    ):
        message = refused(call)
        assert message is not None
        assert_printable(message)


def test_a_fact_of_a_long_text_or_number_can_be_printed_and_written_as_json() -> None:
    for value in (*NASTY, 10**5000, -(10**5000), True, None, 1.5):
        fact = Fact("factor", value, "\x1b" * 2000, "")
        assert_printable(str(fact.value))
        assert_printable(fact.source)
        json.dumps(fact.value)


# --- the command line


def inspected(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit status and all that was printed; each line of it is printable."""
    status = main(["inspect", *arguments])
    told = capsys.readouterr()
    for line in (told.out + told.err).split("\n"):
        assert_printable(line)
    return status, told.out


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_the_command_line_prints_no_text_of_a_header_raw(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    for number, config in enumerate(configs(text)):
        try:
            path.write_text(json.dumps(config))
        except ValueError:  # a number of too many digits
            continue
        for more in (["--lenient"], ["--lenient", "--json"]) if number else (HALF, [*HALF, "--json"]):
            status, out = inspected([str(path), *more], capsys)
            if status == 0 and "--json" in more:
                told = json.loads(out)
                for inner in strings_in(told):
                    assert_printable(inner)
                assert {layer for layer in told["layers"] if layer is not None} <= set(told["ropes"]), number


@pytest.mark.parametrize("text", [text for text in NASTY if "\x00" not in text and len(text) < 1000])
def test_the_command_line_prints_no_name_of_a_file_raw(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspected([str(tmp_path / text / "x")], capsys)[0] == 2
    assert inspected([f"{text}/{text}"], capsys)[0] == 2
    try:
        folder = tmp_path / f"f{text.replace('/', '')}"
        folder.mkdir()
    except (OSError, ValueError):
        return  # no file can be called so
    assert inspected([str(folder)], capsys)[0] == 2
    (folder / f"m{folder.name}.gguf").write_bytes(b"nope")
    assert inspected([str(folder)], capsys)[0] == 2
    assert inspected([str(folder / f"m{folder.name}.gguf")], capsys)[0] == 2
    (folder / "config.json").write_text('{"model_type": "llama", "head_dim": 16, "rope_theta": 1e4}')
    assert inspected([str(folder)], capsys)[0] == 0
    (folder / "config.json").write_text("{")
    assert inspected([str(folder)], capsys)[0] == 2


def test_what_was_typed_is_escaped_where_it_cannot_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["\x1b[31m"], ["inspect", "m", "\x1b[31m"], ["inspect", "m", "--seq-len", "\ud800" * 9999]):
        with pytest.raises(SystemExit):
            main(arguments)
        for line in capsys.readouterr().err.split("\n"):
            assert_printable(line)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_the_repr_of_layer_ropes_is_one_line_and_not_long(text: str) -> None:
    kinds = [text, *(f"t{i}" for i in range(20))]
    config = {"model_type": "novel", "head_dim": 16, "num_hidden_layers": 42, "layer_types": kinds * 2}
    config["rope_parameters"] = {kind: {"rope_theta": 1e4 + i} for i, kind in enumerate(kinds)}
    ropes = rn.ropes_from_hf(config, layout="half")
    assert repr(ropes).isprintable()
    assert len(repr(ropes)) < 2500
    assert list(ropes.ropes) == kinds
    few = rn.LayerRopes({"all": rn.Rope(8)}, ("all",))
    assert repr(few) == f"LayerRopes(ropes={few.ropes!r}, layers={few.layers!r})"


def test_names_that_are_cut_alike_stay_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["n" * 200 + "a", "n" * 200 + "b"]
    config = {"model_type": "novel", "head_dim": 16, "num_hidden_layers": 2, "layer_types": names}
    config["rope_parameters"] = {name: {"rope_theta": 10.0**power} for power, name in enumerate(names, 4)}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    told = json.loads(inspected([str(path), *HALF, "--json", "--plot", str(tmp_path / "p.svg")], capsys)[1])
    assert len(told["ropes"]) == len(set(told["layers"])) == len(set(told["plots"])) == 2
    assert all(Path(plot).stat().st_size for plot in told["plots"])


# --- pictures


@pytest.mark.parametrize("text", ["$\\frac{1}{$", "\x1b[31m", "\\input{/etc/hosts}", "\ud800", "模型", "&<-->"])
def test_a_picture_has_the_name_of_its_model_as_plain_text(text: str, tmp_path: Path) -> None:
    draw(rn.Rope.from_hf({"model_type": text, "head_dim": 16, "rope_theta": 1e4}, layout="half"), tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    xml.etree.ElementTree.fromstring(drawn)  # the name is a comment there, beside its outlines
    plain = escaped(text).encode("ascii", "backslashreplace").decode()
    assert plain.replace("&", "&amp;").replace("<", "&lt;").replace("--", "- -").replace(">", "&gt;") in drawn


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_a_layer_type_of_any_name_makes_a_file_beside_the_one_that_was_asked_for(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn_quickly(rope: object, path: Path) -> str:
        path.write_text("a picture")
        return str(path)

    monkeypatch.setattr(plots, "draw", drawn_quickly)
    config = {"model_type": "novel", "head_dim": 16, "num_hidden_layers": 2, "layer_types": [text, "other"]}
    config["rope_parameters"] = {text: {"rope_theta": 1e4}, "other": {"rope_theta": 1e5}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, out = inspected([str(tmp_path), *HALF, "--plot", str(tmp_path / "pictures.svg"), "--json"], capsys)
    assert status == 0
    written = {path.name for path in tmp_path.iterdir()} - {"config.json"}
    assert {os.path.basename(path) for path in json.loads(out)["plots"]} == written
    assert len(written) == 2
    assert all(name.isascii() and name.isprintable() and len(name) < 80 for name in written)

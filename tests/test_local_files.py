"""Where a file is meant: regular ones are read in bounded time and memory, anything else gets one clear line."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_gguf_hostile import ARCHITECTURE, ARRAY, F32, STRING, U8, U16, U32, WIDTH, header, key, tensor, text

import rope_numba as rn
from rope_numba.__main__ import main
from rope_numba.models import local
from rope_numba.models.gguf.file import MOST_KEYS, MOST_STRINGS, MOST_TENSORS

LLAMA: dict[str, Any] = {"model_type": "llama", "head_dim": 16, "rope_theta": 1e4, "num_hidden_layers": 2}
Reader = Callable[[Any], object]
READERS: dict[str, Reader] = {
    "Rope.from_hf": rn.Rope.from_hf,
    "Rope.from_gguf": rn.Rope.from_gguf,
    "ropes_from_hf": rn.ropes_from_hf,
    "ropes_from_gguf": rn.ropes_from_gguf,
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    """Break off a test that waits for a pipe or a device."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(read: Reader, given: Any, kind: type[Exception] = ValueError) -> str:
    """Return the one line by which something is refused."""
    with pytest.raises(kind, match="; expected ") as refused:
        read(given)
    line = str(refused.value)
    assert line.isprintable()
    assert len(line) < 500
    assert "Errno" not in line
    return line


# --- what is no regular file


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_link_to_a_pipe(folder: Path) -> Path:
    (folder / "link").symlink_to(a_pipe(folder))
    return folder / "link"


def a_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "socket"))
    return folder / "socket"


SPECIAL: dict[str, Callable[[Path], Path]] = {
    "pipe": a_pipe,
    "link to a pipe": a_link_to_a_pipe,
    "socket": a_socket,
    **{name: lambda _, name=name: Path(name) for name in ("/dev/zero", "/dev/null", "/dev/tty", "/dev/stdin")},  # type: ignore[misc]
}


@readers
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_never_opened(kind: str, read: Reader, tmp_path: Path) -> None:
    path = SPECIAL[kind](tmp_path)
    if not path.exists() or stat.S_ISREG(path.stat().st_mode):
        pytest.skip(f"{path} is not there, or a regular file here")
    assert "no regular file" in refusal(read, path)


@pytest.mark.parametrize("kind", SPECIAL)
def test_inspect_says_so_too(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = SPECIAL[kind](tmp_path)
    if not path.exists() or stat.S_ISREG(path.stat().st_mode):
        pytest.skip(f"{path} is not there, or a regular file here")
    assert main(["inspect", str(path)]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "no regular file" in told.err


@readers
def test_a_pipe_that_takes_the_place_of_a_file_before_it_is_opened_is_refused_and_closed(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_pipe(tmp_path)
    asked: list[str] = []

    def before(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(st_mode=stat.S_IFREG | 0o600)

    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with monkeypatch.context() as patched:
        patched.setattr(local.os, "stat", before)
        line = refusal(read, str(path))
    assert "no regular file" in line
    assert asked
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened


def test_a_pipe_called_config_json_is_no_configuration_of_its_folder(tmp_path: Path) -> None:
    a_pipe(tmp_path).rename(tmp_path / "config.json")
    assert "expected one that holds config.json or params.json" in refusal(rn.Rope.from_hf, tmp_path)


# --- what is not there, or no file


@readers
def test_what_is_not_there_is_an_error_of_files_and_of_values(read: Reader, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path / "no" / "x.json", Path("meta-llama/Llama-3-8B")):
        line = refusal(read, path, FileNotFoundError)
        assert line == refusal(read, str(path), ValueError)
        assert f"is {str(path)!r}, which does not exist" in line or len(str(path)) > 80
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert "does not exist" in refusal(read, tmp_path / "dangling", FileNotFoundError)


@readers
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("meta-llama/Llama-3-8B", "a name on the Hugging Face Hub? nothing is downloaded"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "a name on the Hugging Face Hub? nothing is downloaded"),
        ("llama3:8b", "a name of Ollama? nothing is downloaded"),
        ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "a name of Ollama? nothing is downloaded"),
        ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF", "a name on the Hugging Face Hub or of Ollama?"),
        ("ollama.com/library/llama3", "a name on the Hugging Face Hub or of Ollama?"),
        ("gpt2", "a name of a model? nothing is downloaded"),
        ("llama3.2", "a name of a model? nothing is downloaded"),
        ("https://huggingface.co/gpt2/raw/main/config.json", "an address: nothing is downloaded"),
        ("~/model", "~ is not expanded"),
    ],
)
def test_names_that_other_programs_download_by_are_known(read: Reader, name: str, hint: str) -> None:
    assert hint in refusal(read, name, FileNotFoundError)


def test_an_empty_name_is_not_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    monkeypatch.chdir(tmp_path)
    assert rn.Rope.from_hf(".").head_dim == 16
    for read in READERS.values():
        assert "is '', which does not exist" in refusal(read, "", FileNotFoundError)


@readers
def test_paths_that_lead_nowhere_get_one_line(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "loop", tmp_path / "file" / "below", "x" * 100_000, f"/{'y/' * 5000}"):
        assert "which cannot be opened (" in refusal(read, path, OSError)
    assert "holds a null byte" in refusal(read, "a\0b")
    assert "characters that no file name has" in refusal(read, "a\ud800b")


@readers
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read_gets_one_line(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch(mode=0)
    assert "Permission denied" in refusal(read, tmp_path / "model.gguf", PermissionError)


def test_a_refusal_by_the_system_keeps_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(local.os, "stat", denied)
    for read in READERS.values():
        assert "cannot be opened (Permission denied)" in refusal(read, str(tmp_path / "x"), PermissionError)


@readers
def test_a_file_that_opens_and_cannot_be_read_gets_one_line(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(b"GGUF")

    def open_for_writing(path: str, flags: int) -> int:
        return os.open(path, os.O_WRONLY)  # every read fails

    monkeypatch.setattr(local, "_open_without_waiting", open_for_writing)
    line = refusal(read, tmp_path / "model", OSError)
    assert "cannot be read (Bad file descriptor)" in line
    assert line == refusal(read, tmp_path / "model", ValueError)


@pytest.mark.parametrize("read", [rn.Rope.from_gguf, rn.ropes_from_gguf])
def test_a_folder_is_no_gguf_file(read: Reader, tmp_path: Path) -> None:
    assert "is the folder" in refusal(read, tmp_path, IsADirectoryError)


def test_a_folder_without_configuration_names_the_gguf_file_that_it_holds(tmp_path: Path) -> None:
    line = refusal(rn.Rope.from_hf, tmp_path)
    assert line == f"config is the folder {str(tmp_path)!r}; expected one that holds config.json or params.json"
    (tmp_path / "b.GGUF").touch()
    (tmp_path / "a.gguf").touch()
    assert ", which holds the GGUF file 'a.gguf'; expected" in refusal(rn.Rope.from_hf, tmp_path)


def test_a_gguf_file_of_any_name_is_for_the_other_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(header())
    with blob.open("r+b") as file:
        file.truncate(2**30)  # larger than any configuration
    assert "GGUF files have a reader of their own" in refusal(rn.Rope.from_hf, blob)
    assert main(["inspect", str(blob)]) == 0
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert main(["inspect", str(tmp_path / "pointer.gguf")]) == 2
    assert "a Git LFS pointer, not the file itself?" in capsys.readouterr().err


# --- bounded memory and time


def peak_of(call: Callable[[], object]) -> tuple[int, Exception | None]:
    """Return the bytes that Python's objects took at most during a call, and the error that it raised, if any."""
    tracemalloc.start()
    try:
        call()
        error = None
    except (TypeError, ValueError) as raised:
        error = raised
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, error


def long_lists(kind: int, form: str, count: int = 1500) -> bytes:
    body = struct.pack("<IIQ", ARRAY, kind, 4096) + struct.pack(f"<4096{form}", *[i % 250 + 5 for i in range(4096)])
    return header([ARCHITECTURE, WIDTH, *(text(f"llama.x{i}") + body for i in range(count))])


def empty_strings(count: int) -> bytes:
    return text("a.b") + struct.pack("<IIQ", ARRAY, STRING, count) + bytes(8 * count)


GREAT: dict[str, Callable[[], bytes]] = {
    "lists of bytes": lambda: long_lists(U8, "B"),
    "lists of 16 bits": lambda: long_lists(U16, "H"),
    "lists of floats": lambda: long_lists(F32, "f"),
    "strings": lambda: header([ARCHITECTURE, WIDTH, *(key(f"llama.x{i}", STRING, "x" * 4000) for i in range(1500))]),
    "strings that take four bytes a letter": lambda: header(
        [ARCHITECTURE, WIDTH, *(key(f"llama.x{i}", STRING, "x" * 4000 + "\U0001f600") for i in range(1500))]
    ),
    "names of keys": lambda: header([ARCHITECTURE, WIDTH, *(key(f"{'k' * 60_000}{i}", U8, 1) for i in range(100))]),
    "names of tensors": lambda: header(tensors=[tensor(f"{'t' * 200}{i}", (1,)) for i in range(20_000)]),
    "a list of strings": lambda: header([ARCHITECTURE, WIDTH, empty_strings(100_000)]),
}


@pytest.mark.parametrize("kind", GREAT)
def test_a_header_takes_no_more_memory_than_a_few_times_its_bytes(kind: str, tmp_path: Path) -> None:
    raw = GREAT[kind]()
    path = tmp_path / "m.gguf"
    path.write_bytes(raw + bytes(32))
    peak, _ = peak_of(lambda: rn.Rope.from_gguf(path))
    assert peak < 3 * len(raw) + 2**20, f"{peak / len(raw):.1f} times {len(raw)} bytes"


def test_values_beyond_what_is_kept_are_told_as_what_they_are(tmp_path: Path) -> None:
    raw = long_lists(U32, "I", 100)
    path = tmp_path / "m.gguf"
    late = key("olmo.rope.dimension_sections", ARRAY, (U32, [1, 1, 1, 1]))
    path.write_bytes(raw.replace(struct.pack("<IQQ", 3, 0, 102), struct.pack("<IQQ", 3, 0, 103)) + late)
    with pytest.raises(ValueError, match=r"olmo.rope.dimension_sections|one position"):
        rn.Rope.from_gguf(path)


def test_more_strings_than_any_vocabulary_has_are_refused_before_they_are_walked(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for lists in ([MOST_STRINGS + 1], [MOST_STRINGS // 2] * 3):
        keys = [empty_strings(count).replace(b"a.b", f"a.{i}".encode(), 1) for i, count in enumerate(lists)]
        path.write_bytes(header([ARCHITECTURE, WIDTH, *keys]))
        with pytest.raises(ValueError, match=rf"with more than {MOST_STRINGS} strings in lists; expected fewer"):
            rn.Rope.from_gguf(path)


def test_the_fullest_header_that_is_accepted_is_walked_in_bounded_time(tmp_path: Path) -> None:
    keys = [ARCHITECTURE, WIDTH, empty_strings(MOST_STRINGS)]
    keys += [key(f"llama.k{i}", U32, i) for i in range(MOST_KEYS - len(keys))]
    path = tmp_path / "m.gguf"
    path.write_bytes(header(keys, [tensor(f"t{i}", (1,)) for i in range(MOST_TENSORS)]) + bytes(64))
    begin = time.process_time()
    assert rn.Rope.from_gguf(path).head_dim == 8
    assert time.process_time() - begin < 8.0  # a second where nothing else runs; nothing grows with a square


def test_doubts_of_a_file_are_told_for_the_first_few_of_many(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header([ARCHITECTURE, WIDTH, *(key(f"olmo.rope.x{i}", U8, 1) for i in range(5000))]))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        rope = rn.Rope.from_gguf(path, strict=False)
    assert len(warned) <= 21
    assert "More was left out, and is not listed." in rope.explain()
    assert len(rope.explain()) < 10_000


def test_a_model_of_endless_parts_is_refused(tmp_path: Path) -> None:
    for count in (2**16 - 1, 2**63):
        kind = "<H" if count < 2**16 else "<Q"
        keys = [text("split.count") + struct.pack("<I", 2 if kind == "<H" else 10) + struct.pack(kind, count)]
        keys += [key("split.no", U16, 0)]
        path = tmp_path / "m-00001-of-99999.gguf"
        path.write_bytes(header([ARCHITECTURE, WIDTH, *keys]))
        with pytest.raises(ValueError, match=r"^split.count is \d+; expected 1024 at most$"):
            rn.Rope.from_gguf(path)


HUGE: dict[str, Callable[[], bytes]] = {
    "nested lists": lambda: b'{"a": [' + b"[]," * 3_000_000 + b"[]]}",
    "lists in lists": lambda: b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects": lambda: b'{"a": [' + b'{"":0},' * 1_500_000 + b"0]}",
    "numbers": lambda: b'{"a": [' + b"1e9," * 3_000_000 + b"0]}",
    "short strings": lambda: b'{"a": [' + b'"ab",' * 2_500_000 + b"0]}",
    "keys": lambda: b"{" + b",".join(b'"%d":0' % i for i in range(1_000_000)) + b"}",
    "keys that begin like RoPE's": lambda: b"{" + b",".join(b'"rope%d":0' % i for i in range(200_000)) + b"}",
    "one string": lambda: b'{"a": "' + b"x" * 15_000_000 + b'"}',
    "one number": lambda: b'{"a": ' + b"9" * 15_000_000 + b"}",
    "one fraction": lambda: b'{"a": 0.' + b"9" * 15_000_000 + b"}",
    "layer types": lambda: json.dumps({**LLAMA, "layer_types": ["x"] * 200_000}).encode(),
    "dicts of layer types": lambda: json.dumps(
        {**LLAMA, "rope_parameters": {f"t{i}": {"rope_theta": 1e4} for i in range(60_000)}}
    ).encode(),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_configuration_of_any_content_takes_bounded_memory(kind: str, tmp_path: Path) -> None:
    raw = HUGE[kind]()
    (tmp_path / "config.json").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        peak, error = peak_of(lambda: rn.Rope.from_hf(tmp_path, strict=False))
    assert peak < 3 * len(raw) + 2**26, f"{peak >> 20} MiB for {len(raw) >> 20}"
    assert error is None or (str(error).isprintable() and len(str(error)) < 500)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="this Python takes ints of any length")
def test_an_int_of_millions_of_digits_is_refused_where_python_would_take_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "head_dim": ' + "9" * 5_000_000 + "}")
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert "a number of 5000000 digits" in refusal(rn.Rope.from_hf, tmp_path)
    finally:
        sys.set_int_max_str_digits(before)


def test_unknown_keys_of_a_configuration_are_told_for_the_first_few_of_many() -> None:
    rope = {"rope_type": "linear", "factor": 2.0}
    for config in (
        {**LLAMA, **{f"rope_x{i}": i for i in range(20_000)}},
        {**LLAMA, "rope_scaling": rope | {f"x{i}": i for i in range(20_000)}},
        {**LLAMA, "rope_parameters": {"a": {}, **{f"x{i}": i for i in range(20_000)}}},
        {**LLAMA, "rope_scaling": dict.fromkeys(map(str, range(20_000)), 1), "rope_parameters": rope},
    ):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            told = rn.Rope.from_hf(config, strict=False).explain()
        assert len(warned) <= 20
        assert "More was left out, and is not listed." in told
        assert told.count("\n") < 80


@pytest.mark.parametrize("form", ["dicts", "lists"])
def test_more_types_of_layers_than_any_model_has_are_refused(form: str) -> None:
    names = [f"t{i}" for i in range(65)]
    config = {**LLAMA, "num_hidden_layers": 65, "layer_types": names}
    config |= {"rope_parameters": {name: {} for name in names}} if form == "dicts" else {"rope_theta": [1e4] * 65}
    with pytest.raises(ValueError, match=r"makes 65 types of layers; expected 64 at most$"):
        rn.ropes_from_hf(config)
    config["layer_types"] = [*names[:64], names[0]]
    if form == "dicts":
        config["rope_parameters"] = {name: {} for name in names[:64]}
    rn.ropes_from_hf(config)

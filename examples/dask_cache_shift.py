"""Shift a cache of keys that is larger than any one worker: a Dask array of bfloat16, moved chunk by chunk.

    pip install '.[dask]'
    python examples/dask_cache_shift.py

One layer's q and k need no cluster. What may outgrow a machine is the cache of many layers and long contexts, and that
falls into pieces by itself: a chunk needs its own positions, the `Rope` (a small pickle) and nothing of its neighbours.
Here a long document was cached once, and is now to stand behind a preamble: all its keys move up by --delta positions.
(Values have no positions. They stay as they are, so there are none in this example.)
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import pickle
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rope_numba as rn

try:
    import dask
    import dask.array
    from dask.utils import parse_bytes
    from distributed import Client, LocalCluster, futures_of, wait
    from ml_dtypes import bfloat16
except ImportError as error:
    needed = "pip install 'dask[array,distributed]' ml_dtypes"
    raise SystemExit(f"this example needs the package {error.name}: {needed}") from None

LAYERS, HEADS, HEAD_DIM, THETA = 32, 8, 128, 500_000.0  # the keys of Llama 3 8B
CHUNK = 4096  # tokens of one layer: 8 MiB
MIB = 1 << 20


def keys_of_model(layer: int, first: int, end: int) -> NDArray[np.float32]:
    """Stand in for a model: the keys of some tokens of a layer, not rotated yet, the same ones whenever asked."""
    rng = np.random.default_rng((layer, first))
    return rng.random((1, end - first, HEADS, HEAD_DIM), np.float32) - np.float32(0.5)


def fill(rope: rn.Rope, block_info: Any) -> NDArray[Any]:
    """Return a chunk of the cache: the keys of a layer's tokens, rotated and rounded to bfloat16 in one pass."""
    (layer, _), (first, end), *_ = block_info[None]["array-location"]
    keys = keys_of_model(layer, first, end)
    return rope(keys, offset=first, out=np.empty(keys.shape, bfloat16))


def shift(chunk: NDArray[Any], rope: rn.Rope, delta: int) -> NDArray[Any]:
    """Return a chunk whose keys have moved by delta positions."""
    chunk = np.require(chunk, requirements="A")  # one that was spilled comes back at any address, even an odd one
    return rope.shift(chunk, delta, out=np.empty_like(chunk))  # a task must not write to what it was given


def digest(chunk: NDArray[Any]) -> str:
    """Return a fingerprint of a chunk's bits."""
    return hashlib.sha256(np.ascontiguousarray(chunk).view(np.uint16)).hexdigest()


def on_one_machine(rope: rn.Rope, layers: int, tokens: int, delta: int) -> Iterator[str]:
    """Do the same without Dask, a layer at a time: fill, shift the whole layer by one call in place, fingerprint."""
    firsts = range(0, tokens, CHUNK)
    for layer in range(layers):
        keys = np.concatenate([keys_of_model(layer, first, min(first + CHUNK, tokens)) for first in firsts], axis=1)
        cache = rope(keys, offset=0, out=np.empty(keys.shape, bfloat16))
        rope.shift(cache, delta)
        yield from (digest(cache[:, first : first + CHUNK]) for first in firsts)


def about_worker(dask_worker: Any) -> str:
    """Say, inside a worker, what it has built and how much memory it has taken."""
    from rope_numba.tables import _tables  # for show: what a process keeps is nobody's interface

    tables = f"{len(_tables)} table of {sum(table.bytes for table in _tables.values()) / MIB:.1f} MiB"
    most = max(dask_worker.monitor.quantities["memory"]) / MIB  # a sample every half second
    spilled = dask_worker.data.spilled_total.disk / MIB
    return f"{tables} built, {most:.0f} MiB of memory at most, {spilled:.0f} MiB of chunks on disk at the end"


def finished(array: dask.array.Array) -> dask.array.Array:
    """Have the workers compute all chunks and keep them; raise if one failed."""
    array = array.persist()
    wait(array)
    for future in futures_of(array):
        if future.status == "error":
            future.result()
    return array


def run(layers: int, tokens: int, delta: int, memory_limit: int) -> bool:
    """Fill a cache, shift it on two workers, and tell whether its bits are those of one machine."""
    rope = rn.Rope(HEAD_DIM, theta=THETA, layout="half")
    shape = layers, tokens, HEADS, HEAD_DIM
    chunks = dask.array.core.normalize_chunks((1, CHUNK, HEADS, HEAD_DIM), shape)
    like = np.empty((0, 0, 0, 0), bfloat16)
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set({"temporary-directory": folder}),  # where workers spill
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            memory_limit=memory_limit,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # a last heartbeat that finds the scheduler gone; errors of tasks are raised
        ) as cluster,
        Client(cluster) as client,
    ):
        cache = dask.array.map_blocks(fill, rope, chunks=chunks, meta=like)
        size = cache.nbytes
        print(f"cache     {' x '.join(map(str, shape))}, bfloat16: {size / MIB:.0f} MiB in {cache.npartitions} chunks")
        limit = f"{memory_limit / MIB:.0f} MiB each"
        print(f"cluster   2 workers of 2 threads and {limit}: the cache is {size / memory_limit:.2f} times that")
        print(f"rope      {len(pickle.dumps(rope))} bytes as a pickle, with each task")

        start = time.perf_counter()
        cache = finished(cache)
        print(f"filled    in {time.perf_counter() - start:.1f} s")

        start = time.perf_counter()
        # The old chunks have no other name than this one, so each is let go as soon as it has been shifted.
        cache = finished(cache.map_blocks(shift, rope, delta, meta=like))
        seconds = time.perf_counter() - start
        print(f"shifted   by {delta} positions in {seconds:.1f} s: {size / seconds / 1e9:.2f} GB of cache a second")

        for number, line in enumerate(client.run(about_worker).values()):
            print(f"worker {number}  {line}")
        found = dask.compute(*map(dask.delayed(digest), cache.to_delayed().ravel()))
    start = time.perf_counter()
    expected = list(on_one_machine(rope, layers, tokens, delta))
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    seconds = time.perf_counter() - start
    print(f"compared  with one machine in {seconds:.1f} s: {same} of {len(expected)} chunks have the same bits")
    return same == len(expected)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Shift a chunked bfloat16 key cache on a local Dask cluster.")
    parser.add_argument("--layers", type=int, default=LAYERS, metavar="N", help="(%(default)s)")
    parser.add_argument("--tokens", type=int, default=16384, metavar="N", help="(%(default)s)")
    parser.add_argument("--delta", type=int, default=1000, metavar="N", help="positions to move by (%(default)s)")
    parser.add_argument("--memory-limit", default="768MiB", metavar="SIZE", help="of a worker (%(default)s)")
    arguments = parser.parse_args()
    if arguments.layers < 1 or arguments.tokens < 1:
        parser.error(f"--layers is {arguments.layers} and --tokens {arguments.tokens}; expected 1 or more")
    if not run(arguments.layers, arguments.tokens, arguments.delta, parse_bytes(arguments.memory_limit)):
        raise SystemExit("the cluster's cache DIFFERS from one machine's")


if __name__ == "__main__":
    main()

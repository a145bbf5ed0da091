"""The rotation of every dtype, layout and order, beside the stream of the same bytes and NumPy's two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measure import DTYPES, LAYOUTS, array, measure, numpy_expression, numpy_in_place, stream_of, stream_of_columns
from numpy.typing import NDArray

import rope_numba as rn

HEADS = ("32+8 x 128", "9+3 x 64")
CASES = {"decode": 1, "batch of 64": 64, "prompt of 512": 512, "prompt of 4096": 4096}


def shapes_of(heads: str) -> tuple[int, int, int]:
    """Return heads, kv_heads and head_dim."""
    q_heads, _, rest = heads.partition("+")
    kv_heads, _, head_dim = rest.partition(" x ")
    return int(q_heads), int(kv_heads), int(head_dim)


def places_of(case: str) -> NDArray[np.int64]:
    """Return positions: of one token, of the newest tokens of 64 sequences, or of a prompt."""
    if case == "decode":
        return np.array([777])
    if case == "batch of 64":
        return np.random.default_rng(0).integers(0, 8192, 64)
    return np.arange(CASES[case])


def assert_last_token_is_rotated(rope: rn.Rope, position: int, x: NDArray[Any], call: Any) -> None:
    """Check the bits of one call on the last token of an array: what is timed is the rotation."""
    last = (slice(None), -1) if rope.order == "htd" else -1
    expected = x[last].copy()
    fallback = rn.Rope(rope.head_dim, rotary_dim=rope.rotary_dim, layout=rope.layout, backend="numpy")
    fallback(expected, offset=position)
    call()
    assert x[last].tobytes() == expected.tobytes()


@pytest.mark.parametrize("order", ["thd", "htd"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_rotation(benchmark: Any, case: str, heads: str, dtype: str, layout: str, order: str, threads: int) -> None:
    q_heads, kv_heads, head_dim = shapes_of(heads)
    tokens, places = CASES[case], places_of(case)
    q, k = (
        array((tokens, n, head_dim) if order == "thd" else (n, tokens, head_dim), dtype) for n in (q_heads, kv_heads)
    )
    rope = rn.Rope(head_dim, layout=layout, order=order)
    step = rope.at(positions=places)
    assert_last_token_is_rotated(rope, int(places[-1]), k, lambda: step(q, k))
    contenders = {"stream": stream_of(q, k, threads)}
    if threads == 1:
        table = np.float64 if dtype == "float64" else np.float32
        angles = places[:, None] * rope.frequencies.inv_freq
        cos, sin = np.cos(angles).astype(table), np.sin(angles).astype(table)
        if order == "thd":
            cos, sin = cos[:, None], sin[:, None]
        contenders["NumPy in place"] = numpy_in_place(q, k, cos, sin, layout)
        contenders["NumPy expression"] = numpy_expression(q, k, cos, sin, layout)
    benchmark.group = f"{case}, {heads}"
    facts = {"case": case, "tokens": tokens, "heads": heads, "dtype": dtype, "layout": layout, "order": order}
    measure(benchmark, lambda: step(q, k), contenders, threads=threads, bytes=q.nbytes + k.nbytes, **facts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [512, 4096])
def test_packed_qkv(benchmark: Any, tokens: int, dtype: str, layout: str, threads: int) -> None:
    """Slices of a fused projection's output, beside a stream over the same slices."""
    packed = array((tokens, (32 + 8 + 8) * 128), dtype)
    q, k = packed[:, : 32 * 128], packed[:, 32 * 128 : 40 * 128]
    step = rn.Rope(128, layout=layout).at(offset=0, tokens=tokens)
    q_heads, k_heads = (x.reshape(tokens, -1, 128) for x in (q, k))
    untouched = packed[:, 40 * 128 :].tobytes()
    assert_last_token_is_rotated(step.rope, tokens - 1, k_heads, lambda: step(q_heads, k_heads))
    assert packed[:, 40 * 128 :].tobytes() == untouched
    benchmark.group = f"packed q, k, v: {tokens} tokens of 32+8 x 128"
    facts = {"case": "packed", "tokens": tokens, "dtype": dtype, "layout": layout}
    contenders = {"stream": stream_of_columns(packed, packed, (0, 32 * 128, 32 * 128, 40 * 128), threads)}
    measure(benchmark, lambda: step(q_heads, k_heads), contenders, threads=threads, **facts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [512, 4096])
def test_partial_width(benchmark: Any, tokens: int, dtype: str, layout: str, threads: int) -> None:
    """The first 64 of 128 channels, beside a stream over the same channels."""
    q, k = array((tokens, 32, 128), dtype), array((tokens, 8, 128), dtype)
    step = rn.Rope(128, rotary_dim=64, layout=layout).at(offset=0, tokens=tokens)
    assert_last_token_is_rotated(step.rope, tokens - 1, k, lambda: step(q, k))
    benchmark.group = f"64 of 128 channels: {tokens} tokens of 32+8 heads"
    facts = {"case": "partial", "tokens": tokens, "dtype": dtype, "layout": layout}
    contenders = {"stream": stream_of_columns(q.reshape(-1, 128), k.reshape(-1, 128), (0, 64, 0, 64), threads)}
    measure(benchmark, lambda: step(q, k), contenders, threads=threads, **facts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("head_dim", [48, 64, 80, 96, 112, 256, 512])
def test_head_widths(benchmark: Any, head_dim: int, layout: str) -> None:
    """Every width beside 128 channels: as many bytes, to within a head."""
    tokens, heads = 64, 32 * 128 // head_dim
    calls: dict[int, Any] = {}
    sizes: dict[int, int] = {}
    for width, count in ((head_dim, heads), (128, 32)):
        q, k = array((tokens, count, width)), array((tokens, max(1, count // 4), width))
        step = rn.Rope(width, layout=layout).at(offset=0, tokens=tokens)
        assert_last_token_is_rotated(step.rope, tokens - 1, k, lambda step=step, q=q, k=k: step(q, k))
        calls[width], sizes[width] = (lambda step=step, q=q, k=k: step(q, k)), q.nbytes + k.nbytes
    benchmark.group = "head widths, 64 tokens"
    facts = {"case": "width", "head_dim": head_dim, "layout": layout, "size_ratio": sizes[head_dim] / sizes[128]}
    measure(benchmark, calls[head_dim], {"128 channels": calls[128]}, **facts)

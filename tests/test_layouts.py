"""Permutations between the layouts: against the written-out pairs, and against scores that must stay as they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits, bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle import channels_of_pair

import rope_numba as rn
from rope_numba.layouts import indices, permute

WAYS = [{"source": source, "target": target} for source in LAYOUTS for target in LAYOUTS]
ACROSS = [way for way in WAYS if way["source"] != way["target"]]
TO_INTERLEAVED, TO_HALF = {"source": "half", "target": "interleaved"}, {"source": "interleaved", "target": "half"}


@st.composite
def blocks(draw: st.DrawFn, widest: int = 300) -> dict[str, int]:
    """Draw a head and its rotated block."""
    rotary_dim = 2 * draw(st.integers(1, widest // 2))
    before, after = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    return {"head_dim": before + rotary_dim + after, "rotary_dim": rotary_dim, "rotary_offset": before}


# --- which channel goes where ---


@pytest.mark.parametrize(
    ("way", "expected"),
    [(TO_INTERLEAVED, [0, 4, 1, 5, 2, 6, 3, 7]), (TO_HALF, [0, 2, 4, 6, 1, 3, 5, 7])],
    ids=["to interleaved", "to half"],
)
def test_eight_channels_are_gathered_as_written_out_by_hand(way: dict[str, str], expected: list[int]) -> None:
    assert indices(8, **way).tolist() == expected
    assert indices(8, **way).dtype == np.int64
    beside = [0, 1, 2, *(3 + channel for channel in expected), 11]
    assert indices(12, rotary_dim=8, rotary_offset=3, **way).tolist() == beside


@given(block=blocks())
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way['source']}-{way['target']}")
def test_members_of_a_pair_stay_its_members_and_other_channels_stay(way: dict[str, str], block: dict[str, int]) -> None:
    expected = list(range(block["head_dim"]))
    place = block["rotary_dim"], block["rotary_offset"]
    for pair in range(block["rotary_dim"] // 2):
        there, wanted = channels_of_pair(pair, *place, way["source"]), channels_of_pair(pair, *place, way["target"])
        expected[wanted[0]], expected[wanted[1]] = there
    assert indices(**block, **way).tolist() == expected


@given(block=blocks())
def test_the_two_ways_are_inverse_to_one_another(block: dict[str, int]) -> None:
    there, back = indices(**block, **TO_INTERLEAVED), indices(**block, **TO_HALF)
    assert there[back].tolist() == back[there].tolist() == list(range(block["head_dim"]))


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (3, 6), (4, 64), (9, 128)])
def test_a_fully_rotated_projection_goes_as_converters_reshape_it(heads: int, head_dim: int) -> None:
    half = normal((heads * head_dim, 5))
    # The form of llama.cpp's converter: two rows of first and second members, transposed in every head.
    interleaved = half.reshape(heads, 2, head_dim // 2, 5).swapaxes(1, 2).reshape(half.shape)
    assert_same_bits(permute(half, head_dim, axis=0, **TO_INTERLEAVED), interleaved)
    assert_same_bits(permute(interleaved, head_dim, axis=0, **TO_HALF), half)


# --- arrays of all kinds ---


@settings(max_examples=40)
@given(block=blocks(80), offset=st.integers(-(10**6), 10**6), seed=st.integers(0, 2**32))
@pytest.mark.parametrize("way", ACROSS, ids=lambda way: f"{way['source']}-{way['target']}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotating_and_permuting_may_change_places(
    dtype: str, way: dict[str, str], block: dict[str, int], offset: int, seed: int
) -> None:
    x = normal((2, 3, block["head_dim"]), dtype, seed)
    permuted = permute(x, axis=-1, **block, **way)
    rn.Rope(layout=way["source"], **block)(x, offset=offset)
    rn.Rope(layout=way["target"], **block)(permuted, offset=offset)
    assert_same_bits(permuted, permute(x, axis=-1, **block, **way))


@pytest.mark.parametrize("dtype", [*DTYPES.values(), np.uint8, np.int8, ">f4", "V5"])
def test_bits_of_any_dtype_are_moved_as_they_are(dtype: Any) -> None:
    size = np.dtype(dtype).itemsize
    raw = np.random.default_rng(3).integers(0, 256, (6, 8, size), np.uint8)  # among them NaNs of every sign and payload
    moved = permute(raw.view(dtype)[..., 0], 8, axis=1, **TO_INTERLEAVED)
    assert moved.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(moved[..., None].view(np.uint8), raw[:, [0, 4, 1, 5, 2, 6, 3, 7]])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_heads_may_lie_along_any_axis_of_any_strides(axis: int) -> None:
    w = normal((12, 24, 36))[:, ::-1, ::3].swapaxes(0, 1)
    assert w.shape == (24, 12, 12)
    order = [head + channel for head in range(0, w.shape[axis], 6) for channel in (0, 2, 1, 3, 4, 5)]
    expected = np.moveaxis(np.moveaxis(w, axis, 0)[order], 0, axis)
    assert_same_bits(permute(w, 6, axis=axis, rotary_dim=4, **TO_HALF), expected)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way['source']}-{way['target']}")
def test_what_is_returned_is_a_new_array_in_c_order_and_the_argument_stays(way: dict[str, str]) -> None:
    x = np.asfortranarray(normal((8, 4)))
    x.flags.writeable = False
    before = x.copy()
    moved = permute(x, 4, axis=0, **way)
    assert not np.shares_memory(moved, x)
    assert moved.flags.c_contiguous
    assert moved.flags.owndata
    assert moved.flags.writeable
    assert_same_bits(x, before)
    if way["source"] == way["target"]:
        assert_same_bits(moved, before)


def test_a_memory_mapped_file_gives_a_plain_array(tmp_path: Any) -> None:
    np.save(tmp_path / "w.npy", normal((8, 3)))
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    moved = permute(mapped, 8, axis=0, **TO_INTERLEAVED)
    assert type(moved) is np.ndarray
    assert_same_bits(moved, np.load(tmp_path / "w.npy")[[0, 4, 1, 5, 2, 6, 3, 7]])


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (16, 0)])
def test_empty_arrays_are_fine(shape: tuple[int, int]) -> None:
    assert permute(np.empty(shape), 8, axis=0, **TO_HALF).shape == shape


# --- a whole attention step ---


@dataclasses.dataclass(frozen=True)
class Attention:
    """Grouped-query attention in float64, with biases and gained norms on q and k."""

    head_dim: int
    w: dict[str, NDArray[np.float64]]

    def scores(self, x: NDArray[np.float64], rope: rn.Rope) -> NDArray[np.float64]:
        """Return scores of shape (heads, tokens, tokens) from x of shape (tokens, width)."""
        q, k = (self.normed(x @ self.w[f"w_{name}"].T + self.w[f"b_{name}"], name) for name in "qk")
        rope(q, k, offset=1000)
        k = k.repeat(q.shape[1] // k.shape[1], axis=1)
        return np.einsum("qhd,khd->hqk", q, k)

    def normed(self, x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Split into heads, with an RMS norm over what the gain has one number for: a head, or all of them."""
        gain = self.w[f"gain_{name}"]
        split = x.reshape(len(x), -1, self.head_dim)
        x = x if gain.size == x.shape[1] and gain.ndim == 1 else split
        return (x / np.sqrt((x * x).mean(axis=-1, keepdims=True)) * gain).reshape(split.shape)

    def permuted(self, names: str = "w_q b_q gain_q w_k b_k gain_k", **how: Any) -> Attention:
        """Return the same with some weights permuted."""
        how = {"head_dim": self.head_dim, **how}
        changed = {name: permute(self.w[name], axis=-1 if "gain" in name else 0, **how) for name in names.split()}
        return dataclasses.replace(self, w=self.w | changed)


def attention(
    head_dim: int, heads: int = 6, kv_heads: int = 2, *, gains: str = "shared", width: int = 20
) -> tuple[Attention, NDArray[np.float64]]:
    """Return random weights, and tokens to attend."""
    w = {}
    for name, count in (("q", heads), ("k", kv_heads)):
        shape = {"shared": (head_dim,), "each": (count, head_dim), "all": (count * head_dim,)}[gains]
        w[f"w_{name}"] = normal((count * head_dim, width), "float64", seed=count)
        w[f"b_{name}"] = normal((count * head_dim,), "float64", seed=count + 10)
        w[f"gain_{name}"] = 1.0 + 0.5 * normal(shape, "float64", seed=count + 20)
    return Attention(head_dim, w), normal((7, width), "float64", seed=99)


BLOCKS = {
    "full": {"head_dim": 16},
    "partial": {"head_dim": 16, "rotary_dim": 8},
    "tail": {"head_dim": 20, "rotary_dim": 8, "rotary_offset": 12},
    "middle": {"head_dim": 21, "rotary_dim": 10, "rotary_offset": 3},
}
# Scores here reach 62 in size and are sums of up to 21 products; measured, they move by at most 2.9e-14.
TOLERANCE = 1e-12


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("gains", ["shared", "each", "all"])
@pytest.mark.parametrize("way", ACROSS, ids=lambda way: f"{way['source']}-{way['target']}")
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_scores_of_permuted_weights_in_the_other_layout_are_the_same(
    block: dict[str, int], way: dict[str, str], gains: str, kv_heads: int
) -> None:
    model, x = attention(block["head_dim"], kv_heads=kv_heads, gains=gains)
    expected = model.scores(x, rn.Rope(layout=way["source"], **block))
    permuted = model.permuted(**block, **way)
    scores = permuted.scores(x, rn.Rope(layout=way["target"], **block))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


Q, K = {"names": "w_q b_q gain_q"}, {"names": "w_k b_k gain_k"}
MISTAKES: dict[str, list[dict[str, Any]]] = {
    "nothing permuted": [],
    "only q": [Q],
    "biases forgotten": [{"names": "w_q gain_q w_k gain_k"}],
    "gains forgotten": [{"names": "w_q b_q w_k b_k"}],
    "the other way": [TO_HALF],
    "permuted twice": [{}, {}],
    "two heads as one": [{"head_dim": 32}],
    "heads of k counted as 4 and not 2": [Q, K | {"head_dim": 8}],
}


@pytest.mark.parametrize("how", MISTAKES.values(), ids=MISTAKES)
def test_scores_tell_a_mistake(how: list[dict[str, Any]]) -> None:
    model, x = attention(16, gains="all")
    expected = model.scores(x, rn.Rope(16, layout="half"))
    for step in how:
        model = model.permuted(**(TO_INTERLEAVED | step))
    scores = model.scores(x, rn.Rope(16, layout="interleaved"))
    assert np.abs(scores - expected).max() > 1.0


@pytest.mark.parametrize("name", ["partial", "tail", "middle"])
def test_scores_tell_that_all_of_a_partly_rotated_head_was_permuted(name: str) -> None:
    block = BLOCKS[name] | {"head_dim": 24}
    model, x = attention(24)
    expected = model.scores(x, rn.Rope(layout="half", **block))
    scores = model.permuted(**TO_INTERLEAVED).scores(x, rn.Rope(layout="interleaved", **block))
    assert np.abs(scores - expected).max() > 1.0


# --- how weights are stored ---


def test_a_transposed_projection_is_permuted_along_its_other_axis() -> None:
    w = normal((24, 7))
    rows = permute(w, 12, axis=0, rotary_dim=8, **TO_INTERLEAVED)
    assert_same_bits(permute(np.ascontiguousarray(w.T), 12, axis=1, rotary_dim=8, **TO_INTERLEAVED), rows.T.copy())


@pytest.mark.parametrize("groups", [(), (4,)], ids=["scale of a row", "scales of groups"])
def test_quantised_rows_and_their_scales_permute_apart(groups: tuple[int, ...]) -> None:
    rows, columns, how = 24, 32, {"head_dim": 12, "axis": 0, "rotary_dim": 8, **TO_INTERLEAVED}
    quantised = np.random.default_rng(0).integers(-128, 128, (rows, columns), np.int8)
    scales = normal((rows, *groups), "float16")

    def dequantised(values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
        return values * scales.reshape(rows, -1).repeat(columns // (groups or (1,))[0], axis=1).astype(np.float32)

    apart = dequantised(permute(quantised, **how), permute(scales, **how))
    assert_same_bits(apart, permute(dequantised(quantised, scales), **how))


@pytest.mark.parametrize("grouped", [False, True], ids=["one after the other", "in groups"])
def test_a_fused_projection_is_permuted_by_parts_and_its_values_stay(grouped: bool) -> None:
    head_dim, heads, kv_heads, how = 8, 6, 2, {"axis": 0, "rotary_dim": 4, **TO_INTERLEAVED}
    q, k, v = (normal((count, head_dim, 5), seed=count) for count in (heads, kv_heads, kv_heads + 8))
    v = v[:kv_heads]

    def fused(q: NDArray[Any], k: NDArray[Any]) -> NDArray[Any]:
        if not grouped:
            return np.concatenate([q, k, v]).reshape(-1, 5)
        groups = [q.reshape(kv_heads, -1, head_dim, 5), k[:, None], v[:, None]]
        return np.concatenate(groups, axis=1).reshape(-1, 5)

    qkv = fused(q, k)
    if grouped:  # the recipes of the module's docstring
        part = qkv.reshape(kv_heads, heads // kv_heads + 2, head_dim, -1)[:, :-1]
        part[:] = permute(part, head_dim, **{**how, "axis": 2})
    else:
        qkv[: (heads + kv_heads) * head_dim] = permute(qkv[: (heads + kv_heads) * head_dim], head_dim, **how)
    apart = [permute(x.reshape(-1, 5), head_dim, **how).reshape(x.shape) for x in (q, k)]
    assert_same_bits(qkv, fused(*apart))
    assert (bits(qkv) != bits(fused(q, k))).any()


# --- what is refused ---

OF_WIDTHS: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"head_dim": 8.0}, "head_dim is 8.0; expected an int"),
    (TypeError, {"head_dim": True}, "head_dim is True; expected an int"),
    (TypeError, {"rotary_dim": "4"}, "rotary_dim is '4'; expected an int"),
    (TypeError, {"rotary_offset": None}, "rotary_offset is None; expected an int"),
    (ValueError, {"head_dim": 0}, "head_dim is 0; expected 2 or more channels"),
    (ValueError, {"head_dim": 1}, "head_dim is 1; expected 2 or more channels"),
    (ValueError, {"head_dim": 7}, "head_dim is 7; expected an even number, or rotary_dim to be given"),
    (ValueError, {"rotary_dim": 5}, "rotary_dim is 5; expected an even number of channels, 2 or more"),
    (ValueError, {"rotary_dim": 0}, "rotary_dim is 0; expected an even number of channels, 2 or more"),
    (ValueError, {"rotary_dim": 10}, "rotary_offset is 0 and rotary_dim 10; expected them to lie in head_dim, 8"),
    (ValueError, {"rotary_offset": 2}, "rotary_offset is 2 and rotary_dim 8; expected them to lie in head_dim, 8"),
    (ValueError, {"rotary_offset": -1}, "rotary_offset is -1 and rotary_dim 8; expected them to lie in head_dim, 8"),
    (ValueError, {"source": "neox"}, "source is 'neox'; expected 'interleaved' or 'half'"),
    (ValueError, {"source": ["half"] * 20}, "source is of type list; expected 'interleaved' or 'half'"),
    (ValueError, {"target": None}, "target is None; expected 'interleaved' or 'half'"),
]
PLAIN = "expected a plain numpy.ndarray (or numpy.memmap)"
OF_ARRAYS: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"x": [1, 2]}, f"x is of type list; {PLAIN}"),
    (TypeError, {"x": np.ma.ones(8)}, f"x is of type MaskedArray; {PLAIN}"),
    (TypeError, {"axis": None}, "axis is None; expected an int"),
    (ValueError, {"axis": 2}, "axis is 2; expected one of the axes of x, which has 2"),
    (ValueError, {"axis": -3}, "axis is -3; expected one of the axes of x, which has 2"),
    (ValueError, {"x": np.array(1.0)}, "axis is 0; expected one of the axes of x, which has 0"),
    (ValueError, {"x": np.ones(12)}, "x has shape (12,); expected a multiple of head_dim, 8, on axis 0"),
    (ValueError, {"axis": -1}, "x has shape (16, 3); expected a multiple of head_dim, 8, on axis -1"),
]


@pytest.mark.parametrize(("error", "arguments", "text"), OF_WIDTHS)
def test_indices_refuses_what_it_cannot_take_in_one_line(
    error: type[Exception], arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(error) as refused:
        indices(**{"head_dim": 8, **TO_HALF, **arguments})
    assert str(refused.value) == text


@pytest.mark.parametrize(("error", "arguments", "text"), OF_WIDTHS + OF_ARRAYS)
def test_permute_refuses_what_it_cannot_take_in_one_line(
    error: type[Exception], arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(error) as refused:
        permute(**{"x": np.ones((16, 3)), "head_dim": 8, "axis": 0, **TO_HALF, **arguments})
    assert str(refused.value) == text


@pytest.mark.parametrize("missing", ["axis", "source", "target"])
def test_axis_and_layouts_are_never_guessed(missing: str) -> None:
    arguments = {"axis": 0, **TO_HALF}
    del arguments[missing]
    with pytest.raises(TypeError, match=missing):
        permute(np.ones((8, 8)), 8, **arguments)

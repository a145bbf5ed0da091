"""PyTorch tensors on the CPU, rotated where they are."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from helpers import LAYOUTS, ORDERS, ROUNDING

import rope_numba as rn

pytestmark = pytest.mark.peers

NAMES = ("float32", "float64", "float16", "bfloat16")


@pytest.fixture(scope="module")
def torch() -> Any:
    if importlib.util.find_spec("torch") is None:
        if os.environ.get("CI"):
            pytest.fail("missing torch: pip install '.[peers]'")
        pytest.skip("missing torch: pip install '.[peers]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own import
        import torch
    return torch


def normal(torch: Any, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    """Return a tensor of random numbers."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(getattr(torch, dtype))


def wanted(x: Any, positions: list[int], head_dim: int, layout: str, direction: int = 1) -> Any:
    """Return what the paper says of a tensor (tokens, heads, head_dim), in float64."""
    frequencies = oracle.inv_freq(head_dim, 10_000.0)
    return oracle.rotate(x.double().numpy(), positions, frequencies, layout=layout, direction=direction)


def assert_close(x: Any, exact: Any, dtype: str, roundings: float = 1.0) -> None:
    """Fail unless a tensor is as close to exact numbers as so many roundings to its type allow."""
    scale = np.abs(exact).max()
    np.testing.assert_allclose(x.double().numpy(), exact, rtol=0, atol=roundings * 2.1 * ROUNDING[dtype] * scale)


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ORDERS)
def test_tensors_are_rotated_in_place(torch: Any, dtype: str, layout: str, order: str) -> None:
    rope = rn.Rope(16, layout=layout, order=order)
    q, k = normal(torch, (5, 6, 16), dtype), normal(torch, (5, 2, 16), dtype, seed=1)
    exact = [wanted(x, list(range(7, 12)), 16, layout) for x in (q, k)]
    if order == "htd":
        q, k = q.transpose(0, 1), k.transpose(0, 1)
    memory = q.data_ptr(), k.data_ptr()
    q_back, k_back = rope(q, k, offset=7)
    assert q_back is q
    assert k_back is k
    assert (q.data_ptr(), k.data_ptr()) == memory
    for x, each in zip((q, k), exact, strict=True):
        assert_close(x if order == "thd" else x.transpose(0, 1), each, dtype)


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_step_a_lone_query_and_a_batch_take_tensors(torch: Any, dtype: str, backend: str) -> None:
    rope = rn.Rope(16, backend=backend)
    step = rope.at(offset=3, tokens=1)
    for seed in range(3):  # the later calls come by the quick way
        q, k = normal(torch, (1, 4, 16), dtype, seed), normal(torch, (1, 2, 16), dtype, seed + 1)
        exact = wanted(q, [3], 16, "interleaved"), wanted(k, [3], 16, "interleaved")
        q_back, k_back = step(q, k)
        assert (q_back is q, k_back is k) == (True, True)
        assert_close(q, exact[0], dtype)
        assert_close(k, exact[1], dtype)
    q = normal(torch, (2, 3, 4, 16), dtype)
    exact_rows = [wanted(row, [0, 1, 2], 16, "interleaved") for row in q]
    assert rope(q, offset=0) is q
    for row, exact_row in zip(q, exact_rows, strict=True):
        assert_close(row, exact_row, dtype)


@pytest.mark.parametrize("dtype", NAMES)
def test_views_of_a_packed_tensor_are_rotated_where_they_are(torch: Any, dtype: str) -> None:
    packed = normal(torch, (2, 5, 8, 16), dtype)
    before = packed.clone()
    q, k = packed[:, :, :4].transpose(1, 2), packed[:, :, 4:6].transpose(1, 2)
    rope = rn.Rope(16, order="htd")
    rope(q, k, offset=2)
    assert torch.equal(packed[:, :, 6:], before[:, :, 6:])
    q_alone = before[:, :, :4].transpose(1, 2).contiguous()
    k_alone = before[:, :, 4:6].transpose(1, 2).contiguous()
    rope(q_alone, k_alone, offset=2)
    assert torch.equal(q, q_alone)
    assert torch.equal(k, k_alone)
    assert not torch.equal(packed, before)


@pytest.mark.parametrize("dtype", NAMES)
def test_inverse_and_shift_take_tensors(torch: Any, dtype: str) -> None:
    rope = rn.Rope(16, layout="half")
    k = normal(torch, (5, 2, 16), dtype)
    original = k.clone()
    rope(k, positions=torch.arange(5))
    assert rope.inverse(k, positions=torch.arange(5)) is k
    assert_close(k, original.double().numpy(), dtype, 3)
    assert rope.shift(k, torch.tensor(-3)) is k
    assert_close(k, wanted(original, [-3] * 5, 16, "half"), dtype, 5)
    rope.shift(k, torch.tensor([5, 4, 3, 2, 1], dtype=torch.int32))
    assert_close(k, wanted(original, [2, 1, 0, -1, -2], 16, "half"), dtype, 7)


@pytest.mark.parametrize(
    ("source", "target"),
    [(dtype, dtype) for dtype in NAMES]
    + [("float32", "float16"), ("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float32")],
)
def test_out_may_be_a_slice_of_a_cache_of_tensors(torch: Any, source: str, target: str) -> None:
    rope = rn.Rope(16)
    q, k = normal(torch, (3, 4, 16), source), normal(torch, (3, 2, 16), source, seed=1)
    k_before = k.clone()
    cache = torch.zeros(8, 2, 16, dtype=getattr(torch, target))
    out = cache[2:5]
    exact = wanted(k, [9, 10, 11], 16, "interleaved")
    q_back, k_back = rope(q, k, offset=9, out=(None, out))
    assert (q_back is q, k_back is out) == (True, True)
    assert torch.equal(k, k_before)
    assert_close(out, exact, target if ROUNDING[target] > ROUNDING[source] else source)
    assert not cache[:2].any()
    assert not cache[5:].any()


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_positions_and_offsets_may_be_tensors(torch: Any, kind: str) -> None:
    dtype = getattr(torch, kind)
    rope, x = rn.Rope(16), normal(torch, (2, 3, 4, 16))

    def rotated(**where: Any) -> Any:
        return rope(x.clone(), **where)

    assert torch.equal(rotated(positions=torch.tensor([4, 9, 2], dtype=dtype)), rotated(positions=[4, 9, 2]))
    ids = [[4, 9, 2], [0, 1, 2]]
    assert torch.equal(rotated(positions=torch.tensor(ids, dtype=dtype)), rotated(positions=ids))
    assert torch.equal(rotated(offset=torch.tensor(5, dtype=dtype)), rotated(offset=5))
    assert torch.equal(rotated(offset=torch.tensor([5, 8], dtype=dtype)), rotated(offset=[5, 8]))
    assert not torch.equal(rotated(offset=5), rotated(offset=8))


def test_tensors_and_arrays_may_be_mixed(torch: Any) -> None:
    q, k = normal(torch, (3, 4, 16)), np.ones((3, 2, 16), np.float32)
    q_back, k_back = rn.apply_rope(q, k, offset=4)
    assert q_back is q
    assert k_back is k
    np.testing.assert_allclose(k, wanted(torch.ones(3, 2, 16), [4, 5, 6], 16, "interleaved"), rtol=0, atol=1e-6)


def test_bfloat16_tensors_need_no_ml_dtypes(torch: Any) -> None:
    program = """
import sys; sys.modules["ml_dtypes"] = None
import torch, rope_numba as rn
rope, q = rn.Rope(16), torch.ones(3, 4, 16, dtype=torch.bfloat16)
rope.inverse(rope(q, offset=1), offset=1)
assert (q - 1).abs().max() < 0.02
rope.shift(q, 3, out=torch.zeros(3, 4, 16))
"""
    assert rn.__file__ is not None
    search_path = os.pathsep.join(
        [str(os.path.dirname(os.path.dirname(rn.__file__))), os.environ.get("PYTHONPATH", "")]
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": search_path}, check=True)


REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda t: t.ones(2, 3, 16, device="meta"), TypeError, "q is on device meta; expected a tensor on the CPU"),
    (
        lambda t: t.ones(2, 3, 16, dtype=t.int32),
        TypeError,
        "q.dtype is torch.int32; expected float32, float64, float16 or bfloat16",
    ),
    (
        lambda t: t.ones(2, 3, 16, dtype=t.complex64).conj(),
        TypeError,
        "q.dtype is torch.complex64; expected float32, float64, float16 or bfloat16",
    ),
    (
        lambda t: t.ones(2, 3, 16, requires_grad=True),
        ValueError,
        "q requires grad; expected a tensor outside autograd, such as q.detach()",
    ),
    (
        lambda t: t.nn.Parameter(t.ones(2, 3, 16)),
        ValueError,
        "q requires grad; expected a tensor outside autograd, such as q.detach()",
    ),
    (lambda t: t.ones(2, 3, 16).to_sparse(), TypeError, "q has layout torch.sparse_coo; expected torch.strided"),
    (
        lambda t: t.ones(2, 3, 16).as_subclass(type("Own", (t.Tensor,), {})),
        TypeError,
        "q is of class Own; expected a plain torch.Tensor (or Parameter)",
    ),
    (
        lambda t: t._neg_view(t.ones(2, 3, 16)),
        ValueError,
        "q has its negative bit set; expected numbers as they are in memory",
    ),
    (
        lambda t: t._efficientzerotensor(2, 3, 16),
        TypeError,
        "q has no memory of its own; expected an ordinary tensor on the CPU",
    ),
    (
        lambda t: t.ones(2, 1, 16).expand(2, 3, 16),
        ValueError,
        "q has stride 0 on its heads axis; expected memory of its own for each element",
    ),
    (lambda t: t.ones(2, 3, 8), ValueError, "q has head_dim 8 (its last axis); expected 16"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_other_tensors_are_refused(
    torch: Any, make: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    rope = rn.Rope(16)
    for call in (
        lambda q: rope(q, offset=0),
        lambda q: rope(q, positions=[0, 1]),
        lambda q: rope.at(positions=[0, 1])(q),
    ):
        with pytest.raises(error) as refused:
            call(make(torch))
        assert str(refused.value) == message
    with pytest.raises(error) as refused:
        rope.shift(make(torch), 1)
    assert str(refused.value) == message.replace("q ", "k ").replace("q.", "k.")


def test_a_second_tensor_that_is_refused_leaves_the_first_as_it_was(torch: Any) -> None:
    rope, q = rn.Rope(16), torch.ones(2, 3, 16)
    with pytest.raises(ValueError, match=r"^k requires grad; expected a tensor outside autograd, such as k\.detach"):
        rope(q, torch.ones(2, 3, 16, requires_grad=True), offset=1)
    with pytest.raises(TypeError, match=r"^k\.dtype is bfloat16; expected float32, as q has"):
        rope(q, torch.ones(2, 3, 16, dtype=torch.bfloat16), offset=1)
    with pytest.raises(
        TypeError, match=r"^out\.dtype is float64; expected float32 or bfloat16 or float16, as q is float"
    ):
        rope(q, offset=1, out=torch.zeros(2, 3, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^out\[1\] requires grad"):
        rope(q, torch.ones(2, 3, 16), offset=1, out=(None, torch.zeros(2, 3, 16, requires_grad=True)))
    with pytest.raises(ValueError, match="k shares memory with q"):
        rope(q, q, offset=1)
    assert torch.equal(q, torch.ones(2, 3, 16))


@pytest.mark.parametrize(
    ("name", "positions", "message"),
    [
        ("positions", "[0.0, 1.0]", "positions has dtype torch.float32; expected integers"),
        ("positions", "[False, True]", "positions has dtype torch.bool; expected integers"),
        ("offset", "1.0", "offset has dtype torch.float32; expected integers"),
        ("offset", "[[1]]", "offset has shape (1, 1); expected an int, or (batch,)"),
    ],
)
def test_other_positions_are_refused(torch: Any, name: str, positions: str, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        rn.Rope(16)(torch.ones(2, 3, 16), **{name: torch.tensor(eval(positions))})
    assert str(refused.value) == message


def test_a_tensor_that_requires_grad_is_refused_under_no_grad_too_but_its_detach_is_taken(torch: Any) -> None:
    rope, q = rn.Rope(16), torch.ones(2, 3, 16, requires_grad=True)
    with torch.no_grad(), pytest.raises(ValueError, match="q requires grad"):
        rope(q, offset=1)
    rope(q.detach(), offset=1)
    assert not torch.equal(q, torch.ones(2, 3, 16))


def test_autograd_notices_that_a_tensor_it_had_kept_was_rotated(torch: Any) -> None:
    rope, q, weight = rn.Rope(16), torch.ones(2, 3, 16), torch.ones(1, requires_grad=True)
    product = (q * weight).sum()  # keeps q for the backward pass
    rope(q, offset=1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # forward mode and vmap call it
def test_tensors_of_forward_mode_and_of_vmap_are_refused(torch: Any) -> None:
    rope = rn.Rope(16)
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        dual = forward.make_dual(torch.ones(2, 3, 16), torch.ones(2, 3, 16))
        with pytest.raises(ValueError, match=r"^q carries a tangent of forward-mode autograd"):
            rope(dual, offset=0)
        rope(torch.ones(2, 3, 16), offset=0)
    with pytest.raises(TypeError, match=r"^q has no memory of its own"):
        torch.vmap(lambda q: rope(q, offset=0))(torch.ones(2, 2, 3, 16))


def test_tensors_made_in_inference_mode_are_taken_inside_and_outside_of_it(torch: Any) -> None:
    rope = rn.Rope(16)
    with torch.inference_mode():
        q = torch.ones(2, 3, 16)
        rope(q, offset=1)
    rope.inverse(q, offset=1)
    assert_close(q, np.ones((2, 3, 16)), "float32", 3)


def test_a_frozen_parameter_is_taken(torch: Any) -> None:
    q = torch.nn.Parameter(torch.ones(2, 3, 16), requires_grad=False)
    assert rn.Rope(16)(q, offset=1) is q
    assert not torch.equal(q, torch.ones(2, 3, 16))


def freed(x: Any, left: int = 0) -> Any:
    """Return a tensor whose storage has been resized to so many bytes, as FSDP does."""
    x.untyped_storage().resize_(left)
    return x


def last_part(x: Any) -> Any:
    """Return the second half of a tensor, whose storage is one element too short for it."""
    whole = x.repeat(2, *[1] * (x.ndim - 1))
    half = whole[len(x) :]
    freed(whole, whole.nbytes - whole.element_size())
    return half


def transposed(x: Any) -> Any:
    """Return a view, not contiguous if there are axes enough, whose storage is one element too short for it."""
    view = x.transpose(0, x.ndim - 2) if x.ndim > 1 else x
    freed(x, x.nbytes - x.element_size())
    return view


# A tensor of which not all elements are in its storage.
LOST: dict[str, Callable[[Any], Any]] = {
    "freed": freed,
    "one byte short": lambda x: freed(x, x.nbytes - 1),
    "one row left": lambda x: freed(x, x.nbytes // len(x)),
    "a view from an offset on": last_part,
    "a transposed view": transposed,
    "a parameter": lambda x: freed(sys.modules["torch"].nn.Parameter(x, requires_grad=False)),
}
SHAPE = (3, 3, 16)  # tokens and heads are alike, so that a transposed view fits too

# Every entrance that takes tensors: the argument that is named, the tensor that is lost, and the call.
ENTRANCES: dict[str, tuple[str, str, Callable[[Any, Any, Any], Any]]] = {
    "rope": ("q", "float", lambda rope, x, good: rope(x, offset=1)),
    "rope by positions": ("q", "float", lambda rope, x, good: rope(x, positions=[4, 1, 2])),
    "k": ("k", "float", lambda rope, x, good: rope(good(), x, offset=1)),
    "inverse": ("q", "float", lambda rope, x, good: rope.inverse(x, offset=1)),
    "shift": ("k", "float", lambda rope, x, good: rope.shift(x, 2)),
    "step": ("q", "float", lambda rope, x, good: rope.at(offset=1, tokens=3)(x)),
    "k of a step": ("k", "float", lambda rope, x, good: rope.at(offset=1, tokens=3)(good(), x)),
    "apply_rope": ("q", "float", lambda rope, x, good: rn.apply_rope(x, offset=1)),
    "k of apply_rope": ("k", "float", lambda rope, x, good: rn.apply_rope(good(), x, offset=1)),
    "input of out=": ("q", "float", lambda rope, x, good: rope(x, offset=1, out=good())),
    "out=": ("out", "float", lambda rope, x, good: rope(good(), offset=1, out=x)),
    "one of two out=": ("out[1]", "float", lambda rope, x, good: rope(good(), good(), offset=1, out=(None, x))),
    "out= of a step": ("out", "float", lambda rope, x, good: rope.at(offset=1, tokens=3)(good(), out=x)),
    "out= of shift": ("out", "float", lambda rope, x, good: rope.shift(good(), 1, out=x)),
    "positions": ("positions", "int", lambda rope, x, good: rope(good(), positions=x)),
    "positions of at": ("positions", "int", lambda rope, x, good: rope.at(positions=x)),
    "positions in a list": ("positions", "int", lambda rope, x, good: rope(good()[None], positions=[x])),
    "offset": ("offset", "int", lambda rope, x, good: rope(good()[None].repeat(3, 1, 1, 1), offset=x)),
    "delta": ("delta", "int", lambda rope, x, good: rope.shift(good(), x)),
    "cu_seqlens": ("cu_seqlens", "int", lambda rope, x, good: rn.ragged_positions(x)),
    "offset of ragged": ("offset", "int", lambda rope, x, good: rn.ragged_positions([0, 1, 2, 3], x)),
    "inv_freq": ("inv_freq", "float row", lambda rope, x, good: rn.Frequencies(x)),
    "inv_freq, given": ("inv_freq", "float row", lambda rope, x, good: rn.frequencies.given(x)),
    "streams": ("streams", "int", lambda rope, x, good: rn.Frequencies([1.0, 0.5, 0.1], streams=x)),
    "divisors": ("divisors", "float row", lambda rope, x, good: rn.frequencies.divided(6, divisors=x)),
    "long_factor": (
        "long_factor",
        "float row",
        lambda rope, x, good: rn.frequencies.longrope(
            6, short_factor=[1, 1, 1], long_factor=x, original_max_position_embeddings=9, factor=2.0
        ),
    ),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_tensor_whose_storage_was_freed_or_shrunk_is_refused_and_nothing_is_written(
    torch: Any, entrance: str, lost: str
) -> None:
    name, kind, call = ENTRANCES[entrance]
    x = {
        "float": lambda: torch.ones(SHAPE),
        "float row": lambda: torch.ones(3),
        "int": lambda: torch.arange(3),
    }[kind]()
    made = []

    def good() -> Any:
        made.append(torch.ones(SHAPE))
        return made[-1]

    with pytest.raises(ValueError, match=r"; expected one that was not freed or shrunk$") as refused:
        call(rn.Rope(16), LOST[lost](x), good)
    assert str(refused.value).startswith(f"{name} has a storage of ")
    assert all((x == 1).all() for x in made)


@pytest.mark.parametrize("dtype", NAMES)
def test_a_step_that_has_rotated_a_tensor_refuses_another_that_was_freed(torch: Any, dtype: str) -> None:
    rope = rn.Rope(16)
    step = rope.at(offset=1, tokens=3)
    for _ in range(3):
        step(torch.ones(SHAPE, dtype=getattr(torch, dtype)))
        rope(torch.ones(SHAPE, dtype=getattr(torch, dtype)), offset=1)
    for call in (step, lambda q: rope(q, offset=1)):
        with pytest.raises(ValueError, match=r"^q has a storage of 0 bytes and reaches"):
            call(freed(torch.ones(SHAPE, dtype=getattr(torch, dtype))))


def test_a_tensor_is_taken_as_long_as_its_own_elements_are_there(torch: Any) -> None:
    rope, whole = rn.Rope(16), torch.ones(6, 3, 16)
    first = freed(whole, whole.nbytes // 2)[:3]
    assert torch.equal(rope(first, offset=1), rope(torch.ones(3, 3, 16), offset=1))
    assert rope(freed(torch.ones(0, 3, 16)), offset=1).shape == (0, 3, 16)


LLAMA = {"model_type": "llama", "head_dim": 16, "num_attention_heads": 2, "hidden_size": 32, "rope_theta": 1e4}
# Arguments that are no tensors, which an error text describes. PyTorch's repr of a freed one ends the process.
SETTINGS: dict[str, Callable[[Any], Any]] = {
    "theta": lambda x: rn.Rope(16, theta=x),
    "theta of apply_rope": lambda x: rn.apply_rope(np.ones((1, 16)), offset=0, theta=x),
    "layout": lambda x: rn.Rope(16, layout=x),
    "order": lambda x: rn.Rope(16, order=x),
    "backend": lambda x: rn.Rope(16, backend=x),
    "head_dim": lambda x: rn.Rope(x),
    "frequencies": lambda x: rn.Rope(16, frequencies=x),
    "attention_factor": lambda x: rn.Frequencies([1.0], attention_factor=x),
    "factor": lambda x: rn.frequencies.linear(16, factor=x),
    "sections": lambda x: rn.frequencies.mrope(rn.frequencies.default(16), sections=x),
    "source": lambda x: rn.layouts.indices(16, source=x, target="half"),
    "dtypes": lambda x: rn.warmup(dtypes=x),
    "one of axes": lambda x: rn.warmup(axes=[x]),
    "config": lambda x: rn.Rope.from_hf(x),
    "rope_theta of a header": lambda x: rn.Rope.from_hf({**LLAMA, "rope_theta": x}),
    "model_type of a header": lambda x: rn.Rope.from_hf({**LLAMA, "model_type": x}),
    "a share in a header": lambda x: rn.Rope.from_hf({**LLAMA, "partial_rotary_factor": x}),
    "theta twice in a header": lambda x: rn.Rope.from_hf({**LLAMA, "rope_parameters": {"rope_theta": x}}),
    "factor of a header": lambda x: rn.Rope.from_hf({**LLAMA, "rope_scaling": {"type": "linear", "factor": x}}),
    "path": lambda x: rn.Rope.from_gguf(x),
    "out=": lambda x: rn.Rope(16)(np.ones((1, 16)), np.ones((1, 16)), offset=0, out=x),
}
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda x: x,
    "a list": lambda x: [x],
    "a dict in a tuple": lambda x: ({"value": x},),
    "an array of objects": lambda x: np.array([{"value": x}], dtype=object),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_freed_tensor_where_none_is_taken_is_refused_without_a_look_at_its_numbers(
    torch: Any, setting: str, holder: str
) -> None:
    given = HOLDERS[holder](freed(torch.ones(2)[1].clone()))
    with pytest.raises((TypeError, ValueError), match=r"; expected "):
        SETTINGS[setting](given)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_frequencies_take_the_tensors_of_a_model(torch: Any, dtype: str) -> None:
    speeds = torch.nn.Parameter(torch.tensor([1.0, 0.25, 0.125], dtype=getattr(torch, dtype)))
    expected = rn.Frequencies([1.0, 0.25, 0.125])
    assert rn.Frequencies(speeds) == expected  # which only reads them
    assert rn.Frequencies(list(speeds)) == expected
    assert rn.frequencies.divided(6, divisors=speeds) == rn.frequencies.divided(6, divisors=[1.0, 0.25, 0.125])
    for refused in (speeds.detach().to("meta"), speeds.detach().to_sparse()):
        with pytest.raises(TypeError, match=r"^inv_freq (is on device meta|has layout)"):
            rn.Frequencies(refused)


def test_integers_and_frequencies_without_memory_of_their_own_are_refused(torch: Any) -> None:
    zeros = torch._efficientzerotensor(3, dtype=torch.int64)
    with pytest.raises(
        TypeError, match=r"^positions has no memory of its own; expected an ordinary tensor on the CPU$"
    ):
        rn.Rope(16).at(positions=zeros)
    for make in (lambda x: rn.ragged_positions(x), lambda x: rn.Frequencies(x)):
        with pytest.raises(TypeError, match=r"^(cu_seqlens|inv_freq) has no memory of its own"):
            torch.vmap(make)(torch.ones(2, 3, dtype=torch.int64))

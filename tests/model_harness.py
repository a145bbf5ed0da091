"""Every configuration class of the installed transformers, against what the reader of config.json makes of it.

A tiny model of each type that the reader accepts is built, and its forward pass is run on text. Each call of its
function for RoPE is recorded with the layer that it comes from, and compared with our `Rope` of that layer: layout,
widths, frequencies, sense and magnitude at once, as what went in is rotated by ours. The frequencies of its rotary
modules are compared too, as slow pairs hardly turn within a short text.

    python tests/model_harness.py [TYPE ...] [--table FILE]

The outcome of a type is one of

- agree: every layer that its code rotates is rotated alike by ours, and no other;
- refused: the reader raises in strict mode; the reason is its line;
- differs, told: the header's `conflicts` say where transformers' code is another one;
- not run: the tiny model could not be built or run here; nothing is said of it;
- wrong: anything else. There must be none.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hf_peers import allowed, in_half_order, load_peer, rotate_ours

from rope_numba.models import Header
from rope_numba.models.header import LayerHeaders
from rope_numba.models.hf import read_hf_layers
from rope_numba.models.hf.defaults import TEXT_PARTS

TOKENS = 13  # unlike any number of heads below, so that the axis of tokens can be told
OUTCOMES = ("agree", "refused", "differs, told", "not run", "wrong")
FUNCTIONS = re.compile(r"^_?apply_(rot|multimodal_rot|interleaved_rot|rope)\w*$")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?|layer)\.(\d+)(?:\.|$)")

# Sizes that most classes have, small. What a class does not have is left out.
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "ffn_hidden_size": 32,
    "n_inner": 32,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "expert_ffn_hidden_size": 16,
    "intermediate_size_mlp": 32,
    "dense_intermediate_size": 32,
    "share_expert_dim": 16,
    "moe_topk": 2,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "index_n_heads": 2,
    "index_topk": 4,
    "lru_width": 512,
}
# What makes a type whole whose defaults do not fit these sizes or one another, or that rotates only if told to.
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [3]},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 3},
    "moonshine": {
        "hidden_size": 288,
        "encoder_num_attention_heads": 8,
        "encoder_num_key_value_heads": 8,
        "decoder_num_attention_heads": 8,
        "decoder_num_key_value_heads": 8,
        "encoder_num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "granitemoehybrid": {"position_embedding_type": "rope", "layer_types": ["linear_attention", "full_attention"] * 4},
    "mllama_text_model": {"cross_attention_layers": [3]},
    "glm4v_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "glm_image_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "qwen4_exp_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense"] * 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 4},
    "step3p5": {"sliding_window": 16},
    "dots1": {"n_shared_experts": 1, "routed_scaling_factor": 1.0},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 4,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
            "full_attention": None,
        },
    },
}
CYCLES = ("hrm_text",)  # types that run the same layers several times, and count each time
LAYERS = 8  # two rounds of the longest common pattern
MOST_PARAMETERS = 200e6  # what is larger than this, tiny or not, takes minutes and gigabytes


@dataclass
class Record:
    """What a call of a model's function for RoPE was given and returned."""

    layer: int | None
    function: str
    before: list[Any]
    after: list[Any]


@dataclass
class Outcome:
    """What came out for one type."""

    kind: str
    outcome: str
    why: str = ""


@dataclass
class Watch:
    """Calls of functions for RoPE in a running model, and the modules that are running."""

    records: list[Record] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    depth: int = 0

    def layer(self) -> int | None:
        """Return the number of the layer that is running."""
        found = LAYER.findall(self.running[-1]) if self.running else []
        return int(found[-1]) if found else None

    def wrapped(self, name: str, function: Any) -> Any:
        """Return a function that records what is rotated, but not by functions that it calls in turn."""

        def recorded(*given: Any, **more: Any) -> Any:
            self.depth += 1
            try:
                made = function(*given, **more)
            finally:
                self.depth -= 1
            if self.depth == 0 and not (self.running and "indexer" in self.running[-1]):
                after = list(made) if isinstance(made, (tuple, list)) else [made]
                before = [*given, *(more[key] for key in ("q", "k", "x", "xq", "xk", "tensor") if key in more)]
                pairs = [tensor.detach().clone() for tensor in before[: len(after)]]
                self.records.append(Record(self.layer(), name, pairs, [tensor.detach() for tensor in after]))
            return made

        return recorded


@contextmanager
def watched(model: Any, modules: list[Any]) -> Iterator[Watch]:
    """Watch a model within a `with` block."""
    watch = Watch()
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: watch.running.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: watch.running.pop() and None, always_call=True))
    kept = [(module, name, value) for module in modules for name, value in vars(module).items()]
    kept = [(module, name, value) for module, name, value in kept if FUNCTIONS.match(name) and callable(value)]
    for module, name, value in kept:
        setattr(module, name, watch.wrapped(name, value))
    try:
        yield watch
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        for hook in hooks:
            hook.remove()


def tiny(peer: Any, kind: str) -> Any:
    """Return a small configuration of a type, with heads as wide as its class has them."""
    config_class = peer.configs[kind]
    fields = getattr(config_class, "__dataclass_fields__", {})
    names = set(fields) | set(getattr(config_class, "attribute_map", {}))
    usual = config_class()
    latent, heads = hasattr(usual, "qk_rope_head_dim"), 4
    width = fields["head_dim"].default if "head_dim" in fields and not latent else None
    width = width if isinstance(width, int) else 128
    sizes = {"hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": LAYERS, **TINY}
    sizes |= {"n_embd": heads * width, "n_head": heads, "n_layer": LAYERS}
    if of(usual, "num_key_value_heads") == of(usual, "num_attention_heads"):
        sizes["num_key_value_heads"] = heads
    if "head_dim" in names and not latent:
        sizes["head_dim"] = width
    given = {name: value for name, value in sizes.items() if name in names}
    for name in names:  # a value for each layer, of which the first stay
        value = of(usual, name)
        if isinstance(value, list) and len(value) == of(usual, "num_hidden_layers"):
            given[name] = value[:LAYERS]
    few = {name: value for name, value in given.items() if "expert" not in name and "group" not in name}
    few.pop("num_key_value_heads", None)
    first: Exception | None = None
    tries = [{**sizes, **OWN.get(kind, {})} for sizes in (given, few, {"num_hidden_layers": LAYERS, "vocab_size": 64})]
    for number, attempt in enumerate(tries):
        try:
            return config_class(**attempt)
        except Exception as error:
            first = first or error
            if number == len(tries) - 1:
                raise first from None
    raise AssertionError


def of(config: Any, name: str) -> Any:
    """Return a value of a configuration, or None if it has none, or one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def model_of(peer: Any, config: Any) -> Any:
    """Return a model of a configuration, of the class that transformers has for its type."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = MODEL_MAPPING_NAMES.get(config.model_type)
    name = name[0] if isinstance(name, (tuple, list)) else name
    if name is None:
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
        classes = [one for one in vars(module).values() if getattr(one, "config_class", None) is type(config)]
        classes = [one for one in classes if re.search(r"(?<!PreTrained)(Model|Transformer)$", one.__name__)]
        stem = type(config).__name__.removesuffix("Config")
        classes += [getattr(module, one) for one in (f"{stem}Model", stem) if hasattr(module, one)]
        if not classes:
            raise LookupError("no class of a model has this configuration")
        model_class = classes[0]
    else:
        spec = type(config).__module__.replace("configuration_", "modeling_")
        module = importlib.import_module(spec) if importlib.util.find_spec(spec) else None
        model_class = getattr(module, name, None) or getattr(peer.version, name)
    with peer.torch.device("meta"):
        many = sum(parameter.numel() for parameter in model_class(config).parameters())
    if many > MOST_PARAMETERS:
        raise MemoryError(f"{many / 1e6:.0f} million parameters")
    peer.torch.manual_seed(0)
    return model_class(config).eval()


def run(peer: Any, model: Any) -> Watch:
    """Run a model on a short text, and return what was recorded."""
    torch = peer.torch
    ids = torch.arange(3, 3 + TOKENS)[None]
    given: dict[str, Any] = {"input_ids": ids}
    if model.config.model_type == "blt_global_transformer":  # whose tokens are patches
        given = {"inputs_embeds": torch.randn(1, TOKENS, model.config.hidden_size)}
    if getattr(model.config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = ids
        if getattr(model, "main_input_name", "input_ids") != "input_ids":
            given = {model.main_input_name: torch.randn(1, 8192), "decoder_input_ids": ids}
    modules = {type(part).__module__ for part in model.modules()}
    modules = [sys.modules[name] for name in sorted(modules) if name.startswith("transformers.models.")]
    with torch.no_grad(), watched(model, modules) as watch:
        model(**given)
    return watch


def alike(header: Header, before: Any, after: Any) -> bool:
    """Return whether ours rotates what went in to what came out."""
    x, rotated = (np.ascontiguousarray(one[0].float().numpy()) for one in (before, after))
    axes = [axis for axis in (0, 1) if x.ndim == 3 and x.shape[axis] == TOKENS]
    if x.ndim != 3 or x.shape != rotated.shape or x.shape[-1] not in (header.head_dim, header.rotary_dim):
        return False
    tokens = axes[0] if axes else 1  # sound has another number of them
    order, positions = ("thd", "htd")[tokens], np.arange(x.shape[tokens])
    ours = rotate_ours(header, x, positions, order)
    tolerance = np.broadcast_to(allowed(header, x, positions, order), ours.shape) + 1e-5
    pairs = header.frequencies.pairs
    for made, most in ((ours, tolerance), (in_half_order(ours, pairs), in_half_order(tolerance, pairs))):
        if (np.abs(made - rotated) <= most).all():
            return True
    return False


def compared(read: LayerHeaders, watch: Watch) -> str:
    """Return what differs between the calls of a model and ours, or nothing."""
    layers = {record.layer for record in watch.records}
    if not watch.records:
        return "its code was not seen to rotate"
    for record in watch.records:
        label = read.layers[record.layer] if read.layers and record.layer is not None else None
        if read.layers and record.layer is not None and label is None:
            return f"layer {record.layer} is rotated"
        headers = list(read.headers.values()) if label is None else [read.headers[label]]
        for before, after in zip(record.before, record.after, strict=True):
            if not any(alike(header, before, after) for header in headers):
                shape = tuple(before.shape)
                return f"{record.function} in layer {record.layer} makes something else of {shape}"
    missing = [index for index, label in enumerate(read.layers) if label is not None and index not in layers]
    return f"layers {missing} are not rotated" if missing and layers != {None} else ""


def speeds(model: Any) -> list[tuple[np.ndarray, float]]:
    """Return the frequencies and the magnitude of each rotary module."""
    found = []
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and not name.endswith("original_inv_freq"):
                prefix = name.removesuffix("inv_freq")
                scale = getattr(module, f"{prefix}attention_scaling", 1.0)
                found.append((buffer.double().numpy().ravel(), float(scale)))
    return found


def frequencies_differ(read: LayerHeaders, model: Any) -> str:
    """Return which header's frequencies are those of no rotary module, or nothing."""
    modules = speeds(model)
    for label, header in read.headers.items():
        own, magnitude = np.abs(header.frequencies.inv_freq), header.frequencies.attention_factor
        fits = [
            theirs.shape == own.shape
            and np.allclose(theirs, own, rtol=3e-6, atol=0)
            and abs(scale / magnitude - 1) < 1e-6
            for theirs, scale in modules
        ]
        if modules and not any(fits):
            return f"frequencies of {label!r} are those of no rotary module"
    return ""


def examined(peer: Any, kind: str) -> Outcome:
    """Return what comes out for one type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = tiny(peer, kind)
        except Exception as error:
            try:
                read_hf_layers({"model_type": kind})
            except ValueError as refused:
                return Outcome(kind, "refused", str(refused))
            return Outcome(kind, "not run", f"no configuration: {first_line(error)}")
        try:
            read = read_hf_layers(config.to_dict())
        except (TypeError, ValueError) as refused:
            return Outcome(kind, "refused", str(refused))
        part = next(iter(read.headers.values())).model
        if part != kind:
            return Outcome(kind, "agree", f"read as its text part, {part}")
        if kind in TEXT_PARTS:
            return Outcome(kind, "agree", f"read as its text part, {TEXT_PARTS[kind]}")
        try:
            model = model_of(peer, config)
            watch = run(peer, model)
        except Exception as error:
            return Outcome(kind, "not run", f"{type(error).__name__}: {first_line(error)}")
    if kind in CYCLES:
        read = LayerHeaders(read.headers, ())
    why = compared(read, watch) or frequencies_differ(read, model)
    if not why:
        return Outcome(kind, "agree", f"{len(watch.records)} calls")
    told = next((s for header in read.headers.values() for s in header.conflicts if "transformers" in s), "")
    return Outcome(kind, "differs, told" if told else "wrong", told or why)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]


def table_of(outcomes: list[Outcome]) -> str:
    """Return the counts, and all types that do not simply agree or are refused, as Markdown."""
    counts = Counter(one.outcome for one in outcomes)
    lines = ["| outcome | types |", "|---|---|", *(f"| {name} | {counts[name]} |" for name in OUTCOMES), ""]
    lines += ["| type | outcome | why |", "|---|---|---|"]
    lines += [f"| {one.kind} | {one.outcome} | {one.why.replace('|', '/')} |" for one in outcomes]
    return "\n".join(lines)


def main() -> int:
    """Examine all types, or those that are named; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--table", metavar="FILE")
    chosen = parser.parse_args()
    peer = load_peer()
    outcomes = []
    for kind in chosen.types or sorted(peer.names):
        outcomes.append(examined(peer, kind))
        if outcomes[-1].outcome != "refused" or chosen.types:
            print(f"{kind}: {outcomes[-1].outcome}: {outcomes[-1].why}", flush=True)
    if chosen.table:
        with open(chosen.table, "w") as file:
            file.write(table_of(outcomes) + "\n")
    counts = Counter(one.outcome for one in outcomes)
    print(", ".join(f"{name} {counts[name]}" for name in OUTCOMES))
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A language model of transformers on the CPU: its own rotation, the compiled one, and rope_numba's.

    pip install '.[peers]'
    python examples/transformers_speed.py

The model is Llama's architecture in the shape of SmolLM2-135M with random weights, so that nothing is downloaded;
`--dtype bfloat16` and `--layers 4` make it another one, `--no-compile` needs no C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from rope_numba.integrations.families import FAMILIES, swapped
from rope_numba.integrations.transformers import use

PROMPT = 64


def make_model(layers: int, dtype: torch.dtype) -> Any:
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype).eval()


class Decoding:
    """Greedy decoding of one prompt by a model, a token at a time, timed."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.tokens, self.past = torch.arange(100, 100 + PROMPT)[None], None
        self.chosen: list[int] = []
        self.seconds: list[float] = []

    def step(self) -> None:
        begin = time.perf_counter()
        out = self.forward(input_ids=self.tokens, past_key_values=self.past, use_cache=True)
        self.seconds.append(time.perf_counter() - begin)
        self.tokens, self.past = out.logits[:, -1:].argmax(-1), out.past_key_values
        self.chosen.append(int(self.tokens))


def microseconds(call: Callable[[], Any], seconds: float = 0.1) -> float:
    laps = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(laps) < 3:
        begin = time.perf_counter()
        call()
        laps.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(laps)


def rotary_step(apply: Callable[..., Any], model: Any, tokens: int) -> Callable[[], Any]:
    """Return the rotation of one layer's q and k, as the attention layer calls it."""
    dtype = model.dtype
    q = torch.randn(1, tokens, 9, 64).to(dtype).transpose(1, 2)
    k = torch.randn(1, tokens, 3, 64).to(dtype).transpose(1, 2)
    cos, sin = model.model.rotary_emb(q, torch.arange(tokens)[None])
    return lambda: apply(q, k, cos, sin)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    model = make_model(options.layers, getattr(torch, options.dtype))
    twin = make_model(options.layers, getattr(torch, options.dtype))  # the same weights
    use(twin)
    eager = modeling_llama.apply_rotary_pos_emb
    applies = {"eager": eager, "rope_numba": swapped(FAMILIES["llama"]["apply_rotary_pos_emb"], eager)}
    decodings = {"eager": Decoding(model), "rope_numba": Decoding(twin)}
    if not options.no_compile:
        applies["compiled"] = torch.compile(eager, dynamic=True)
        decodings["compiled"] = Decoding(torch.compile(model, dynamic=True))

    steps = {name: [rotary_step(apply, model, tokens) for tokens in (1, 512)] for name, apply in applies.items()}
    rotary: dict[str, list[list[float]]] = {name: [] for name in applies}
    for round_ in range(6):
        for name, calls in steps.items():
            row = [microseconds(call) for call in calls]
            if round_:  # the first one compiles
                rotary[name].append(row)
    for _ in range(options.steps + 3):
        for decoding in decodings.values():  # in turn, so that whatever else runs here slows each one alike
            decoding.step()

    print(f"{'rotation':<12}{'1 token':>12}{'512 tokens':>13}{'tokens/s':>11}")
    for name, decoding in decodings.items():
        one, many = (statistics.median(column) for column in zip(*rotary[name], strict=True))
        speed = 1 / statistics.median(decoding.seconds[3:])  # the prompt and whatever compiles come first
        print(f"{name:<12}{one:>9.1f} us{many:>10.0f} us{speed:>11.1f}")
    print(f"Rotation of one layer's q and k, and greedy decoding behind {PROMPT} tokens; {options.dtype}, medians.")
    same = all(decoding.chosen == decodings["eager"].chosen for decoding in decodings.values())
    print("All chose the same tokens." if same else "They chose different tokens.")


if __name__ == "__main__":
    main()

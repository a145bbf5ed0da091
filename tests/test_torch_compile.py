"""Functions under torch.compile that rotate: a graph before the call, one after it, and the numbers of eager mode."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

import rope_numba

pytestmark = pytest.mark.peers

# By entrance, a function of q that uses it between two operations of PyTorch. rope and step are made before.
ENTRANCES = {
    "rope": "rope(q + 1, offset=3) * 2",
    "rope by positions": "rope(q + 1, positions=[4, 9]) * 2",
    "rope by a tensor of positions": "rope(q + 1, positions=torch.arange(2)) * 2",
    "rope of q and k": "torch.mul(*rope(q + 1, q + 2, offset=3))",
    "rope of bfloat16": "rope((q + 1).bfloat16(), offset=3) * 2",
    "rope on its input": "rope(q.mul_(3), offset=3) * 2",
    "out=": "rope(q + 1, offset=3, out=torch.empty_like(q)) * 2",
    "one of two out=": "torch.mul(*rope(q + 1, q + 2, offset=3, out=(None, torch.empty_like(q))))",
    "inverse": "rope.inverse(q + 1, offset=3) * 2",
    "shift": "rope.shift(q + 1, -3) * 2",
    "shift by a tensor": "rope.shift(q + 1, torch.tensor([1, -3])) * 2",
    "tables": "(q + 1)[..., :8] * torch.from_numpy(rope.tables(8)[1]).sum()",
    "inv_freq": "(q + 1) * torch.from_numpy(rope.frequencies.inv_freq).sum()",
    "step": "step(q + 1) * 2",
    "at": "rope.at(positions=torch.tensor([5, 2]))(q + 1) * 2",
    "apply_rope": "rn.apply_rope(q + 1, offset=3, theta=77.0) * 2",
    "a Rope made inside": "rn.Rope(16, theta=78.0)(q + 1, offset=3) * 2",
    "frequencies made inside": "rn.Rope(16, frequencies=rn.frequencies.linear(16, factor=2.0))(q + 1, offset=3) * 2",
    "ragged_positions": "rope(q + 1, positions=rn.ragged_positions(torch.tensor([0, 1, 2]))) * 2",
    "explain": "(q + 1) * len(rope.explain())",
    "an array": "rope((q + 1).numpy(), offset=3) * 2",
    "an array shifted": "rope.shift((q + 1).numpy(), 3) * 2",
}
# Entrances that are one call, so that there is one graph before it and one after it, and nothing of ours is traced.
ONE_CALL = ("rope", "rope by positions", "rope of bfloat16", "out=", "inverse", "shift", "step", "apply_rope")

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
entrances = json.loads(sys.argv[1])
{first}
{second}
import numpy as np
import torch

made = iter(ropes)
graphs = []


def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward


def compiled(f):
    torch._dynamo.reset()
    graphs.clear()
    function = torch.compile(f, backend=backend)
    results = [np.asarray(torch.as_tensor(function(torch.ones(2, 3, 16))).double()) for _ in range(3)]
    return results, len(graphs)


def counted(name, expression):
    rope = next(made)  # its own for each entrance: nothing of it has been used
    step = rope.at(offset=3, tokens=2)
    names = dict(rope=rope, step=step, rn=rn, np=np, torch=torch)
    exec("def f(q): return " + expression, names)
    f = names["f"]
    cold, cold_graphs = compiled(f)
    expected = np.asarray(torch.as_tensor(f(torch.ones(2, 3, 16))).double())
    warm, warm_graphs = compiled(f)
    assert all(np.array_equal(result, expected) for result in cold + warm), name
    return cold_graphs, warm_graphs


print(json.dumps({{name: counted(name, expression) for name, expression in entrances.items()}}))
torch._dynamo.reset()
try:
    rope = next(made)
    torch.compile(lambda q: rope(q + 1, offset=3), backend=backend, fullgraph=True)(torch.ones(2, 3, 16))
except torch._dynamo.exc.Unsupported as error:
    assert "rope_numba runs outside of graphs" in str(error), error
else:
    raise AssertionError("a graph holds a rotation")
"""
TORCH = "import torch"
ROPE = "import rope_numba as rn; ropes = [rn.Rope(16, theta=70.0 + n) for n in range(len(entrances) + 1)]"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    if importlib.util.find_spec("torch") is None:
        if os.environ.get("CI"):
            pytest.fail("missing torch: pip install '.[peers]'")
        pytest.skip("missing torch: pip install '.[peers]'")
    assert rope_numba.__file__ is not None
    own = os.path.dirname(os.path.dirname(rope_numba.__file__))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([own, os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("imported_first", ["torch", "rope_numba"])
def test_calls_under_torch_compile_are_clean_breaks_cold_and_warm(
    environment: dict[str, str], imported_first: str
) -> None:
    first, second = (TORCH, ROPE) if imported_first == "torch" else (ROPE, TORCH)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, second=second), json.dumps(ENTRANCES)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    graphs = json.loads(done.stdout)
    assert graphs.keys() == ENTRANCES.keys()
    assert {name: graphs[name] for name in ONE_CALL} == {name: [2, 2] for name in ONE_CALL}

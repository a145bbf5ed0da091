"""What the package reaches for: no network, no code from strings, nothing unpickled; its promises to type checkers."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from installed import environment, needs, rotate

import rope_numba

PACKAGE = Path(rope_numba.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Modules that reach the network or another program, or that run what they read.
FORBIDDEN_MODULES = {
    *("socket", "ssl", "http", "urllib", "ftplib", "smtplib", "asyncio", "requests", "httpx", "huggingface_hub"),
    *("subprocess", "ctypes", "code", "runpy", "pty", "webbrowser"),
    *("pickle", "marshal", "shelve", "dbm", "dill", "cloudpickle", "joblib", "yaml"),
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
FORBIDDEN_ATTRIBUTES = {
    *("os.system", "os.popen", "os.execv", "os.spawnv", "np.load", "np.save", "np.fromfile", "np.genfromtxt"),
    *("np.loadtxt", "numba.pycc", "torch.load", "torch.save"),
}


def violations(text: str) -> list[str]:
    """Return what a source does that it must not."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [str(node.module)] * (str(node.module).split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_ATTRIBUTES:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            found.append(node.arg)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_source_neither_unpickles_nor_evaluates_nor_opens_a_connection(path: Path) -> None:
    text = path.read_text()
    if path.name == "floating_point.py":  # C's functions for the mode, from this process and from nowhere else
        assert text.count("ctypes.CDLL(") == text.count("ctypes.CDLL(None)") == 1
        text = text.replace("import ctypes\n", "")
    assert violations(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from urllib.request import urlopen",
        "def f(x):\n    return eval(x)",
        "run = exec",
        "import numpy as np\nnp.load('x.npy')",
        "open_it(path, allow_pickle=True)",
        "import http.client",
        "compile(text, 'x', 'exec')",
    ],
)
def test_the_rule_above_sees_what_it_is_for(text: str) -> None:
    assert violations(text)


def test_modules_are_imported_by_name_in_one_place_only_and_from_a_fixed_list() -> None:
    users = {path.name for path in FILES if "import_module" in path.read_text()}
    assert users == {"__init__.py"}
    assert set(rope_numba._HOMES) == set(rope_numba.__all__) - {"__version__"}


LISTEN = """
import sys
CONNECTIONS, PROGRAMS = [], []

def listen(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        CONNECTIONS.append(event)
    elif event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn"):
        PROGRAMS.append(str(arguments[:2]))

sys.addaudithook(listen)
"""
USE = """
import contextlib, io, json
import numpy as np
import rope_numba as rn
from rope_numba import __main__ as command

config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "rope_theta": 1e4}
for backend in ("numpy", "numba"):
    rope = rn.Rope.from_hf(config, backend=backend)
    rope.explain()
    rope(np.ones((3, 2, 16), np.float32), offset=5)
    rope.shift(np.ones((3, 2, 16), np.float16), 2)
rn.rotate_half_split(np.ones((1, 2, 4)), np.ones((1, 2)), np.ones((1, 2)))
rn.warmup(dtypes=["float32"], layouts=["half"], parallel=False)
with contextlib.redirect_stdout(io.StringIO()):
    assert command.main(["inspect", sys.argv[1]]) == 0
seen = list(CONNECTIONS), list(PROGRAMS)
with contextlib.suppress(OSError):
    import socket
    socket.socket().connect(("127.0.0.1", 9))
print(json.dumps([*seen, len(CONNECTIONS)]))
"""


def test_neither_import_nor_use_opens_a_connection_or_starts_a_program(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}))
    done = subprocess.run(
        [sys.executable, "-c", LISTEN + USE, str(config)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    connections, programs, then = json.loads(done.stdout)
    assert connections == []
    assert programs == []
    assert then, "the listener hears nothing at all"


@pytest.mark.process
def test_it_works_where_there_is_no_network(tmp_path: Path) -> None:
    needs("unshare", "--net")
    said = rotate(environment(tmp_path), prefix=("unshare", "--net"))
    assert (said["good"], said["misses"]) == (True, 2)


# A client as its author would write it, and lines that must not pass for right.
CLIENT = """
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import rope_numba as rn


def decode(rope: rn.Rope, q: NDArray[np.float32], k: NDArray[np.float16], position: int) -> NDArray[np.float32]:
    step: rn.Rotation = rope.at(offset=position, tokens=1)
    both: tuple[NDArray[np.float32], NDArray[np.float16]] = step(q, k)
    alone: NDArray[np.float32] = rope(q, positions=[position])
    rope.inverse(both[0], offset=np.int64(position))
    keys: NDArray[np.float16] = rope.shift(both[1], -1)
    cos, sin = rope.tables(8)
    rn.rotate_half_split(q, cos, sin)
    factor: float = rope.frequencies.attention_factor * rope.attention_logit_scale
    return alone * np.float32(factor) + np.float32(keys.size)


rope = rn.Rope(64, theta=1e6, layout="half", frequencies=rn.frequencies.linear(64, 1e6, factor=2.0))
layers: rn.LayerRopes = rn.ropes_from_hf({"model_type": "llama"})
rn.warmup(dtypes=["float32"], axes=[3])
rn.apply_rope(np.ones((1, 2, 64), np.float32), offset=3)
version: str = rn.__version__
text: str = rope.explain()
"""
WRONG = {
    'rn.Rope("64")': "arg-type",
    "rn.Rope(64, 10_000.0)": "",  # mypy has changed its mind about the kind of this one
    "rn.Rope(64, layout=2)": "arg-type",
    "rn.Rope(64, base=1e4)": "call-arg",
    "rn.Rope()": "call-arg",
    "number: int = rope.explain()": "assignment",
    'rope(q="no array")': "call-overload",
    "rope.at(tokens=1.5)": "arg-type",
    "rope.no_such_thing": "attr-defined",
    "rn.no_such_thing": "attr-defined",
    "rn.warmup(dtypes=3)": "arg-type",
    "rn.rotate_half_split([1.0], [1.0], [1.0])": "arg-type",
    "rn.Rope.from_gguf(3)": "arg-type",
    "rn.frequencies.linear(64, 1e6)": "call-arg",
}


@pytest.mark.process
def test_a_typed_client_passes_mypy_strict_and_wrong_uses_do_not(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(CLIENT)
    head = "import numpy as np\nimport rope_numba as rn\n\nrope = rn.Rope(64)\n"
    wrong.write_text(head + "".join(line + "\n" for line in WRONG))
    variables = dict(os.environ)
    if PACKAGE.parent != Path(sysconfig.get_paths()["purelib"]):
        variables["MYPYPATH"] = str(PACKAGE.parent)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "mypy")]
    passed = subprocess.run([*command, str(right)], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    refused = subprocess.run([*command, str(wrong)], env=variables, cwd=tmp_path, capture_output=True, text=True)
    said: dict[int, str] = {}
    for line in refused.stdout.splitlines():
        if ": error: " in line:
            said.setdefault(int(line.split(":")[1]), line)
    first = head.count("\n") + 1
    for number, (code, kind) in enumerate(WRONG.items(), start=first):
        assert number in said, code
        assert kind in said[number].rpartition("[")[2], (code, said[number])
    assert len(said) == len(WRONG)

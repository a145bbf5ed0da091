"""Copies of the package in folders of their own, and processes that rotate by them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rope_numba

# Another user than root, who may write anywhere. This one may read everything, as environments of tests lie where only
# their owner looks, and write nothing but what is their own.
STRANGER = 12345
AS_STRANGER = (
    "setpriv",
    f"--reuid={STRANGER}",
    f"--regid={STRANGER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)

# Rotates by compiled kernels and in NumPy, and prints what came of it and of the cache.
PROGRAM = """
import hashlib, json, sys
import numpy as np
import rope_numba as rn

def arrays(dtype, shapes=((2, 5, 24), (2, 2, 24))):
    if dtype == "bfloat16":
        from ml_dtypes import bfloat16 as dtype
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]

digest = hashlib.sha256()

def right(dtype="float32", layout="half", out=None):
    ours, numpys = arrays(dtype), arrays(dtype)
    rope = rn.Rope(24, rotary_dim=20, rotary_offset=2, layout=layout)
    twin = rn.Rope(24, rotary_dim=20, rotary_offset=2, layout=layout, backend="numpy")
    if out is None:
        rope(*ours, offset=11)
        twin(*numpys, offset=11)
    else:
        ours, numpys = (
            [each(x, offset=11, out=np.zeros(x.shape, out)) for x in inputs]
            for each, inputs in ((rope, ours), (twin, numpys))
        )
    for x in ours:
        digest.update(x.tobytes())
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, numpys))

def report(good):
    from rope_numba.kernels import compile, launch
    folders, hits, misses = set(), 0, 0
    for entry in EVERY:
        folders.add(entry.stats.cache_path)
        hits += sum(entry.stats.cache_hits.values())
        misses += sum(entry.stats.cache_misses.values())
    said = {"good": bool(good), "hits": hits, "misses": misses, "bits": digest.hexdigest()}
    said |= {"folders": sorted(map(str, folders)), "told": compile.cache_folder(), "file": rn.__file__}
    print(json.dumps(said))

def remember():
    "Note all compiled functions that are made from here on."
    from rope_numba.kernels import compile, in_place, out_of_place, precheck
    def make(*arguments, made=compile.compile_entry, **options):
        EVERY.append(made(*arguments, **options))
        return EVERY[-1]
    for module in (compile, in_place, out_of_place, precheck):
        module.compile_entry = make

EVERY = []
"""
ROTATE = "remember()\nreport(right())\n"


def environment(cache: Path | None, package: Path | None = None, **more: str) -> dict[str, str]:
    """Return an environment whose processes import a copy of the package and keep compiled code in a folder."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    variables["PYTHONPATH"] = str(package or Path(rope_numba.__file__).parent.parent)
    if cache is not None:
        variables["NUMBA_CACHE_DIR"] = str(cache)
    return variables | more


def start(
    code: str, variables: dict[str, str], cwd: Path | None = None, prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a process that runs PROGRAM and then code."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM + code],
        env=variables,
        cwd=cwd or "/",  # Python looks for modules there first, so not where the sources lie
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process, which must end well and say nothing but its report; returns the report."""
    out, err = process.communicate("\n", timeout=240)
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


def rotate(
    variables: dict[str, str], code: str = ROTATE, cwd: Path | None = None, prefix: Sequence[str] = ()
) -> dict[str, Any]:
    """Rotate in a fresh process; returns its report."""
    return end(start(code, variables, cwd, prefix))


def copied(folder: Path) -> Path:
    """Copy the package into a folder, without what was compiled; returns the folder."""
    source = Path(rope_numba.__file__).parent
    shutil.copytree(source, folder / "rope_numba", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def zipped(package: Path, archive: Path) -> Path:
    """Pack a copy of the package into a zip file, which Python can import from; returns its path."""
    with zipfile.ZipFile(archive, "w") as file:
        for source in sorted(package.rglob("*.py")):
            file.write(source, source.relative_to(package))
    return archive


def names(cache: Path) -> set[str]:
    """Return the names of the files of compiled code in a folder."""
    return {path.name for path in cache.rglob("*.nb[ic]")}


def needs(*command: str) -> None:
    """Skip the test that calls this unless a command can be run here."""
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"{command[0]} cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"{command[0]} cannot be used here: {done.stderr.decode().strip()}")

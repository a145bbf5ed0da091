"""The one place that calls njit: options, names and the fallback of the on-disk cache."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba import njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from ..undisturbed import undisturbed
from .storage import register_bytes


@functools.cache
def source_digest() -> str:
    """Return a short digest of every kernel source.

    Numba's cache notices an edit of the file that holds a function, not of the files that its helpers live in.
    The digest is part of each compiled function's name, so that code of another version is never loaded.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compile_kernel(
    function: Callable[..., Any], name: str, signature: Any, *, parallel: bool = False
) -> Callable[..., Any]:
    """Compile a function for one signature, from the on-disk cache where there is one.

    The name must tell apart everything that the cache key leaves out (the options, the values a factory closes
    over): one name, one signature, one index file, so that processes that fill a cold cache together write the
    same thing.
    """
    function.__name__ = name
    function.__qualname__ = f"{name}_{source_digest()}"
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "parallel": parallel}
    compiled: Callable[..., Any]
    try:
        compiled = _compiled(function, signature, True, options)
    except Exception:
        # No folder of the cache can be written, the disk is full, or a file in it is damaged (Numba lets
        # whatever its reader raised through). If the cache was not the reason, this raises the same again.
        compiled = _compiled(function, signature, False, options)
    return compiled


def _compiled(function: Callable[..., Any], signature: Any, cache: bool, options: dict[str, Any]) -> Callable[..., Any]:
    def compile_now() -> Any:
        return njit(signature, cache=cache, **options)(function)

    holding = global_compiler_lock.is_locked()  # type: ignore[no-untyped-call]
    # Whoever holds Numba's lock compiles something that calls this, and another thread would wait for it for ever.
    answer: Callable[..., Any] = compile_now() if holding else undisturbed(compile_now)
    return answer


def describe() -> dict[str, str]:
    """Return what compiles, for which processor, and where compiled code is kept."""
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    llvm = ".".join(map(str, llvmlite.binding.llvm_version_info))
    return {
        "Numba": f"{numba.__version__}, llvmlite {llvmlite.__version__}, LLVM {llvm}",
        "processor": f"{processor}, vectors of {8 * register_bytes(cpu_target.target_context)} bits",
        "compiled cache": cache_folder(),
    }


def cache_folder() -> str:
    """Return the folder that keeps compiled code, or say that there is none."""

    def probe() -> None:
        pass

    try:
        return str(njit(cache=True)(probe).stats.cache_path)
    except RuntimeError:
        return "none: no folder can be written, so every process compiles anew"

"""The one place that calls njit: options, names and the fallback of the on-disk cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba import config, njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from ..undisturbed import undisturbed
from . import flags
from .storage import register_bytes


def source_digest() -> str:
    """Return a digest of every kernel source as it is on disk now (or in a zip file), or "" where there is none."""
    digest = hashlib.sha256()
    try:
        for source in sorted(resources.files(__package__).iterdir(), key=lambda source: source.name):
            if source.name.endswith(".py"):
                digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    except OSError:  # removed under a running process
        return ""
    return digest.hexdigest()


LOADED = source_digest()  # taken while the kernels are imported, as launch.py imports this module first


@functools.cache
def version_digest() -> str:
    """Return a short digest of all that compiled code depends on, the function's own options aside.

    Numba's cache notices an edit of the file that holds a function, not of the files that its helpers live in. It keeps
    the code of several processors in numbered files behind one index, which machines of two kinds that fill a cold
    cache together can cross. The digest is part of each function's name, so that code of another version of the
    sources, of Numba or of another processor is never loaded.
    """
    constants = sorted((name, value) for name, value in vars(flags).items() if name.isupper())  # imported long ago
    target = cpu_target.target_context.codegen().magic_tuple()
    parts = (LOADED, constants, numba.__version__, llvmlite.__version__, target)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def in_turn(work: Callable[[], Any]) -> Any:
    """Return what work returns, done while no other thread compiles and where no interrupt breaks it off.

    Numba's lock is the only one that is taken for this. Whoever compiles a caller of ours holds it, and may find itself
    in here: a second lock, taken before Numba's by one thread and after it by another, would let both wait for ever.
    """
    if global_compiler_lock.is_locked():  # type: ignore[no-untyped-call]
        return work()  # by this thread, so another would wait for it for ever

    def work_alone() -> Any:
        cpu_target.target_context  # noqa: B018  (Numba makes it once, behind another lock, and takes this one there)
        with global_compiler_lock:
            return work()

    return undisturbed(work_alone)


def compile_kernel(
    function: Callable[..., Any], name: str, signature: Any, *, parallel: bool = False
) -> Callable[..., Any]:
    """Compile a function for one signature, from the on-disk cache where there is one.

    The name must tell apart everything that the cache key leaves out (the options, the values a factory closes
    over): one name, one signature, one index file, so that processes that fill a cold cache together write the
    same thing.
    """
    function.__name__ = name
    function.__qualname__ = f"{name}_{version_digest()}"
    # Entries hold Python's interpreter lock as long as their work is brief (share.py); a launch never does.
    options: dict[str, Any] = {"nogil": parallel, "error_model": "numpy", "parallel": parallel}
    compiled: Callable[..., Any] | None = None
    # Sources that were changed under a running process would let it write its old code under their new names.
    if LOADED and source_digest() == LOADED:
        # A second time, as what is wrong may be a damaged file, which the first removes.
        compiled = _cached(function, signature, options) or _cached(function, signature, options)
    return compiled or njit(signature, **options)(function)


def _cached(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Callable[..., Any] | None:
    """Compile a function, or load it from the on-disk cache; None if the cache does not let us."""
    if not _folder_is_known():
        return None
    try:
        dispatcher: Any = njit(cache=True, **options)(function)
    except (OSError, RuntimeError):  # no folder can be written, or the source has gone
        return None
    # Numba lets through whatever its reader raised at a damaged file; if the cache was not the reason, the same is
    # raised again without it. On a full disk the function is compiled by the time that writing it fails.
    with contextlib.suppress(Exception):
        dispatcher.compile(signature)
    if [made.fndesc.qualname for made in dispatcher.overloads.values()] == [function.__qualname__]:
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]
    for damaged in Path(dispatcher.stats.cache_path).glob(f"*.{function.__qualname__}-*"):
        with contextlib.suppress(OSError):
            damaged.unlink()
    return None


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

    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "none: with NUMBA_DISABLE_JIT=1 nothing is compiled, and the rotation in NumPy runs"
    if _folder_is_known():
        with contextlib.suppress(RuntimeError):
            return str(njit(cache=True)(probe).stats.cache_path)
    return "none: no folder can be written, so every process compiles anew"


def _folder_is_known() -> bool:
    """Tell whether Numba can name a folder: for a user without a home it would make one named "~" where it stands."""
    home = os.path.isabs(os.path.expanduser("~")) or os.environ.get("XDG_CACHE_HOME")
    asked: str = config.CACHE_DIR  # type: ignore[attr-defined]
    return bool(home or asked or os.access(Path(__file__).parent, os.W_OK))

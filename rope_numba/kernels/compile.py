"""The one place that calls njit: options, names and the fallback of the on-disk cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba import config, njit
from numba.core import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from ..undisturbed import undisturbed
from . import machine
from .frozen import FROZEN, ProgramCacheLocator, code_digest


def source_digest() -> str:
    """Return a digest of every kernel source as it is on disk now (or in a zip file), or "" where there is none.

    In a frozen program it is that of the compiled modules.

    What kernels import from outside this folder (forks, undisturbed) is not compiled. A test sees to that.
    """
    digest = hashlib.sha256()
    if FROZEN:
        return code_digest(str(__package__))
    try:
        for source in sorted(resources.files(__package__).iterdir(), key=lambda source: source.name):
            if source.name.endswith(".py"):
                digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    except OSError:  # removed under a running process
        return ""
    return digest.hexdigest()


# Functions without these options get those of the caller that Numba compiles first, for all later callers too:
# a user's fastmath=True would change the bits of everything in the process, and in the cache of every other one.
OWN_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "forceinline": False}

LOADED = source_digest()  # taken while the kernels are imported, as launch.py imports this module first


def named(name: str) -> str:
    """Return the name of a function that is compiled into its callers: with a digest of the sources.

    Code that is loaded from a cache brings along the functions that it calls. Of two with one name, the types of their
    arguments and Numba's number in the process that compiled them the same, LLVM keeps the first for both. So a name
    says all that a factory closed over, and of which version of this package it is.
    """
    return f"{name}_{LOADED[:16]}"


def helper(function: Callable[..., Any], name: str = "") -> Any:
    """Let jitted code call a function, and only that; a function that a factory returns needs a name of its own.

    Without what would make it callable from Python and C it compiles in 0.09 instead of 0.15 s.
    """
    function.__qualname__ = named(name or function.__qualname__)
    # As a dict: Numba's own type hints (0.68) do not know these two options.
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **OWN_OPTIONS}
    return njit(**options)(function)


@functools.cache
def version_digest() -> str:
    """Return a short digest of all that compiled code depends on, the function's own options aside.

    Numba's cache notices an edit of the file that holds a function, not of the files that its helpers live in. It keeps
    the code of several processors in numbered files behind one index, which machines of two kinds that fill a cold
    cache together can cross. The digest is part of each function's name, so that code of another version of the
    sources, of Numba or of another processor is never loaded. Constants are part of it by their values, too: modules
    are imported at different times, some long before others.
    """
    target = cpu_target.target_context.codegen().magic_tuple()
    parts = (LOADED, _constants(), numba.__version__, llvmlite.__version__, target)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _constants() -> list[tuple[str, str, str]]:
    """Return module, name and value of each constant of the kernels."""
    found = []
    for module in [name for name in sys.modules if name.startswith(f"{__package__}.")]:
        for name, value in vars(sys.modules[module]).items():
            if name.isupper() and isinstance(value, (bool, int, float, str)):
                found.append((module.removeprefix(f"{__package__}."), name, repr(value)))
    return sorted(found)


def with_compiler_lock(work: Callable[[], Any]) -> Any:
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


def compile_entry(
    function: Callable[..., Any], name: str, signature: Any, *, parallel: bool = False, external: bool = False
) -> Callable[..., Any]:
    """Compile a function for one signature, from the on-disk cache where there is one.

    One name stands for one signature, the options and all values that a factory closes over: nothing else tells two
    functions apart in the cache. Processes that fill a cold cache together then write the same thing.
    """
    function.__name__ = name
    function.__qualname__ = f"{name}_{version_digest()}"
    # Serial entries release the GIL themselves, for long work (walk.py); parallel ones run without it.
    options: dict[str, Any] = {"nogil": parallel, "parallel": parallel, **OWN_OPTIONS}
    options["no_cpython_wrapper" if external else "no_cfunc_wrapper"] = True
    compiled: Callable[..., Any] | None = None
    # Sources that were changed under a running process would let it write its old code under their new names.
    if LOADED and source_digest() == LOADED:
        # A second time, as what is wrong may be a damaged file, which the first removes.
        compiled = _cached(function, signature, options) or _cached(function, signature, options)
    return compiled or njit(signature, **options)(function)


def compile_external(function: Callable[..., Any], name: str, signature: Any) -> Any:
    """Compile a function likewise; returns what jitted code calls it by, without compiling it again.

    A jitted function that calls another one is linked, optimised and emitted with all of that one's code: each level of
    callers of the unrolled rotation took 0.3 to 0.5 s, and a parallel one, which Numba makes of several functions, 4 s.
    Here callers know a name, which is the function's address in this process. Only what is compiled by `compile_entry`
    may call it: this must have been called before code that was cached with such a name is loaded.
    """
    dispatcher: Any = compile_entry(function, name, signature, external=True)
    (compiled,) = dispatcher.overloads.values()
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    symbol = f"rope_numba_{function.__qualname__}"
    llvmlite.binding.add_symbol(symbol, address)
    _kept.append(dispatcher)  # and with it the machine code at that address
    return types.ExternalFunction(symbol, signature)


_kept: list[Any] = []


class _NamedCode(CompileResultCacheImpl):
    """What is kept of a compiled function: its name first, which is asked before anything is made of the rest."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if FROZEN:
            self._locator_classes = [ProgramCacheLocator]
        super().__init__(function)  # type: ignore[no-untyped-call]
        self.name = function.__qualname__

    def reduce(self, result: Any) -> Any:
        """Return what is written."""
        return self.name, super().reduce(result)  # type: ignore[no-untyped-call]

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Return the compiled function from what was written."""
        name, code = payload
        if name != self.name:  # the functions that it calls by name may not be in this process, which would end it
            raise ValueError(f"code of {name} in a file of {self.name}")
        return super().rebuild(target_context, code)  # type: ignore[no-untyped-call]


class _CacheByName(FunctionCache):
    """The on-disk cache of a function whose name tells it apart (`compile_entry`)."""

    _impl_class = _NamedCode

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba's own key has a digest of the values that a function closes over, which differs from process to process
        # where those are jitted functions.
        return sig, codegen.magic_tuple()


def _cached(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Callable[..., Any] | None:
    """Compile a function, or load it from the on-disk cache; None if the cache does not let us."""
    if not _folder_is_known():
        return None
    try:
        dispatcher: Any = njit(**options)(function)
        dispatcher._cache = _CacheByName(function)  # type: ignore[no-untyped-call]
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
        "processor": f"{processor}, vectors of {8 * machine.register_bytes()} bits",
        "compiled cache": cache_folder(),
    }


def cache_folder() -> str:
    """Return the folder that keeps compiled code, or say that there is none."""

    def probe() -> None:
        pass

    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "none: with NUMBA_DISABLE_JIT=1 nothing is compiled, and the rotation in NumPy runs"
    if not LOADED:
        return "none: the kernels' sources cannot be read, so every process compiles anew"
    if _folder_is_known():
        with contextlib.suppress(RuntimeError):
            return str(_CacheByName(probe).cache_path)  # type: ignore[no-untyped-call]
    return "none: no folder can be written, so every process compiles anew"


def _folder_is_known() -> bool:
    """Tell whether Numba can name a folder: for a user without a home it would make one named "~" where it stands."""
    home = os.path.isabs(os.path.expanduser("~")) or os.environ.get("XDG_CACHE_HOME")
    asked: str = config.CACHE_DIR  # type: ignore[attr-defined]
    return bool(home or asked or os.access(Path(__file__).parent, os.W_OK))

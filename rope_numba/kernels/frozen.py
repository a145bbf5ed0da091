"""What stands for the sources of a frozen program, such as PyInstaller makes, which has none on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pkgutil
import sys
from types import CodeType
from typing import Any

from numba import config
from numba.core.caching import UserWideCacheLocator

FROZEN = bool(getattr(sys, "frozen", False))


def code_digest(package: str) -> str:
    """Return a digest of the code of every module of a package, or "" where a loader does not give it."""
    digest, found = hashlib.sha256(), False
    for module in sorted(pkgutil.iter_modules(sys.modules[package].__path__), key=lambda module: module.name):
        name = f"{package}.{module.name}"
        spec = importlib.util.find_spec(name)
        get_code = getattr(spec and spec.loader, "get_code", None)
        code = get_code(name) if get_code else None
        if code is None:
            return ""
        digest.update(repr((name, _parts(code))).encode())
        found = True
    return digest.hexdigest() if found else ""


def _parts(code: CodeType) -> tuple[Any, ...]:
    """Return all that decides what code does; marshal writes one code object in several ways."""
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    handlers = getattr(code, "co_exceptiontable", b"")  # part of co_code before Python 3.11
    return code.co_code, handlers, counts, names, [_constant(one) for one in code.co_consts]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _parts(value)
    # The order of a set of strings is another one in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


class ProgramCacheLocator(UserWideCacheLocator):
    """Name the folder of compiled code after the program's file, in the user's cache folder or NUMBA_CACHE_DIR.

    Numba's own locators take the paths of sources, which are relative in a frozen program: each folder that it is
    started in would have code of its own. They also ignore NUMBA_CACHE_DIR there.
    """

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, sys.executable)  # type: ignore[no-untyped-call]
        asked: str = config.CACHE_DIR  # type: ignore[attr-defined]
        if asked:
            name = self.get_suitable_cache_subpath(sys.executable)  # type: ignore[no-untyped-call]
            self._cache_path = os.path.join(asked, name)

"""Which files of the package run: the installed ones, from a checkout of the sources as well."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

__all__ = ["folder", "turn_to_installed"]

PACKAGE = __name__.partition(".")[0]


def folder() -> str:
    """Return the folder of the package that runs."""
    return os.path.dirname(os.path.abspath(__file__))


def turn_to_installed() -> bool:
    """Make the next import find the installed package, if this one was found only because Python was started here.

    `python -m` puts the working directory first, so that in a checkout of the sources it finds these, and not what pip
    has installed. Where this is the package to run it returns False; modules that lie in the working directory, as the
    package's own `numbers` does for who stands within the package, are not found in place of others of their name.
    """
    if not (sys.path and _same(sys.path[0], os.curdir)) or getattr(sys.flags, "safe_path", False):
        return False
    if not _same(os.path.dirname(folder()), os.curdir):
        del sys.path[0]
        return False
    found = PathFinder.find_spec(PACKAGE, sys.path[1:])
    if found is None or found.origin is None or _same(os.path.dirname(found.origin), folder()):
        return False
    del sys.path[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    return True


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one or os.curdir, other)
    except OSError:  # one of them is not there
        return False

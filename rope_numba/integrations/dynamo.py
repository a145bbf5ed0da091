"""Functions that torch.compile calls as they are, between two graphs, and does not trace.

Dynamo, its tracer, would go through NumPy code that it cannot run on tensors without memory, and compile our own code
again for every new offset. `torch.compiler.disable` prevents that, but needs PyTorch, which this package never imports.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["untraced"]

Function = TypeVar("Function", bound=Callable[..., Any])

_codes: list[types.CodeType] = []  # of functions that PyTorch has not been told of yet


def untraced(function: Function) -> Function:
    """Return the function, marked so that Dynamo ends its graph before a call of it.

    Examples
    --------
    >>> @untraced
    ... def half(x):
    ...     return x / 2
    >>> half(3)
    1.5
    """
    # Dynamo looks for these where it meets a call, and for the code where the call is made.
    vars(function).update(_torchdynamo_disable=True, _torchdynamo_disable_msg="rope_numba runs outside of graphs")
    _codes.append(function.__code__)
    _tell_torch()
    if _codes and _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)
    return function


def _tell_torch() -> None:
    """Let Dynamo leave the frames of marked functions alone, and all frames below, if PyTorch is there by now."""
    try:
        frames = operator.attrgetter("_C._dynamo.eval_frame")(sys.modules["torch"])
        skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)
        tell = frames.set_code_exec_strategy
    except (KeyError, AttributeError):  # not imported, being imported just now, or older than 2.7
        return
    while _codes:
        tell(_codes[-1], skip)
        _codes.pop()


class _Watch:
    """An import hook that finds no module: PyTorch imports Dynamo when it compiles for the first time."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "torch._dynamo":
            _tell_torch()


_watch = _Watch()

"""`warmup`: kernels compiled before they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

from . import forks
from .hints import hinted
from .integrations.torch import is_tensor
from .kernels import load_kernels
from .literals import Layout
from .numbers import shown

__all__ = ["warmup"]

STORAGES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


@hinted
def warmup(
    *,
    dtypes: Sequence[Literal["float32", "float64", "float16", "bfloat16"]] = ("float32",),
    layouts: Sequence[Layout] = ("interleaved", "half"),
    axes: Sequence[int] = (3,),
    parallel: bool = True,
) -> None:
    """Compile kernels now, or load them from the compiled cache, so that no later call has to: before a server forks.

    Parameters
    ----------
    dtypes : sequence of str
        Of "float32", "float64", "float16" and "bfloat16".
    layouts : sequence of str
        Of "interleaved" and "half".
    axes : sequence of int
        Numbers of axes that arrays will have: 2, 3 or 4. One compiled function serves all of them.
    parallel : bool
        What shares large work out among threads too, where more than one may run. This starts Numba's threads.

    Raises
    ------
    TypeError, ValueError
        If something is asked for that is not there.
    ImportError
        If Numba cannot be imported.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.warmup(dtypes=["float32"], layouts=["half"], parallel=False)
    """
    for name, asked, known in (
        ("dtypes", dtypes, tuple(STORAGES)),
        ("layouts", layouts, get_args(Layout)),
        ("axes", axes, (2, 3, 4)),
    ):
        if isinstance(asked, str) or not isinstance(asked, Sequence):
            raise TypeError(f"{name} is {shown(asked)}; expected a list")
        for one in asked:
            if is_tensor(one) or isinstance(one, bool) or one not in known:
                raise ValueError(f"{name} holds {shown(one)}; expected {', '.join(map(repr, known))}")
    launch = load_kernels()
    if launch is None or not forks.can_compile():
        return
    for dtype, layout in itertools.product(dtypes, layouts):
        kernels = launch.in_place_for(STORAGES[dtype], layout)
        kernels.get()
        if parallel and launch.can_run_parallel():
            kernels.get_parallel()

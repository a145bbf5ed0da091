"""Compile all kernels into the folder for compiled code, beside the tests of a whole run (conftest.py).

This takes some two minutes of one core. The last kernels in place come first, as the first tests begin with the others.
"""

from __future__ import annotations

import itertools

from rope_numba.kernels import launch
from rope_numba.kernels.panel import LAYOUTS
from rope_numba.kernels.storage import STORAGES

CONVERSIONS = [("f32", "f16"), ("f32", "bf16"), ("f16", "f32"), ("bf16", "f32")]

if not launch.KERNELS_UNAVAILABLE:
    for storage, layout in reversed(list(itertools.product(STORAGES, LAYOUTS))):
        kernels = launch.in_place_for(storage, layout)
        kernels.get()
        if launch.can_run_parallel():
            kernels.get_parallel()
    launch.get_precheck()
    for pair in [(storage, storage) for storage in STORAGES] + CONVERSIONS:
        for layouts in itertools.product(LAYOUTS, LAYOUTS):
            launch.out_of_place_for(*pair, *layouts).get()

"""The compiled rotation: the only part of the package that imports Numba."""

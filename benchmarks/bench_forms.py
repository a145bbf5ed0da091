"""Every documented form of a call next to the NumPy that it replaces, in a loop with a layer's weights between calls.

NumPy's lines are what a user of it writes: tables of cosines and sines made before the loop, and
x * cos + rotate_half(x) * sin into new arrays (in float32 for 16-bit data), assigned where the form writes somewhere. A
Rope and its tables are made before the loop likewise. One thread, as NumPy has.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from measure import DTYPES, array, measure_in_loop, numpy_rotation
from numpy.typing import NDArray

import rope_numba as rn

HEADS, KV_HEADS, HEAD_DIM, LAYERS, SLOTS = 32, 8, 128, 24, 4096
SETTINGS: dict[str, Any] = {"theta": 10_000.0, "layout": "half"}
Call = Callable[[], Any]
Array = NDArray[Any]


class Way(NamedTuple):
    """One form and its NumPy: calls that are timed one after another, with weights between."""

    ours: list[Call]
    numpys: list[Call]
    fresh: list[Array]  # what a layer has just written


FORMS: dict[tuple[str, int], Callable[[int, Path], Way]] = {}
NEED_TORCH = ("step(tensors)", "step(tensors), bfloat16", "rope(tensors, offset=n)", "rope(tensors, positions=tensor)")


def form(name: str, *tokens: int) -> Callable[[Any], Any]:
    """Add a form, for one token and for 64 if no other counts are given."""

    def add(make: Any) -> Any:
        FORMS.update({(name, count): make for count in tokens or (1, 64)})
        return make

    return add


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def test_every_form_beside_numpy(benchmark: Any, form: str, tokens: int, tmp_path: Path) -> None:
    if form in NEED_TORCH and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    way = FORMS[form, tokens](tokens, tmp_path)
    before = [x.copy() for x in way.fresh]
    expected = [np.copy(x) for x in arrays_of([call() for call in way.numpys][-1])]
    for x, old in zip(way.fresh, before, strict=True):
        x[...] = old
    results = arrays_of([call() for call in way.ours][-1])
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        tolerance = 0.1 if "float16" in form else 1e-4
        np.testing.assert_allclose(result.astype(np.float64), wanted.astype(np.float64), atol=tolerance, rtol=tolerance)
    benchmark.group = "forms beside NumPy, in a loop with weights"
    measure_in_loop(benchmark, way.ours, way.numpys, way.fresh, case="forms", form=form, tokens=tokens)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "form" in metafunc.fixturenames:
        metafunc.parametrize(("form", "tokens"), FORMS)


def arrays_of(result: Any) -> list[Array]:
    """Return what a call returned as arrays, to be compared."""
    each = [] if result is None else result if isinstance(result, (tuple, list)) else [result]
    return [x if isinstance(x, np.ndarray) else x.float().numpy() for x in each]


def prompt(tokens: int, dtype: str = "float32", order: str = "thd") -> tuple[Array, Array]:
    """Return q and k of a call."""
    shapes = [(tokens, heads) if order == "thd" else (heads, tokens) for heads in (HEADS, KV_HEADS)]
    q, k = (array((*shape, HEAD_DIM), dtype) for shape in shapes)
    return q, k


def rope_of(**settings: Any) -> rn.Rope:
    """Return a Rope whose table has been filled, as NumPy's has."""
    rope = rn.Rope(**{"head_dim": HEAD_DIM, **SETTINGS, **settings})
    rope.tables(SLOTS)
    return rope


def table(pairs: int = HEAD_DIM // 2, theta: float = 10_000.0, sign: float = 1.0, twice: bool = True) -> list[Array]:
    """Return cosines and sines of all positions as NumPy's users prepare them, each number twice for halves."""
    angles = sign * np.arange(SLOTS)[:, None] * theta ** (-np.arange(pairs) / pairs)
    both = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
    return [np.concatenate((x, x), -1) if twice else x for x in both]


def starts(tokens: int) -> Iterator[int]:
    """Return where each call begins, an iterator of its own for each of two ways."""
    return itertools.cycle(range(700, 700 + 8 * tokens, tokens))


def rotated(q: Array, k: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    return numpy_rotation(q, cos, sin), numpy_rotation(k, cos, sin)


# Positions, in all ways that they can be given.


@form("rope(q, k, offset=n)")
def by_offset(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    mine, theirs = starts(tokens), starts(tokens)

    def ours() -> Any:
        return rope(q, k, offset=next(mine))

    def numpys() -> Any:
        n = next(theirs)
        return rotated(q, k, cos[n : n + tokens, None], sin[n : n + tokens, None])

    return Way([ours], [numpys], [q, k])


@form("rope(q, offset=n)")
def by_offset_alone(tokens: int, _: Path) -> Way:
    (q, _k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    mine, theirs = starts(tokens), starts(tokens)

    def ours() -> Any:
        return rope(q, offset=next(mine))

    def numpys() -> Any:
        n = next(theirs)
        return numpy_rotation(q, cos[n : n + tokens, None], sin[n : n + tokens, None])

    return Way([ours], [numpys], [q])


def by_positions(kind: Callable[[list[int]], Any]) -> Callable[[int, Path], Way]:
    """Return a way whose positions are new in each call, in the form that is named."""

    def make(tokens: int, _: Path) -> Way:
        (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
        scattered = np.random.default_rng(0).integers(0, SLOTS // 2, (16, tokens)).tolist()
        if kind is as_range:
            scattered = [list(range(n, n + tokens)) for n in range(700, 716)]
        mine, theirs = (itertools.cycle([kind(positions) for positions in scattered]) for _ in range(2))

        def ours() -> Any:
            return rope(q, k, positions=next(mine))

        def numpys() -> Any:
            positions = np.asarray(next(theirs))
            return rotated(q, k, cos[positions].reshape(tokens, 1, -1), sin[positions].reshape(tokens, 1, -1))

        return Way([ours], [numpys], [q, k])

    return make


def as_range(positions: list[int]) -> range:
    return range(positions[0], positions[-1] + 1)


form("rope(q, k, positions=array)")(by_positions(np.array))
form("rope(q, k, positions=list)")(by_positions(list))
form("rope(q, k, positions=tuple)")(by_positions(tuple))
form("rope(q, k, positions=range)")(by_positions(as_range))
form("rope(q, k, positions=int)", 1)(by_positions(lambda positions: positions[0]))


@form("rope(q, k, positions=array), the same")
def by_the_same_positions(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    positions = np.random.default_rng(0).integers(0, SLOTS, tokens)
    return Way(
        [lambda: rope(q, k, positions=positions)],
        [lambda: rotated(q, k, cos[positions, None], sin[positions, None])],
        [q, k],
    )


@form("rope(q, k, positions=list), the same")
def by_the_same_list(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    positions = np.random.default_rng(0).integers(0, SLOTS, tokens).tolist()
    return Way(
        [lambda: rope(q, k, positions=positions)],
        [lambda: rotated(q, k, cos[positions][:, None], sin[positions][:, None])],
        [q, k],
    )


# A Rotation.


def step_of(**settings: Any) -> Callable[[int, Path], Way]:
    """Return a way that calls one Rotation; NumPy's rows have been picked as well."""
    dtype = settings.pop("dtype", "float32")

    def make(tokens: int, _: Path) -> Way:
        q, k = prompt(tokens, dtype)
        step = rope_of(**settings).at(offset=700, tokens=tokens)
        cos, sin = (x[700 : 700 + tokens, None] for x in table(twice=settings.get("layout", "half") == "half"))
        if dtype == "float64":
            cos, sin = cos.astype(np.float64), sin.astype(np.float64)
        layout = settings.get("layout", "half")
        return Way(
            [lambda: step(q, k)],
            [lambda: (numpy_rotation(q, cos, sin, layout), numpy_rotation(k, cos, sin, layout))],
            [q, k],
        )

    return make


form("step(q, k)")(step_of())
form("step(q, k), interleaved")(step_of(layout="interleaved"))
form("step(q, k), float64")(step_of(dtype="float64"))
form("step(q, k), float16")(step_of(dtype="float16"))
form("step(q, k), bfloat16")(step_of(dtype="bfloat16"))
form('step(q, k), backend="numpy"')(step_of(backend="numpy"))
form('step(q, k), backend="numpy", interleaved')(step_of(backend="numpy", layout="interleaved"))
form('step(q, k), backend="numpy", bfloat16')(step_of(backend="numpy", dtype="bfloat16"))
form('step(q, k), backend="numpy", float16')(step_of(backend="numpy", dtype="float16"))


@form(f"rope.at(offset=n), {LAYERS} x step(q, k)")
def whole_token(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    mine, theirs = starts(tokens), starts(tokens)
    here: dict[str, Any] = {}

    def at() -> None:
        here["step"] = rope.at(offset=next(mine), tokens=tokens)

    def pick() -> None:
        n = next(theirs)
        here["cos"], here["sin"] = cos[n : n + tokens, None], sin[n : n + tokens, None]

    def ours() -> None:
        here["step"](q, k)

    def numpys() -> None:
        rotated(q, k, here["cos"], here["sin"])

    return Way([at, *[ours] * LAYERS], [pick, *[numpys] * LAYERS], [q, k])


@form("rope.at(offset=n)")
def at_offset(tokens: int, _: Path) -> Way:
    """NumPy's way makes its angles here: it has no table, as a decode loop of few tokens does not make one."""
    rope, mine, theirs = rope_of(), starts(tokens), starts(tokens)
    inv_freq = 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))

    def ours() -> None:
        rope.at(offset=next(mine), tokens=tokens)

    def numpys() -> None:
        n = next(theirs)
        angles = np.arange(n, n + tokens)[:, None] * inv_freq
        np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    return Way([ours], [numpys], [])


def at_positions(kind: Callable[[list[int]], Any]) -> Callable[[int, Path], Way]:
    """Return a way that prepares new positions and rotates by them once."""

    def make(tokens: int, _: Path) -> Way:
        (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
        scattered = np.random.default_rng(0).integers(0, SLOTS // 2, (16, tokens)).tolist()
        mine, theirs = (itertools.cycle([kind(positions) for positions in scattered]) for _ in range(2))

        def ours() -> Any:
            return rope.at(positions=next(mine))(q, k)

        def numpys() -> Any:
            positions = next(theirs)
            return rotated(q, k, cos[positions][:, None], sin[positions][:, None])

        return Way([ours], [numpys], [q, k])

    return make


form("rope.at(positions=array)(q, k)")(at_positions(np.array))
form("rope.at(positions=list)(q, k)")(at_positions(list))


# Results elsewhere.


def into_cache(shape: str, dtype: str = "float32", source: str = "float32") -> Callable[[int, Path], Way]:
    """Return a way that writes k into its slots of a cache, q in place."""

    def make(tokens: int, _: Path) -> Way:
        (q, k), cache = prompt(tokens, source), np.zeros((SLOTS, KV_HEADS, HEAD_DIM), DTYPES[dtype])
        cos, sin = (x[700 : 700 + tokens, None] for x in table())
        if shape == "two axes":
            q, k, cos, sin = q[0], k[0], cos[0], sin[0]
        elif shape == "four axes":
            q, k, cache = q[None], k[None], cache[None]
        step, mine, theirs = rope_of().at(offset=700, tokens=tokens), starts(tokens), starts(tokens)

        def slots(n: int) -> Array:
            if shape == "two axes":
                return cache[n]
            return cache[:, n : n + tokens] if shape == "four axes" else cache[n : n + tokens]

        def ours() -> Any:
            return step(q, k, out=(None, slots(next(mine))))

        def numpys() -> Any:
            target = slots(next(theirs))
            new, target[...] = rotated(q, k, cos, sin)
            return new, target

        return Way([ours], [numpys], [q, k])

    return make


form("step(q, k, out=(None, cache[n])), two axes", 1)(into_cache("two axes"))
form("step(q, k, out=(None, cache[n:m]))")(into_cache("three axes"))
form("step(q, k, out=(None, cache[:, n:m])), four axes")(into_cache("four axes"))
form("step(q, k, out=(None, cache)), float32 to bfloat16")(into_cache("three axes", "bfloat16"))
form("step(q, k, out=(None, cache)), float32 to float16")(into_cache("three axes", "float16"))
form("step(q, k, out=(None, cache)), bfloat16 to float32")(into_cache("three axes", "float32", "bfloat16"))


@form("rope(q, k, offset=n, out=(None, cache[n:m]))")
def rope_into_cache(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    cache, mine, theirs = np.zeros((SLOTS, KV_HEADS, HEAD_DIM), np.float32), starts(tokens), starts(tokens)

    def ours() -> Any:
        n = next(mine)
        return rope(q, k, offset=n, out=(None, cache[n : n + tokens]))

    def numpys() -> Any:
        n = next(theirs)
        new, cache[n : n + tokens] = rotated(q, k, cos[n : n + tokens, None], sin[n : n + tokens, None])
        return new, cache[n : n + tokens]

    return Way([ours], [numpys], [q, k])


def into_others(out_of: str) -> Callable[[int, Path], Way]:
    """Return a way that writes one array, or both, into others."""

    def make(tokens: int, _: Path) -> Way:
        (q, k), (cos, sin) = prompt(tokens), (x[700 : 700 + tokens, None] for x in table())
        step, (q_out, k_out) = rope_of().at(offset=700, tokens=tokens), prompt(tokens)

        def numpys() -> Any:
            q_out[...] = numpy_rotation(q, cos, sin)
            k_out[...] = numpy_rotation(k, cos, sin)
            return q_out, k_out

        def alone() -> Any:
            q_out[...] = numpy_rotation(q, cos, sin)
            return q_out

        if out_of == "q":
            return Way([lambda: step(q, out=q_out)], [alone], [q])
        return Way([lambda: step(q, k, out=(q_out, k_out))], [numpys], [q, k])

    return make


form("step(q, out=other)")(into_others("q"))
form("step(q, k, out=(others))")(into_others("both"))


@form("step(q, k), layout_out=")
def other_layout(tokens: int, _: Path) -> Way:
    q, k = prompt(tokens)
    step = rope_of(layout="interleaved", layout_out="half").at(offset=700, tokens=tokens)
    cos, sin = (x[700 : 700 + tokens, None] for x in table(twice=False))

    def rotate(x: Array) -> Array:
        low, high = x[..., ::2], x[..., 1::2]
        return np.concatenate((low * cos - high * sin, low * sin + high * cos), -1)

    return Way([lambda: step(q, k)], [lambda: (rotate(q), rotate(k))], [q, k])


# Other directions.


@form("rope.inverse(q, k, offset=n)")
def inverse(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table(sign=-1.0)
    mine, theirs = starts(tokens), starts(tokens)

    def ours() -> Any:
        return rope.inverse(q, k, offset=next(mine))

    def numpys() -> Any:
        n = next(theirs)
        return rotated(q, k, cos[n : n + tokens, None], sin[n : n + tokens, None])

    return Way([ours], [numpys], [q, k])


@form("rope.inverse(q, k, positions=array)")
def inverse_at_positions(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table(sign=-1.0)
    positions = np.random.default_rng(0).integers(0, SLOTS, tokens)
    return Way(
        [lambda: rope.inverse(q, k, positions=positions)],
        [lambda: rotated(q, k, cos[positions, None], sin[positions, None])],
        [q, k],
    )


def shift_by(deltas: list[int], dtype: str = "float32") -> Callable[[int, Path], Way]:
    """Return a way that moves cached keys by one number of positions, written back."""

    def make(tokens: int, _: Path) -> Way:
        rope, inv_freq = rope_of(), 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
        cache, other = (array((tokens, KV_HEADS, HEAD_DIM), dtype) for _ in range(2))
        mine, theirs = itertools.cycle(deltas), itertools.cycle(deltas)

        def numpys() -> Any:
            angles = next(theirs) * np.concatenate((inv_freq, inv_freq))
            other[...] = numpy_rotation(other, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
            return other

        return Way([lambda: rope.shift(cache, next(mine))], [numpys], [])

    return make


form("rope.shift(cache, -n)", 1, 16, 64, 4096)(shift_by([-5, -64, -700]))
form("rope.shift(cache, n)", 1, 16, 64, 4096)(shift_by([5, 64, 700]))
form("rope.shift(cache, -n), bfloat16", 16, 64, 4096)(shift_by([-5, -64, -700], "bfloat16"))


@form("rope.shift(cache, array)", 16, 64, 4096)
def shift_each(tokens: int, _: Path) -> Way:
    rope, inv_freq = rope_of(), 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    cache, other = (array((tokens, KV_HEADS, HEAD_DIM)) for _ in range(2))
    delta = np.random.default_rng(0).integers(-100, 100, tokens)

    def numpys() -> Any:
        angles = delta[:, None, None] * np.concatenate((inv_freq, inv_freq))
        other[...] = numpy_rotation(other, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
        return other

    return Way([lambda: rope.shift(cache, delta)], [numpys], [])


@form("cache[slots] = rope.shift(cache[slots], n)", 16, 64)
def shift_slots(tokens: int, _: Path) -> Way:
    rope, inv_freq = rope_of(), 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    cache, other = (array((SLOTS, KV_HEADS, HEAD_DIM)) for _ in range(2))
    slots = np.random.default_rng(0).permutation(SLOTS)[:tokens]

    def ours() -> Any:
        cache[slots] = rope.shift(cache[slots], 7)
        return cache[slots[:1]]

    def numpys() -> Any:
        angles = 7 * np.concatenate((inv_freq, inv_freq))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        other[slots] = numpy_rotation(other[slots], cos, sin)
        return other[slots[:1]]

    return Way([ours], [numpys], [])


# Tables, the one-shot form, positions of packed sequences, permutations.


@form("rope.tables(n)", 1, 64, 4096)
def tables(tokens: int, _: Path) -> Way:
    rope, inv_freq = rope_of(), 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))

    def numpys() -> Any:
        angles = np.arange(tokens)[:, None] * inv_freq
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    return Way([lambda: rope.tables(tokens)], [numpys], [])


@form("apply_rope(q, k, offset=n, ...)")
def one_shot(tokens: int, _: Path) -> Way:
    (q, k), (cos, sin), mine, theirs = prompt(tokens), table(), starts(tokens), starts(tokens)
    rope_of()

    def ours() -> Any:
        return rn.apply_rope(q, k, offset=next(mine), **SETTINGS)

    def numpys() -> Any:
        n = next(theirs)
        return rotated(q, k, cos[n : n + tokens, None], sin[n : n + tokens, None])

    return Way([ours], [numpys], [q, k])


@form("ragged_positions(boundaries, offset=[...])", 64)
def ragged(tokens: int, _: Path) -> Way:
    bounds = np.array([0, tokens // 4, tokens // 2, tokens])
    offset = np.array([0, 90, 17])

    def numpys() -> Any:
        return np.arange(bounds[-1]) - np.repeat(bounds[:-1] - offset, np.diff(bounds))

    return Way([lambda: rn.ragged_positions(bounds, offset=offset)], [numpys], [])


@form("layouts.permute(x)")
def permute(tokens: int, _: Path) -> Way:
    (q, _k) = prompt(tokens)
    return Way(
        [lambda: rn.layouts.permute(q, HEAD_DIM, axis=-1, source="half", target="interleaved")],
        [lambda: np.ascontiguousarray(q.reshape(*q.shape[:-1], 2, -1).swapaxes(-1, -2)).reshape(q.shape)],
        [q],
    )


@form("reference.rotate(x, cos, sin)")
def reference(tokens: int, _: Path) -> Way:
    (q, _k), (cos, sin) = prompt(tokens), (x[700 : 700 + tokens] for x in table(twice=False))
    wide = [np.concatenate((x, x), -1)[:, None] for x in (cos, sin)]

    def ours() -> Any:
        rn.reference.rotate(q, cos, sin, layout="half")
        return q

    return Way([ours], [lambda: numpy_rotation(q, *wide)], [q])


# Other arrays.


@form("step(memmaps)")
def memmaps(tokens: int, folder: Path) -> Way:
    q, k = (
        np.memmap(folder / name, np.float32, "w+", shape=x.shape) for name, x in zip("qk", prompt(tokens), strict=True)
    )
    q[...], k[...] = prompt(tokens)
    step, (cos, sin) = rope_of().at(offset=700, tokens=tokens), (x[700 : 700 + tokens, None] for x in table())
    return Way([lambda: step(q, k)], [lambda: rotated(q, k, cos, sin)], [q, k])


@form("step(q, k, out=(None, memmap[n:m]))")
def into_memmap(tokens: int, folder: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), (x[700 : 700 + tokens, None] for x in table())
    cache = np.memmap(folder / "cache", np.float32, "w+", shape=(SLOTS, KV_HEADS, HEAD_DIM))
    step, mine, theirs = rope.at(offset=700, tokens=tokens), starts(tokens), starts(tokens)

    def ours() -> Any:
        n = next(mine)
        return step(q, k, out=(None, cache[n : n + tokens]))

    def numpys() -> Any:
        n = next(theirs)
        new, cache[n : n + tokens] = rotated(q, k, cos, sin)
        return new, cache[n : n + tokens]

    return Way([ours], [numpys], [q, k])


@form("rope(q, k, offset=[...]), a batch", 8, 64)
def batch_by_offsets(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    q, k = q[:, None], k[:, None]
    each = np.random.default_rng(0).integers(0, SLOTS // 2, (16, tokens)).tolist()
    mine, theirs = itertools.cycle(each), itertools.cycle(each)

    def ours() -> Any:
        return rope(q, k, offset=next(mine))

    def numpys() -> Any:
        places = next(theirs)
        return rotated(q, k, cos[places][:, None, None], sin[places][:, None, None])

    return Way([ours], [numpys], [q, k])


@form("rope(q, k, positions=(batch, tokens))", 8, 64)
def batch_by_positions(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens), rope_of(), table()
    q, k = q[:, None], k[:, None]
    each = np.random.default_rng(0).integers(0, SLOTS // 2, (16, tokens, 1))
    mine, theirs = itertools.cycle(each), itertools.cycle(each)

    def ours() -> Any:
        return rope(q, k, positions=next(mine))

    def numpys() -> Any:
        places = next(theirs)
        return rotated(q, k, cos[places][:, :, None], sin[places][:, :, None])

    return Way([ours], [numpys], [q, k])


@form('rope(q, k, offset=n), order="htd"')
def heads_first(tokens: int, _: Path) -> Way:
    (q, k), rope, (cos, sin) = prompt(tokens, order="htd"), rope_of(order="htd"), table()
    mine, theirs = starts(tokens), starts(tokens)

    def ours() -> Any:
        return rope(q, k, offset=next(mine))

    def numpys() -> Any:
        n = next(theirs)
        return rotated(q, k, cos[n : n + tokens], sin[n : n + tokens])

    return Way([ours], [numpys], [q, k])


@form("step(q, k), slices of packed q, k, v")
def packed(tokens: int, _: Path) -> Way:
    qkv = array((tokens, HEADS + 2 * KV_HEADS, HEAD_DIM))
    q, k = qkv[:, :HEADS], qkv[:, HEADS : HEADS + KV_HEADS]
    step, (cos, sin) = rope_of().at(offset=700, tokens=tokens), (x[700 : 700 + tokens, None] for x in table())
    return Way([lambda: step(q, k)], [lambda: rotated(q, k, cos, sin)], [qkv])


def part_of_head(rotary_offset: int) -> Callable[[int, Path], Way]:
    """Return a way that rotates half of the channels; NumPy writes them back."""

    def make(tokens: int, _: Path) -> Way:
        q, k = prompt(tokens)
        step = rope_of(rotary_dim=64, rotary_offset=rotary_offset).at(offset=700, tokens=tokens)
        cos, sin = (x[700 : 700 + tokens, None] for x in table(32))

        def numpys() -> Any:
            for x in (q[..., rotary_offset : rotary_offset + 64], k[..., rotary_offset : rotary_offset + 64]):
                x[...] = numpy_rotation(x, cos, sin)
            return q, k

        return Way([lambda: step(q, k)], [numpys], [q, k])

    return make


form("step(q, k), rotary_dim=64")(part_of_head(0))
form("step(q, k), rotary_dim=64, rotary_offset=64")(part_of_head(64))


@form("rope(q, k, positions=streams), mrope")
def streams(tokens: int, _: Path) -> Way:
    frequencies = rn.frequencies.mrope(rn.frequencies.default(HEAD_DIM, 10_000.0), sections=(16, 24, 24))
    rope = rn.Rope(HEAD_DIM, layout="half", frequencies=frequencies)
    rope.tables(SLOTS)
    (q, k), (cos, sin) = prompt(tokens), table()
    stream = np.concatenate((frequencies.streams, frequencies.streams))
    channels = np.arange(HEAD_DIM)
    each = np.random.default_rng(0).integers(0, SLOTS // 2, (16, 3, 1, tokens))
    mine, theirs = itertools.cycle(each), itertools.cycle(each)

    def ours() -> Any:
        return rope(q, k, positions=next(mine))

    def numpys() -> Any:
        rows = next(theirs)[:, 0][stream].T, channels
        return rotated(q, k, cos[rows][:, None], sin[rows][:, None])

    return Way([ours], [numpys], [q, k])


# PyTorch's tensors, next to the same line in PyTorch.


def tensors(call: str, dtype: str = "float32") -> Callable[[int, Path], Way]:
    """Return a way that takes tensors, in inference mode on one thread."""

    def make(tokens: int, _: Path) -> Way:
        import torch

        torch.set_num_threads(1)
        rope, tables = rope_of(), [torch.from_numpy(x).to(getattr(torch, dtype)) for x in table()]
        arrays = prompt(tokens)
        q, k = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in arrays)
        fresh = [x.view(torch.int16 if dtype == "bfloat16" else torch.float32).numpy() for x in (q, k)]
        step, mine, theirs = rope.at(offset=700, tokens=tokens), starts(tokens), starts(tokens)
        positions = torch.arange(700, 700 + tokens)

        def rotate(x: Any, cos: Any, sin: Any) -> Any:
            low, high = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
            return x * cos + torch.cat((-high, low), -1) * sin

        def ours() -> Any:
            if call == "step":
                return step(q, k)
            return rope(q, k, offset=next(mine)) if call == "offset" else rope(q, k, positions=positions)

        def theirs_now() -> Any:
            n = next(theirs) if call == "offset" else 700
            cos, sin = (x[n : n + tokens, None] for x in tables)
            return rotate(q, cos, sin), rotate(k, cos, sin)

        return Way([torch.inference_mode()(ours)], [torch.inference_mode()(theirs_now)], fresh)

    return make


form("step(tensors)")(tensors("step"))
form("step(tensors), bfloat16")(tensors("step", "bfloat16"))
form("rope(tensors, offset=n)")(tensors("offset"))
form("rope(tensors, positions=tensor)")(tensors("positions"))


# Inside jitted code, next to the loop that its author would write.


@form("rn.rotate_half_split in @njit")
def inside_njit(tokens: int, _: Path) -> Way:
    (q, k), (cos, sin) = prompt(tokens), (x[700 : 700 + tokens].copy() for x in table(twice=False))

    @numba.njit
    def ours(q: Array, k: Array, cos: Array, sin: Array) -> None:
        rn.rotate_half_split(q, cos, sin)
        rn.rotate_half_split(k, cos, sin)

    @numba.njit
    def rotate(x: Array, cos: Array, sin: Array) -> None:
        middle = x.shape[2] // 2
        for token in range(x.shape[0]):
            for head in range(x.shape[1]):
                for pair in range(middle):
                    low, high = x[token, head, pair], x[token, head, middle + pair]
                    x[token, head, pair] = low * cos[token, pair] - high * sin[token, pair]
                    x[token, head, middle + pair] = low * sin[token, pair] + high * cos[token, pair]

    @numba.njit
    def plain(q: Array, k: Array, cos: Array, sin: Array) -> None:
        rotate(q, cos, sin)
        rotate(k, cos, sin)

    def call(function: Any) -> Any:
        function(q, k, cos, sin)
        return q, k

    return Way([lambda: call(ours)], [lambda: call(plain)], [q, k])

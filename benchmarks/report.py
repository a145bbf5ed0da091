"""Turn pytest-benchmark's JSON into the README's tables and plots.

    pytest benchmarks --benchmark-only --benchmark-json=out.json && python benchmarks/report.py out.json

prints the tables as Markdown and draws benchmarks/figures/time_per_token.png (extra `plot`); with `--write README.md`
the tables also take their place there. A row that the JSON lacks is an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import bench_calls
import bench_forms
import bench_growth
import bench_rotation
import measure

FIGURE = Path(__file__).parent / "figures" / "time_per_token.png"
BEGIN, END = "<!-- tables of benchmarks/report.py begin -->", "<!-- tables of benchmarks/report.py end -->"
THREADS = ("one thread", "all threads")
LAYOUTS = measure.LAYOUTS
ASKED = 1.3  # times the stream: rows above it count as losses
EVEN = 1.05  # times NumPy: what two runs differ by

Rows = dict[tuple[str, ...], dict[str, Any]]


class MissingRowError(Exception):
    """A row that the tables need is not in the JSON."""


class Found(dict[tuple[str, ...], dict[str, Any]]):
    """What the benchmarks noted, by what tells a row from others."""

    def __missing__(self, key: tuple[str, ...]) -> dict[str, Any]:
        raise MissingRowError(f"no row for {', '.join(map(str, key))}; run all benchmarks into one JSON file")


def rows_of(benchmarks: list[dict[str, Any]]) -> Found:
    """Return what each benchmark noted, by case and what else tells it from others."""
    found = Found()
    for benchmark in benchmarks:
        info, parameters = benchmark["extra_info"], benchmark.get("params") or {}
        kind = benchmark["name"].partition("[")[0].removeprefix("test_")
        if "case" in info:
            parts = {"threads": "", **parameters}
            found[(kind, *(str(parts[name]) for name in sorted(parts) if parts[name] != ""))] = info
    return found


def key(kind: str, **parameters: object) -> tuple[str, ...]:
    """Return the key of a row: its kind, and its parameters in the order of their names."""
    return (kind, *(str(parameters[name]) for name in sorted(parameters)))


def time(us: float) -> str:
    """Return a duration with its unit, in three digits."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} µs"


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table whose columns after the first are set to the right."""
    head = list(head)
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *map(list, lines)])


def pair(values: Iterable[float], form: str = "{:.2f}") -> str:
    """Return figures of both layouts as one cell."""
    return " / ".join(form.format(value) for value in values)


def rotation_table(found: Found, heads: str) -> str:
    """Return time, and ratios to the stream and to NumPy, of the usual order of axes."""

    def cells(case: str, dtype: str) -> list[str]:
        rows = {
            (layout, threads): found[
                key("rotation", case=case, dtype=dtype, heads=heads, layout=layout, order="thd", threads=threads)
            ]
            for layout, threads in itertools.product(LAYOUTS, THREADS)
        }
        one, all_ = ([rows[layout, threads] for layout in LAYOUTS] for threads in THREADS)
        return [
            f"{case}, {dtype}",
            " / ".join(time(row["us"]) for row in one),
            pair(row["contenders"]["stream"]["ratio"] for row in one),
            pair(row["contenders"]["stream"]["ratio"] for row in all_),
            pair((1 / row["contenders"]["NumPy in place"]["ratio"] for row in one), "{:.3g}"),
            pair((1 / row["contenders"]["NumPy expression"]["ratio"] for row in one), "{:.3g}"),
        ]

    head = [heads, "one thread", "/ stream", "all threads / stream", "NumPy in place / ours", "NumPy expression / ours"]
    return table(head, (cells(case, dtype) for case in bench_rotation.CASES for dtype in measure.DTYPES))


def order_table(found: Found) -> str:
    """Return ratios to the stream: heads before tokens, slices of a packed projection, part of the channels."""

    def ratios(kind: str, **parameters: object) -> str:
        rows = (found[key(kind, layout=layout, **parameters)] for layout in LAYOUTS)
        return pair(row["contenders"]["stream"]["ratio"] for row in rows)

    lines = []
    for tokens, case in ((512, "prompt of 512"), (4096, "prompt of 4096")):
        for dtype in measure.DTYPES:
            cells = [f"{case}, {dtype}"]
            for threads in THREADS:
                cells.append(
                    ratios("rotation", case=case, dtype=dtype, heads="32+8 x 128", order="htd", threads=threads)
                )
                cells.append(ratios("packed_qkv", dtype=dtype, tokens=tokens, threads=threads))
                cells.append(ratios("partial_width", dtype=dtype, tokens=tokens, threads=threads))
            lines.append(cells)
    kinds = ("htd", "packed q, k, v", "64 of 128 channels")
    return table(["32+8 x 128", *kinds, *(f"{kind}, all threads" for kind in kinds)], lines)


def width_table(found: Found) -> str:
    """Return the time per byte of every head width, as times that of 128 channels."""
    widths = (48, 64, 80, 96, 112, 256, 512)
    lines = []
    for layout in LAYOUTS:
        rows = (found[key("head_widths", head_dim=width, layout=layout)] for width in widths)
        lines.append(
            [layout, *(f"{row['contenders']['128 channels']['ratio'] / row['size_ratio']:.2f}" for row in rows)]
        )
    return table(["head_dim", *map(str, widths)], lines)


def call_table(found: Found) -> str:
    """Return by how much the public calls for one token take longer than the bare jitted call."""
    lines = []
    for dtype in bench_calls.STORAGES:
        rows = {
            call: [found[key("call_overhead", call=call, dtype=dtype, layout=name)] for name in LAYOUTS]
            for call in bench_calls.CALLS
        }
        bare = " / ".join(time(row["contenders"]["bare kernel"]["us"]) for row in rows[bench_calls.CALLS[0]])
        # From the ratio of laps taken in turn: the difference of two medians would hold the machine's drift.
        more = (
            pair((row["us"] * (1 - 1 / row["contenders"]["bare kernel"]["ratio"]) for row in rows[call]), "+{:.2f}")
            for call in bench_calls.CALLS
        )
        lines.append([dtype, bare, *more])
    return table(["one token, 32+8 x 128, µs", "bare jitted call", *(f"`{call}`" for call in bench_calls.CALLS)], lines)


def batch_table(found: Found) -> str:
    """Return what public calls for a batch at places of its own take."""
    lines = (
        [str(tokens)]
        + [
            time(found[key("a_batch_at_places_of_its_own", tokens=tokens, call=call)]["us"])
            for call in bench_calls.OF_BATCHES
        ]
        for tokens in bench_calls.BATCHES
    )
    head = "tokens at places of their own, 32+8 x 128, float32, interleaved"
    return table([head, *(f"`{call}`" for call in bench_calls.OF_BATCHES)], lines)


def beside_table(found: Found) -> str:
    """Return what one token takes beside a thread that is busy in Python."""
    rows = [(call, found[key("beside_a_busy_thread", call=call)]) for call in bench_calls.BESIDE]
    head = ["one token, 32+8 x 128, float32, interleaved; mean", "alone", "beside a thread busy in Python"]
    return table(
        head, ([f"`{call}`" if "(" in call else call, time(row["alone_us"]), time(row["us"])] for call, row in rows)
    )


def form_table(found: Found) -> str:
    """Return each form's time and what that is of NumPy's, by the number of tokens, in a loop with weights."""
    columns = sorted({tokens for _, tokens in bench_forms.FORMS})
    lines, slower = [], []
    for form in dict.fromkeys(form for form, _ in bench_forms.FORMS):
        cells = [f"`{form}`"]
        for tokens in columns:
            place = key("every_form_beside_numpy", form=form, tokens=tokens)
            if (form, tokens) not in bench_forms.FORMS or (form in bench_forms.NEED_TORCH and place not in found):
                cells.append("")
                continue
            row = found[place]
            cells.append(f"{time(row['us'])}, {row['ratio']:.2f}")
            if row["ratio"] > EVEN:
                slower.append(f"`{form}` ({tokens}: {row['ratio']:.2f})")
        lines.append(cells)
    head = table(["form, 32+8 x 128: time, / NumPy", *(f"{tokens:,}" for tokens in columns)], lines)
    return f"{head}\n\nSlower than NumPy, by more than {EVEN - 1:.0%}: {', '.join(slower) or 'none'}."


def cache_table(found: Found) -> str:
    """Return what writing keys into a cache takes of doing it in steps, and a shift of the stream."""
    lines = []
    for dtype in ("bfloat16", "float16", "float32"):
        into = [found[key("keys_into_a_cache", dtype=dtype, layout=layout)] for layout in LAYOUTS]
        cells = [dtype, pair(row["contenders"]["rotate, cast, copy"]["ratio"] for row in into)]
        for threads in THREADS:
            shifts = [found[key("shift_of_a_cache", dtype=dtype, layout=layout, threads=threads)] for layout in LAYOUTS]
            cells.append(pair(row["contenders"]["stream"]["ratio"] for row in shifts))
        lines.append(cells)
    head = ["a cache of", "`out=` / rotate, cast, copy", "`shift` / stream", "all threads"]
    return table(head, lines)


def mission_table(found: Found) -> str:
    """Return each noun of the mission beside what it saves."""
    lines = []
    for noun in ("in_place", "adjacent_pairs", "parallel", "cached_table", "numpy_fallback", "equivalence"):
        row = found[(noun,)]
        ((contender, other),) = row["contenders"].items()
        lines.append([row["noun"], time(row["us"]), f"{contender}: {time(other['us'])}", f"{1 / other['ratio']:.3g}"])
    return table(["", "time", "beside", "times as long"], lines)


def start_table(found: Found) -> str:
    """Return what a process pays once."""
    whats = [(("import", package)) for package in ("numpy", "rope_numba", "numba")]
    rows = [found[kind] for kind in whats]
    for dtype, layout in (("float32", "interleaved"), ("float32", "half"), ("float16", "interleaved")):
        for threads in ("one thread", "several threads"):
            rows.append(found[key("cold_compile", dtype=dtype, layout=layout, threads=threads)])
    rows += [found[key("first_call_from_a_warm_cache", tokens=tokens)] for tokens in (1, 4096)]
    rows.append(found[key("first_call_of_an_empty_function")])
    rows += [found[key("table_building", positions=positions)] for positions in (4096, 131_072, 1_000_000)]
    return table(["once per process", "time"], ([row["what"], time(row["us"])] for row in rows))


def growth_tables(found: Found) -> list[str]:
    """Return what long contexts cost: a decoded token, the longest step, prompts past the reserve, the tables."""
    lines = []
    for position in (1_000, 10_000, 100_000, 1_000_000):
        row = found[key("decoding_from", position=position)]
        each = [us / row["tokens_of_a_lap"] for us in (row["us"], row["contenders"]["in a block that is filled"]["us"])]
        lines.append([f"{position:,}", *map(time, each)])
    parts = [table(["decoding, 32+8 x 128, from position", "a token, rows made on the way", "rows there"], lines)]

    rows = [(walk, found[key("longest_step", walk=walk)]) for walk in bench_growth.WALKS]
    lines = [[walk, *(time(row[name]) for name in ("us", "of_10000_us", "longest_us"))] for walk, row in rows]
    head = [
        f"{rows[0][1]['steps']:,} decode steps from 0 on, processor time",
        "mean",
        "1 in 10,000 takes longer than",
        "longest",
    ]
    parts.append(table(head, lines))

    lines = []
    for tokens in (512, 4096, 16_384):
        cells = [f"{tokens:,} tokens"]
        for asked in ("by every layer", "once, rope.at"):
            row = found[key("prompt_past_the_reserve", asked=asked, tokens=tokens)]
            cells += [time(row["us"] / tokens), f"{row['contenders']['within']['ratio']:.2f}"]
        lines.append(cells)
    head = [
        f"{bench_growth.LAYERS} layers, 32+8 x 128, past a table's reserve",
        "`rope(q, k, offset=n)`, a token",
        "/ within",
    ]
    parts.append(table([*head, "`rope.at` once, a token", "/ within"], lines))

    lines = []
    for positions in (4_096, 131_072, 1_000_000, 10_000_000):
        row = found[key("rows_of_all_positions", positions=positions)]
        lines.append(
            [f"{positions:,}", time(row["us"]), *(f"{row[name] / 2**20:.0f} MiB" for name in ("bytes", "grown"))]
        )
    return [*parts, table(["rows of all positions, head_dim 128", "time", "kept", "process grew by"], lines)]


def loss_table(found: Found) -> str:
    """Return, for each dtype, how many rows take longer than what is asked, and where it is farthest."""
    lines = []
    for dtype in measure.DTYPES:
        rows = [row for row in found.values() if row.get("dtype") == dtype and row.get("tokens", 1) > 1]
        ratios = [(row["contenders"]["stream"]["ratio"], describe(row)) for row in rows]
        over = [ratio for ratio, _ in ratios if ratio > ASKED]
        middle = statistics.median(ratio for ratio, _ in ratios)
        worst, where = max(ratios)
        lines.append([dtype, f"{len(over)} of {len(ratios)}", f"{middle:.2f}", f"{worst:.2f}", where])
    return table(["more than one token", f"rows over {ASKED}", "middle / stream", "farthest / stream", "where"], lines)


def describe(row: dict[str, Any]) -> str:
    """Return in words what a row of the rotation timed."""
    kinds = {"packed": "packed", "partial": "of 64 of 128 channels"}
    what = f"{row['tokens']} tokens {kinds[row['case']]}" if row["case"] in kinds else f"{row['case']}, {row['heads']}"
    threads = "all threads" if row["threads"] > 1 else "one thread"
    return ", ".join([what, row["layout"], *([row["order"]] if row.get("order") == "htd" else []), threads])


def method(data: dict[str, Any]) -> str:
    """Return how, where and from what the figures come."""
    machine = data["machine_info"]
    described = "; ".join(f"{name} {value}" for name, value in machine["described"].items())
    made = "; ".join(_how(run) for run in data["runs"])
    return (
        f"Medians, and medians of the ratios of laps taken in turn on the same arrays ({measure.START} bytes past a "
        f"64-byte boundary, as NumPy's own); two figures in a cell are interleaved / half. The stream is `x *= 1` "
        f"over the same bytes, in place, jitted. {described}. {made}."
    )


def _how(run: dict[str, Any]) -> str:
    """Return the command of a run, without the folders of its machine, and its commit and day."""
    commit = run["commit_info"]
    command = re.sub(r"=\S*/", "=", run["machine_info"]["command"])
    changed = " with changes not committed" if commit["dirty"] else ""
    return f"`{command}` at commit {commit['id'][:12]}{changed}, {run['datetime'][:10]}"


def sections(data: dict[str, Any]) -> str:
    """Return all tables, with the method under them."""
    found = rows_of(data["benchmarks"])
    parts = [rotation_table(found, heads) for heads in bench_rotation.HEADS]
    parts += [
        "Heads before tokens, slices of a packed projection, part of the channels, by the stream over that memory:"
    ]
    parts += [order_table(found), "Time per byte of other head widths, as times that of 128 (64 tokens, float32):"]
    parts += [width_table(found), call_table(found), batch_table(found), beside_table(found)]
    parts += ["Each form next to the NumPy that it replaces, processor time in a loop with 16 MiB of weights between:"]
    parts += [form_table(found)]
    parts += ["Keys of 512 tokens written into a cache as they are rotated, and 32,768 tokens shifted in it (8 x 128):"]
    parts += [cache_table(found), start_table(found), mission_table(found), *growth_tables(found)]
    parts += ["Losses: rows that take longer than 1.3 times the stream.", loss_table(found), method(data)]
    return "\n\n".join(parts)


def draw(data: dict[str, Any], path: Path) -> None:
    """Draw time per token against tokens, one panel per dtype, with the stream."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = rows_of(data["benchmarks"])
    figure, panels = pyplot.subplots(1, len(measure.DTYPES), figsize=(14, 4.2), sharey=True, layout="constrained")
    tokens = list(bench_rotation.CASES.values())
    colours = {"interleaved": "#1f77b4", "half": "#d95f02"}
    for panel, dtype in zip(panels, measure.DTYPES, strict=True):
        for threads, style in zip(THREADS, ("-", "--"), strict=True):
            rows = {
                layout: [
                    found[
                        key(
                            "rotation",
                            case=case,
                            dtype=dtype,
                            heads="32+8 x 128",
                            layout=layout,
                            order="thd",
                            threads=threads,
                        )
                    ]
                    for case in bench_rotation.CASES
                ]
                for layout in LAYOUTS
            }
            for layout in LAYOUTS:
                each = [row["us"] / count for row, count in zip(rows[layout], tokens, strict=True)]
                panel.plot(
                    tokens, each, style, color=colours[layout], marker="o", markersize=4, label=f"{layout}, {threads}"
                )
            streams = [
                math.sqrt(math.prod(rows[layout][i]["contenders"]["stream"]["us"] for layout in LAYOUTS)) / count
                for i, count in enumerate(tokens)
            ]
            panel.plot(tokens, streams, style, color="black", linewidth=1, label=f"stream, {threads}")
            if threads == THREADS[0]:
                expression = [
                    math.sqrt(math.prod(rows[layout][i]["contenders"]["NumPy expression"]["us"] for layout in LAYOUTS))
                    / count
                    for i, count in enumerate(tokens)
                ]
                panel.plot(tokens, expression, ":", color="grey", marker="s", markersize=3, label="NumPy expression")
        panel.set(xscale="log", yscale="log", title=dtype, xlabel="tokens in the call")
        panel.set_xticks(tokens, [f"{count:,}" for count in tokens], minor=False)
        panel.minorticks_off()
        panel.grid(True, alpha=0.3)
    panels[0].set_ylabel("microseconds per token")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Rotation of q and k, 32+8 heads x 128, {data['machine_info']['described']['CPU']}")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and draw the plot; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "json", type=Path, nargs="+", help="what --benchmark-json wrote; of rows twice the later counts"
    )
    parser.add_argument("--write", type=Path, metavar="README", help="put the tables between the marks of this file")
    parser.add_argument("--figure", type=Path, default=FIGURE, help=f"where to draw (default {FIGURE.name})")
    chosen = parser.parse_args(arguments)
    runs = [json.loads(path.read_text()) for path in chosen.json]
    data = {**runs[0], "benchmarks": [row for run in runs for row in run["benchmarks"]], "runs": runs}
    try:
        text = sections(data)
        draw(data, chosen.figure)
    except MissingRowError as error:
        print(f"{', '.join(map(str, chosen.json))}: {error}", file=sys.stderr)
        return 1
    print(text)
    if chosen.write:
        measure.write_between(chosen.write, BEGIN, text, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())

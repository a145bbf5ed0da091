"""The command line: `python -m rope_numba` checks this machine, `... inspect MODEL` explains a model's rotation."""

from __future__ import annotations

import argparse
import errno
import functools
import io
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO

# Nothing of the package, nor NumPy, may be imported here: `turn_to_installed`, below, first decides which are found.

MOST_LINE = 1000  # characters of a text from outside
CLOSED = 141  # what a shell reports of a process that a closed pipe has ended
# Why standard output takes no more: a full disk or quota, a file that may not grow, one that is open for reading only.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO}


class Parser(argparse.ArgumentParser):
    """A parser whose errors show what was typed on one line."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit."""
        from .texts import escaped

        super().error(escaped(message, MOST_LINE))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="python -m rope_numba",
        description="Without a command: compare the compiled kernels with NumPy on this machine, bit for bit; print "
        "what runs where and a short table of times. The exit status is 1 if a single bit differs, if NumPy rotates "
        "instead of a kernel, or if compiled kernels do not run here: then the first line is the reason.",
    )
    commands = parser.add_subparsers(title="commands", dest="command")
    inspect = commands.add_parser(
        "inspect",
        help="explain the rotation of a model from its header",
        description="Read the header of a model (a GGUF file, a config.json, its folder, or Mistral's params.json) and "
        "explain its rotation: every value, where it came from, and what is left to the caller.",
    )
    inspect.add_argument("model", metavar="MODEL", help="a GGUF file, a config.json or its folder, or a params.json")
    inspect.add_argument("--layer-type", metavar="T", help="one layer type only, of a model whose layers differ")
    inspect.add_argument("--seq-len", metavar="N", type=int, help="positions that will be used")
    inspect.add_argument("--layout", choices=("interleaved", "half"), help="of the weights, for an unknown model type")
    inspect.add_argument("--lenient", action="store_true", help="warn of what is unknown instead of refusing it")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of text")
    inspect.add_argument("--plot", metavar="FILE", help="draw wavelengths and decay (extra `plot`)")
    chosen = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may have other letters than a file's name
    if chosen.command is None:
        return check()
    from .inspecting import report

    text, error = report(
        chosen.model,
        layer_type=chosen.layer_type,
        seq_len=chosen.seq_len,
        layout=chosen.layout,
        strict=not chosen.lenient,
        as_json=chosen.json,
        plot=chosen.plot,
    )
    if error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0


def check() -> int:
    """Compare, describe and time; returns the exit status."""
    from . import selfcheck
    from .kernels import why_unavailable
    from .texts import escaped

    say = functools.partial(print, flush=True)  # each line when it is known, through a pipe as well

    reason = why_unavailable()
    if reason:
        say(f"Nothing is compared or timed, as compiled kernels do not run here: {reason}\n")
    passed = not reason and _compare(say)

    for name, value in selfcheck.describe_machine().items():
        say(f"{name:15} {escaped(value, MOST_LINE)}")

    if passed:
        say("\nfloat32, 32 + 8 heads x 128, microseconds (median)   rope_numba      NumPy   ratio")
        for words, ours, numpys in selfcheck.timings():
            say(f"  {words:49} {ours:12.1f} {numpys:10.1f} {numpys / ours:7.1f}")
        if advice := selfcheck.describe_contention():
            say(f"\n{advice}")
    return 0 if passed else 1


def _compare(say: Callable[[str], None]) -> bool:
    """Compare the kernels with NumPy and print what is found; returns whether all calls had the same bits."""
    from . import selfcheck

    begin = time.perf_counter()
    say("Kernels against NumPy, bit for bit, over widths, orders, strides and positions:")
    passed = True
    for dtype, layout in itertools.product(selfcheck.DTYPES, selfcheck.LAYOUTS):
        _progress(f"  {dtype:9} {layout:12} compiling ...")
        calls, failures = selfcheck.compare(dtype, layout)
        passed &= not failures
        verdict = f"{len(failures)} of {calls} calls failed" if failures else f"{calls} calls, all the same"
        _progress("")
        say(f"  {dtype:9} {layout:12} {verdict}")
        for failure in failures[:3]:
            say(f"      {failure}")
    say(f"  done in {time.perf_counter() - begin:.1f} s\n")
    return passed


def _progress(text: str) -> None:
    """Show a passing line where somebody may be watching; compiling takes seconds."""
    if sys.stdout is not None and sys.stdout.isatty():
        print(f"\r{text:<60}" if text else f"\r{'':60}\r", end="", flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def run(command: Callable[[], int]) -> int:
    """Run the command line in a process of its own, which ends quietly where its output is not read to the end."""
    if sys.stderr is None:  # it was closed, and `print` would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process runs)
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _write_nowhere(sys.stdout, sys.stderr)
        return CLOSED
    except OSError as error:
        if os.name == "nt" and error.errno == errno.EINVAL:  # what Windows answers where a pipe has been closed
            _write_nowhere(sys.stdout, sys.stderr)
            return CLOSED
        if error.errno not in UNWRITABLE:
            raise
        _write_nowhere(sys.stdout)
        print(f"standard output: {error.strerror}", file=sys.stderr)
        return 2


def _write_nowhere(*streams: TextIO | None) -> None:
    """Let what is still to be written go nowhere, or Python would try again as it ends, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    from .installed import turn_to_installed

    command: Callable[[], int] = main
    if turn_to_installed():
        from rope_numba.__main__ import main as command
    sys.exit(run(command))

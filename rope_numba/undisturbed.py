"""Work that an interrupt must not leave half done: the import of Numba, and compiling."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["on_another_thread", "undisturbed"]

LONGEST_WAIT = 0.2  # seconds: on Windows Ctrl-C does not end a wait for a thread, but comes after it


def undisturbed(work: Callable[[], Any]) -> Any:
    """Return what work returns, done on a thread of its own if this is the main one.

    Python handles signals on the main thread alone. There, KeyboardInterrupt may be raised between any two steps of an
    import or of the compiler; that left Numba unable to compile in this process, or to be imported at all. As it is,
    the interrupt ends the waiting at once, and the work goes on to its end.
    """
    return work() if threading.current_thread() is not threading.main_thread() else on_another_thread(work)


def on_another_thread(work: Callable[[], Any]) -> Any:
    """Return what work returns, done on a thread of its own."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="rope_numba compiles")
    try:
        thread.start()
    except RuntimeError:  # Python is shutting down and starts no thread
        return work()
    while thread.is_alive():
        thread.join(LONGEST_WAIT)
    if errors:
        raise errors[0]
    return answers[0]

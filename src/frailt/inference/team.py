"""Threads that run one compiled function together, and sleep in between."""

import os
import threading
from collections.abc import Callable
from typing import Any


class Team:
    """The caller and ``threads - 1`` helpers, which are started at first use and live as long as the process.

    All of them run at once, so that they may wait for each other within the function (``kernels.meet``). The
    function must release Python's lock and must not raise.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: list[threading.Lock] = []
        self._work: tuple[Callable[..., None], tuple[Any, ...], int] | None = None

    def run(self, function: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        """Call ``function(*arguments, thread, threads)`` on each thread. It returns when the caller's own share is done."""
        if threads == 1:
            function(*arguments, 0, 1)
            return
        with self._lock:
            while len(self._starts) < threads - 1:
                start = threading.Lock()
                start.acquire()
                self._starts.append(start)
                helper = threading.Thread(target=self._help, args=(len(self._starts), start), daemon=True)
                helper.start()
            self._work = function, arguments, threads
            for start in self._starts[: threads - 1]:
                start.release()
            function(*arguments, 0, threads)

    def _help(self, thread: int, start: threading.Lock) -> None:
        while True:
            start.acquire()
            assert self._work is not None
            function, arguments, threads = self._work
            function(*arguments, thread, threads)


TEAM = Team()
"""The one of this process: two decoders take turns, since cores are what there is to share."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

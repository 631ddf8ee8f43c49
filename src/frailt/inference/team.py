"""Threads that run one compiled function together, meet within it, and sleep in between."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


class Team:
    """The caller and ``threads - 1`` helpers, which are started at first use and live as long as the process.

    All of them run at once, so that they may wait for each other within the function (``meet``). The
    function must release Python's lock and must not raise.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: list[threading.Lock] = []
        self._work: tuple[Callable[..., None], tuple[Any, ...], int] | None = None

    def run(self, function: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        """Call ``function(*arguments, thread, threads)`` on each thread, and return when the caller's own is done."""
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


# --- Within the compiled function ---


def _arrive(typing_context: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "acq_rel")
        return context.get_dummy_value()

    return types.void(counter), generate


arrive: Any = intrinsic(_arrive)
"""Add one to ``counter[0]``, visibly for other threads, and with it all that was written before."""


def _arrived(typing_context: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(counter), generate


arrived: Any = intrinsic(_arrived)
"""``counter[0]`` as other threads left it."""


def _give_way(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            yielding = ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
            builder.call(yielding, [])
        return context.get_dummy_value()

    return types.void(), generate


give_way: Any = intrinsic(_give_way)
"""Let another thread of the system have this core."""


@numba.njit(nogil=True)
def meet(counter, met, threads):
    """Wait until all threads are here. ``met`` is what the counter said after the last meeting; returns the next."""
    goal = met + threads
    if threads > 1:
        arrive(counter)
        turns = 0
        while arrived(counter) < goal:
            turns += 1
            if turns % 4096 == 0:
                give_way()
    return goal

"""Threads that run one compiled function together, again and again, and sleep when there is nothing to do.

To wake a sleeping thread takes as long as many a token. So a helper that has done its share waits awake for the next
order, within the compiled function and without Python's lock, and goes back to sleep after about a fifth of a
millisecond.

An interrupt (Ctrl-C), a fork or a thread that cannot be started must never leave a thread waiting for another that does
not come. So an order is given in compiled code, where no signal is handled, and only to helpers that are there: Python
does no more than wake them. Each helper has a door in the job, a number that says where it stands.
"""

import math
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from frailt.model.vector_math import intrinsic

GONE, COMING, INSIDE, HELD = -3, -2, -1, 0
"""What a door says: the helper sleeps, was woken, waits awake, is about to get an order. Above: its number in one."""
TURNS = 4096
"""How often a waiting thread looks before it lets other programs have its core for a moment."""
PATIENCE = 64
"""How many times ``TURNS`` a helper waits awake."""
TRIAL, STRETCH = 8, 256
"""Tokens after which ``ThreadCount`` compares, and which the fastest count then has."""
WORSE = 4
"""A trial ends early when it has taken this many times as long as the fastest count would have."""


class ThreadPool:
    """The caller and its helpers, threads that are started at first use and live as long as the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helpers: list[Helper] = []
        self._full = False

    def run(self, function: Callable[..., int], job: Any, doors: NDArray[np.int64], threads: int) -> int:
        """Call ``function(job, 0, threads)`` here, and ``function(job, n, 0)`` on helper n.

        Args:
            function: compiled, without Python's lock, and never raising. Here it begins with ``gather``; on a helper it
                goes on while ``order_for`` gives it a number.
            job: what to work on.
            doors: of this job, always the same array for the same job.
            threads: how many at most, the caller included.

        Returns:
            How many took part: fewer where a helper is busy with another job or no thread can be started.
        """
        if threads > 1:
            if doors[0, 0] != os.getpid():  # New, or from before a fork, when other threads stood at these doors.
                doors[1:] = GONE
                doors[0, 0] = os.getpid()
            for helper in self._hired(threads - 1):
                if helper.idle and helper.orders.empty():
                    doors[helper.number, 0] = COMING
                    helper.orders.put((function, job))
        return function(job, 0, threads)

    def _hired(self, count: int) -> "list[Helper]":
        if len(self._helpers) < count and not self._full:
            with self._lock:
                while len(self._helpers) < count and not self._full:
                    helper = Helper(len(self._helpers) + 1)
                    try:
                        threading.Thread(target=helper.work, daemon=True).start()
                    except RuntimeError:  # The system allows no more.
                        self._full = True
                    else:
                        self._helpers.append(helper)
        return self._helpers[:count]


class Helper:
    """A thread of the pool, by its number from 1."""

    def __init__(self, number: int) -> None:
        self.number, self.idle = number, True
        self.orders: queue.SimpleQueue[tuple[Callable[..., int], Any]] = queue.SimpleQueue()

    def work(self) -> None:
        while True:
            self.idle = True
            function, job = self.orders.get()
            self.idle = False
            function(job, self.number, 0)
            del function, job  # They hold the keys and values of a text.


POOL = ThreadPool()
"""The one of this process: cores are what there is to share."""
if hasattr(os, "register_at_fork"):
    # A fork has no threads but the one that called it.
    os.register_at_fork(after_in_child=POOL.__init__)


class ThreadCount:
    """How many threads are fastest, found out while they work.

    That depends on the model, the processor, and on what else runs: a helper that has lost its core to another program
    keeps all others waiting. So the count that was fastest has a long stretch, then the next smaller or larger one is
    tried.

    Args:
        most: of 1, 2, 4, 8 and so on up to this many.
    """

    def __init__(self, most: int) -> None:
        self._counts = [*(1 << n for n in range((most - 1).bit_length())), most]
        self._best = self._now = 0
        self._direction = 1
        self._seconds: float | None = None
        self._sum, self._tokens = 0.0, 0
        self._warm = False

    @property
    def threads(self) -> int:
        """How many shall work now."""
        return self._counts[self._now]

    def record(self, threads: int, tokens: int, seconds: float) -> None:
        """Count ``tokens`` that took ``seconds`` with ``threads``, and choose for the next ones."""
        if not self._warm:  # The first time, code is compiled or loaded.
            self._warm = True
            return
        if threads != self.threads:  # Not all could be had.
            return
        self._sum, self._tokens = self._sum + seconds, self._tokens + tokens
        trial = self._now != self._best
        lost = trial and self._seconds is not None and self._sum > WORSE * TRIAL * self._seconds
        if not lost and self._tokens < (TRIAL if trial or self._seconds is None else STRETCH):
            return
        mean = self._sum / self._tokens
        self._sum, self._tokens = 0.0, 0
        if trial and self._seconds is not None and mean >= self._seconds:
            self._now, self._direction = self._best, -self._direction
            return
        self._best, self._seconds = self._now, mean
        last = len(self._counts) - 1
        if not trial and not 0 <= self._best + self._direction <= last:
            self._direction = -self._direction
        if 0 <= self._best + self._direction <= last:
            self._now = self._best + self._direction


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where a container has a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # No such file, or "max".
        return count


QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time in a period, and the period, as Linux has them for a control group."""


def new_doors(threads: int) -> NDArray[np.int64]:
    """Doors for a new job, far enough from each other that no two share a line of the processor's cache."""
    return np.zeros((threads, 16), np.int64)


# --- Within compiled functions ---


def _atomic(emit: Callable[..., Any]) -> Any:
    """Code for the number that lies at a place of an int64 array; what was written before is visible with it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return emit(builder, builder.gep(data, [arguments[1]]), *arguments[2:])

    return generate


@intrinsic
def swap(typing_context: Any, array: Any, place: Any, new: Any) -> Any:
    emit = _atomic(lambda builder, at, new: builder.atomic_rmw("xchg", at, new, "acq_rel"))
    return types.int64(array, place, types.int64), emit


@intrinsic
def swap_if(typing_context: Any, array: Any, place: Any, old: Any, new: Any) -> Any:
    emit = _atomic(lambda builder, *values: builder.extract_value(builder.cmpxchg(*values, "acq_rel", "acquire"), 0))
    return types.int64(array, place, types.int64, types.int64), emit


@intrinsic
def add(typing_context: Any, array: Any, place: Any, more: Any) -> Any:
    emit = _atomic(lambda builder, at, more: builder.atomic_rmw("add", at, more, "acq_rel"))
    return types.int64(array, place, types.int64), emit


@intrinsic
def look(typing_context: Any, array: Any, place: Any) -> Any:
    return types.int64(array, place), _atomic(lambda builder, at: builder.load_atomic(at, "acquire", 8))


@intrinsic
def give_way(typing_context: Any) -> Any:
    """Let another thread of the system have this core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            yielding = ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
            builder.call(yielding, [])
        return context.get_dummy_value()

    return types.void(), generate


@numba.njit(nogil=True)
def gather(doors, threads):
    """Hold up to ``threads - 1`` helpers, once those that were woken are here; how many threads there are then.

    Nobody waits long: a helper that does not come in time is left out.
    """
    count, turns = 1, 0
    for helper in range(1, threads):
        door = helper * doors.shape[1]
        while look(doors, door) == COMING and turns < 2 * PATIENCE * TURNS:
            turns += 1
            if turns % TURNS == 0:
                give_way()
        swap_if(doors, door, COMING, GONE)
        if swap_if(doors, door, INSIDE, HELD) == INSIDE:
            count += 1
    return count


@numba.njit(nogil=True)
def give_order(doors, threads):
    """Let the helpers that are held go on, each with a number from 1. What it reads must be written before."""
    number = 1
    for helper in range(1, threads):
        door = helper * doors.shape[1]
        if look(doors, door) == HELD:
            swap(doors, door, number)
            number += 1


@numba.njit(nogil=True)
def arrive(doors, helper):
    """Say that a helper is here."""
    swap(doors, helper * doors.shape[1], INSIDE)


@numba.njit(nogil=True)
def order_for(doors, helper):
    """Wait for an order; the helper's number in it, or 0 where that takes too long and the helper is gone."""
    door = helper * doors.shape[1]
    while True:
        for _ in range(PATIENCE):
            for _ in range(TURNS):
                number = look(doors, door)
                if number > HELD:
                    swap(doors, door, INSIDE)
                    return number
            give_way()
        if swap_if(doors, door, INSIDE, GONE) < HELD:
            return 0


@numba.njit(nogil=True)
def meet(counter, met, threads):
    """Wait until all threads are here. ``met`` is what the counter said after the last meeting; returns the next."""
    goal = met + threads
    if threads > 1:
        add(counter, 0, 1)
        turns = 0
        while look(counter, 0) < goal:
            turns += 1
            if turns % TURNS == 0:
                give_way()
    return goal

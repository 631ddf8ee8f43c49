"""Threads that run one compiled function together, again and again, and sleep when there is nothing to do.

To wake a sleeping thread takes as long as many a token. So a helper that has done its part waits awake for the next
order, within the compiled function and without Python's lock, and gives up after about a fifth of a millisecond. Its
door says where it stands: ``INSIDE`` and waiting, ``ASKED`` to go on, or ``GONE`` to sleep.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

INSIDE, ASKED, GONE = 0, 1, -1
TURNS = 4096
"""How often a waiting thread looks before it lets other programs have its core for a moment."""
PATIENCE = 64
"""How many times ``TURNS`` a helper waits awake."""
TRIAL, STRETCH = 8, 256
"""Tokens after which ``Pace`` compares, and which the faster way then has."""


class Team:
    """The caller and its helpers, threads that are started at first use and live as long as the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sleeping: list[threading.Lock] = []
        self._work: tuple[Callable[..., None], tuple[Any, ...], int] | None = None

    def run(self, function: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        """Call ``function(*arguments, thread, threads)`` on every thread; return when the caller's own is done.

        Args:
            function: compiled, without Python's lock, and never raising. It meets the others at its end (``meet``).
                On a helper it goes on while it is ``asked``.
            arguments: begin with the doors: int64 ``(threads, n)``, all ``GONE`` at first, and always the same for
                the same arguments.
            threads: how many, the caller included.
        """
        if threads == 1:
            function(*arguments, 0, 1)
            return
        with self._lock:
            while len(self._sleeping) < threads - 1:
                self._hire()
            self._work = function, arguments, threads
            for thread in range(1, threads):
                if ask(arguments[0], thread) == GONE:
                    self._sleeping[thread - 1].release()
            function(*arguments, 0, threads)

    def _hire(self) -> None:
        sleeping = threading.Lock()
        sleeping.acquire()
        self._sleeping.append(sleeping)
        threading.Thread(target=self._help, args=(len(self._sleeping), sleeping), daemon=True).start()

    def _help(self, thread: int, sleeping: threading.Lock) -> None:
        while True:
            sleeping.acquire()
            assert self._work is not None
            function, arguments, threads = self._work
            function(*arguments, thread, threads)


TEAM = Team()
"""The one of this process: two decoders take turns, since cores are what there is to share."""


class Pace:
    """Whether the team or one thread is faster, found out while they work.

    That depends on the model, the processor, and on what else runs: a helper that has lost its core to another
    program keeps all others waiting. So both are tried in turn, then the faster one has a longer stretch, and so on.

    Args:
        threads: of the team.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        """How many shall work now."""
        self._other = 1
        self._seconds: dict[int, float] = {}
        self._left, self._sum, self._count = TRIAL, 0.0, 0
        self._warm = False

    def record(self, tokens: int, seconds: float) -> None:
        """Tell how long ``tokens`` took with ``threads``, and choose for the next ones."""
        if not self._warm:  # The first time, code is compiled or loaded.
            self._warm = True
            return
        self._sum, self._count = self._sum + seconds, self._count + tokens
        if self._count < self._left or self.threads == self._other:
            return
        self._seconds[self.threads] = self._sum / self._count
        self._sum, self._count = 0.0, 0
        trial = self._left == TRIAL
        if not trial or len(self._seconds) == 1 or self._seconds[self._other] < self._seconds[self.threads]:
            self.threads, self._other = self._other, self.threads
        self._left = STRETCH if trial and len(self._seconds) == 2 else TRIAL


def doors(threads: int) -> NDArray[np.int64]:
    """Doors for new arguments, far enough from each other that no two share a line of the processor's cache."""
    return np.full((threads, 16), GONE, np.int64)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- Within compiled functions ---


def _swap(typing_context: Any, array: Any, place: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("xchg", _at(context, builder, signature, arguments), arguments[2], "acq_rel")

    return types.int64(array, place, types.int64), generate


def _swap_if(typing_context: Any, array: Any, place: Any, old: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _at(context, builder, signature, arguments)
        return builder.extract_value(builder.cmpxchg(at, arguments[2], arguments[3], "acq_rel", "acquire"), 0)

    return types.int64(array, place, types.int64, types.int64), generate


def _add(typing_context: Any, array: Any, place: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _at(context, builder, signature, arguments), arguments[2], "acq_rel")

    return types.int64(array, place, types.int64), generate


def _look(typing_context: Any, array: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_at(context, builder, signature, arguments), "acquire", 8)

    return types.int64(array, place), generate


def _at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _give_way(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            yielding = ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
            builder.call(yielding, [])
        return context.get_dummy_value()

    return types.void(), generate


# Atomic, on the number of an int64 array that lies at a place; what was written before is visible with it.
swap: Any = intrinsic(_swap)
swap_if: Any = intrinsic(_swap_if)
add: Any = intrinsic(_add)
look: Any = intrinsic(_look)
give_way: Any = intrinsic(_give_way)
"""Let another thread of the system have this core."""


@numba.njit(nogil=True, cache=True)
def ask(doors, thread):
    """Ask a helper to go on; where it was."""
    return swap(doors, thread * doors.shape[1], ASKED)


@numba.njit(nogil=True)
def asked(doors, thread):
    """Wait to be asked; false where that takes too long, and the helper is gone."""
    door = thread * doors.shape[1]
    for _ in range(PATIENCE):
        for _ in range(TURNS):
            if look(doors, door) == ASKED:
                swap(doors, door, INSIDE)
                return True
        give_way()
    if swap_if(doors, door, INSIDE, GONE) == INSIDE:
        return False
    swap(doors, door, INSIDE)
    return True


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

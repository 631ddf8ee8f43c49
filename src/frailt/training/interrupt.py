"""Ctrl-C, and what ends a process politely, as a flag: a run ends between two steps and not within one."""

import signal
import threading
from collections.abc import Callable
from typing import Any

from frailt.training.ranks import Ranks

SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
"""Ctrl-C; what schedulers send, and torchrun to the other ranks when one has ended; a terminal that is closed."""


class Interrupt:
    """A context in which signals only set a flag. A second one ends the run at once.

    One that reaches any of several ranks ends them all; there a second one is ignored, since torchrun repeats them.

    Args:
        ranks: the processes of the run.
        stop: another reason to end, asked where the flag is.
    """

    def __init__(self, ranks: Ranks, stop: Callable[[], bool]) -> None:
        self.ranks, self.stop = ranks, stop
        self.flag = False
        self.handlers: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run is to end, as far as this rank knows."""
        self.flag = self.flag or self.stop()
        return self.flag

    def __enter__(self) -> "Interrupt":
        # Signals reach the main thread only; elsewhere there is no Ctrl-C to wait for.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # nohup has the process ignore that its terminal is closed.
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self.handlers[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, *_: Any) -> None:
        if self.flag and self.ranks.world_size == 1:
            raise KeyboardInterrupt
        self.flag = True

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if kind is None and self.ranks.any(self.flag):
            raise KeyboardInterrupt

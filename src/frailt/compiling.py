"""A word to the user while Numba compiles for the processor: it takes seconds, once, and is silent by itself."""

import sys
from typing import Any

from numba.core.event import Listener, register


def announce_compiling() -> None:
    """From now on, in this process, say on stderr that code is being compiled. Said once."""
    register("numba:compile", _Announcer())


class _Announcer(Listener):
    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            print("compiling for this processor, once (some seconds)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass

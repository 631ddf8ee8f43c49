"""A word to the user while Numba compiles for the processor: it takes seconds, once, and is silent by itself."""

import sys
from functools import cache
from typing import Any

from numba.core.event import Listener, register


@cache
def announce_compiling() -> None:
    """From now on, in this process, say on a terminal that code is being compiled. Said once."""
    register("numba:compile", Announcer())


class Announcer(Listener):
    """Hears when Numba begins to compile; code from its cache on disk is not compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said and sys.stderr.isatty():
            self.said = True
            print("compiling for this processor, once (some seconds)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass

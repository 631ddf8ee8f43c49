"""Numba as this package uses it: code on disk that is never stale, and a word to whoever waits while it compiles."""

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core import config
from numba.core.event import Listener, register

from frailt.files import user_cache
from frailt.launch import rank_info


def compiled(*modules: ModuleType, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, with its code kept on disk by the contents of the function's own file and of ``modules``.

    Numba looks at the function's own file alone: after an upgrade that changed only what it calls, it would go on with
    the old code.

    Args:
        modules: where the functions that it calls are.
        options: of ``numba.njit``.
    """
    sources = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        sources.update(Path(module.__file__).read_bytes())
    own = user_cache() / "compiled"

    def decorate(function: Callable[..., Any]) -> Any:
        settings: dict[str, Any] = config.__dict__
        before = settings["CACHE_DIR"]  # NUMBA_CACHE_DIR, or empty. Numba looks at it when it decorates a function.
        settings["CACHE_DIR"] = str(Path(before or own) / sources.hexdigest()[:16])
        try:
            return numba.njit(cache=True, **options)(function)
        finally:
            settings["CACHE_DIR"] = before

    return decorate


@cache
def announce_compiling() -> None:
    """From now on, in this process, say on a terminal that code is being compiled. Said once."""
    register("numba:compile", Announcer())


class Announcer(Listener):
    """Hears when Numba begins to compile; code from its cache on disk is not compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said and sys.stderr.isatty() and rank_info().local_rank == 0:
            self.said = True
            print("compiling for this processor, once (some seconds)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass

"""Numba as this package uses it: code on disk that is never stale or damaged, and a word to whoever waits for it."""

import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.event import Listener, register

from frailt.files import user_cache, write_bytes
from frailt.launch import rank_info

_DIGEST = 32
"""Bytes of a SHA-256, with which each file begins."""


def compiled(*modules: ModuleType, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, with its code kept on disk by the contents of the function's own file and of ``modules``.

    Args:
        modules: where the functions that it calls are.
        options: of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(**options)(function)
        dispatcher._cache = CodeCache(function, modules)
        return dispatcher

    return decorate


class CodeCache(FunctionCache):
    """Compiled code in files, in place of Numba's own cache (the base class, of which only the key is used).

    Numba's looks at the function's own file alone, so that after an upgrade it would go on with the old code of what
    the function calls; it fails at import where no folder can be written, and at each call once a file is damaged. Here
    a file that cannot be read or is not what was written counts as none, and where nothing can be written the code is
    compiled for this process alone.
    """

    def __init__(self, function: Callable[..., Any], modules: tuple[ModuleType, ...]) -> None:
        self._py_func = function
        source = Path(function.__code__.co_filename)
        digest = hashlib.sha256(repr([version("numba"), version("llvmlite")]).encode())
        for file in (source, *(Path(str(module.__file__)) for module in modules)):
            digest.update(file.read_bytes())
        # Each function has a folder in each installation and for each Python that runs it, since several may share a
        # checkout. It holds the code of the present sources and no other.
        user = (str(source.resolve()), sys.prefix, sys.implementation.cache_tag)
        place = hashlib.sha256(repr(user).encode()).hexdigest()[:8]
        given = os.environ.get("NUMBA_CACHE_DIR")
        base = Path(given) / "frailt" if given else user_cache() / "compiled"
        self._folder = base / f"{source.stem}.{function.__name__}-{place}" / digest.hexdigest()[:16]

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for these types, or ``None``."""
        target_context.refresh()
        path, key = self._path(sig, target_context.codegen())
        try:
            content = path.read_bytes()
        except OSError:
            return None
        # Checked before it is unpickled: code with one wrong bit would end the process.
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        stored, payload = pickle.loads(content[_DIGEST:])
        return CompileResult._rebuild(target_context, *payload) if stored == key else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep new code, and remove what earlier sources left."""
        path, key = self._path(sig, data.codegen)
        content = pickle.dumps((key, data._reduce()))
        try:
            write_bytes(path, hashlib.sha256(content).digest() + content)
            for folder in self._folder.parent.iterdir():
                if folder != self._folder:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            _cannot_keep(f"{error.strerror}: {self._folder}")

    def flush(self) -> None:
        """Forget what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, sig: Any, codegen: Any) -> tuple[Path, str]:
        key = repr(self._index_key(sig, codegen))
        return self._folder / hashlib.sha256(key.encode()).hexdigest()[:32], key


@cache
def _cannot_keep(reason: str) -> None:
    if rank_info().local_rank == 0:
        print(
            f"compiled code cannot be kept ({reason}) and is compiled again in each process; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            file=sys.stderr,
            flush=True,
        )


@cache
def announce_compiling() -> None:
    """From now on, in this process, say on a terminal that code is being compiled. Said once."""
    register("numba:compile", Announcer())


class Announcer(Listener):
    """Hears when Numba begins to compile; code from its cache on disk is not compiled."""

    announced = False

    def on_start(self, event: Any) -> None:
        if not self.announced and sys.stderr.isatty() and rank_info().local_rank == 0:
            self.announced = True
            print("compiling for this processor, once (some seconds)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass

"""For every test: shapes and types in signatures are enforced, one core is enough, hypothesis looks at no clock.

Not checked are the modules that Numba compiles, since it cannot compile what the checks wrap, and the story world,
which would be ten times slower.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import torch
from hypothesis import settings

import frailt

# The numeric tower: 1 is a float, as it is for pyright.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
ROOT = Path(frailt.__file__).parent
jaxtyped = jaxtyping.jaxtyped


def checked_modules() -> list[str]:
    """All modules but those. Packages are left out, since the name of one stands for all that is in it."""
    unchecked = {"storyworld.py", "storyworld_words.py", "__init__.py", "__main__.py"}
    files = [file for file in ROOT.rglob("*.py") if file.name not in unchecked]
    names = [".".join(("frailt", *file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    numba = ("import numba", "from numba ", "from frailt.compiling import compiled")
    return [
        name
        for name, file in zip(names, files, strict=True)
        if name == "frailt.compiling" or not any(word in file.read_text(encoding="utf-8") for word in numba)
    ]


def checked(*, typechecker: Callable) -> Callable:
    """jaxtyping's decorator at half its price: arguments are looked at once, and shapes are bound where there are any.

    Names in quotes may stand for nothing at run time, which jaxtyping forgives.
    """

    def decorate(call: Any) -> Any:
        if not inspect.isfunction(call) or any(isinstance(hint, str) for hint in call.__annotations__.values()):
            return jaxtyped(call, typechecker=typechecker)
        looked_at = typechecker(call)
        if "jaxtyping." not in repr(call.__annotations__):
            return looked_at

        @functools.wraps(call)
        def shaped(*args: Any, **options: Any) -> Any:
            with jaxtyped("context"):
                return looked_at(*args, **options)

        return shaped

    return decorate


jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook(checked_modules(), CHECKER)
torch.set_num_threads(1)
settings.register_profile("frailt", deadline=None, derandomize=True)
settings.load_profile("frailt")

"""Configs from JSON, strictly: a file that does not fit is refused, not patched."""

import dataclasses
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from frailt.errors import InputError

Config = TypeVar("Config")


def from_json(kind: type[Config], stored: dict[str, Any], source: str) -> Config:
    """Build a config dataclass, nested ones too.

    Args:
        kind: the dataclass.
        stored: its fields by name, as ``dataclasses.asdict`` gives them.
        source: where they come from, for messages.

    Raises:
        InputError: a key is unknown or missing, or a value is of another type or out of bounds.
    """
    hints = get_type_hints(kind)
    if wrong := sorted(hints.keys() ^ stored.keys()):
        raise InputError(f"{source} does not fit this version: unknown or missing {', '.join(wrong)}")
    values = {}
    for name, hint in hints.items():
        value = stored[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
            value = from_json(hint, value, source)
        if not _is(value, hint):
            kind_name = getattr(hint, "__name__", hint)
            raise InputError(f"{source}: {name} is {value!r}, which is not of type {kind_name}")
        values[name] = value
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _is(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has a config field's type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_is(value, option) for option in get_args(hint))
    return type(value) is hint or (hint is float and type(value) is int)

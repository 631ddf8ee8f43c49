"""Records from JSON: dataclasses as schemas. Files outlive versions, so a missing key takes its default.

A new field of a config must default to what the code did before it had the field; then every file that an earlier
version wrote keeps its meaning.
"""

import dataclasses
import math
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from frailt.errors import InputError, excerpt

Record = TypeVar("Record")

LARGEST_INT = 2**63 - 1
"""Larger numbers than this are in no file that this package wrote."""
LARGEST_FLOAT = 1e300
"""Beyond lie infinity, whole numbers that no float holds, and mistakes. NaN compares false with it."""


def from_json(kind: type[Record], stored: Any, source: str, *, ignore_unknown: bool = False) -> Record:
    """Build a dataclass from JSON values; nested dataclasses, lists, tuples and dictionaries too.

    Args:
        kind: the dataclass. A field may be bool, int, float, str, None, Path, Literal, a dataclass, ``list[X]``,
            ``tuple[X, ...]``, ``dict[str, X]``, a union of these, or Any.
        stored: its fields by name, as ``dataclasses.asdict`` gives them. A field with a default may be missing.
        source: where they come from, for messages.
        ignore_unknown: leave keys that ``kind`` does not know out of account, for records that other programs write
            too. A config never does: a setting that is not understood would be a setting that is not obeyed.

    Raises:
        InputError: a key is unknown or missing, or a value is of another type or out of bounds.
    """
    if not isinstance(stored, dict):
        raise InputError(f"{source} is {excerpt(stored)}, not an object with fields")
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not ignore_unknown and (unknown := [name for name in stored if name not in fields]):
        raise InputError(f"{source} has a setting {excerpt(unknown[0])!r} that this version of frailt does not know")
    values = {}
    for name, field in fields.items():
        if name in stored:
            values[name] = _value(hints[name], stored[name], source, name, ignore_unknown)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{source} lacks {name}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def require(record: Any, names: str, least: float, below: float = math.inf, *, above: bool = False) -> None:
    """Check that numbers of a dataclass are at least ``least``, or above it, and below ``below``. ``None`` passes.

    Raises:
        InputError: a field of ``names``, which are separated by spaces, is out of range.
    """
    for name in names.split():
        value = getattr(record, name)
        if value is not None and not (least < value < below if above else least <= value < below):
            lower = f"above {least}" if above else f"at least {least}"
            upper = f" and {'finite' if below == math.inf else f'below {below}'}" if isinstance(value, float) else ""
            raise InputError(f"{name} is {value}; it must be {lower}{upper}")


def changed(config: Any) -> dict[str, Any]:
    """The settings of a config dataclass that differ from their defaults, nested ones by name: its identity.

    A field that a later version adds changes nothing here while it stands at its default. A field without a default is
    always part.
    """
    differing: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            if inner := changed(value):
                differing[field.name] = inner
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            differing[field.name] = value
    return differing


def _value(hint: Any, value: Any, source: str, name: str, ignore_unknown: bool) -> Any:
    """A value from JSON as a field's type.

    Raises:
        InputError: it is of another type.
    """
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        rest = [option for option in options if option is not NoneType]
        if len(rest) == 1:
            return _value(rest[0], value, source, name, ignore_unknown)
        for option in rest:
            with suppress(InputError):
                return _value(option, value, source, name, ignore_unknown)
    if origin is Literal and type(value) in map(type, options) and value in options:
        return value
    if origin is list and isinstance(value, list):
        return [_value(options[0], item, source, f"{name}[{i}]", ignore_unknown) for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple) and options[1:] == (...,):
        return tuple(_value(options[0], item, source, f"{name}[{i}]", ignore_unknown) for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {
            key: _value(options[1], item, source, f"{name}[{excerpt(key)!r}]", ignore_unknown)
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, f"{source}: {name}", ignore_unknown=ignore_unknown)
    if hint is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    if hint is float and isinstance(value, int | float) and type(value) is not bool and abs(value) <= LARGEST_FLOAT:
        return float(value)
    if hint is int and type(value) is int and abs(value) <= LARGEST_INT:
        return value
    if hint in (str, bool, NoneType) and type(value) is hint:
        return value
    raise InputError(f"{source}: {name} is {excerpt(repr(value))}, which is not of type {_type_name(hint)}")


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return {float: "finite number", int: "64-bit int"}.get(hint) or getattr(hint, "__name__", str(hint))

"""What commands have in common: options by tyro from dataclasses, its complaints as one line each, tables of text."""

import dataclasses
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from frailt.errors import InputError, excerpt
from frailt.launch import rank_info

try:
    # What tyro has against a box of several lines: the error as an object, before it is printed. Not public yet, so a
    # version without it prints its box.
    from tyro import _errors as tyro_errors
except ImportError:
    tyro_errors = None

Words = tyro.conf.Positional
"""A field that is given without a flag."""


def parse(kind: Any, verb: str, args: list[str], description: str | None, **default: Any) -> Any:
    """Read ``args`` as a ``kind``.

    Raises:
        InputError: they cannot be read so, or ``kind`` itself refuses them.
        SystemExit: help was asked for and printed.
    """
    flags = [_flag(word) for word in args[: args.index("--") if "--" in args else None] if word.startswith("--")]
    for flag, hint in _flags(kind).items():
        if get_origin(hint) is tuple and flags.count(flag) > 1:  # The last would win; of one value, that is a custom.
            raise InputError(f"{flag} is given twice; give it once, with all its values after it")
    return _cli(kind, verb, args, description=description, **default)


def parse_known(kind: Any, verb: str, args: list[str]) -> Any:
    """Read what ``kind`` has a field for, and leave the other words for ``parse``: an option that sets the defaults of
    the others is read so.

    Raises:
        InputError: a value cannot be read.
    """
    return _cli(kind, verb, args, return_unknown_args=True, add_help=False)[0]


def _cli(kind: Any, verb: str, args: list[str], **options: Any) -> Any:
    def refuse(event: Any) -> None:
        raise InputError(_complaint(event, kind, f"; see `frailt {verb} --help`"))

    try:
        with tyro_errors.on_parse_error(refuse) if tyro_errors else nullcontext():
            return tyro.cli(
                kind,
                prog=f"frailt {verb}",
                args=args,
                registry=_TYPES,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                **options,
            )
    except InputError as error:
        raise error from None


def _complaint(event: Any, kind: Any, see: str) -> str:
    """What tyro is about to refuse, in one line."""
    name = event.argument.display_name() if getattr(event, "argument", None) is not None else ""
    match type(event).__name__:
        case "UnrecognizedArgs":
            return f"{_unrecognized(event.tokens, kind)}{see}"
        case "MissingArgs":
            if dashed := [word for word in event.unrecognized_tokens if word.startswith("-")]:
                return f"{_unrecognized(dashed, kind)}{see}"
            missing = " and ".join(context.arg.display_name() for context in event.missing_arguments)
            return f"{missing} must be given{see}"
        case "BadValue":
            return f"{name} has no value{see}"
        case "InvalidChoice":
            return f"{name} {excerpt(event.value)!r} is not one of {', '.join(event.choices)}{see}"
        case "InstantiationFailure" if name:
            return f"{name} {event.message}{see}"
        case "InstantiationFailure":  # A config's own words.
            return event.message
        case unknown:
            return f"the options are not understood ({unknown}){see}"


def _unrecognized(tokens: list[str], kind: Any) -> str:
    word = next((token for token in tokens if token.startswith("-")), tokens[0])
    if word.startswith("--"):
        close = get_close_matches(_flag(word), _flags(kind), n=1)
        return f"there is no option {excerpt(_flag(word))}" + (f"; perhaps {close[0]}" if close else "")
    if word.startswith("-"):
        return f"there is no option {excerpt(word)}; a text that begins with a dash goes last, after --"
    return f"{excerpt(word)!r} is not expected here; put a text or a name that has spaces in quotes"


def _flag(word: str) -> str:
    """The option in ``--a_b=value``, as help spells it."""
    return word.split("=", 1)[0].replace("_", "-")


def _flags(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's options, by their names as help spells them."""
    flags = {}
    for name, hint in get_type_hints(kind).items():
        flags |= _flags(hint) if dataclasses.is_dataclass(hint) else {f"--{name.replace('_', '-')}": hint}
    return flags


_TYPES = ConstructorRegistry()
"""How words become values, with messages of our own."""


@_TYPES.primitive_rule
def _scalar(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    readers = {int: ("INT", _whole), float: ("FLOAT", _number), str: ("STR", _text), Path: ("PATH", _path)}
    if info.type not in readers:
        return None
    metavar, read = readers[info.type]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
    )


@_TYPES.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> Any:
    """``X | None`` is typed as an X; it is None where it is not given."""
    if info.type_origin not in (Union, UnionType):
        return None
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if len(kinds) > 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return spec
    to_words = spec.str_from_instance
    return dataclasses.replace(spec, str_from_instance=lambda value: ["None"] if value is None else to_words(value))


@_TYPES.primitive_rule
def _several(info: PrimitiveTypeInfo) -> Any:
    """``tuple[X, ...]``: any number of words."""
    kinds = get_args(info.type)
    if info.type_origin is not tuple or kinds[1:] != (...,):
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return spec
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{spec.metavar} [{spec.metavar} ...]]",
        instance_from_str=lambda words: tuple(spec.instance_from_str([word]) for word in words),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [word for item in value for word in spec.str_from_instance(item)],
    )


def _whole(text: str) -> int:
    """A whole number, which may be written 4M, 250k or 1.5b."""
    number = token_count(text)
    if number is None or abs(number) >= 2**63:
        raise InputError(f"{excerpt(text)!r} is not a whole number; write one like 8, 250k or 4M")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{excerpt(text)!r} is not a number") from None


def _text(text: str) -> str:
    """What is not text in the terminal's encoding arrives as lone surrogates, which no tokenizer can read."""
    return text.encode(errors="replace").decode()


def _path(text: str) -> Path:
    """A shell leaves the ~ in --out=~/runs alone, so it is looked at here. Bytes that are not UTF-8 are left alone."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(
            f"{excerpt(text)!r} names no user with a home folder; write ./~ for a file of that name"
        ) from None


def token_count(text: str) -> int | None:
    """A count like 4M, 250k or 1000; ``None`` where the text is something else."""
    match = re.fullmatch(r"([+-]?[0-9]{1,18}(?:\.[0-9]{1,9})?)([kmb]?)", text.strip().lower())
    if match is None or (not match[2] and "." in match[1]):
        return None
    if not match[2]:
        return int(match[1])
    return round(float(match[1]) * {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}[match[2]])


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers joined by commas."""
    if not re.fullmatch(r"( *-?[0-9]{1,18} *)(, *-?[0-9]{1,18} *)*", text):
        raise InputError(f"{name} {excerpt(text)!r} are not whole numbers joined by commas")
    return tuple(map(int, text.split(",")))


def passes(text: str | None) -> int | tuple[int, ...] | None:
    """One number of passes for all groups, or one for each."""
    counts = numbers("passes", text) if text is not None else ()
    return counts[0] if len(counts) == 1 else counts or None


def corpus_in(folder: Path | None) -> Any:
    """The prepared data in a folder, or the embedded story world."""
    from frailt.data.corpus import Corpus

    if folder is not None:
        return Corpus(folder)
    from frailt.console import ProgressLine
    from frailt.data.prepare import embedded, quiet

    speaks = rank_info().rank == 0
    if speaks:
        print("no --data given: using the embedded story world", file=sys.stderr)
    with ProgressLine() as line:
        return Corpus(embedded(report=line.show if speaks and sys.stderr.isatty() else quiet))


def write(text: str) -> None:
    """Print a piece of a model's text at once. A terminal obeys control characters, so of those it gets but line ends
    and tabs: a model has a token for each of them."""
    if sys.stdout.isatty():
        text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    print(text, end="", flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of plain text, the first to the left: nothing is cut off, however narrow the terminal."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headers, *rows)
    )


def megabytes(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e6:.2f} MB"

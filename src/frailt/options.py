"""What commands have in common: options by tyro from dataclasses, its complaints as one line each, tables of text."""

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from frailt.errors import InputError
from frailt.launch import rank_info

Words = tyro.conf.Positional
"""A field that is given without a flag."""


def split_words(given: list[str]) -> list[str]:
    """``--tokens=4M`` as ``--tokens 4M``, so that only one of them needs to be understood."""
    return [part for arg in given for part in (arg.split("=", 1) if re.match(r"--[\w-]+=", arg) else [arg])]


def parse(kind: Any, verb: str, args: list[str], description: str | None, **default: Any) -> Any:
    """Read ``args`` as a ``kind``.

    Raises:
        InputError: they cannot be read so, or ``kind`` itself refuses them.
        SystemExit: help was asked for and printed.
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(
                kind,
                prog=f"frailt {verb}",
                description=description,
                args=_plain_counts(args),
                **default,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as left:
        if not left.code:
            sys.stdout.flush()  # So that a reader who has left is noticed here, and not at exit.
            raise
        cause: BaseException | None = left
        while cause is not None:  # A config's own words, which tyro has wrapped.
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise InputError(f"{_first_section(box.getvalue())}; see `frailt {verb} --help`") from None


def _first_section(box: str) -> str:
    """What tyro's box of several lines says in its first section, and the option that it proposes, as one line."""
    sections: list[list[str]] = [[]]
    for line in _COLOUR.sub("", box).replace("│", " ").splitlines():
        if _RULE.fullmatch(line):
            sections.append([])
        else:
            sections[-1].append(line)
    if len(sections) < 3:
        return " ".join(box.split())
    _, said, *more = sections
    text = " ".join(line.strip() for line in said if not line.startswith(" " * 10))  # Deeper lines repeat the help.
    proposed = [line.split()[0] for section in more for line in section if section[0].strip() == "Perhaps you meant:"]
    options = [word for word in proposed if word.startswith("--")]
    return text.rstrip(" .") + (f"; perhaps {options[0]}" if options else "")


_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_RULE = re.compile(r"[╭╰].*| *[─-]{9,} *")
"""A line between sections, with or without the characters for boxes."""


def _plain_counts(args: list[str]) -> list[str]:
    """Token counts like 4M or 250k as plain numbers."""
    plain = list(args)
    for i, (flag, value) in enumerate(pairwise(args)):
        if flag in ("--tokens", "--eval-tokens", "--eval_tokens") and (count := token_count(value)) is not None:
            plain[i + 1] = str(count)
    return plain


def token_count(text: str) -> int | None:
    """A count like 4M, 250k or 1000; ``None`` where the text is something else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.lower())
    if match is None or (not match[2] and "." in match[1]):
        return None
    return round(float(match[1]) * {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}[match[2]])


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers joined by commas."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{name} {text!r} are not whole numbers joined by commas") from None


def passes(text: str | None) -> int | tuple[int, ...] | None:
    """One number of passes for all groups, or one for each."""
    counts = numbers("passes", text) if text is not None else ()
    return counts[0] if len(counts) == 1 else counts or None


def corpus_in(folder: Path | None) -> Any:
    """The prepared data in a folder, or the embedded story world."""
    from frailt.data.corpus import Corpus

    if folder is not None:
        return Corpus(folder)
    from frailt.data.prepare import embedded

    speaks = rank_info().rank == 0
    if speaks:
        print("no --data given: using the embedded story world", file=sys.stderr)
    return Corpus(embedded(progress=speaks and sys.stderr.isatty()))


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

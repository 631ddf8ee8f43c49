"""What may be written after a command: tyro's options from dataclasses, and its complaints as one line each."""

import io
import re
import sys
from contextlib import redirect_stderr
from itertools import pairwise
from typing import Any

import tyro

from frailt.errors import InputError

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
    units = {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
    plain = list(args)
    for i, (flag, value) in enumerate(pairwise(args)):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb])", value.lower())
        if flag in ("--tokens", "--eval-tokens", "--eval_tokens") and match:
            plain[i + 1] = str(round(float(match[1]) * units[match[2]]))
    return plain

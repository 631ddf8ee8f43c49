"""What is wrong with what a user gave, in one line."""

from typing import Any

LONGEST_EXCERPT = 80
"""Characters of bad input that a message quotes at most."""


class InputError(ValueError):
    """Bad input: the message names the problem and the way out, in one line. The command line prints it alone."""


def excerpt(value: Any, longest: int = LONGEST_EXCERPT) -> str:
    """Foreign text as a message may show it: one line without control characters, at most ``longest`` characters.

    Strings are shown as they are, everything else by its ``repr``.
    """
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"

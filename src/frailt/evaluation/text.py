"""Loss of a model over a text file."""

from pathlib import Path

import numpy as np

from frailt.data.shards import chunks, encode
from frailt.data.text import read_stories
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.files import naming


def encode_text(paths: list[Path], tokenizer: Tokenizer) -> tuple[np.ndarray, int]:
    """Texts as one stream of tokens, BOS before each story, and the UTF-8 bytes of the stories.

    Memory holds a chunk of the text and two to four bytes a token.

    Raises:
        InputError: a file cannot be read, or there is no story in them.
    """
    encoded, size = [], 0
    for _, stories in chunks(("text", story) for story in read_stories(paths)):
        encoded.append(encode(stories, tokenizer))
        size += sum(len(story.encode()) for story in stories)
    if not encoded:
        raise InputError("no text is given; name at least one file")
    return np.concatenate(encoded), size


LARGEST_TEXT = 1 << 20
"""Bytes of a file that is read whole."""


def read_text(path: Path, what: str) -> str:
    """A small text file, with ``\\n`` at the end of each line and without a byte order mark.

    Args:
        path: the file; a pipe will do.
        what: it should hold, for messages.

    Raises:
        InputError: it does not exist, is too large or is not UTF-8 text.
    """
    try:
        with naming(path), path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
        if len(data) > LARGEST_TEXT:
            raise InputError(f"{path} is larger than {LARGEST_TEXT >> 20} MiB; give {what}")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path} is not UTF-8 text; give {what}") from None
    if "\0" in text:
        raise InputError(f"{path} holds NUL characters and is not a text; give {what}")
    return text.replace("\r\n", "\n").replace("\r", "\n")

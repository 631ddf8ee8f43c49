"""Loss of a model over a text file."""

from pathlib import Path

import numpy as np

from frailt.data.shards import chunks, encode
from frailt.data.text import read_stories
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError


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

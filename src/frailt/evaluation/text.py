"""Loss of a model over a text file."""

from pathlib import Path

import numpy as np

from frailt.data.text import read_stories
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError


def encode_text(paths: list[Path], tokenizer: Tokenizer) -> tuple[np.ndarray, int]:
    """Texts as one stream of tokens, BOS before each story, and the UTF-8 bytes of the stories.

    Raises:
        InputError: a file cannot be read, or there is no story in them.
    """
    stories = list(read_stories(paths))
    if not stories:
        raise InputError(f"{', '.join(map(str, paths))} holds no text; give a file with at least one story")
    tokens = [token for story in tokenizer.encode_stories(stories) for token in (tokenizer.bos, *story)]
    return np.array(tokens, dtype=np.uint16), sum(len(story.encode()) for story in stories)

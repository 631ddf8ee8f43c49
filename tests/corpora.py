"""A small prepared corpus for tests that train."""

from pathlib import Path

from frailt.data.batches import Corpus
from frailt.data.prepare import PrepareConfig, prepare


def make_corpus(folder: Path, *, stories: int = 60) -> Corpus:
    """Story-world text with a tokenizer of 300 pieces, prepared in ``folder``."""
    config = PrepareConfig(out=folder, world=stories, vocab_size=300, valid_fraction=0.2, workers=1)
    return Corpus(prepare(config).folder)

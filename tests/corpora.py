"""A small prepared corpus for tests that train."""

from pathlib import Path

import numpy as np

from frailt.data.corpus import Corpus
from frailt.data.prepare import PrepareConfig, prepare
from frailt.data.tokenizer import Tokenizer
from frailt.files import sha256, write_json


def make_corpus(folder: Path, *, stories: int = 60) -> Corpus:
    """Story-world text with a tokenizer of 300 pieces, prepared in ``folder``."""
    config = PrepareConfig(out=folder, world=stories, vocab_size=300, valid_fraction=0.2)
    return Corpus(prepare(config).folder)


def make_chain(folder: Path) -> Corpus:
    """Tokens that depend on nothing but NumPy: each is the sum of the two before it, or by chance another."""
    folder.mkdir()
    random = np.random.default_rng(0)
    manifest: dict = {"vocab_size": 300}
    for side, count in (("train", 4000), ("valid", 500)):
        tokens = random.integers(2, 20, count, dtype="<u2")
        for i in np.flatnonzero(random.random(count) < 0.9):
            tokens[i] = 2 + (tokens[i - 1] + tokens[i - 2]) % 18 if i > 1 else 2
        tokens.tofile(folder / f"{side}.bin")
        manifest[side] = {"tokens": count, "bytes": 2 * count, "sha256": sha256(folder / f"{side}.bin"), "stories": 1}
    write_json(folder / "manifest.json", manifest)
    Tokenizer.train(["a chain"], vocab_size=300).save(folder / "tokenizer.json")
    return Corpus(folder)

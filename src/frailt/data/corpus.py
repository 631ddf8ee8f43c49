"""Token files as training batches and as evaluation windows.

A token file is uint16 on disk, mapped and not read: BOS and story, BOS and story, one long stream. It is cut into
windows of the model's context, across story borders. Which windows make the batch of a step follows from
(seed, step) alone, so every model of a comparison reads the same text in the same order, and a resumed run goes on
where it stopped with nothing to restore.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from frailt.errors import InputError
from frailt.files import read_json

Batch = tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]
"""Tokens and, for each, the token that follows it."""


class TokenFile:
    """A stream of tokens on disk.

    Args:
        path: uint16, little endian.

    Raises:
        InputError: the file is missing, holds fewer than two tokens, or ends within one.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size < 4:
            raise InputError(f"{path} holds no tokens; make it with `frailt prepare`")
        if path.stat().st_size % 2:
            raise InputError(f"{path} ends within a token; delete its folder and prepare it again")
        self.tokens: np.ndarray = np.memmap(path, dtype="<u2", mode="r")

    def __len__(self) -> int:
        return len(self.tokens)

    def windows(self, context: int) -> int:
        """Full windows of ``context`` tokens and their successors.

        Raises:
            InputError: there is not one.
        """
        if len(self) <= context:
            raise InputError(
                f"{len(self)} training tokens are fewer than one window of {context}; add text or shorten the context"
            )
        return (len(self) - 1) // context

    def batch(self, step: int, *, batch: int, context: int, seed: int, share: tuple[int, int] = (0, 1)) -> Batch:
        """The windows of one training step, counted from 0.

        Each epoch is a fresh random order of the file's full windows; a batch may span two epochs.
        ``share`` = (rank, ranks) picks one of ``ranks`` equal parts, which together are the batch and do not overlap.

        Raises:
            InputError: the file is shorter than one window.
        """
        windows = self.windows(context)
        rank, ranks = share
        assert batch % ranks == 0
        places = np.arange(step * batch, (step + 1) * batch).reshape(ranks, -1)[rank]
        starts = np.empty(len(places), dtype=np.int64)
        for epoch in np.unique(places // windows):
            order = _order(seed, int(epoch), windows)
            chosen = places // windows == epoch
            starts[chosen] = order[places[chosen] % windows] * context
        rows = self.tokens[starts[:, None] + np.arange(context + 1)]
        both = torch.from_numpy(rows.astype(np.int64))
        return both[:, :-1], both[:, 1:]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, windows: int) -> np.ndarray:
    """The windows of an epoch in their random order; kept, since every step of the epoch asks for it."""
    return np.random.default_rng([seed, epoch]).permutation(windows)


def windows(tokens: np.ndarray, *, context: int, batch: int) -> Iterator[Batch]:
    """Cut a stream into consecutive windows for evaluation: every token but the first is a target exactly once.

    The last, partial window comes by itself, so no batch is padded.
    """
    full = (len(tokens) - 1) // context
    for first in range(0, full, batch):
        count = min(batch, full - first)
        piece = tokens[first * context : (first + count) * context + 1].astype(np.int64)
        x = torch.from_numpy(piece)
        yield x[:-1].view(count, context), x[1:].view(count, context)
    rest = torch.from_numpy(tokens[full * context :].astype(np.int64))
    if len(rest) > 1:
        yield rest[None, :-1], rest[None, 1:]


_SIDE = {"tokens", "bytes", "stories", "sha256"}
"""What a manifest says of the training and of the validation tokens."""


class Corpus:
    """A folder made by ``frailt prepare``: training and validation tokens, tokenizer, manifest.

    Raises:
        InputError: the folder is not complete, or not as its manifest says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "manifest.json").is_file():
            raise InputError(f"{folder} holds no manifest.json; make the folder with `frailt prepare`")
        self.manifest = read_json(folder / "manifest.json")
        sides = [self.manifest.get(name) for name in ("train", "valid")]
        if "vocab_size" not in self.manifest or not all(isinstance(s, dict) and s.keys() >= _SIDE for s in sides):
            raise InputError(f"{folder / 'manifest.json'} is not a whole manifest; prepare the folder again")
        self.train = TokenFile(folder / "train.bin")
        self.valid = TokenFile(folder / "valid.bin")
        for name, tokens in (("train", self.train), ("valid", self.valid)):
            if len(tokens) != self.manifest[name]["tokens"]:
                raise InputError(
                    f"{folder / f'{name}.bin'} holds {len(tokens)} tokens, its manifest says "
                    f"{self.manifest[name]['tokens']}; delete the folder and prepare it again"
                )

    @property
    def vocab_size(self) -> int:
        """Pieces of its tokenizer."""
        return int(self.manifest["vocab_size"])

    @property
    def valid_bytes(self) -> int:
        """UTF-8 bytes of the validation stories, separators not counted."""
        return int(self.manifest["valid"]["bytes"])

    @property
    def digest(self) -> dict[str, str]:
        """What the tokens are, as hashes: for results and for telling whether a run's data is still the same."""
        return {"train": self.manifest["train"]["sha256"], "valid": self.manifest["valid"]["sha256"]}

"""Token files as training batches and as evaluation windows.

A token file is mapped and not read: BOS and story, BOS and story, one long stream. It is cut into windows of the
model's context, across story borders; `order` says which windows make the batch of a step.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from frailt.data.manifest import Manifest, Shard, TokenType
from frailt.data.order import shuffled_windows
from frailt.errors import InputError

Batch = tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]
"""Tokens and, for each, the token that follows it."""
_PIECE = 1 << 24
"""Bytes of a token file that are checked at a time."""


class TokenFile:
    """A stream of tokens on disk.

    Args:
        path: little endian.
        dtype: type of a token.

    Raises:
        InputError: the file is missing, holds fewer than two tokens, or ends within one.
    """

    def __init__(self, path: Path, dtype: TokenType = "uint16") -> None:
        self.path = path
        stored = np.dtype(dtype).newbyteorder("<")
        if not path.is_file() or path.stat().st_size < 2 * stored.itemsize:
            raise InputError(f"{path} holds no tokens; make it with `frailt prepare`")
        if path.stat().st_size % stored.itemsize:
            raise InputError(f"{path} ends within a token; delete its folder and prepare it again")
        self.tokens: np.ndarray = np.memmap(path, dtype=stored, mode="r")

    def __len__(self) -> int:
        return len(self.tokens)

    def check(self, shard: Shard, vocab_size: int) -> None:
        """Read the whole file and compare it with its manifest.

        That takes 0.8 seconds a GB where the processor computes SHA-256 and the file is in memory. Nothing is kept of
        it: a note that a file was checked could outlive the file's state.

        Raises:
            InputError: the number of tokens or the hash differs, or a token is not in the vocabulary.
        """
        again = "delete the folder and prepare it again"
        if len(self) != shard.tokens:
            raise InputError(f"{self.path} holds {len(self)} tokens, its manifest says {shard.tokens}; {again}")
        digest, largest, step = hashlib.sha256(), 0, _PIECE // self.tokens.itemsize
        for start in range(0, len(self), step):
            piece = self.tokens[start : start + step]
            digest.update(piece.data)
            largest = max(largest, int(piece.max()))
        if digest.hexdigest() != shard.sha256:
            raise InputError(f"{self.path} is damaged: its hash is not the one in its manifest; {again}")
        if largest >= vocab_size:
            raise InputError(f"{self.path} holds token {largest}, the vocabulary has {vocab_size} pieces; {again}")

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

    def rows(
        self, step: int, *, batch: int, context: int, seed: int, share: tuple[int, int] = (0, 1)
    ) -> Int[Tensor, "rows tokens"]:
        """The batch of a training step: int64 of shape ``(batch / ranks, context + 1)``, contiguous.

        Without its last column it is the input, without its first one the targets. It is one tensor so that it can be
        pinned and copied to a device as it is, and sliced there. See ``shuffled_windows`` for the arguments.

        Raises:
            InputError: the file is shorter than one window.
        """
        windows = shuffled_windows(step, windows=self.windows(context), batch=batch, seed=seed, share=share)
        rows = self.tokens[windows[:, None] * context + np.arange(context + 1)]
        return torch.from_numpy(rows.astype(np.int64))


def windows(tokens: np.ndarray, *, context: int, batch: int) -> Iterator[Batch]:
    """Cut a stream into consecutive windows for evaluation: every token but the first is a target exactly once.

    The last, partial window comes by itself, so no batch is padded.
    """
    full = (len(tokens) - 1) // context
    for start in range(0, full, batch):
        count = min(batch, full - start)
        piece = tokens[start * context : (start + count) * context + 1].astype(np.int64)
        x = torch.from_numpy(piece)
        yield x[:-1].view(count, context), x[1:].view(count, context)
    rest = torch.from_numpy(tokens[full * context :].astype(np.int64))
    if len(rest) > 1:
        yield rest[None, :-1], rest[None, 1:]


class Corpus:
    """A folder made by ``frailt prepare``: training and validation tokens, tokenizer, manifest.

    Raises:
        InputError: the folder is not complete, or not as its manifest says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self.train = self._open("train", self.manifest.train)
        self.valid = self._open("valid", self.manifest.valid)

    def _open(self, side: str, shard: Shard) -> TokenFile:
        file = TokenFile(self.folder / f"{side}.bin", self.manifest.dtype)
        file.check(shard, self.vocab_size)
        return file

    @property
    def vocab_size(self) -> int:
        """Pieces of its tokenizer."""
        return self.manifest.vocab_size

    @property
    def valid_bytes(self) -> int:
        """UTF-8 bytes of the validation stories, separators not counted."""
        return self.manifest.valid.bytes

    @property
    def digest(self) -> dict[str, str]:
        """What the tokens are, as hashes: for results and for telling whether a run's data is still the same."""
        return {"train": self.manifest.train.sha256, "valid": self.manifest.valid.sha256}

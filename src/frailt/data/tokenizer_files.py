"""Tokenizers out of files: our own ``tokenizer.json``, SentencePiece's ``*.model`` and llama2.c's ``*.bin``.

SentencePiece's file is a protobuf message with five fields that matter here. Reading those takes less than the package
`sentencepiece` would ask of every user of llama2.c's tokenizers, and every length is checked against the file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frailt.configs import from_json
from frailt.data.bpe import BPE, FIXED, SPACE
from frailt.errors import InputError, excerpt
from frailt.files import read_json

LARGEST_FILE = 64 << 20
"""Bytes of the largest file that is read; those of Llama 3 and Gemma have 9 and 33 MB."""


def load(path: Path, vocab_size: int | None = None) -> BPE:
    """The tokenizer at ``path``; of several in a folder, one that has ``vocab_size`` pieces.

    Raises:
        InputError: there is none, it is damaged, or it is of a kind that is not supported.
    """
    if not path.is_dir():
        return _read(path)
    files = [file for name in ("tokenizer.json", "tok*.model", "tok*.bin") for file in sorted(path.glob(name))]
    if not files:
        raise InputError(f"{path} holds no tokenizer.json, tok*.model or tok*.bin")
    if vocab_size is None or len(files) == 1:
        return _read(files[0])
    sizes = []
    for file in files:
        tokenizer = _read(file)
        if tokenizer.vocab_size == vocab_size:
            return tokenizer
        sizes.append(f"{file.name} has {tokenizer.vocab_size}")
    raise InputError(f"{path} holds no tokenizer of {vocab_size} pieces: {excerpt(', '.join(sizes))}")


class _DamagedError(Exception):
    """A length goes past the end of the file, or a field is of another type."""


def _read(path: Path) -> BPE:
    readers = {".json": _from_json, ".model": _from_sentencepiece, ".bin": _from_llama2c}
    if path.suffix not in readers:
        raise InputError(f"{path} is no tokenizer: give a tokenizer.json, a *.model or a *.bin")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} is larger than {LARGEST_FILE >> 20} MiB, too large for a tokenizer")
    try:
        return readers[path.suffix](path)
    except (_DamagedError, UnicodeDecodeError):
        raise InputError(f"{path} is damaged or is not a tokenizer") from None
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """``model`` of a tokenizer.json."""

    type: str
    byte_fallback: bool = False
    vocab: dict[str, int]
    merges: list[tuple[str, ...]]


def _from_json(path: Path) -> BPE:
    stored = read_json(path)
    model = from_json(_Model, stored.get("model"), f"{path}: model", ignore_unknown=True)
    ids = model.vocab
    if sorted(ids.values()) != list(range(len(ids))):
        raise InputError("the ids of the vocabulary have gaps")
    if any(len(merge) != 2 for merge in model.merges):
        raise InputError("a merge is not of two pieces")
    tokenizer = BPE(sorted(ids, key=ids.__getitem__), [(a, b) for a, b in model.merges])
    ours = tokenizer.as_json()
    alike = all(stored.get(key) == ours[key] for key in ("normalizer", "pre_tokenizer"))
    if not (alike and model.type == "BPE" and model.byte_fallback):
        raise InputError("it splits text in another way than frailt's tokenizers; prepare a new one")
    return tokenizer


def _from_sentencepiece(path: Path) -> BPE:
    """Read what says how it encodes from SentencePiece's `ModelProto`."""
    pieces, scores, kinds = [], [], []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for field, value in _fields(path.read_bytes()):
        if field == 1:
            piece = dict(_fields(value))
            pieces.append(_text(piece.get(1)))
            scores.append(_score(piece.get(2, bytes(4))))
            kinds.append(piece.get(3, 1))
        elif field == 2:
            trainer = dict(_fields(value))
        elif field == 3:
            normalizer = dict(_fields(value))
    byte_bpe = trainer.get(3) == 2 and trainer.get(35) == 1
    prefix_only = normalizer.get(3, 1) == 1 and not normalizer.get(2)
    if not (byte_bpe and prefix_only and all(kind == 1 for kind in kinds[len(FIXED) :])):
        raise InputError("it is not plain BPE with byte fallback, no normalisation and a leading space")
    return BPE.from_ranked(pieces, scores)


def _from_llama2c(path: Path) -> BPE:
    data = path.read_bytes()
    at, pieces, scores = 4, [], []  # After the length of the longest piece.
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little", signed=True)
        scores.append(_score(data[at : at + 4]))
        at += 8 + length
        if length <= 0 or at > len(data):
            raise _DamagedError
        pieces.append(_text(data[at - length : at]))
    pieces = [
        # llama2.c writes the specials with line ends around them, and spaces as they print.
        piece.strip("\n") if index < 3 else piece.replace(" ", SPACE)
        for index, piece in enumerate(pieces)
    ]
    return BPE.from_ranked(pieces, scores)


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise _DamagedError
    return value.decode()


def _score(value: Any) -> float:
    if not isinstance(value, bytes) or len(value) != 4:
        raise _DamagedError
    [score] = struct.unpack("<f", value)
    return score


def _fields(data: Any) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: integers as numbers, everything else as bytes."""
    if not isinstance(data, bytes):
        raise _DamagedError
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), at)
        if length > len(data) - at:
            raise _DamagedError
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, seven in each byte, and where it ends."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise _DamagedError

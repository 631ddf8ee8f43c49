"""Text to tokens and back: SentencePiece's BPE, as llama2.c uses it, on Hugging Face's `tokenizers`.

A vocabulary is a list of pieces. Ids 0, 1 and 2 are ``<unk>``, ``<s>`` (which opens every story) and
``</s>``; ids 3 to 258 are the 256 bytes, for characters that have no piece; learned pieces follow.
A space is written ``▁`` (U+2581) inside a piece, and a text gets one in front, so that its first word
is the same piece as the same word later on.
"""

import codecs
import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from frailt.errors import InputError
from frailt.files import read_json, write_text

BOS = 1
SPACE = "▁"
FIXED = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
"""The pieces that every vocabulary begins with."""
LARGEST = 1 << 20
"""Pieces of the largest vocabulary: several times those of any public one, so that a mistake takes little memory."""

# What training may merge: letters with letters, signs with signs, each with one space before it;
# digits stay alone. SentencePiece gets the same from its script and digit rules. Training takes time quadratic in the
# length of a word, so longer runs than any word of a language are cut.
_WORDS = r"[0-9]|▁?[\p{L}\p{M}]{1,256}|▁?[^\p{L}\p{M}0-9▁]{1,256}|▁"
_LONGEST = 16
"""Characters in the longest learned piece (SentencePiece's own default)."""


class Tokenizer:
    """A vocabulary with its merges. ``train`` and ``load`` make one.

    Encoding loses nothing: ``decode(encode(s)) == s`` for every string that UTF-8 can hold (so no
    lone surrogates). SentencePiece itself, with the settings of llama2.c, drops leading and
    trailing spaces and folds runs of them; on text without those, which is all of TinyStories, both
    give the same tokens. A ``▁`` in the text is kept as its three bytes, where SentencePiece
    would read it as a space.
    """

    bos: int = BOS
    """The token before each story."""
    ends: tuple[int, ...] = (BOS, 2)
    """Tokens that end a story which a model writes: the BOS of a next one, and ``</s>``."""

    def __init__(self, pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        """Use ``pieces`` in the order of their ids and ``merges`` in the order of their priority.

        Raises:
            InputError: the pieces do not form a vocabulary as this module describes it.
        """
        self.pieces = list(pieces)
        ids = {piece: index for index, piece in enumerate(self.pieces)}
        if self.pieces[: len(FIXED)] != FIXED:
            raise InputError("the vocabulary does not begin with <unk>, <s>, </s> and the 256 bytes")
        if len(self.pieces) > LARGEST:
            raise InputError(f"the vocabulary has {len(self.pieces)} pieces; at most {LARGEST} are possible")
        if len(ids) != len(self.pieces) or "" in ids:
            raise InputError("the vocabulary has an empty piece or holds one twice")
        if SPACE not in ids:
            raise InputError("the vocabulary has no piece for a single space")
        if any(part not in ids for a, b in merges for part in (a, b, a + b)):
            raise InputError("the vocabulary has a merge of pieces that it does not hold")
        self.merges = list(merges)
        canonical = json.dumps([self.pieces, [list(merge) for merge in merges]])
        self.digest = hashlib.sha256(canonical.encode()).hexdigest()
        """Equal for two tokenizers exactly if they encode alike, whatever files they came from."""
        # The specials are no `added_tokens`: a story that contains "<s>" must stay that text.
        self._bpe = tokenizers.Tokenizer(models.BPE(ids, list(merges), byte_fallback=True, unk_token="<unk>"))
        prefix, spaces = normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)
        self._bpe.normalizer = normalizers.Sequence([prefix, spaces])
        # For other programs that read the saved file; `decode` below goes by `_bytes`.
        to_text = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        self._bpe.decoder = decoders.Sequence([*to_text, decoders.Strip(" ", 1, 0)])
        self._bytes = [b""] * 3 + [bytes([byte]) for byte in range(256)]
        self._bytes += [piece.replace(SPACE, " ").encode() for piece in self.pieces[len(FIXED) :]]

    @classmethod
    def train(cls, stories: Iterable[str], *, vocab_size: int = 512) -> "Tokenizer":
        """Learn a vocabulary of at most ``vocab_size`` pieces, the way llama2.c trains SentencePiece.

        At most half of the learned pieces are single characters: the rarest ones beyond that, and
        line ends, are written as bytes. All ``stories`` are held in memory. The same stories
        give the same vocabulary; little text can give a smaller one than asked for.
        """
        room = vocab_size - len(FIXED)
        if not 1 <= room <= LARGEST - len(FIXED):
            raise InputError(f"vocab_size is {vocab_size}; choose one from {len(FIXED) + 1} to {LARGEST}")
        lines = [SPACE + line.replace(" ", SPACE) for story in stories for line in story.split("\n") if line]
        counts: Counter[str] = Counter()
        for line in lines:
            counts.update(line)
        counts[SPACE] = counts.total() + 1  # First in any order: every vocabulary needs it.
        by_count = sorted(counts, key=lambda character: (-counts[character], character))
        alphabet = by_count[: max(1, room // 2)]

        bpe = tokenizers.Tokenizer(models.BPE())
        # A character that is no piece separates its neighbours; left in, it would be skipped, and
        # the trainer would merge across the gap.
        others = "".join(f"\\x{{{ord(character):X}}}" for character in alphabet)
        at_others = pre_tokenizers.Split(Regex(f"[^{others}]"), "removed")
        into_words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([at_others, into_words])
        trainer = trainers.BpeTrainer(
            vocab_size=room,
            min_frequency=2,
            initial_alphabet=[SPACE],
            max_token_length=_LONGEST,
            show_progress=False,
        )
        bpe.train_from_iterator(lines, trainer)
        merged = ["".join(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
        return cls._from_ranked([*FIXED, *dict.fromkeys(merged), *alphabet])

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read ``tokenizer.json``, SentencePiece's ``*.model``, llama2.c's ``*.bin``, or a folder with one.

        Raises:
            InputError: there is no such file, or it is not such a tokenizer.
        """
        if path.is_dir():
            names = ("tokenizer.json", "tok*.model", "tok*.bin")
            found = [file for name in names for file in sorted(path.glob(name))]
            if not found:
                raise InputError(f"{path} holds no tokenizer.json, tok*.model or tok*.bin")
            path = found[0]
        readers = {".json": cls._from_json, ".model": cls._from_sentencepiece, ".bin": cls._from_llama2c}
        if path.suffix not in readers:
            raise InputError(f"{path} is no tokenizer: give a tokenizer.json, a *.model or a *.bin")
        try:
            return readers[path.suffix](path)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist") from None
        except (IndexError, KeyError, TypeError, struct.error, UnicodeDecodeError):
            raise InputError(f"{path} is damaged or is not a tokenizer") from None
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write a ``tokenizer.json`` that `tokenizers` and transformers read too, in one step."""
        write_text(path, self._bpe.to_str(pretty=True) + "\n")

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, without BOS."""
        return self.encode_stories([text])[0]

    def encode_stories(self, stories: list[str]) -> list[list[int]]:
        """The tokens of each story, without BOS."""
        ids = [encoding.ids for encoding in self._bpe.encode_batch_fast(stories, add_special_tokens=False)]
        for index, story in enumerate(stories):
            if SPACE in story:
                ids[index] = self._encode_around_marks(story)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without specials and without the space that encoding put in front.

        Bytes that are not UTF-8, which only a model can produce, become U+FFFD.
        """
        stream = self.stream()
        return "".join([*map(stream.push, ids), stream.flush()])

    def stream(self) -> "StreamDecoder":
        """A decoder that takes one token at a time."""
        return StreamDecoder(self._bytes)

    def _encode_around_marks(self, story: str) -> list[int]:
        """Encode a text that contains ``▁`` itself: the mark as bytes, the rest as always."""
        bare = tokenizers.Tokenizer(self._bpe.model)
        bare.normalizer = normalizers.Replace(" ", SPACE)
        mark = [FIXED.index("<0x00>") + byte for byte in SPACE.encode()]
        first, *others = story.split(SPACE)
        ids = list(self._bpe.encode(first).ids)
        for part in others:
            ids += [*mark, *bare.encode(part).ids]
        return ids

    @classmethod
    def _from_ranked(cls, pieces: Sequence[str], scores: Sequence[float] | None = None) -> "Tokenizer":
        """Derive the merges as SentencePiece does: any two pieces whose sum is a piece, best score first."""
        ids = {piece: index for index, piece in enumerate(pieces)}
        ranked = range(len(FIXED), len(pieces))
        if scores is not None:
            ranked = sorted(ranked, key=lambda index: -scores[index])
        cuts = ((pieces[i][:at], pieces[i][at:]) for i in ranked for at in range(1, len(pieces[i])))
        return cls(pieces, [(a, b) for a, b in cuts if a in ids and b in ids])

    @classmethod
    def _from_json(cls, path: Path) -> "Tokenizer":
        data = read_json(path)
        model = data["model"]
        ids = model["vocab"]
        if sorted(ids.values()) != list(range(len(ids))):
            raise InputError("the ids of the vocabulary have gaps")
        made = cls(sorted(ids, key=ids.__getitem__), [(a, b) for a, b in model["merges"]])
        own = json.loads(made._bpe.to_str())
        same = all(data[key] == own[key] for key in ("normalizer", "pre_tokenizer"))
        if not (same and model["type"] == "BPE" and model["byte_fallback"]):
            raise InputError("it splits text in another way than frailt's tokenizers; prepare a new one")
        return made

    @classmethod
    def _from_sentencepiece(cls, path: Path) -> "Tokenizer":
        """Read the parts of SentencePiece's `ModelProto` that say how it encodes."""
        pieces, scores, kinds = [], [], []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                piece = dict(_fields(value))
                pieces.append(piece[1].decode())
                scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                kinds.append(piece.get(3, 1))
            elif field == 2:
                trainer = dict(_fields(value))
            elif field == 3:
                normalizer = dict(_fields(value))
        byte_bpe = trainer.get(3) == 2 and trainer.get(35) == 1
        prefix_only = normalizer.get(3, 1) == 1 and not normalizer.get(2)
        if not (byte_bpe and prefix_only and set(kinds[len(FIXED) :]) <= {1}):
            raise InputError("it is not plain BPE with byte fallback, no normalisation and a leading space")
        return cls._from_ranked(pieces, scores)

    @classmethod
    def _from_llama2c(cls, path: Path) -> "Tokenizer":
        data = path.read_bytes()
        at, pieces, scores = 4, [], []  # After the length of the longest piece.
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            at += 8 + length
            if not 0 < length <= len(data) or at > len(data):
                raise IndexError("a piece goes past the end")
            pieces.append(data[at - length : at].decode())
            scores.append(score)
        pieces = [
            # llama2.c writes the specials with line ends around them, and spaces as they print.
            piece.strip("\n") if index < 3 else piece.replace(" ", SPACE)
            for index, piece in enumerate(pieces)
        ]
        return cls._from_ranked(pieces, scores)


class StreamDecoder:
    """Tokens in, text out, never a half character: what ``push`` and ``flush`` give adds up to ``decode``."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def push(self, token: int) -> str:
        """The text that became certain with ``token``: empty while a character is incomplete."""
        if not 0 <= token < len(self._pieces):
            raise InputError(f"token {token} is not in the vocabulary of {len(self._pieces)} pieces")
        piece = self._pieces[token]
        if self._at_start and piece:
            self._at_start = False
            piece = piece.removeprefix(b" ")
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character, else nothing."""
        return self._utf8.decode(b"", final=True)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: integers as numbers, everything else as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        at += length
        if at > len(data):
            raise IndexError("a field goes past the end")
        yield key >> 3, data[at - length : at]

"""SentencePiece's BPE, as llama2.c uses it, on Hugging Face's `tokenizers`.

A vocabulary is a list of pieces. Ids 0, 1 and 2 are ``<unk>``, ``<s>`` (which opens every story) and
``</s>``; ids 3 to 258 are the 256 bytes, for characters that have no piece; learned pieces follow.
A space is written ``▁`` (U+2581) inside a piece, and a text gets one in front, so that its first word
is the same piece as the same word later on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from threading import Thread
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from frailt.data.tokenizer import StreamDecoder, Tokenizer
from frailt.errors import InputError
from frailt.files import write_text

BOS, EOS = 1, 2
SPACE = "▁"
FIXED = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
"""The pieces that every vocabulary begins with."""
LARGEST = 1 << 20
"""Pieces of the largest vocabulary: several times those of any public one, so that a mistake takes little memory."""
LONGEST_PIECE = 256
"""Characters of the longest piece: finding the merges takes time quadratic in it."""

# What training may merge: letters with letters, signs with signs, each with one space before it;
# digits stay alone. SentencePiece gets the same from its script and digit rules. Training takes time quadratic in the
# length of a word, so longer runs than any word of a language are cut.
_WORDS = r"[0-9]|▁?[\p{L}\p{M}]{1,256}|▁?[^\p{L}\p{M}0-9▁]{1,256}|▁"
_LONGEST = 16
"""Characters in the longest learned piece (SentencePiece's own default)."""


class BPE(Tokenizer):
    """A vocabulary with its merges.

    SentencePiece itself, with the settings of llama2.c, drops leading and trailing spaces and folds runs of them; on
    text without those, which is all of TinyStories, both give the same tokens. A ``▁`` in the text is kept as its three
    bytes, where SentencePiece would read it as a space.
    """

    bos = BOS
    ends = (BOS, EOS)

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
        if max(map(len, self.pieces)) > LONGEST_PIECE:
            raise InputError(f"the vocabulary has a piece of more than {LONGEST_PIECE} characters")
        self._bytes = [b""] * 3 + [bytes([byte]) for byte in range(256)]
        try:
            self._bytes += [piece.replace(SPACE, " ").encode() for piece in self.pieces[len(FIXED) :]]
        except UnicodeEncodeError:
            raise InputError("the vocabulary has a piece with half a surrogate pair, which is no text") from None
        if SPACE not in ids:
            raise InputError("the vocabulary has no piece for a single space")
        if any(part not in ids for a, b in merges for part in (a, b, a + b)):
            raise InputError("the vocabulary has a merge of pieces that it does not hold")
        self.merges = list(merges)
        canonical = json.dumps([self.pieces, [list(merge) for merge in merges]])
        self.digest = hashlib.sha256(canonical.encode()).hexdigest()
        # The specials are no `added_tokens`: a story that contains "<s>" must stay that text.
        self._bpe = tokenizers.Tokenizer(models.BPE(ids, list(merges), byte_fallback=True, unk_token="<unk>"))
        prefix, spaces = normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)
        self._bpe.normalizer = normalizers.Sequence([prefix, spaces])
        # For other programs that read the saved file; `decode` below goes by `_bytes`.
        to_text = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        self._bpe.decoder = decoders.Sequence([*to_text, decoders.Strip(" ", 1, 0)])

    @staticmethod
    def train(stories: Iterable[str], *, vocab_size: int = 512) -> "BPE":
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
        interruptible(partial(bpe.train_from_iterator, lines, trainer))
        merged = ["".join(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
        return BPE.from_ranked([*FIXED, *dict.fromkeys(merged), *alphabet])

    @classmethod
    def from_ranked(cls, pieces: Sequence[str], scores: Sequence[float] | None = None) -> "BPE":
        """Derive the merges as SentencePiece does: any two pieces whose sum is a piece, best score first.

        Raises:
            InputError: a piece is too long, a score is no number, or the pieces do not form a vocabulary.
        """
        if any(len(piece) > LONGEST_PIECE for piece in pieces):
            raise InputError(f"the vocabulary has a piece of more than {LONGEST_PIECE} characters")
        ids = {piece: index for index, piece in enumerate(pieces)}
        ranked = range(len(FIXED), len(pieces))
        if scores is not None:
            if any(map(isnan, scores)):
                raise InputError("the score of a piece is no number")
            ranked = sorted(ranked, key=lambda index: -scores[index])
        cuts = ((pieces[i][:at], pieces[i][at:]) for i in ranked for at in range(1, len(pieces[i])))
        return cls(pieces, [(a, b) for a, b in cuts if a in ids and b in ids])

    def as_json(self) -> dict[str, Any]:
        """What a tokenizer.json holds."""
        return json.loads(self._bpe.to_str())

    def save(self, path: Path) -> None:
        write_text(path, self._bpe.to_str(pretty=True) + "\n")

    def encode_stories(self, stories: list[str]) -> list[list[int]]:
        try:
            encoded = self._bpe.encode_batch_fast(stories, add_special_tokens=False)
        except TypeError:  # `tokenizers` has no better word for it.
            raise InputError("the text holds half a surrogate pair, which is no character; remove it") from None
        ids = [encoding.ids for encoding in encoded]
        for index, story in enumerate(stories):
            if SPACE in story:
                ids[index] = self._encode_around_marks(story)
        return ids

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self._bytes)

    def _encode_around_marks(self, story: str) -> list[int]:
        """Encode a text that contains ``▁`` itself: the mark as bytes, the rest as always."""
        bare = tokenizers.Tokenizer(self._bpe.model)
        bare.normalizer = normalizers.Replace(" ", SPACE)
        mark = [FIXED.index("<0x00>") + byte for byte in SPACE.encode()]
        start, *rest = story.split(SPACE)
        ids = list(self._bpe.encode(start).ids)
        for text in rest:
            ids += [*mark, *(bare.encode(text).ids if text else ())]
        return ids


def interruptible(call: Callable[[], object]) -> None:
    """Make a call into compiled code that takes long, so that Ctrl-C ends the wait for it at once.

    An interrupted call goes on in its thread until it returns or the process ends.
    """
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=catch, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]

"""What the package asks of a tokenizer: text to tokens and back."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from frailt.errors import InputError


class Tokenizer(ABC):
    """Text to tokens and back. ``load`` and ``train`` make one.

    Encoding loses nothing: ``decode(encode(s)) == s`` for every string that UTF-8 can hold.
    """

    bos: int
    """The token before each story."""
    ends: tuple[int, ...]
    """Tokens that end a story which a model writes: the BOS of a next one, and an end token."""
    pieces: list[str]
    """The vocabulary, in the order of the tokens."""
    digest: str
    """Equal for two tokenizers exactly if they encode alike, whatever files they were read from."""

    @staticmethod
    def load(path: Path | str, vocab_size: int | None = None) -> "Tokenizer":
        """Read ``tokenizer.json``, SentencePiece's ``*.model``, llama2.c's ``*.bin``, or a folder with one.

        Args:
            path: the file or folder.
            vocab_size: of several tokenizers in a folder, take the one that has this many pieces.

        Raises:
            InputError: there is no such file, it is not such a tokenizer, or none has ``vocab_size`` pieces.
        """
        from frailt.data.tokenizer_files import load

        return load(Path(path), vocab_size)

    @staticmethod
    def train(stories: Iterable[str], *, vocab_size: int = 512) -> "Tokenizer":
        """Learn a vocabulary of at most ``vocab_size`` pieces from text: a ``BPE``."""
        from frailt.data.bpe import BPE

        return BPE.train(stories, vocab_size=vocab_size)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @abstractmethod
    def encode_stories(self, stories: list[str]) -> list[list[int]]:
        """The tokens of each story, without BOS, computed on all cores.

        Raises:
            InputError: a story holds half a surrogate pair, which is no text.
        """

    @abstractmethod
    def stream(self) -> "StreamDecoder":
        """A decoder that takes one token at a time."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write a ``tokenizer.json`` that `tokenizers` and transformers read too, atomically."""

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, without BOS."""
        return self.encode_stories([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without specials and without the space that encoding put in front.

        Bytes that are not UTF-8, which only a model can produce, become U+FFFD.
        """
        stream = self.stream()
        return "".join([*map(stream.push, ids), stream.flush()])


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

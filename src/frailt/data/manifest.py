"""What ``manifest.json`` of a prepared folder says: where the stories came from and what the token files hold."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from frailt.configs import from_json, require
from frailt.errors import InputError, excerpt
from frailt.files import read_json, write_json

FORMAT = 1
"""The version of the folder's layout."""
TokenType = Literal["uint16", "uint32"]
"""The type of a token on disk, little endian."""


def token_type(vocab_size: int) -> TokenType:
    """The smallest type that holds every token of a vocabulary."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where stories came from: a text file, or the story world."""

    use: str
    """``text``, or ``valid`` for a file of validation stories."""
    name: str
    """Of the file. It may be renamed: the contents count."""
    stories: int | None = None
    """Number of stories of the story world."""
    seed: int | None = None
    """Seed of the story world."""
    sha256: str
    """Of the file, or of the first stories of the story world."""
    bytes: int | None = None
    """Size of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings that decide what is in the folder."""

    vocab_size: int
    tokenizer: str | None
    """Digest of the tokenizer that was given; None where one was trained."""
    valid_fraction: float | None
    """None where validation files were given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """What a token file holds."""

    stories: int
    tokens: int
    """Including a BOS before each story."""
    bytes: int
    """UTF-8 bytes of the stories, separators not counted."""
    sha256: str

    def __post_init__(self) -> None:
        require(self, "stories tokens bytes", 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The manifest; what earlier versions did not write has a default."""

    format: int = FORMAT
    sources: tuple[Source, ...] = ()
    settings: Settings | None = None
    tokenizer: str = ""
    """Digest of the tokenizer."""
    vocab_size: int
    dtype: TokenType = "uint16"
    bos: int = 1
    """The token before each story."""
    ends: tuple[int, ...] = (1, 2)
    """Tokens that end a generated story: the next one's BOS, and EOS."""
    train: Shard
    valid: Shard
    dropped: int = 0
    """Training stories that were left out because they are validation stories too."""

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size <= 1 << 32:
            raise InputError(f"vocab_size is {self.vocab_size}")
        if not all(0 <= token < self.vocab_size for token in (self.bos, *self.ends)):
            raise InputError(f"bos or ends is outside of the vocabulary of {self.vocab_size} pieces")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of ``folder``.

        Raises:
            InputError: it is missing, damaged, or of another version.
        """
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"{folder} holds no manifest.json; make the folder with `frailt prepare`")
        stored = read_json(path)
        if stored.get("format", FORMAT) != FORMAT:
            raise InputError(f"{path} is of format {excerpt(stored['format'])}, which this version cannot read")
        try:
            return from_json(cls, stored, str(path))
        except InputError as error:
            raise InputError(f"{error}; delete the folder and prepare it again") from None

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``."""
        sources = [{key: value for key, value in asdict(s).items() if value is not None} for s in self.sources]
        write_json(folder / "manifest.json", asdict(self) | {"sources": sources})

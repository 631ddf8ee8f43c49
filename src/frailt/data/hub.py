"""TinyStories from the Hugging Face Hub."""

from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download

from frailt.errors import InputError

DATASET = "roneneldan/TinyStories"
FILES = {
    "v1": ("TinyStories-train.txt", "TinyStories-valid.txt"),
    "v2": ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
}
"""Training and validation file of each version; about 2 GB together."""


def fetch(version: Literal["v1", "v2"], *, endpoint: str | None = None, cache: Path | None = None) -> tuple[Path, Path]:
    """Download the training and the validation file, or find them in the cache.

    ``endpoint`` and ``cache`` are the server and the folder; by default those of `huggingface_hub`,
    which reads ``HF_ENDPOINT`` and ``HF_HOME``.

    Raises:
        InputError: they cannot be had.
        OSError: the disk is full or cannot be written.
    """
    train, valid = FILES[version]
    return _download(train, endpoint, cache), _download(valid, endpoint, cache)


def _download(name: str, endpoint: str | None, cache: Path | None) -> Path:
    try:
        return Path(hf_hub_download(DATASET, name, repo_type="dataset", endpoint=endpoint, cache_dir=cache))
    except Exception as error:
        # What a broken connection raises differs between versions of the library and of what it
        # stands on; only an error of the disk says something else.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = error
        while first.__cause__:
            first = first.__cause__
        reason = (str(first).strip() or type(first).__name__).splitlines()[0]
        raise InputError(
            f"{name} could not be downloaded ({reason}); get it by hand from the dataset {DATASET} and "
            "name the files with --text and --valid"
        ) from error

"""TinyStories from the Hugging Face Hub."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from frailt.errors import InputError, excerpt

DATASET = "roneneldan/TinyStories"
FILES = {
    "v1": ("TinyStories-train.txt", "TinyStories-valid.txt"),
    "v2": ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
}
"""Training and validation file of each version; about 2 GB together."""

_HTTP = import_module(HfHubHTTPError.__bases__[0].__module__)
"""The HTTP client of this version of huggingface_hub: httpx or its successor."""
_REFUSALS = (OSError, ValueError, ImportError, RuntimeError, _HTTP.HTTPError, _HTTP.InvalidURL)
"""What a download ends with. ImportError is of a proxy that needs another package, RuntimeError of hf_xet."""


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
    except _REFUSALS as error:
        if isinstance(error, OSError) and error.errno is not None:  # Of the disk.
            raise
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise InputError(
            f"{name} could not be downloaded ({excerpt(reason)}); get it by hand from the dataset {DATASET} and "
            "name the files with --text and --valid"
        ) from error

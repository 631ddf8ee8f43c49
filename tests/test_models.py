"""The models that come with the package."""

from pathlib import Path

import pytest

from frailt import models
from frailt.inference.storyteller import load
from frailt.model.counts import count

FOLDERS = [path.parent for path in Path(models.__file__).parent.glob("*/config.json")]


def test_they_are_small() -> None:
    files = [file for folder in FOLDERS for file in folder.iterdir()]
    assert models.BEST in FOLDERS
    assert sum(file.stat().st_size for file in files) < 8_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_each_has_its_weights_tokenizer_and_card(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    storyteller = load(folder)
    parameters = count(storyteller.config).parameters
    assert (folder / "model.safetensors").stat().st_size < 2 * parameters + 10_000, "in bfloat16"
    assert f"{parameters:,} parameters" in (folder / "README.md").read_text(encoding="utf-8")
    told = storyteller.generate(["Once upon a time"] * 4)
    assert all(" the " in text for text in told), "it has learned English"

"""Batches and windows: what is read, in which order, and how often."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import make_corpus
from damage import check_refusals, damaged_bytes, damaged_json
from hypothesis import given
from hypothesis import strategies as st

from frailt.data.corpus import Corpus, TokenFile, windows
from frailt.errors import InputError
from frailt.files import sha256, write_json


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus") / "data", stories=20)


def token_file(folder: Path, count: int) -> TokenFile:
    """Tokens 0, 1, 2, ...: a token tells where it stood."""
    np.arange(count, dtype="<u2").tofile(folder / "tokens.bin")
    return TokenFile(folder / "tokens.bin")


def starts(file: TokenFile, steps: range, *, batch: int, context: int, seed: int = 0) -> list[int]:
    return [int(row[0]) for step in steps for row in file.rows(step, batch=batch, context=context, seed=seed)]


@pytest.mark.parametrize("count", [101, 107, 110])
def test_an_epoch_is_every_full_window_once(tmp_path: Path, count: int) -> None:
    file = token_file(tmp_path, count)
    for epoch in range(3):
        read = starts(file, range(5 * epoch, 5 * epoch + 5), batch=2, context=10)
        assert sorted(read) == list(range(0, 100, 10))


def test_epochs_and_seeds_have_their_own_orders(tmp_path: Path) -> None:
    file = token_file(tmp_path, 1001)
    orders = [starts(file, range(epoch, epoch + 1), batch=100, context=10) for epoch in range(3)]
    orders += [starts(file, range(1), batch=100, context=10, seed=seed) for seed in (1, 2)]
    assert len(set(map(tuple, orders))) == 5
    assert all(order != sorted(order) for order in orders)
    again = TokenFile(tmp_path / "tokens.bin")
    assert starts(again, range(2, 3), batch=100, context=10) == orders[2], "depends on what was read before"


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 12])
def test_the_order_does_not_depend_on_the_size_of_a_batch(tmp_path: Path, batch: int) -> None:
    file = token_file(tmp_path, 51)  # Five windows: most of these batches span two epochs, twelve spans three.
    whole = starts(file, range(1), batch=60, context=10)
    assert starts(file, range(60 // batch), batch=batch, context=10) == whole
    assert sorted(whole) == sorted([0, 10, 20, 30, 40] * 12)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_ranks_split_a_batch_without_overlap(tmp_path: Path, ranks: int) -> None:
    file = token_file(tmp_path, 8 * 7 + 1)  # Seven windows: the second batch spans two epochs.
    for step in range(3):
        whole = file.rows(step, batch=6, context=8, seed=0)
        parts = [file.rows(step, batch=6, context=8, seed=0, share=(rank, ranks)) for rank in range(ranks)]
        assert {len(rows) for rows in parts} == {6 // ranks}
        assert torch.equal(torch.cat(parts), whole)


def test_targets_are_the_tokens_that_follow(tmp_path: Path) -> None:
    rows = token_file(tmp_path, 51).rows(3, batch=4, context=10, seed=7)
    assert rows.shape == (4, 11)
    assert rows.dtype == torch.int64
    assert rows.is_contiguous(), "it is pinned and copied to a device as it is"
    assert torch.equal(rows[:, 1:], rows[:, :-1] + 1)


def test_a_file_of_one_window_is_enough_and_less_is_not(tmp_path: Path) -> None:
    assert starts(token_file(tmp_path, 11), range(3), batch=1, context=10) == [0, 0, 0]
    with pytest.raises(InputError, match="10 training tokens are fewer than one window of 10; add text or shorten"):
        token_file(tmp_path, 10).rows(0, batch=1, context=10, seed=0)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.bin").write_bytes(b"")
    for name in ("missing.bin", "empty.bin"):
        with pytest.raises(InputError, match=rf"{name} holds no tokens; make it with `frailt prepare`"):
            TokenFile(tmp_path / name)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 5))
def test_windows_have_every_token_but_the_first_as_a_target_once(count: int, context: int, batch: int) -> None:
    pairs = list(windows(np.arange(count, dtype=np.uint16), context=context, batch=batch))
    assert [token for _, y in pairs for token in y.flatten().tolist()] == list(range(1, count))
    for x, y in pairs:
        assert torch.equal(y, x + 1)
        assert len(x) <= batch
    assert all(x.shape[1] == context for x, _ in pairs[:-1])
    if pairs and (count - 1) % context:
        assert pairs[-1][0].shape == (1, (count - 1) % context), "the last, partial window comes by itself"


def test_a_corpus_knows_its_folder(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "data", stories=20)
    assert Corpus(str(corpus.folder)).manifest == corpus.manifest
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert corpus.vocab_size == 300
    assert len(corpus.train) == manifest["train"]["tokens"]
    assert corpus.valid_bytes == manifest["valid"]["bytes"]
    assert corpus.digest == {side: manifest[side]["sha256"] for side in ("train", "valid")}
    assert corpus.digest["train"] != corpus.digest["valid"]


def test_an_incomplete_corpus_is_refused(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data", stories=20).folder
    with pytest.raises(InputError, match=r"nowhere holds no manifest.json; make the folder with `frailt prepare`"):
        Corpus(tmp_path / "nowhere")
    whole = (folder / "valid.bin").read_bytes()
    (folder / "valid.bin").write_bytes(whole[:-2])
    with pytest.raises(InputError, match=r"valid.bin holds \d+ tokens, its manifest says \d+; delete the folder"):
        Corpus(folder)
    (folder / "valid.bin").write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"valid.bin"):
        Corpus(folder)
    (folder / "valid.bin").unlink()
    with pytest.raises(InputError, match=r"valid.bin holds no tokens"):
        Corpus(folder)
    (folder / "valid.bin").write_bytes(whole)
    Corpus(folder)


def test_tokens_are_checked_when_a_corpus_is_opened(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data", stories=20).folder
    whole = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(InputError, match=r"train.bin is damaged: its hash is not the one in its manifest; delete the"):
        Corpus(folder)
    (folder / "train.bin").write_bytes(b"\xff" * len(whole))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["train"]["sha256"] = sha256(folder / "train.bin")
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"train.bin holds token 65535, the vocabulary has 300 pieces; delete the"):
        Corpus(folder)


def test_what_earlier_versions_did_not_write_has_a_default(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data", stories=20).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("dtype", "bos", "ends"):
        del manifest[key]
    write_json(folder / "manifest.json", manifest)
    read = Corpus(folder).manifest
    assert (read.dtype, read.bos, read.ends) == ("uint16", 1, (1, 2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "16"),
        ("vocab_size", "[" * 100 + "]" * 100),
        ("vocab_size", "1" + "0" * 5000),
        ("vocab_size", "NaN"),
        ("vocab_size", "0"),
        ("format", "2"),
        ("train", "31"),
        ("train", "{}"),
        ("valid", '{"stories": {}, "tokens": 3, "bytes": 3, "sha256": ""}'),
        ("valid", '{"stories": 1, "tokens": -3, "bytes": 3, "sha256": ""}'),
        ("sources", "[false]"),
        ("settings", '"none"'),
        ("dtype", '"float64"'),
        ("dtype", '"uint32"'),
        ("bos", "300"),
        ("ends", "[-1]"),
        ("later", "1"),
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(corpus: Corpus, tmp_path: Path, key: str, value: str) -> None:
    shutil.copytree(corpus.folder, tmp_path / "data")
    text = json.dumps(json.loads((corpus.folder / "manifest.json").read_text()))
    (tmp_path / "data" / "manifest.json").write_text(f'{text[:-1]}, "{key}": {value}}}')
    with pytest.raises(InputError) as caught:
        Corpus(tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize("text", ["", "[1", "{}", "5", "[" * 100_000, '{"format": NaN}'], ids=lambda text: text[:5])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json"):
        Corpus(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "train.bin", "valid.bin"])
def test_a_damaged_corpus_is_refused_in_one_line(corpus: Corpus, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(corpus.folder, tmp_path / "data")
    damage = damaged_json if name == "manifest.json" else damaged_bytes
    contents = damage((folder / name).read_bytes(), 100)
    assert check_refusals(folder / name, contents, lambda path: Corpus(path.parent)) > 80

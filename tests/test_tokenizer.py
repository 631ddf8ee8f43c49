"""Text to tokens and back: equal to SentencePiece on real text, and without loss on any text."""

import io
import json
import re
import signal
import struct
import threading
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from damage import check_refusals, damaged_bytes, damaged_json
from hypothesis import given
from hypothesis import strategies as st
from models import tiny
from shared_data import STORIES, TOK512, needs_shared

import frailt
from frailt.data.bpe import BOS, BPE, FIXED, SPACE, interruptible
from frailt.data.storyworld import stories as story_world
from frailt.data.text import read_stories
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.model.checkpoint import save_model

TEXT = """Lily and Ben went to the park. They saw a big red ball, and they played with it all day.
"Look!" said Lily. "The ball is so big!" Ben said, "Yes, and it is red. I like the ball."
Then the sun went down, and they went home. The end. They had 12 apples and 12 pears, 1212 in all."""
OWN = BPE.train([TEXT], vocab_size=330)

# Characters that a tokenizer may trip over, and words that have pieces.
tricky = st.lists(
    st.sampled_from([*"ab \n\t\r1!▁é🙂\x00\ufeff\u200d", "  ", "<s>", "<0x41>", "</s>", "<unk>", "the ", "ball"])
).map("".join)


@pytest.fixture(scope="module")
def tok512() -> Tokenizer:
    return Tokenizer.load(TOK512 / "tok512.model")


def merges(tokenizer: Tokenizer, folder: Path) -> list[list[str]]:
    tokenizer.save(folder / "tokenizer.json")
    return json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]


@given(st.one_of(st.text(), tricky))
def test_decoding_gives_the_text_back(text: str) -> None:
    assert OWN.decode(OWN.encode(text)) == text


@given(st.one_of(st.text(), tricky))
def test_a_stream_adds_up_to_the_decoded_text(text: str) -> None:
    ids = OWN.encode(text)
    stream = OWN.stream()
    assert "".join([*map(stream.push, ids), stream.flush()]) == text


@given(st.lists(st.integers(0, OWN.vocab_size - 1)))
def test_any_tokens_decode_the_same_streamed_or_not(ids: list[int]) -> None:
    stream = OWN.stream()
    parts = [*map(stream.push, ids), stream.flush()]
    assert "".join(parts) == OWN.decode(ids)


def test_pieces_of_several_spaces_lose_one_at_the_start() -> None:
    wide = BPE([*FIXED, "▁", "▁▁", "a"], [("▁", "▁")])
    for text in ("a", " a", "  a", "   a  ", " "):
        assert wide.decode(wide.encode(text)) == text


def test_a_stream_never_shows_half_a_character() -> None:
    stream = OWN.stream()
    shown = [stream.push(token) for token in OWN.encode("🙂")]
    assert [part for part in shown if part] == ["🙂"]
    assert stream.flush() == ""
    cut = OWN.encode("🙂")[:-1]
    assert OWN.decode(cut) == "\ufffd"


def test_specials_are_not_text() -> None:
    assert OWN.decode([BOS, *OWN.encode("the ball"), 2, 0]) == "the ball"
    # Written in a story, they are ordinary characters.
    assert not {0, 1, 2} & set(OWN.encode("<s> the </s> <unk>"))


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    for token in (-1, OWN.vocab_size):
        with pytest.raises(InputError, match="not in the vocabulary"):
            OWN.decode([token])


def test_a_batch_is_its_stories_one_by_one() -> None:
    stories = [TEXT, "", " ", "▁ marks ▁", "🙂"]
    assert OWN.encode_stories(stories) == [OWN.encode(story) for story in stories]
    assert OWN.encode_stories([]) == []


def test_training_follows_the_rules(tmp_path: Path) -> None:
    assert OWN.pieces[: len(FIXED)] == FIXED
    assert FIXED[0:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert OWN.vocab_size == 330
    assert "▁the" in OWN.pieces
    for piece in OWN.pieces[len(FIXED) :]:
        assert SPACE not in piece[1:], "a piece crosses a space"
        assert "\n" not in piece
        word = piece.removeprefix(SPACE)
        assert len(word) <= 1 or word.isalpha() or not any(c.isalnum() for c in word), "letters with signs"
        assert len(piece) == 1 or not any(c.isdigit() for c in piece), "digits stay alone"
    single = [piece for piece in OWN.pieces[len(FIXED) :] if len(piece) == 1]
    assert len(single) <= (330 - len(FIXED)) // 2
    # As in SentencePiece, every way to cut a piece into two others is a merge, in the order of the pieces.
    order = list(dict.fromkeys(a + b for a, b in merges(OWN, tmp_path)))
    assert order == [piece for piece in OWN.pieces[len(FIXED) :] if piece in set(order)]


def test_training_is_deterministic_and_bounds_the_alphabet() -> None:
    assert Tokenizer.train([TEXT], vocab_size=330).digest == OWN.digest
    many = [*[TEXT] * 3, "".join(map(chr, range(0x4E00, 0x4E00 + 400)))]
    crowded = Tokenizer.train(many, vocab_size=330)
    assert sum(len(piece) > 1 for piece in crowded.pieces[len(FIXED) :]) >= (330 - len(FIXED)) // 2
    # What has no piece takes its bytes, and does not join its neighbours.
    assert crowded.decode(crowded.encode("一the")) == "一the"
    for between in ("\n", "一"):
        # Three characters get a piece: the space, a and b. What stands between a and b has none.
        apart = Tokenizer.train(["a b"] * 99 + [f"a{between}b"] * 9, vocab_size=len(FIXED) + 6)
        assert apart.pieces[len(FIXED) :] == ["▁a", "▁b", "▁", "a", "b"]


@pytest.mark.parametrize("size", [0, 259, 1_048_577])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="choose one from 260 to 1048576"):
        Tokenizer.train([TEXT], vocab_size=size)


def test_little_text_gives_a_small_vocabulary() -> None:
    small = Tokenizer.train(["ab"], vocab_size=512)
    assert small.pieces[len(FIXED) :] == [SPACE, "a", "b"]
    assert Tokenizer.train([], vocab_size=512).decode(small.encode("")) == ""


def test_a_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    OWN.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert (loaded.digest, loaded.pieces) == (OWN.digest, OWN.pieces)
        assert loaded.encode(TEXT) == OWN.encode(TEXT)
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert other.encode(TEXT).ids == OWN.encode(TEXT)
    assert other.decode(OWN.encode(TEXT + " 🙂")) == TEXT + " 🙂"


def test_of_several_tokenizers_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    for size in (280, 300, 320):
        tokenizer = BPE.train([TEXT], vocab_size=size)
        (tmp_path / f"tok{size}.bin").write_bytes(
            llama2c_form(tokenizer.pieces, [-float(index) for index in range(size)])
        )
    assert Tokenizer.load(tmp_path).vocab_size == 280
    assert Tokenizer.load(tmp_path, 300).digest == BPE.train([TEXT], vocab_size=300).digest
    save_model(tiny(vocab_size=300), tmp_path)
    assert frailt.load(tmp_path).tokenizer.vocab_size == 300
    assert frailt.load(tmp_path, tokenizer=tmp_path).tokenizer.vocab_size == 300
    with pytest.raises(InputError, match=r"no tokenizer of 310 pieces: tok280.bin has 280, tok300.bin has 300"):
        Tokenizer.load(tmp_path, 310)


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(InputError, match="half a surrogate pair"):
        OWN.encode("a\ud83d")


def test_training_takes_time_linear_in_the_length_of_a_word() -> None:
    # Quadratic, this would be minutes.
    assert BPE.train(["=" * 2_000_000, "x" * 2_000_000], vocab_size=300).vocab_size < 300


def llama2c_form(pieces: list[str], scores: list[float]) -> bytes:
    """A vocabulary as llama2.c's tokenizer.py exports it from SentencePiece."""
    lines = ["<unk>", "\n<s>\n", "\n</s>\n", *(piece.replace("▁", " ") for piece in pieces[3:])]
    encoded = [line.encode() for line in lines]
    rows = [struct.pack("<fI", score, len(piece)) + piece for score, piece in zip(scores, encoded, strict=True)]
    return struct.pack("<I", max(map(len, encoded))) + b"".join(rows)


def test_the_digest_tells_tokenizers_apart() -> None:
    assert Tokenizer.train([TEXT], vocab_size=320).digest != OWN.digest
    fewer_merges = BPE(OWN.pieces, [])
    assert fewer_merges.digest != OWN.digest


def broken_files(folder: Path) -> dict[str, bytes]:
    OWN.save(folder / "good.json")
    good = json.loads((folder / "good.json").read_text())
    gap = {**good, "model": {**good["model"], "vocab": {"a": 5}}}
    byte_level = {**good, "normalizer": None}

    def changed(**parts: object) -> bytes:
        return json.dumps({**good, "model": {**good["model"], **parts}}).encode()

    return {
        "empty.json": b"",
        "list.json": b"[]",
        "other.json": b"{}",
        "gap.json": json.dumps(gap).encode(),
        "byte_level.json": json.dumps(byte_level).encode(),
        "empty.model": b"",
        "text.model": b"not a model at all",
        "empty.bin": b"",
        "text.bin": b"not a tokenizer at all, but text that goes on",
        "list_vocab.json": changed(vocab=[]),
        "short_merge.json": changed(merges=[["a"]]),
        "text_merges.json": changed(merges="1"),
        "surrogate.json": changed(vocab=good["model"]["vocab"] | {"\ud800": OWN.vocab_size}),
        "deep.json": b"[" * 100_000,
        "digits.json": b'{"model": 1' + b"1" * 5000 + b"}",
        "long_piece.json": changed(vocab=good["model"]["vocab"] | {"x" * 1000: OWN.vocab_size}),
        "number_for_piece.model": b"\x0a\x02\x08\x01",
        "long_number.model": b"\x08" + b"\xff" * 1_000_000,
        "long_piece.model": b"\x0a\x84\x80\x40\x0a\x80\x80\x40" + b"x" * (1 << 20),
        "long_piece.bin": bytes(8) + (1 << 20).to_bytes(4, "little") + b"x" * (1 << 20),
        "nan.bin": bytes(4) + b"\xff\xff\xff\x7f\x01\x00\x00\x00a",
        "vocab.txt": b"a",
    }


def test_anything_else_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    files = broken_files(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in [*files, "empty", "missing.json", "missing.bin", "missing"]:
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name))) as caught:
            Tokenizer.load(tmp_path / name)
        assert "\n" not in str(caught.value), name


@pytest.fixture(scope="module")
def oracle() -> Any:
    """SentencePiece itself, trained on the story world with the settings of llama2.c."""
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for story in story_world(300) for line in story.text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        unk_surface=" \u2047 ",
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def files(oracle: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The oracle's vocabulary in every form that is read, by suffix."""
    folder = tmp_path_factory.mktemp("tokenizer")
    paths = {suffix: folder / f"tok400{suffix}" for suffix in (".model", ".bin", ".json")}
    paths[".model"].write_bytes(oracle.serialized_model_proto())
    pieces = [oracle.id_to_piece(index) for index in range(400)]
    paths[".bin"].write_bytes(llama2c_form(pieces, [oracle.get_score(index) for index in range(400)]))
    Tokenizer.load(paths[".model"]).save(paths[".json"])
    return paths


@pytest.mark.parametrize("suffix", [".model", ".bin", ".json"])
def test_every_form_encodes_as_sentencepiece_does(oracle: Any, files: dict[str, Path], suffix: str) -> None:
    tokenizer = Tokenizer.load(files[suffix])
    stories = [story.text for story in story_world(200, seed=1)]
    stories += ["Café 🙂 1234 ÉÉ", "a\nb", TEXT]
    assert tokenizer.encode_stories(stories) == oracle.encode(stories)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_stories(stories)] == stories
    assert tokenizer.digest == Tokenizer.load(files[".model"]).digest
    assert tokenizer.pieces == [oracle.id_to_piece(index) for index in range(400)]


@given(data=st.data())
def test_any_folded_text_is_encoded_as_sentencepiece_does(
    oracle: Any, files: dict[str, Path], data: st.DataObject
) -> None:
    words = st.text(st.sampled_from("abcdehinorst.,!?\"'\n19éT"), min_size=1)
    text = " ".join(data.draw(st.lists(words)))
    assert loaded(files[".model"]).encode(text) == oracle.encode(text)


@cache
def loaded(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


@pytest.mark.parametrize("suffix", [".model", ".bin", ".json"])
def test_damaged_files_are_refused_in_one_line(files: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    content = files[suffix].read_bytes()
    damaged = (damaged_json if suffix == ".json" else damaged_bytes)(content, 150)
    assert check_refusals(tmp_path / f"tok{suffix}", damaged, Tokenizer.load) > 100
    cut = (content[:length] for length in (3, 100, len(content) // 2))
    assert check_refusals(tmp_path / f"tok{suffix}", cut, Tokenizer.load) == 3


def test_a_piece_longer_than_the_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "long.model").write_bytes(files[".model"].read_bytes() + b"\x0a\x30\x0a\x03\xe6\xbc\xa2")
    with pytest.raises(InputError, match=r"long\.model is damaged"):
        Tokenizer.load(tmp_path / "long.model")


@needs_shared
def test_all_forms_of_tok512_agree(tok512: Tokenizer, tmp_path: Path) -> None:
    tok512.save(tmp_path / "tokenizer.json")
    forms = [TOK512 / "tok512.bin", TOK512, tmp_path]
    for other in map(Tokenizer.load, forms):
        assert other.digest == tok512.digest
        assert other.pieces == tok512.pieces
    assert tok512.vocab_size == 512


@needs_shared
def test_tok512_encodes_real_text_as_sentencepiece_does(tok512: Tokenizer) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(TOK512 / "tok512.model"))
    valid = read_stories([STORIES / "valid_v1.txt.xz", STORIES / "valid_v2.txt.xz"])
    train = read_stories([STORIES / "train_v2.txt.xz"])
    stories = [*islice(valid, 300), *islice(train, 300)]
    assert len(stories) == 600
    ours = tok512.encode_stories(stories)
    theirs = oracle.encode(stories)
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 0
    assert [tok512.decode(ids) for ids in ours] == stories


def test_ctrl_c_ends_the_wait_for_compiled_code() -> None:
    done = threading.Event()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            interruptible(done.wait)
    finally:
        signal.signal(signal.SIGALRM, before)
        done.set()

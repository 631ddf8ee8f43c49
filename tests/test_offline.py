"""Measures without a judge: what repeats, what was copied, what surprises, which facts are kept; and beginnings."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from models import tiny
from shared_data import STORIES, needs_shared

from frailt.data.storyworld import probes, stories
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.evaluation.judge import overlap as overlap_module
from frailt.evaluation.judge import students
from frailt.evaluation.judge.beginnings import (
    Beginning,
    halves,
    held_out_beginnings,
    read_beginnings,
    sentences,
    shipped_beginnings,
)
from frailt.evaluation.judge.offline import distinct, facts_kept, measure, perplexity, repetition
from frailt.evaluation.judge.overlap import SEEN, overlap, words
from frailt.evaluation.judge.students import Completion, StoryConfig, complete, completions_of, labels, weights_of
from frailt.files import read_json
from frailt.inference.sampling import Sampling
from frailt.inference.storyteller import Token
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.model.checkpoint import save_model

TRAINING = [
    "Tom had a red ball. He liked to roll the red ball down the long hill every day.",
    "A cat sat on the mat and saw a dog.",
    "One day, it rained.",
]


@pytest.fixture(scope="module")
def teller() -> TorchStoryteller:
    tokenizer = Tokenizer.train([story.text for story in stories(30)], vocab_size=300)
    return TorchStoryteller(tiny("1^2", vocab_size=300, context=128), tokenizer)


def completion(text: str, beginning: str = "Once", index: int = 0) -> Completion:
    return Completion(beginning=beginning, text=text, index=index)


# Overlap


def test_overlap_by_hand() -> None:
    copied = "Then he liked to roll the red ball down the long hill, and it rained."
    [found, none, empty] = overlap([copied, "Zebras quarrel.", ""], TRAINING)
    assert found.longest == 11, "he liked to roll the red ball down the long hill"
    assert found.seen == pytest.approx(4 / 8), "4 of its 8 runs of 8 words"
    own = {*zip(words(copied), words(copied)[1:], strict=False)}
    best = max(
        2 * len(own & theirs) / (len(own) + len(theirs))
        for text in TRAINING
        for theirs in [{*zip(words(text), words(text)[1:], strict=False)}]
    )
    assert found.rouge_2 == pytest.approx(best)
    assert (none.longest, none.rouge_2, none.seen) == (0, 0, None)
    assert (empty.longest, empty.rouge_2, empty.seen) == (0, 0, None)


def naive(text: str, training: list[str]) -> tuple[float, float | None, int]:
    """The same, slowly."""
    own = words(text)

    def grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    longest = 0
    for n in range(1, len(own) + 1):
        if {*grams(own, n)} & {gram for story in training for gram in grams(words(story), n)}:
            longest = n
    runs, known = grams(own, SEEN), {gram for story in training for gram in grams(words(story), SEEN)}
    pairs = {*grams(own, 2)}
    rouge = 0.0
    for story in training:
        theirs = {*grams(words(story), 2)}
        if pairs or theirs:
            rouge = max(rouge, 2 * len(pairs & theirs) / (len(pairs) + len(theirs)))
    return rouge, sum(run in known for run in runs) / len(runs) if runs else None, longest


@pytest.mark.parametrize("chunk", [1, 50, 10_000])
def test_overlap_is_what_a_slow_search_finds(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the pieces in which the training text is read, and across no story's end."""
    monkeypatch.setattr(overlap_module, "_CHUNK", chunk)
    chance = random.Random(0)
    training = [" ".join(chance.choices("abcd", k=chance.randrange(0, 40))) for _ in range(30)]
    texts = [" ".join(chance.choices("abcde", k=chance.randrange(0, 30))) for _ in range(20)]
    texts += [training[3], training[5] + " " + training[6]]
    for text, found in zip(texts, overlap(texts, iter(training)), strict=True):
        rouge, seen, longest = naive(text, training)
        assert found.rouge_2 == pytest.approx(rouge)
        assert found.longest == longest
        assert found.seen == (None if seen is None else pytest.approx(seen))


def test_overlap_ignores_case_and_punctuation() -> None:
    [found] = overlap(["THE CAT, sat; on the mat: and saw a dog!"], TRAINING)
    assert found.longest == 9
    assert found.seen == pytest.approx(2 / 3), "a cat, where the text has the cat"


@needs_shared
def test_held_out_stories_are_less_copied_than_training_stories() -> None:
    from itertools import islice

    from frailt.data.text import read_stories

    training = list(islice(read_stories([STORIES / "train_v2.txt.xz"]), 400))
    held_out = list(islice(read_stories([STORIES / "valid_v2.txt.xz"]), 5))
    found = overlap([*training[:5], *held_out], training)
    assert all(one.seen == 1 and one.rouge_2 == pytest.approx(1) for one in found[:5])
    assert all(one.seen is not None and one.seen < 0.3 and one.longest < 20 for one in found[5:])


# Repetition


def test_distinct_and_repeated_runs() -> None:
    assert distinct([["a", "b", "a"], ["a"]], 1) == 0.5
    assert distinct([["a", "b", "a"], ["a", "b"]], 2) == pytest.approx(2 / 3), "pairs do not cross texts"
    assert distinct([[], ["a"]], 2) == 0
    assert repetition(["the", "cat", "sat", "on", "the", "cat", "sat", "on"]) == pytest.approx(1 - 4 / 5)
    assert repetition(["a"] * 103) == pytest.approx(0.99)
    assert repetition(["a", "b", "c"]) == 0


# Perplexity


def test_perplexity_counts_the_completion_alone(teller: TorchStoryteller) -> None:
    """Against the model's own log-probabilities, one token after the other."""
    written = completion(" there was a red ball. Lily had it.", "One day")
    given = [teller.tokenizer.bos, *teller.tokenizer.encode("One day")]
    whole = [teller.tokenizer.bos, *teller.tokenizer.encode("One day" + written.text)]
    assert whole[: len(given)] == given
    with torch.inference_mode():
        scores = teller.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    nats = -sum(scores[i - 1, whole[i]].item() for i in range(len(given), len(whole)))
    found = perplexity(teller, [written])
    assert found is not None
    assert found.value == pytest.approx(math.exp(nats / (len(whole) - len(given))), rel=1e-4)
    assert found.interval is None


def test_perplexity_of_what_is_long_or_empty(teller: TorchStoryteller) -> None:
    assert perplexity(teller, [completion("")]) is None
    text = " Lily had a red ball." * 60
    assert len(teller.tokenizer.encode(text)) > 128
    found, shorter = perplexity(teller, [completion(text)]), perplexity(teller, [completion(text[:400])])
    assert found is not None
    assert shorter is not None
    assert 1 < found.value < 1000
    beyond = perplexity(teller, [completion(" end.", text)])
    assert beyond is None, "the beginning alone fills the reference's context"
    both = perplexity(teller, [completion(" ball.", "A"), completion(" was.", "B"), completion("", "C")])
    assert both is not None
    assert both.interval is not None


# Facts


class Oracle(TorchStoryteller):
    """Goes on as its book says."""

    def __init__(self, book: dict[str, str]) -> None:
        self.book = book

    def generate(self, prompts, sampling=None, *, iterations=None, early_exit=None):
        assert sampling is not None
        assert sampling.temperature == 0
        return [self.book[prompt] for prompt in prompts]


def test_facts_kept_and_broken() -> None:
    asked = list(probes(40))
    right = {probe.prompt: f" {probe.answer}." for probe in asked}
    wrong = {probe.prompt: f" {probe.alternatives[0]}." for probe in asked}
    found = facts_kept(Oracle(right), 40)
    assert (found.kept.value, found.broken.value) == (1, 0)
    found = facts_kept(Oracle(wrong), 40)
    assert (found.kept.value, found.broken.value) == (0, 1)
    found = facts_kept(Oracle({probe.prompt: " xyzzy" for probe in asked}), 40)
    assert (found.kept.value, found.broken.value) == (0, 0)
    assert 0.1 < found.chance < 0.5
    with pytest.raises(InputError, match="probes is 0"):
        facts_kept(Oracle({}), 0)


def test_all_measures_at_once(teller: TorchStoryteller) -> None:
    texts = {"a": [completion(TRAINING[0], str(i)) for i in range(3)], "b": [completion(" Yes.", "1")]}
    found = measure(texts, training_text=TRAINING, reference=teller)
    assert found["a"].seen is not None
    assert found["a"].seen.value == 1
    assert found["b"].seen is None, "no text of 8 words"
    assert found["b"].rouge_2 is not None
    assert found["b"].rouge_2.value == 0
    assert found["a"].perplexity is not None
    assert (found["a"].distinct_3, found["a"].completions) == (pytest.approx(found["a"].distinct_3), 3)
    bare = measure(texts)
    assert (bare["a"].rouge_2, bare["a"].longest, bare["a"].perplexity) == (None, None, None)


# Beginnings


def test_the_projects_own_beginnings() -> None:
    own = shipped_beginnings()
    assert len(own) >= 12
    assert all(20 <= len(words(one.text)) <= 80 for one in own)
    assert all(one.text == one.text.strip() and one.ending is None for one in own)
    assert all(one.text[-1] not in '.!?"' for one in own), "something is about to happen"


@needs_shared
def test_the_tinystories_papers_beginnings_can_be_read() -> None:
    found = read_beginnings(STORIES / "story_beginnings.yaml")
    assert len(found) == 30
    own = {one.text for one in shipped_beginnings()}
    assert not own & {one.text for one in found}


def test_beginnings_in_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One day\n<|endoftext|>\n  Tom was\nsad, so \n<|endoftext|>\n", encoding="utf-8")
    assert [one.text for one in read_beginnings(path)] == ["One day", "Tom was\nsad, so"]
    path.write_text("One day\n\nTom was\n", encoding="utf-8")
    assert [one.text for one in read_beginnings(path)] == ["One day", "Tom was"]
    yaml = tmp_path / "a.yaml"
    yaml.write_text("- Words: ball. Tom was\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a.yaml is not a YAML list of texts"):
        read_beginnings(yaml)
    path.write_bytes(b"\xef\xbb\xbfOne\xe2\x80\xa8day\r\nTom\x0bwas\rBen\x85had".replace(b"\x85", b"\xc2\x85"))
    assert [one.text for one in read_beginnings(path)] == ["One\u2028day", "Tom\x0bwas", "Ben\x85had"]
    listed = tmp_path / "a.json"
    listed.write_text('["One \\ud83d\\ude00 day", "Tom"]', encoding="utf-8")
    assert [one.text for one in read_beginnings(listed)] == ["One \U0001f600 day", "Tom"]
    yaml.write_text('- "Words: ball.\\nStory: Tom was"\n- Ben had\n', encoding="utf-8")
    assert [one.text for one in read_beginnings(yaml)] == ["Words: ball.\nStory: Tom was", "Ben had"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"", "not a YAML list of texts"),
        ("a.yaml", b"- [", "line 1: not valid YAML"),
        ("a.yaml", b"- 3\n", "not a YAML list of texts"),
        ("a.yaml", b"!!python/object/apply:os.system ['true']", "not a YAML list of texts"),
        ("a.yaml", b"- !!bool x", "not a YAML list of texts"),
        ("a.yaml", b"- !!int x", "not a YAML list of texts"),
        ("a.yaml", b'- "\\UFFFFFFFF"', "not valid YAML"),
        ("a.yaml", b"[" * 900 + b"]" * 900, "not"),
        ("a.yaml", b'- One\n- "\\ud800 x"', "line 2: half of a pair of surrogates"),
        ("a.json", b'{"a": 1}', "not a YAML list of texts"),
        ("a.txt", b"One\n\0", "NUL characters"),
        ("a.txt", b"x" * ((1 << 20) + 1), "larger than 1 MiB"),
        ("a.txt", b"\n\n", "holds no beginning"),
        ("a.txt", b"One\nOne\n", "holds a beginning twice"),
        ("a.txt", b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_bad_beginnings_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_beginnings(tmp_path / name)


def test_stories_are_cut_in_the_middle() -> None:
    story = 'Tom ran. He fell down.\nBen said, "Get up!" Tom got up. The end.'
    cut = halves(story)
    assert cut is not None
    assert cut.text + (cut.ending or "") == story
    assert cut.text.endswith("He fell down.") or cut.text.endswith('"Get up!"')
    assert halves("One. Two.") is None
    assert sentences(' Ben said, "Get up!" Tom got up.\nThe end.') == ['Ben said, "Get up!"', "Tom got up.", "The end."]
    found = held_out_beginnings([story, "No.", story + " Yes."], 2)
    assert len(found) == 2
    with pytest.raises(InputError, match="give 1 beginnings, not 2"):
        held_out_beginnings([story, "No."], 2)
    with pytest.raises(InputError, match="give 0 beginnings"):
        held_out_beginnings([story], 1, least=9)


# Students


def test_completions_are_spread_over_the_beginnings(teller: TorchStoryteller) -> None:
    given = [Beginning(text="One"), Beginning(text="Two"), Beginning(text="Three")]
    found = complete(teller, given, 7, Sampling(max_tokens=6))
    assert [one.beginning for one in found] == ["One", "Two", "Three"] * 2 + ["One"]
    assert [one.index for one in found] == [0, 0, 0, 1, 1, 1, 2]
    assert len({one.text for one in found}) == 7, "a beginning that is given again is completed in another way"


def test_stories_are_written_once(teller: TorchStoryteller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(teller.model, tmp_path / "model")
    given = [Beginning(text="One"), Beginning(text="Two")]

    def written(count: int = 3, seed: int = 0) -> list[Completion]:
        options = Sampling(max_tokens=5, seed=seed)
        return completions_of("m/x", weights_of(tmp_path / "model"), teller, given, count, options, tmp_path / "out")

    first = written()
    monkeypatch.setattr(TorchStoryteller, "write", lambda *_, **__: pytest.fail("it writes again"))
    assert written() == first
    monkeypatch.undo()
    assert written(seed=1) != first
    assert len(written(4)) == 4
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 3
    whole = json.loads(files[0].read_text())
    for change in ({}, {"written": [{}]}, {"written": whole["written"][::-1]}, {"written": [[]]}, {"written": "x"}):
        for file in files:
            file.write_text(json.dumps({**whole, **change} if change else {}))
        with pytest.raises(InputError, match="is damaged; delete it"):
            written()


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterSampling(Sampling):
    """What a later version may have."""

    penalty: float = 0.0


def test_a_later_setting_at_its_default_changes_no_identity(teller: TorchStoryteller, tmp_path: Path) -> None:
    def files(sampling: Sampling) -> set[str]:
        completions_of("m", "1234", teller, [Beginning(text="One")], 1, sampling, tmp_path)
        return {path.name for path in tmp_path.iterdir()}

    now = files(Sampling(max_tokens=2, seed=3))
    assert now == {"m-e8fff4cf1bbe.json"}, "as the first version names it"
    assert files(LaterSampling(max_tokens=2, seed=3)) == now
    assert len(files(LaterSampling(max_tokens=2, seed=3, penalty=0.5))) == 2


def test_a_cut_off_writing_goes_on_with_the_same_stories(
    teller: TorchStoryteller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(teller.model, tmp_path / "model")
    given = [Beginning(text="One"), Beginning(text="Two")]
    whole, told = TorchStoryteller.write, list[tuple[float, str]]()
    monkeypatch.setattr(students, "BATCH", 3)

    def written(folder: str) -> list[Completion]:
        told.clear()
        options = Sampling(max_tokens=5)
        return completions_of(
            "m",
            weights_of(tmp_path / "model"),
            teller,
            given,
            8,
            options,
            tmp_path / folder,
            report=lambda done, state: told.append((done, state)),
        )

    def cut_off(self: TorchStoryteller, prompts: list[str], sampling: Sampling, *, rows: range) -> Iterator[Token]:
        for token in whole(self, prompts, sampling, rows=rows):
            yield token
            if token.row == 4:
                raise KeyboardInterrupt

    expected = written("whole")
    monkeypatch.setattr(TorchStoryteller, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        written("cut")
    monkeypatch.undo()
    [file] = (tmp_path / "cut").iterdir()
    assert len(read_json(file)["written"]) == 3, "the batch that was complete"
    assert written("cut") == expected
    assert told[0] == (3, "3/8 stories"), "it goes on after them"
    assert (3, "3/8 stories, token 1 of at most 5") in told
    assert told[-1] == (8, "8/8 stories")
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    [again] = (tmp_path / "cut").iterdir()
    assert again == file
    assert expected == complete(teller, given, 8, Sampling(max_tokens=5)), "all side by side"


def test_labels_tell_models_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert labels([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert labels([Path("x/runs/a"), Path("y/runs/a"), Path("y/runs/b")]) == ["x/runs/a", "y/runs/a", "y/runs/b"]
    monkeypatch.chdir(tmp_path)
    assert labels([Path()]) == [tmp_path.name], "the folder one is in has a name too"
    for twice in ([Path("a"), Path("a")], [Path("a"), tmp_path / "b/../a"]):
        with pytest.raises(InputError, match="named twice"):
            labels(twice)


def test_every_beginning_has_as_many_completions_by_default(tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    for beginnings, number in ((1, 32), (10, 40), (16, 32), (50, 50)):
        given.write_text("\n".join(f"Story {i}" for i in range(beginnings)))
        assert StoryConfig(beginnings=given).number() == number
    assert StoryConfig().number() % len(shipped_beginnings()) == 0
    assert StoryConfig(held_out=(given,)).number() == 32
    assert StoryConfig(completions=5).number() == 5

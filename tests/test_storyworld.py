"""The story world: the same stories every time, in good grammar, that agree with what their world knows."""

import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from frailt.data.storyworld import Probe, Story, probes, probes_of, stories

WORD = re.compile("[A-Za-z]+")


@pytest.fixture(scope="module")
def sample() -> list[Story]:
    return list(stories(2_000, seed=7))


def test_stories_depend_on_seed_and_number_alone() -> None:
    assert list(stories(5)) == list(stories(10))[:5]
    assert [story.text for story in stories(5)] != [story.text for story in stories(5, seed=1)]
    assert list(probes(5)) == list(probes(10))[:5]


def test_stories_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from frailt.data.storyworld import probes, stories;"
        "print([s.text for s in stories(20)], [(p.prompt, p.answer, p.alternatives) for p in probes(20)])"
    )
    hashed = os.environ | {"PYTHONHASHSEED": "1"}
    told = subprocess.run([sys.executable, "-c", code], env=hashed, capture_output=True, text=True, check=True)
    here = [s.text for s in stories(20)], [(p.prompt, p.answer, p.alternatives) for p in probes(20)]
    assert told.stdout == " ".join(map(str, here)) + "\n"


def test_stories_differ(sample: list[Story]) -> None:
    texts = {story.text for story in sample}
    openings = Counter(re.split(r"[.!]\s(?=[A-Z])", story.text)[0] for story in sample)
    assert len(texts) == len(sample)
    assert len(openings) > 0.85 * len(sample)
    assert max(openings.values()) < 20


def test_stories_are_small_and_plain(sample: list[Story]) -> None:
    lengths = sorted(len(story.text) for story in sample)
    assert all(story.text.isascii() for story in sample)
    assert lengths[0] >= 400
    assert lengths[len(sample) // 2] < 1_000
    assert lengths[-1] < 1_800
    vocabulary = Counter(word.lower() for story in sample for word in WORD.findall(story.text))
    assert 600 < len(vocabulary) < 1_200
    assert sum(number >= 5 for number in vocabulary.values()) > 0.9 * len(vocabulary)


@pytest.mark.parametrize(
    "mistake",
    [
        r"\b[Aa] [aeiou]",
        r"\b[Aa]n [^aeiou]",
        r"  | \n|\n |\n\n",
        r"[{}\[\]_|]",
        r" [.,!?]",
        r'[.!?]"? (?!((he|she|they) )?(said|asked|called|cried|shouted|sang|thought)\b)[a-z]',
        r"[,.] ?[,.]",
        r"[a-z] [.]|\bI (was|am|were)n\b",
        r"\b(\w+) \1\b",
        r"\b(He|She|They|he|she|they) (had|was|were) (him|her|them)self",
        r"\b([A-Z]\w+) and \1\b",
        r"\bthe home\b|\bto at\b|\bin in\b",
        r"\b([A-Z]\w+) (gave|handed) \1\b|\b([A-Z]\w+) (met|saw) \3\b",
        r"\b(She|He) were\b|\bThey was\b|\band [A-Z]\w+ was (scared|afraid|so|very|glad|happy)\b",
        r"[a-z]\"",
    ],
)
def test_no_mistake_in_the_grammar(sample: list[Story], mistake: str) -> None:
    wrong = [story.text[found.start() - 40 :][:80] for story in sample if (found := re.search(mistake, story.text))]
    assert wrong == []


def test_paragraphs_are_whole(sample: list[Story]) -> None:
    for story in sample:
        for paragraph in story.text.split("\n"):
            assert re.match(r'"?[A-Z]', paragraph), paragraph
            assert re.search(r'[.!?]"?$', paragraph), paragraph
            assert paragraph.count('"') % 2 == 0, paragraph
            for speech in paragraph.split('"')[1::2]:
                assert re.fullmatch(r"[A-Z].*[.,!?]", speech), paragraph


def test_facts_follow_from_the_history(sample: list[Story]) -> None:
    for story in sample:
        holder: dict[str, str | None] = {}
        owner: dict[str, str] = {}
        place: dict[str, str] = {}
        for event in story.facts.history:
            match event.verb:
                case "goes":
                    assert place.get(event.who) != event.place, story.text
                    place[event.who] = event.place
                case "gets":
                    assert holder.get(event.thing) != event.who, story.text
                    holder[event.thing] = event.who
                case "loses":
                    holder[event.thing] = None
                case "owns":
                    owner[event.thing] = event.who
        assert holder == story.facts.holder
        assert owner == story.facts.owner
        assert place == {name: where for name, where in story.facts.place.items() if name in place}


def test_the_summing_up_agrees_with_the_facts(sample: list[Story]) -> None:
    said = [
        (story, *found)
        for story in sample
        for found in re.findall(r"(?:In the end,|Now|day was over,) (\w+) had the (\w+ \w+)\.", story.text)
    ]
    assert len(said) > 400
    for story, name, thing in said:
        assert story.facts.holder[thing] == name, story.text


def test_everything_in_the_facts_is_in_the_text(sample: list[Story]) -> None:
    for story in sample:
        for thing in story.facts.holder:
            assert thing in story.text
        for name in story.facts.feeling:
            assert name in story.text


def test_a_story_keeps_its_probes_and_alternatives_break_them(sample: list[Story]) -> None:
    asked = [probe for story in sample for probe in probes_of(story)]
    assert {probe.kind for probe in asked} == {"name", "thing", "look", "place", "spot"}
    for probe in asked:
        assert probe.story.text.startswith(probe.prompt + " ")
        assert probe.check(probe.story.text[len(probe.prompt) :]) is True
        assert probe.alternatives
        for wrong in probe.alternatives:
            assert probe.check(f" {wrong}.") is False
            assert wrong in WORD.findall(probe.prompt)
        assert probe.answer in WORD.findall(probe.prompt), "the story must have said it before"


def test_about_half_of_the_stories_ask_something(sample: list[Story]) -> None:
    share = sum(bool(probes_of(story)) for story in sample) / len(sample)
    assert 0.4 < share < 0.9


def test_probes_are_of_stories_that_are_not_told(sample: list[Story]) -> None:
    told = {story.text for story in sample}
    asked = list(probes(200, seed=7))
    assert len(asked) == 200
    assert all(probe.story.text not in told for probe in asked)
    assert len({probe.kind for probe in asked}) >= 4


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (" Lily.", True),
        (" Lily's mom", True),
        (' "Lily', True),
        (" lily", True),
        (" Tom.", False),
        (" Zoe!", False),
        (" Lilyx", None),
        (" a dog", None),
        (" ", None),
        ("", None),
        ("...", None),
    ],
)
def test_check_reads_the_first_word(completion: str, verdict: bool | None) -> None:
    [story] = stories(1)
    assert Probe("Now, the red ball was with", "Lily", ("Tom",), "name", story).check(completion) is verdict


def test_a_place_may_come_with_its_small_words() -> None:
    [story] = stories(1)
    probe = Probe("Lily was", "pond", ("park",), "place", story)
    assert [probe.check(text) for text in ("at the pond", " In the park.", "the sea")] == [
        True,
        False,
        None,
    ]


def test_no_stories_and_no_probes() -> None:
    assert list(stories(0)) == []
    assert list(itertools.islice(probes(0), 1)) == []

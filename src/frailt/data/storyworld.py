"""A small story world: children's stories made up on the spot, so that everything here runs with no network.

A story is played before it is told. A cast with things and places follows a plot from `storyworld_words`, step by
step; a step changes the world (who is where, who holds what, who feels how) and then a line tells it. So the world
knows what is true at the end, and can ask a model about it: a `Probe` stops a story right before a word that the
story so far decides. A model learns the grammar of these stories first and their consistency much later.

Story k of a seed depends on the seed and k alone.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count as numbers
from itertools import islice
from random import Random
from typing import Any

from frailt.data import storyworld_words as words


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a story that changed its world."""

    verb: str
    who: str
    to: str | None = None
    thing: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true when a story ends. Things are named with their look, as in "red ball"."""

    holder: Mapping[str, str | None]
    """Who has each thing; None where it is eaten or used up."""
    owner: Mapping[str, str]
    """Whose each thing is."""
    place: Mapping[str, str]
    """Where each character is."""
    feeling: Mapping[str, str]
    """How each character felt last, for those whose feelings the story tells."""
    history: tuple[Event, ...]
    """The events in their order; replaying them gives the facts."""


@dataclass(frozen=True, slots=True)
class Story:
    """A story and what its world knows about it."""

    text: str
    """Paragraphs, one on each line."""
    facts: Facts
    blanks: tuple[tuple[int, str], ...]
    """Where the text decides its next word (the end of the text before it) and the kind of that word."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a story decides, with the answers that it could have had."""

    prompt: str
    answer: str
    alternatives: tuple[str, ...]
    """Wrong answers that the story mentions as well."""
    kind: str
    """What the answer is: "name", "thing", "look", "place", "spot" or "skill"."""

    def check(self, completion: str) -> bool | None:
        """Read the first word of a completion.

        Returns:
            True for the answer, False for any other word of its kind, None for a word that says neither.
        """
        found = re.match(r"[\s\"]*([A-Za-z]+)", completion)
        word = found[1].lower() if found else ""
        if word == self.answer.lower():
            return True
        return False if word in _known(self.kind) else None


@dataclass(frozen=True, slots=True)
class Probe(Question):
    """A question in a story's own words: its prompt is the story up to the word that is asked for."""

    story: Story


def stories(count: int, *, seed: int = 0) -> Iterator[Story]:
    """Make up ``count`` stories; fewer of the same seed are the start of more."""
    return (_tell(f"{seed}:{index}") for index in range(count))


def probes(count: int, *, seed: int = 0) -> Iterator[Probe]:
    """Make up ``count`` probes, from stories that ``stories`` gives for no seed."""
    found = (probe for index in numbers() for probe in probes_of(_tell(f"probe:{seed}:{index}"))[-1:])
    return islice(found, count)


def probes_of(story: Story) -> list[Probe]:
    """The places where a story decides its next word and mentions another that would fit."""
    found = []
    for end, kind in story.blanks:
        prompt = story.text[:end]
        answer = _WORD.findall(story.text[end : end + 30])[0]
        seen = set(_WORD.findall(prompt))
        others = sorted((_candidates(story, kind) & seen) - {answer})
        if others:
            found.append(Probe(prompt, answer, tuple(others), kind, story))
    return found


def questions(story: Story) -> list[Question]:
    """Ask who has each thing, whose it is and where each character is, when the story is over."""
    facts = story.facts
    holders = {thing: name for thing, name in facts.holder.items() if name}
    asked = [
        ("name", "Who has the {}?", holders, facts.place),
        ("name", "Whose is the {}?", facts.owner, facts.place),
        ("place", "Where is {}?", facts.place, facts.place.values()),
    ]
    return [
        Question(prompt.format(about), answer, tuple(sorted({*others} - {answer})), kind)
        for kind, prompt, answers, others in asked
        for about, answer in answers.items()
    ]


_WORD = re.compile("[A-Za-z]+")
_BLANKS = {"a": "name", "o.noun": "thing", "o.look": "look", "p.noun": "place", "x.noun": "spot"}
"""What kind of word a slot holds."""


@cache
def _known(kind: str) -> frozenset[str]:
    """Every word of a kind, in small letters."""
    match kind:
        case "name":
            known = words.NAMES
        case "thing":
            finds = (find for _, finds, _ in words.PLACES.values() for find in finds.split())
            known = {*words.TOYS, *words.FOODS, *words.MATERIALS, *finds}
        case "look":
            known = {*words.COLOURS, *words.TASTES, *words.WEAR, *words.FINDS}
        case "place":
            known = {*words.PLACES, "home"}
        case _:
            known = {spot.split()[1] for _, _, spots in words.PLACES.values() for spot in spots.split("|")}
    return frozenset(word.lower() for word in known)


def _candidates(story: Story, kind: str) -> set[str]:
    """The words of a kind that a story could have used in a blank."""
    if kind == "name":
        return set(story.facts.place)
    if kind in ("thing", "look"):
        return {thing.split()[kind == "thing"] for thing in story.facts.holder}
    return set(_known(kind))


@dataclass(frozen=True, slots=True)
class _Character:
    name: str
    he: str
    kind: str = ""
    intro: str = ""
    was: str = "was"
    him: str = ""
    his: str = ""
    He: str = ""
    His: str = ""
    Intro: str = ""

    def __str__(self) -> str:
        return self.name


_FORMS = {"she": ("her", "her"), "he": ("him", "his"), "they": ("them", "their")}


@cache
def _character(name: str, he: str, kind: str) -> _Character:
    """Work out the forms of a character; a parent is introduced by name alone."""
    article = "an" if kind[:1] in "aeiou" else "a"
    little = "little " if kind in ("girl", "boy") else ""
    intro = f"{'a' if little else article} {little}{kind} named {name}" if kind else name
    him, his = _FORMS[he]
    was = "were" if he == "they" else "was"
    return _Character(name, he, kind, intro, was, him, his, he.title(), his.title(), _capital(intro))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class _Thing:
    look: str
    noun: str
    a: str
    play: str
    played: str
    where: str

    def __str__(self) -> str:
        return f"{self.look} {self.noun}"


@cache
def _thing(look: str, noun: str) -> _Thing:
    play, played, where = words.TOYS.get(noun, ("", "", ""))
    return _Thing(look, noun, f"{'an' if look[0] in 'aeiou' else 'a'} {look} {noun}", play, played, where)


@dataclass(frozen=True, slots=True)
class _Spot:
    prep: str
    noun: str

    @property
    def a(self) -> str:
        return f"{self.prep} {'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def __str__(self) -> str:
        return f"{self.prep} the {self.noun}"


@dataclass(frozen=True, slots=True)
class _Place:
    noun: str
    at: str
    finds: tuple[str, ...] = ()
    spots: tuple[_Spot, ...] = ()

    def __str__(self) -> str:
        return f"the {self.noun}"


_PLACES = {
    noun: _Place(
        noun,
        f"{prep} the {noun}",
        tuple(finds.split()),
        tuple(_Spot(*spot.split(" ", 1)) for spot in spots.split("|")),
    )
    for noun, (prep, finds, spots) in words.PLACES.items()
}
_HOME = _Place("home", "at home")


def _routes() -> dict[tuple[str, str], str]:
    """For two places that are not side by side, the first place on a shortest way between them."""
    beside: dict[str, list[str]] = {noun: [] for noun in _PLACES}
    for path in words.PATHS.split("|"):
        one, other = path.split()
        beside[one].append(other)
        beside[other].append(one)
    first: dict[tuple[str, str], str] = {}
    for start in beside:
        reached = {start: ""}
        queue = [start]
        for here in queue:
            for there in beside[here]:
                if there not in reached:
                    reached[there] = reached[here] or (here if here != start else "")
                    queue.append(there)
        first |= {(start, end): via for end, via in reached.items() if via}
    return first


_VIA = _routes()
_SCRIPTS = [
    (
        (plot if "return" in plot else plot + words.HOMEWARD).replace("TIME", words.TIME),
        moral,
    )
    for plot, moral in words.PLOTS.values()
]

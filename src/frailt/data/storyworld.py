"""A small story world: children's stories made up on the spot, so that everything here runs with no network.

A story is played before it is told. A cast with things and places follows a plot from `storyworld_words`,
step by step; a step changes the world (who is where, who holds what, who feels how) and then a line tells it.
So the world knows what is true at the end, and can ask a model about it: a `Probe` stops a story right before
a word that the story so far decides. Grammar is learned from these stories first, consistency much later.

Story k of a seed depends on the seed and k alone.
"""

import itertools
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, NamedTuple, TypeVar

from frailt.data import storyworld_words as words

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a story that changed its world."""

    verb: str
    """ "goes" (to a place), "gets" or "owns" (a thing), or "loses" (a thing that nobody has from now on)."""
    who: str
    """Empty for "loses"."""
    thing: str = ""
    place: str = ""


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
class Probe:
    """A question in a story's own words: its prompt is the story up to the word that is asked for."""

    prompt: str
    answer: str
    alternatives: tuple[str, ...]
    """Wrong answers that the story mentions as well."""
    kind: str
    """What the answer is: "name", "thing", "look", "place" or "spot"."""
    story: Story

    def check(self, completion: str) -> bool | None:
        """Read the first word of a completion, after small words such as "at the".

        Returns:
            True for the answer, False for any other word of its kind, None for a word that says neither.
        """
        match = re.match(r"[\s\"]*(?:(?:at|in|on|the|a|an)\s+)*([a-z]+)", completion, re.IGNORECASE)
        word = match[1].lower() if match else ""
        if word == self.answer.lower():
            return True
        return False if word in _known(self.kind) else None


def stories(count: int, *, seed: int = 0) -> Iterator[Story]:
    """Make up ``count`` stories; fewer of the same seed are the start of more."""
    return (_tell(f"{seed}:{index}") for index in range(count))


def probes(count: int, *, seed: int = 0) -> Iterator[Probe]:
    """Make up ``count`` probes, from stories that ``stories`` gives for no seed."""
    asked = ((index, probes_of(_tell(f"probe:{seed}:{index}"))) for index in itertools.count())
    # A story has several at times; taking one of each keeps probes independent.
    return itertools.islice((found[index % len(found)] for index, found in asked if found), count)


def probes_of(story: Story) -> list[Probe]:
    """The places where a story decides its next word and mentions another that would fit."""
    found = []
    for end, kind in story.blanks:
        prompt = story.text[:end]
        answer = _WORD.findall(story.text[end : end + 30])[0]
        seen = set(_WORD.findall(prompt))
        others = sorted(seen.intersection(_candidates(story, kind)) - {answer})
        if others:
            found.append(Probe(prompt, answer, tuple(others), kind, story))
    return found


_WORD = re.compile("[A-Za-z]+")


@cache
def _known(kind: str) -> frozenset[str]:
    """Every word of a kind, in small letters."""
    places = words.PLACES.values()
    finds = [find for _, finds, _ in places for find in finds.split()]
    known = {
        "name": [*itertools.chain(*_NAMES.values()), *words.PARENTS],
        "thing": [*words.TOYS, *_FOODS, *_MATERIALS, *finds],
        "look": [*_COLOURS, *_TASTES, *_WEAR, *_FINDS],
        "place": [*words.PLACES, "home"],
        "spot": [spot.split()[1] for _, _, spots in places for spot in spots.split("|")],
    }
    return frozenset(word.lower() for word in known[kind])


def _candidates(story: Story, kind: str) -> Iterable[str]:
    """The words of a kind that a blank of a story could have had, mentioned or not."""
    match kind:
        case "name":
            return story.facts.place
        case "thing" | "look":
            return (thing.split()[kind == "thing"] for thing in story.facts.holder)
        case _:
            return _known(kind) - {"home"}


class _Character(NamedTuple):
    """A character, or two who do something together, with all the forms that lines need."""

    names: tuple[str, ...]
    name: str
    he: str
    him: str
    his: str
    was: str
    kind: str
    intro: str

    He = property(lambda self: self.he.capitalize())
    His = property(lambda self: self.his.capitalize())
    Intro = property(lambda self: self.intro[0].upper() + self.intro[1:])

    def __str__(self) -> str:
        return self.name


class _Thing(NamedTuple):
    look: str
    noun: str
    a: str
    play: str
    played: str
    where: str

    def __str__(self) -> str:
        return f"{self.look} {self.noun}"


class _Spot(NamedTuple):
    prep: str
    noun: str
    a: str

    def __str__(self) -> str:
        return f"{self.prep} the {self.noun}"


class _Place(NamedTuple):
    noun: str
    at: str
    finds: list[str]
    spots: list[_Spot]

    def __str__(self) -> str:
        return f"the {self.noun}"


_FORMS = {"she": ("her", "her", "was"), "he": ("him", "his", "was"), "they": ("them", "their", "were")}


def _an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def _character(names: tuple[str, ...], he: str, kind: str) -> _Character:
    """Parents and pairs have no kind and are introduced by name."""
    name = " and ".join(names)
    full = f"little {kind}" if kind in ("girl", "boy") else kind
    return _Character(names, name, he, *_FORMS[he], kind, f"{_an(full)} named {name}" if kind else name)


@cache
def _thing(look: str, noun: str) -> _Thing:
    return _Thing(look, noun, _an(f"{look} {noun}"), *words.TOYS.get(noun, ("", "", "")))


def _place(noun: str) -> _Place:
    prep, finds, spots = words.PLACES[noun]
    pairs = (spot.split(" ", 1) for spot in spots.split("|"))
    spot_list = [_Spot(prep, noun, f"{prep} {_an(noun)}") for prep, noun in pairs]
    return _Place(noun, f"{prep} the {noun}", finds.split(), spot_list)


_PLACES = {noun: _place(noun) for noun in words.PLACES}


def _shortcuts() -> dict[tuple[str, str], str]:
    """For two places that are not side by side, the first place on a shortest way between them."""
    paths = [path.split() for path in words.PATHS.split("|")]
    beside = {noun: [a if b == noun else b for a, b in paths if noun in (a, b)] for noun in _PLACES}
    found = {}
    for start in _PLACES:
        via = {start: ""}
        queue = [start]
        for here in queue:
            for there in beside[here]:
                if there not in via:
                    via[there] = via[here] or (here if here != start else "")
                    queue.append(there)
        found |= {(start, end): first for end, first in via.items() if first}
    return found


_VIA = _shortcuts()
_PEOPLE, _THINGS = "abcm", "oufgkt"
_OUTSIDE, _TOYS, _SKILLS, _PARENTS = map(tuple, (words.PLACES, words.TOYS, words.SKILLS, words.PARENTS))
_COLOURS, _TASTES, _WEAR, _FINDS = (looks.split() for looks in (words.COLOURS, words.TASTES, words.WEAR, words.FINDS))
_FOODS, _MATERIALS, _ANIMALS = words.FOODS.split(), words.MATERIALS.split(), words.ANIMALS.split()
_NAMES = {
    ("child", "she"): words.GIRLS.split(),
    ("child", "he"): words.BOYS.split(),
    ("animal", "she"): words.SHE_ANIMALS.split(),
    ("animal", "he"): words.HE_ANIMALS.split(),
}
_TRAITS = [f"{{S}} was [very|always|so] {trait}. {line}" for trait, line in words.TRAITS.items()]
_FEELINGS = {verb: feeling for feeling, verbs in words.FEELINGS.items() for verb in verbs.split()}
_BLANK = re.compile(r"_\{([\w.]+)\}")
_KINDS = {"a": "name", "o.noun": "thing", "o.look": "look", "p.noun": "place", "x.noun": "spot"}
"""What kind of word the slot after a "_" holds."""

# What the steps of a plot do to the world; the other steps are talk.
_MOVES = {"walk", "return"}
_JOINS = {"friend", "meet", "hear"}
_TAKES = {"has", "treat", "pack", "get", "find", "find_new", "reach", "pick", "mend"}
_GIVES = {"give", "lend", "turn", "trade", "bring", "give_back"}
_GRANTS = {"make_up", "reward", "prize", "keep"}
_LOSES = {"put", "hide_gift", "eat", "build", "stuck", "break"}
_OWNS = {"has", "treat", "pack", "get", "pick", "stuck", "seek"}


def _complete(plot: str) -> str:
    """Fill in what most plots share."""
    return (plot if "return" in plot else plot + words.HOMEWARD).replace("TIME", words.TIME)


_SCRIPTS = [(_complete(plot), moral) for plot, moral in words.PLOTS.values()]


@cache
def _parts(template: str) -> list[str | list[str]]:
    """Split a template at its free choices."""
    pieces = re.split(r"\[(.*?)\]", template)
    return [piece.split("|") if at % 2 else piece for at, piece in enumerate(pieces)]


@cache
def _step(step: str) -> tuple[str, list[tuple[str, str]]]:
    """The verb of a step, and its roles with the slots that they fill."""
    verb, *roles = step.split()
    people, things, places = iter("abc"), iter("ou"), iter("pq")
    slots = dict.fromkeys(_PEOPLE, people) | dict.fromkeys(_THINGS, things) | dict.fromkeys("pqh", places)
    return verb, [(next(slots[role[0]]), role) for role in roles]


def _tell(key: str) -> Story:
    world = _World(Random(key))
    script, moral = world.pick(_SCRIPTS)
    script = world.pick(words.OPENINGS) + script
    world.cast(script)
    for step in world.spin(script).split(";"):
        if step.strip():
            world.play(step)
    world.close(moral)
    return world.story()


class _World:
    """One story while it is played and told."""

    def __init__(self, random: Random) -> None:
        self.random = random.random
        self.roles: dict[str, Any] = {}
        self.fillers: dict[str, Any] = {}
        self.holder: dict[str, str | None] = {}
        self.owner: dict[str, str] = {}
        self.place: dict[str, str] = {}
        self.feeling: dict[str, str] = {}
        self.spots: dict[str, _Spot] = {}
        self.history: list[Event] = []
        self.told: list[str] = []
        self.blanks: list[str] = []
        self.focus: _Character | None = None
        """Whom a pronoun would mean."""

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.random() * len(choices))]

    def several(self, choices: Sequence[T], number: int, taken: Container[T] = ()) -> list[T]:
        """Different choices, none of them taken."""
        chosen: list[T] = []
        while len(chosen) < number:
            one = self.pick(choices)
            if one not in chosen and one not in taken:
                chosen.append(one)
        return chosen

    def spin(self, template: str) -> str:
        """Make the free choices of a template."""
        # Not through `pick`: this is where the time goes.
        chance = self.random
        parts = _parts(template)
        return "".join([part if isinstance(part, str) else part[int(chance() * len(part))] for part in parts])

    def cast(self, script: str) -> None:
        """Choose who and what plays the roles of a script."""
        pick, chance, roles = self.pick, self.random, self.roles
        skill = pick(_SKILLS)
        failed, grounds = words.SKILLS[skill]
        p = pick(grounds.split() if "fail_skill" in script else _OUTSIDE)
        q, home = self.several(_OUTSIDE, 2, (p,))
        if "send" in script:
            # Food comes from the market, so nothing else may be there.
            p, home = self.several(_OUTSIDE, 2, ("market",))
            q = "market"
        roles |= {"p": _PLACES[p], "q": _PLACES[q], "h": _Place("home", "at home", [], [])}
        build, perch = pick(words.BUILDS), pick(words.PERCHES)
        self.fillers = {"n": home, "skill": skill, "failed": failed, "thing": build, "z": perch}

        hero, other = self.several(("he", "she"), 2)
        taken: list[str] = []
        for role in "abc":
            he = hero if role == "a" or chance() < 0.25 else other
            sort = "child" if chance() < 0.6 else "animal"
            taken += self.several(_NAMES[sort, he], 1, taken)
            kind = pick(_ANIMALS) if sort == "animal" else "boy" if he == "he" else "girl"
            roles[role] = _character((taken[-1],), he, kind)
        parent = pick(_PARENTS)
        roles["m"] = _character((parent,), words.PARENTS[parent], "")
        self.place = {taken[0]: "home", parent: "home"}

        roles |= zip("ouk", map(_thing, self.several(_COLOURS, 3), self.several(_TOYS, 3)), strict=True)
        roles["f"] = _thing(pick(_TASTES), pick(_FOODS))
        roles["t"] = _thing(pick(_WEAR), pick(_MATERIALS))
        roles["g"] = _thing(pick(_FINDS), pick(_PLACES[p].finds))
        for role, rarity in (("g", 0.65), ("k", 0.4)):
            if chance() < rarity:
                del roles[role]

    def play(self, step: str) -> None:
        """Let a step happen and tell it, if all its roles are in the story."""
        verb, roles = _step(step)
        if verb == "/":
            self.paragraph()
            return
        slots = self.fillers.copy()
        for slot, role in roles:
            if role not in self.roles:
                if len(role) == 1:
                    return
                one, other = self.roles[role[0]], self.roles[role[1]]
                self.roles[role] = _character((one.name, other.name), "they", "")
            slots[slot] = self.roles[role]
        if verb == "OBSTACLE":
            verb = self.pick(words.OBSTACLES)
        if verb in _FEELINGS:
            self.feeling |= dict.fromkeys(slots["a"].names, _FEELINGS[verb])
        self.tell(self.change(verb, slots), slots)

    def change(self, verb: str, slots: dict[str, Any]) -> Sequence[str]:
        """Make true what a step says; gives the lines that tell it."""
        a: Any = slots.get("a")
        b: Any = slots.get("b")
        thing = str(slots["o"]) if "o" in slots else ""
        lines = words.LINES.get(verb, ())
        if verb in _MOVES:
            start, end = self.place[a.names[0]], slots["p"].noun
            assert start != end, f"{a} cannot go to where {a.he} {a.was}"
            via = _VIA.get((self.fillers["n"] if start == "home" else start, end))
            if via and self.random() < 0.5:
                slots["via"], lines = _PLACES[via], words.LINES["walk past"]
            for name in a.names:
                self.place[name] = end
                self.record("goes", name, place=end)
        elif verb in _JOINS:
            if b.name in self.place and verb == "meet":
                lines = words.LINES["meet again"]
            self.place[b.name] = self.place[a.name]
            self.record("goes", b.name, place=self.place[a.name])
        elif verb in _TAKES:
            assert self.holder.get(thing) is None, f"{a} cannot take the {thing} of {self.holder[thing]}"
            self.hand(thing, a.names[0])
        elif verb in _GIVES or verb in _GRANTS:
            assert self.holder.get(thing, a.name) == a.name != b.name, f"{a} cannot give {b} the {thing}"
            self.hand(thing, b.name)
        elif verb in _LOSES:
            self.hand(thing, None)

        if verb in _OWNS or verb in _GRANTS or verb == "own":
            self.owner[thing] = (a if verb in _OWNS else b).name
            self.record("owns", self.owner[thing], thing=thing)
        elif verb in ("put", "hide_gift"):
            self.spots[thing] = slots["x"] = self.pick(_PLACES[self.place[a.name]].spots)
        elif verb in ("look", "look_tool", "find"):
            slots["x"] = self.spots.get(thing)
            [slots["y"]] = self.several(_PLACES[self.place[a.names[0]]].spots, 1, (slots["x"],))
        elif verb == "detail":
            lines = words.DETAILS[slots["p"].noun]
        elif verb == "trait":
            lines = _TRAITS
        return lines

    def hand(self, thing: str, name: str | None) -> None:
        self.holder[thing] = name
        self.record("gets" if name else "loses", name or "", thing=thing)

    def record(self, verb: str, who: str, *, thing: str = "", place: str = "") -> None:
        self.history.append(Event(verb, who, thing, place))

    def tell(self, lines: Sequence[str], slots: dict[str, Any]) -> None:
        """Tell one of the lines, with a pronoun for the subject where it can only mean that one."""
        line = self.spin(self.pick(lines))
        a = slots.get("a")
        if a:
            short = a is self.focus and self.random() < 0.8
            slots["S"], slots["s"] = (a.He, a.he) if short else (a.name, a.name)
            confused = any(slot in slots and slots[slot].he == a.he for slot in "bc")
            self.focus = None if confused else a
        if "_" in line:
            self.blanks += [_KINDS[slot] for slot in _BLANK.findall(line)]
        self.told.append(line.format_map(slots))

    def paragraph(self) -> None:
        self.told.append("\n")
        self.focus = None

    def close(self, moral: str) -> None:
        """Tell the moral, and sum up who has what: this is where most probes ask."""
        roles = self.roles
        friend = roles["b"] if roles["b"].name in self.place else roles["c"]
        if self.random() < 0.6:
            self.tell(words.MORALS[moral], {"a": roles["a"], "b": friend})
        self.paragraph()
        holders = {roles[role].name: roles[role] for role in _PEOPLE}
        things = [roles[role] for role in _THINGS if role in roles]
        held = [(thing, name) for thing in things if (name := self.holder.get(str(thing)))]
        number = self.pick((0, 0, 1, 1, 1, 2))
        asked = self.several(held, min(number, len(held)))
        # Two sums take two forms. "Lily had the ..." alone decides a thing only if it is all that she has.
        for (thing, name), form in zip(asked, self.several(("sum", "sum with"), 2), strict=False):
            alone = sum(name == other for _, other in held) == 1
            key = "sum of one" if form == "sum" and alone and self.random() < 0.5 else form
            self.tell(words.LINES[key], {"a": holders[name], "o": thing})
        if self.random() < 0.25:
            self.tell(words.LINES["end"], {})

    def story(self) -> Story:
        pieces = " ".join(self.told).replace(" \n", "\n").replace("\n ", "\n").strip().split("_")
        ends = [len(part.rstrip()) for part in itertools.accumulate(pieces)]
        facts = Facts(self.holder, self.owner, self.place, self.feeling, tuple(self.history))
        return Story("".join(pieces), facts, tuple(zip(ends, self.blanks, strict=False)))

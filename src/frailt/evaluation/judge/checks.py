"""Whether a judge can be trusted: it is given endings whose order is known, the same ones twice, and pairs both ways.

Real stories are cut in the middle. Their own endings must be graded above the endings of other stories (which are good
text that does not fit), above their own sentences in another order, and above their own words in another order.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from frailt.evaluation.judge.asking import Tally
from frailt.evaluation.judge.beginnings import Beginning, sentences
from frailt.evaluation.judge.grading import METRICS
from frailt.evaluation.judge.ledger import Question
from frailt.evaluation.judge.reports import Report, average, cell, described, means, plain, summary
from frailt.evaluation.judge.students import Student
from frailt.reports import markdown_table
from frailt.statistics import Mean, mean

REAL = "real ending"
SPOILED = {
    "ending of another story": "consistency",
    "sentences shuffled": "plot",
    "words shuffled": "grammar",
}
"""What is done to endings, and the grade that it must cost."""
PREFERENCE = ("pairs", "A better", "B better", "orders agree", "first chosen")
SENTENCES = 3
"""An ending has at least so many, so that they can be shuffled."""


def questions(beginnings: Sequence[Beginning]) -> list[Question]:
    """Every ending once, the real ones twice."""
    endings = _endings(beginnings)
    asked = [(REAL, 0), (REAL, 1), *((name, 0) for name in SPOILED)]
    return [
        Question(source=name, beginning=beginning.text, completions=(endings[name][i],), index=index)
        for name, index in asked
        for i, beginning in enumerate(beginnings)
    ]


def pair_questions(beginnings: Sequence[Beginning]) -> list[Question]:
    """The real ending and each spoiled one, in both orders."""
    endings = _endings(beginnings)
    return [
        question
        for name in SPOILED
        for i, beginning in enumerate(beginnings)
        for question in both_orders(name, beginning.text, endings[REAL][i], endings[name][i])
    ]


def both_orders(source: str, beginning: str, a: str, b: str, index: int = 0) -> tuple[Question, Question]:
    """A before B, and B before A. Pairs with one beginning differ in their index."""
    return (
        Question(source=source, beginning=beginning, completions=(a, b), index=index),
        Question(source=source, beginning=beginning, completions=(b, a), index=index),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What spoiling the endings cost, real minus spoiled, over stories for which both were graded."""

    average: Mean
    """In the mean of the four grades."""
    metric: str
    """The grade that it must cost."""
    expected: Mean
    """In that grade."""
    right: Mean
    """Share of stories whose real ending has the higher average; a tie counts half."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Which of two texts a judge prefers, over pairs that were judged in both orders."""

    pairs: int
    a: Mean | None
    """Share of pairs in which A is called better in both orders."""
    b: Mean | None
    """The same for B."""
    agree: Mean | None
    """Share of pairs in which both orders have the same outcome, a tie among them."""
    first: Mean | None
    """Share of choices, ties left out, that fall on the text that stands first; 0.5 is fair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What is known about a judge."""

    stories: int
    grades: dict[str, dict[str, Mean]]
    """Of each kind of ending: the four grades, and their average."""
    costs: dict[str, Cost]
    verdict: Literal["ordered rightly", "not ordered rightly", "not measured"]
    """Rightly: each way of spoiling costs average, and the grade that it must, with intervals above 0."""
    repeated: dict[str, Mean]
    """Share of real endings that got the same grade both times, by metric."""
    moved: dict[str, Mean]
    """Mean distance between the two grades, by metric."""
    pairs: dict[str, Preference]
    """The real ending (A) against each spoiled one (B)."""


def calibration(graded: Sequence[dict[str, Any]], paired: Sequence[dict[str, Any]], stories: int) -> Calibration:
    """Sum up the answers to `questions` and `pair_questions`.

    Args:
        graded, paired: as `ledger.answers` gives them.
        stories: how many were cut.
    """
    result = {(item["source"], item["index"], item["beginning"]): item for item in graded}
    real = {beginning: item for (name, index, beginning), item in result.items() if (name, index) == (REAL, 0)}
    again = {beginning: item for (name, index, beginning), item in result.items() if (name, index) == (REAL, 1)}
    kinds = {name: [item for (n, i, _), item in result.items() if n == name and i == 0] for name in (REAL, *SPOILED)}
    costs: dict[str, Cost] = {}
    for name, metric in SPOILED.items():
        both = [(real[item["beginning"]], item) for item in kinds[name] if item["beginning"] in real]
        lost = [average(a) - average(b) for a, b in both]
        expected = mean([a[metric] - b[metric] for a, b in both])
        if (all_four := mean(lost)) and expected and (right := mean([(loss > 0) + (loss == 0) / 2 for loss in lost])):
            costs[name] = Cost(average=all_four, metric=metric, expected=expected, right=right)
    twice = [(real[beginning], item) for beginning, item in again.items() if beginning in real]
    return Calibration(
        stories=stories,
        grades={name: summary(result) for name, result in kinds.items()},
        costs=costs,
        verdict=_verdict(costs),
        repeated=means({m: [float(a[m] == b[m]) for a, b in twice] for m in METRICS}),
        moved=means({m: [float(abs(a[m] - b[m])) for a, b in twice] for m in METRICS}),
        pairs={name: preference([item for item in paired if item["source"] == name]) for name in SPOILED},
    )


def preference(answers: Sequence[dict[str, Any]]) -> Preference:
    """Sum up answers to pairs of `both_orders`, in their order: A before B comes first."""
    pairs: dict[tuple[str, int], list[str]] = {}
    for item in answers:
        pairs.setdefault((item["beginning"], item["index"]), []).append(item["better"])
    swapped = {"first": "second", "second": "first", "neither": "neither"}
    both = {pair: (result[0], swapped[result[1]]) for pair, result in pairs.items() if len(result) == 2}
    groups = [beginning for beginning, _ in both]
    a, b, agree = (
        mean([float(item == other and item in wanted) for item, other in both.values()], groups)
        for wanted in (("first",), ("second",), ("first", "second", "neither"))
    )
    decided = [(item["beginning"], item["better"] == "first") for item in answers if item["better"] != "neither"]
    return Preference(
        pairs=len(both),
        a=a,
        b=b,
        agree=agree,
        first=mean([float(first) for _, first in decided], [beginning for beginning, _ in decided]),
    )


def write_calibration(result: Calibration, tally: Tally, servers: Sequence[str], report: Report) -> None:
    """Write down whether the judge can be trusted."""
    columns = (*METRICS, "average")
    values = plain(result)
    del values["stories"]  # Their number stands among the options.
    report.write(
        values,
        tally,
        servers,
        number=result.stories,
        verdict=result.verdict,
        endings=markdown_table(
            ("ending", *columns),
            [(name, *(cell(grades.get(column)) for column in columns)) for name, grades in result.grades.items()],
        ),
        costs=markdown_table(
            ("spoiled by", "average", "the grade that it must cost", "right"),
            [(name, cost.average, f"{cost.metric} {cost.expected}", cost.right) for name, cost in result.costs.items()],
        ),
        repeats=markdown_table(
            ("grade", "equal", "distance"),
            [(metric, result.repeated[metric], result.moved[metric]) for metric in result.repeated],
        ),
        pairs=markdown_table(
            ("B", *PREFERENCE), [(name, *preference_cells(pair)) for name, pair in result.pairs.items()]
        ),
    )


def model_pairs(students: Sequence[Student]) -> list[Question]:
    """The completions of two models for the same beginnings, in both orders."""
    a, b = students
    return [
        question
        for x, y in zip(a.written, b.written, strict=True)
        if x.text != y.text
        for question in both_orders(f"{a.name} or {b.name}", x.beginning, x.text, y.text, x.index)
    ]


def write_preference(
    students: Sequence[Student], result: Preference, tally: Tally, servers: Sequence[str], report: Report
) -> None:
    """Write down which of two models' completions the judge prefers."""
    report.write(
        {"models": [described(student) for student in students], **plain(result)},
        tally,
        servers,
        a=students[0].name,
        b=students[1].name,
        pairs=markdown_table(PREFERENCE, [preference_cells(result)], words=0),
    )


def preference_cells(preference: Preference) -> tuple[str, ...]:
    """A row in the order of ``PREFERENCE``."""
    shares = (preference.a, preference.b, preference.agree, preference.first)
    return str(preference.pairs), *map(cell, shares)


def _verdict(costs: dict[str, Cost]) -> Literal["ordered rightly", "not ordered rightly", "not measured"]:
    needed = [cost for name in SPOILED if (cost := costs.get(name))]
    intervals = [item.interval for cost in needed for item in (cost.average, cost.expected)]
    if len(needed) < len(SPOILED) or None in intervals:
        return "not measured"
    right = all(interval is not None and interval[0] > 0 for interval in intervals)
    return "ordered rightly" if right else "not ordered rightly"


def _endings(beginnings: Sequence[Beginning]) -> dict[str, list[str]]:
    real = [beginning.ending or "" for beginning in beginnings]
    return {
        REAL: real,
        # The neighbour's: no story gets its own where there are two or more.
        "ending of another story": real[1:] + real[:1],
        "sentences shuffled": [_shuffled(sentences(text), i) for i, text in enumerate(real)],
        "words shuffled": [_shuffled(text.split(), i) for i, text in enumerate(real)],
    }


def _shuffled(parts: list[str], seed: int) -> str:
    """The parts in another order, the same every time."""
    order, chance = list(parts), random.Random(seed)
    while order == parts and len(set(parts)) > 1:
        chance.shuffle(order)
    return " " + " ".join(order)

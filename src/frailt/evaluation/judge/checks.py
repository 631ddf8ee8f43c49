"""Reports beside the grades: trust in the judge, two models side by side, measures without a judge."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from frailt.evaluation.judge import calibrate
from frailt.evaluation.judge.asking import Asked, Tally, consult
from frailt.evaluation.judge.beginnings import Beginning
from frailt.evaluation.judge.calibrate import Calibration, Preference
from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import METRICS, Form, compare_form
from frailt.evaluation.judge.judging import StoryConfig, Student, described, plain
from frailt.evaluation.judge.ledger import Question
from frailt.evaluation.judge.offline import Facts, Offline
from frailt.files import write_json, write_text
from frailt.paper.grades_report import markdown_table
from frailt.statistics import Mean

OFFLINE = {
    "words": "words",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "repetition": "repeated",
    "rouge_2": "ROUGE-2",
    "seen": "copied",
    "longest": "longest",
    "perplexity": "perplexity",
}
"""Columns of the table, by field of `Offline`."""
PREFERENCE = ("pairs", "A better", "B better", "orders agree", "first chosen")


def calibration_questions(beginnings: Sequence[Beginning], form: Form) -> Asked:
    """What `calibrate_judge` asks."""
    return [(form, calibrate.questions(beginnings)), (compare_form(), calibrate.pair_questions(beginnings))]


def calibrate_judge(
    beginnings: Sequence[Beginning],
    form: Form,
    stories: StoryConfig,
    config: JudgeConfig,
    out: Path,
    provenance: dict[str, Any],
    *,
    report: Callable[[Tally], None] = lambda tally: None,
) -> tuple[Tally, Calibration]:
    """Find out whether a judge can be trusted, and write it down.

    Raises:
        InputError: the judge cannot be asked. The replies that it gave are kept.
    """
    asked = calibration_questions(beginnings, form)
    tally, [graded, paired] = consult(asked, config, out / "replies.jsonl", report=report)
    found = calibrate.calibration(graded, paired, len(beginnings))
    head = {"judge": config.judge, "judge_temperature": config.judge_temperature, "server": config.server}
    prompts = {"prompt": plain(form.prompt), "pair_prompt": plain(compare_form().prompt)}
    result = {**head, **prompts, "stories": plain(stories), "run": plain(tally), **plain(found)}
    write_json(out / "calibration.json", {**result, "provenance": provenance})
    write_text(out / "calibration.md", _calibration_text(found, form, config, tally, provenance))
    return tally, found


def pair_questions(students: Sequence[Student]) -> list[Question]:
    """The completions of two models for the same beginnings, in both orders."""
    a, b = students
    return [
        question
        for one, other in zip(a.written, b.written, strict=True)
        if one.text != other.text
        for question in calibrate.both_orders(f"{a.name} or {b.name}", one.beginning, one.text, other.text, one.index)
    ]


def compare_models(
    students: Sequence[Student],
    stories: StoryConfig,
    config: JudgeConfig,
    out: Path,
    provenance: dict[str, Any],
    *,
    report: Callable[[Tally], None] = lambda tally: None,
) -> tuple[Tally, Preference]:
    """Have two models' completions compared side by side, in both orders.

    Raises:
        InputError: the judge cannot be asked. The replies that it gave are kept.
    """
    form = compare_form()
    tally, [answers] = consult([(form, pair_questions(students))], config, out / "replies.jsonl", report=report)
    found = calibrate.preference(answers)
    result = {
        "judge": config.judge,
        "judge_temperature": config.judge_temperature,
        "server": config.server,
        "prompt": plain(form.prompt),
        "stories": plain(stories),
        "model_a": described(students[0]),
        "model_b": described(students[1]),
        "run": plain(tally),
        **plain(found),
    }
    write_json(out / "pairwise.json", {**result, "provenance": provenance})
    text = (
        f"# {students[0].name} (A) beside {students[1].name} (B)\n\n"
        f"{_asked(form, config, tally)} A pair counts for a model only where both orders do.\n\n"
        f"{markdown_table(PREFERENCE, [preference_cells(found)])}\n\n{_made(provenance)}\n"
    )
    write_text(out / "pairwise.md", text)
    return tally, found


def preference_cells(found: Preference) -> tuple[str, ...]:
    """A row in the order of ``PREFERENCE``."""
    return (str(found.pairs), *(_text(value) for value in (found.a, found.b, found.agree, found.first)))


def report_offline(
    students: Sequence[Student],
    measures: dict[str, Offline],
    facts: dict[str, Facts],
    stories: StoryConfig,
    sources: dict[str, Any],
    out: Path,
    provenance: dict[str, Any],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Write measures that need no judge; gives the table's head and rows.

    Args:
        students: the models.
        measures: of each by name, and of further texts such as the real endings.
        facts: of each that was asked.
        stories: what the models were given.
        sources: names of the training text and of the reference.
        out: folder of results.
        provenance: versions and machine.
    """
    by_name = {student.name: student for student in students}
    used = [name for name in OFFLINE if any(getattr(found, name) is not None for found in measures.values())]
    head = ("text of", "loss", *(OFFLINE[name] for name in used), *(("facts kept", "facts broken") if facts else ()))
    rows = []
    for name, found in measures.items():
        student = by_name.get(name)
        loss = "" if student is None or student.loss is None else f"{student.loss:.3f}"
        row = [name, loss, *(_text(getattr(found, field)) for field in used)]
        if facts:
            row += [_text(facts[name].kept), _text(facts[name].broken)] if name in facts else ["", ""]
        rows.append(tuple(row))
    write_json(
        out / "offline.json",
        {
            "what": "measures that need no judge; none of them is a grade",
            "stories": plain(stories),
            **plain(sources),
            "models": [
                {**described(student), "measures": plain(measures[student.name])}
                | ({"facts": plain(facts[student.name])} if student.name in facts else {})
                for student in students
            ],
            "other_texts": {name: plain(found) for name, found in measures.items() if name not in by_name},
            "provenance": provenance,
        },
    )
    write_text(out / "offline.md", _offline_text(head, rows, measures, facts, sources, provenance))
    return head, rows


def _offline_text(
    head: tuple[str, ...],
    rows: list[tuple[str, ...]],
    measures: dict[str, Offline],
    facts: dict[str, Facts],
    sources: dict[str, Any],
    provenance: dict[str, Any],
) -> str:
    number = next(iter(measures.values())).completions
    notes = [
        "words: in a completion.",
        "distinct-n: different runs of n words over all of them, all completions together; it falls with the amount "
        "of text.",
        "repeated: share of a completion's runs of 4 words that stood in it before.",
    ]
    if sources["training_text"]:
        notes += [
            "ROUGE-2: the largest F measure of a completion with one training story, over their pairs of words.",
            "copied: share of a completion's runs of 8 words that the training text has.",
            "longest: words in its longest run that the training text has. Training text: "
            f"{', '.join(sources['training_text'])}.",
        ]
    if sources["reference"]:
        notes.append(
            f"perplexity: of the completions, given their beginnings, under {sources['reference']}, per token of its "
            "tokenizer. Low for plain text, and for text that repeats itself."
        )
    if facts:
        chance = next(iter(facts.values())).chance
        notes.append(
            f"facts kept, broken: {sources['probes']} stories of the embedded world, stopped before a word that the "
            f"story has decided; share of models' next words that agree, and that name another of its kind. Drawing "
            f"one of the words that the story mentions would keep {chance:.2f}."
        )
    return (
        "# Measures without a judge\n\n"
        f"{number} completions of each model. None of these figures is a grade, least of all one by GPT-4. In brackets "
        "95% intervals (bootstrap over beginnings).\n\n"
        f"{markdown_table(head, rows)}\n\n" + "\n".join(f"- {note}" for note in notes) + f"\n\n{_made(provenance)}\n"
    )


def _calibration_text(
    found: Calibration, form: Form, config: JudgeConfig, tally: Tally, provenance: dict[str, Any]
) -> str:
    columns = (*METRICS, "average")
    grades = [(name, *(_text(own.get(column)) for column in columns)) for name, own in found.grades.items()]
    costs = [
        (name, _text(cost.average), f"{cost.metric} {cost.expected}", _text(cost.right))
        for name, cost in found.costs.items()
    ]
    repeats = [
        (metric, _text(found.repeated.get(metric)), _text(found.moved.get(metric)))
        for metric in METRICS
        if metric in found.repeated
    ]
    pairs = [(name, *preference_cells(own)) for name, own in found.pairs.items()]
    parts = [
        "# How far the judge can be trusted",
        f"{_asked(form, config, tally)} {found.stories} stories, cut in the middle. In brackets 95% intervals "
        "(bootstrap over stories).",
        f"**{found.verdict}**: every way of spoiling an ending must cost average, and the grade named below, with "
        "intervals above 0.",
        markdown_table(("ending", *columns), grades),
        "What spoiling costs (real minus spoiled), and the share of stories whose real ending is graded higher:",
        markdown_table(("spoiled by", "average", "the grade that it must cost", "right"), costs),
        "The same real ending graded twice: share of equal grades, and mean distance:",
        markdown_table(("grade", "equal", "distance"), repeats),
        "Side by side, in both orders: A is the real ending. *First chosen* is 0.5 for a judge that does not mind the "
        "order.",
        markdown_table(("B", *PREFERENCE), pairs),
        _made(provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _asked(form: Form, config: JudgeConfig, tally: Tally) -> str:
    left = tally.questions - tally.answered - tally.failed
    stopped = f" ({tally.stopped})" if tally.stopped else ""
    return (
        f"Judge: {config.judge} at {config.server}, prompt {form.prompt.version}. {tally.answered} of "
        f"{tally.questions} questions answered, {tally.failed} failed, {left} not asked{stopped}."
    )


def _made(provenance: dict[str, Any]) -> str:
    return f"frailt {provenance['frailt']} ({provenance['commit']}), torch {provenance['torch']}."


def _text(value: Mean | float | None) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

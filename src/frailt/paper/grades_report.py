"""Grades as a folder of results: JSON, Tables 4 and 5, Figures 6 and 7, fits and verdicts, beside the paper's."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from frailt.errors import InputError
from frailt.evaluation.judge.asking import Tally, consult
from frailt.evaluation.judge.calibrate import summary
from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import METRICS, Form
from frailt.evaluation.judge.judging import StoryConfig, Student, described, plain
from frailt.evaluation.judge.ledger import Question
from frailt.files import read_json, write_json, write_text
from frailt.paper.grades import KINDS, GradedModel, published_models, table_4, table_5
from frailt.paper.grades_figures import draw_figure_6, draw_figure_7
from frailt.paper.power_law import power_laws
from frailt.paper.section_4_2 import claims
from frailt.paper.verdicts import DecidedClaim

HEADERS = ("model", "shape", "width", "loss", *METRICS, "average", "n")


def grade_questions(students: Sequence[Student]) -> list[Question]:
    """A question for each completion."""
    return [
        Question(source=student.name, beginning=one.beginning, completions=(one.text,), index=one.index)
        for student in students
        for one in student.written
    ]


def check_report(paths: Sequence[Path], form: Form, stories: StoryConfig, config: JudgeConfig, out: Path) -> None:
    """Refuse to replace a report that says something else, or more. One without a grade may be replaced.

    Raises:
        InputError: the report in ``out`` has another judge, prompt or stories, or models that are not in ``paths``.
    """
    if not (out / "judge.json").exists():
        return
    there, report = read_json(out / "judge.json"), out / "judge.md"
    if not there["run"]["answered"]:
        return
    judge = (there["judge"]["model"], there["judge"]["temperature"])
    same = {
        "another judge": judge == (config.judge, config.judge_temperature),
        "another prompt": there["prompt"] == plain(form.prompt),
        "other options of the stories": there["stories"] == plain(stories),
    }
    if other := " and ".join(name for name, is_same in same.items() if not is_same):
        raise InputError(f"{report} is the report on {other}; choose another --out")
    if missing := ", ".join(sorted({model["path"] for model in there["models"]} - {str(path) for path in paths})):
        raise InputError(
            f"{report} reports on {missing} too; name all models (nothing is asked twice), or choose another --out"
        )


def grade(
    students: Sequence[Student],
    form: Form,
    stories: StoryConfig,
    config: JudgeConfig,
    out: Path,
    provenance: dict[str, Any],
    *,
    report: Callable[[Tally], None] = lambda tally: None,
) -> tuple[Tally, list[GradedModel]]:
    """Have every completion graded, and write what came of it.

    Raises:
        InputError: the judge cannot be asked. The replies that it gave are kept.
    """
    tally, [answers] = consult([(form, grade_questions(students))], config, out / "replies.jsonl", report=report)
    # Two models that wrote the same have one answer in the ledger, and one each here.
    by_model = {student.name: [one for one in answers if one["source"] == student.name] for student in students}
    graded = [
        GradedModel(
            name=student.name,
            dim=student.dim,
            shape=student.shape,
            loss=student.loss,
            grades=summary(by_model[student.name]),
        )
        for student in students
    ]
    write_json(
        out / "judge.json",
        {
            "judge": {"model": config.judge, "temperature": config.judge_temperature, "server": config.server},
            "prompt": plain(form.prompt),
            "stories": plain(stories),
            "models": [
                {
                    **described(student),
                    "grades": plain(model.grades),
                    "grades_by_beginning": _by_beginning(by_model[student.name]),
                }
                for student, model in zip(students, graded, strict=True)
            ],
            "run": plain(tally),
            "power_laws": {"own": plain(power_laws(graded)), "paper": plain(power_laws(published_models()))},
            "claims": {"own": plain(claims(graded)), "paper": plain(claims(published_models()))},
            "provenance": provenance,
        },
    )
    write_text(out / "judge.md", markdown(students, graded, form, config, tally, provenance))
    draw_figure_6(graded, published_models(), out / "figure-6.png")
    draw_figure_7(graded, published_models(), out / "figure-7.png")
    return tally, graded


def cells(graded: Sequence[GradedModel]) -> list[tuple[str, ...]]:
    """A row for each model, in the order of ``HEADERS``."""
    rows = []
    for model in graded:
        grades = [f"{model.grades[m].value:.2f}" if model.grades else "" for m in (*METRICS, "average")]
        number = model.grades["average"].count if model.grades else 0
        loss = "" if model.loss is None else f"{model.loss:.3f}"
        rows.append(
            (model.name, model.shape, str(model.dim), loss, *grades, str(number)),
        )
    return rows


def markdown(
    students: Sequence[Student],
    graded: Sequence[GradedModel],
    form: Form,
    config: JudgeConfig,
    tally: Tally,
    provenance: dict[str, Any],
) -> str:
    """The report as Markdown."""
    head, rows = HEADERS, cells(graded)
    intervals = [
        (model.name, *(str(model.grades[m]) if model.grades else "" for m in (*METRICS, "average"))) for model in graded
    ]
    sources = Counter(student.loss_of or "not known" for student in students)
    parts = [
        "# Grades of stories",
        f"Judge: {config.judge} at {config.server}, prompt {form.prompt.version}. {tally.answered} of "
        f"{tally.questions} completions graded, {tally.failed} failed, "
        f"{tally.questions - tally.answered - tally.failed} not asked"
        f"{f' ({tally.stopped})' if tally.stopped else ''}. Validation losses: "
        f"{'; '.join(f'{source} ({number})' for source, number in sources.items())}. Losses are comparable with the "
        "paper's only as far as data and tokenizer are.",
        markdown_table(head, rows),
        "Means with 95% intervals (bootstrap over beginnings):",
        markdown_table(("model", *METRICS, "average"), intervals),
        "## Table 4",
        "Each cell: ours, then in brackets the paper's. Where nothing was graded, ours is empty.",
        markdown_table(*table_4(graded)),
        "## Table 5",
        markdown_table(*table_5(graded)),
        "## Figures 6 and 7",
        "![Average grade against validation loss](figure-6.png)",
        "![Each grade against validation loss](figure-7.png)",
        "## The power law",
        "grade = factor x loss ^ exponent, least squares in log-log space over models with a loss of at most 1.0; "
        "intervals by bootstrap over models. Empty: fewer than 3 such models.",
        markdown_table(("grade", "models", "ours", "the paper's Table 4"), _laws(graded)),
        "## The paper's claims",
        markdown_table(("claim", "by the paper's numbers", "by ours"), _verdicts(graded)),
        "When a claim counts as held:",
        "\n".join(f"- {claim.text}: {claim.rule}" for claim in claims(graded)),
        f"frailt {provenance['frailt']} ({provenance['commit']}), torch {provenance['torch']}, "
        f"{provenance['machine']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _laws(graded: Sequence[GradedModel]) -> list[tuple[str, ...]]:
    own, paper = power_laws(graded), power_laws(published_models())
    return [
        (metric, kind, str(own[metric][kind] or ""), str(paper[metric][kind] or ""))
        for metric in own
        for kind in ("all", *KINDS)
    ]


def _verdicts(graded: Sequence[GradedModel]) -> list[tuple[str, ...]]:
    def cell(claim: DecidedClaim) -> str:
        return f"**{claim.verdict}**: {claim.detail}"

    pairs = zip(claims(published_models()), claims(graded), strict=True)
    return [(paper.text, cell(paper), cell(own)) for paper, own in pairs]


def _by_beginning(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"beginning": one["beginning"], "index": one["index"], **{m: one[m] for m in METRICS}} for one in answers]


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(headers) + " |", "| " + " | ".join("---" for _ in headers) + " |"]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])

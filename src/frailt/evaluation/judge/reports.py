"""What `frailt judge` writes into its folder, and when it may replace what is there.

===================  ==========================================================================
completions/         what each model wrote, a JSON file for each model and way of asking it
replies.jsonl        every reply of a judge; see ``ledger.py``
judge.json, .md      grades, with what the paper's stand beside them (``paper/grades_report.py``)
calibration.json     what is known about the judge itself, with calibration.md
pairwise.json        two models side by side, with pairwise.md
offline.json         measures that need no judge, with offline.md
===================  ==========================================================================
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from frailt.configs import changed, from_json
from frailt.errors import InputError, excerpt
from frailt.evaluation.judge.asking import Tally
from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import METRICS, Form
from frailt.evaluation.judge.ledger import Question
from frailt.evaluation.judge.students import StoryConfig, Student
from frailt.files import read_json, write_json, write_text
from frailt.reports import Markdown, markdown_table, render
from frailt.statistics import Mean, mean

FILES = {"completions", "replies.jsonl"} | {
    f"{name}.{suffix}" for name in ("judge", "calibration", "pairwise", "offline") for suffix in ("json", "md")
}
GRADES = ("model", "shape", "width", "loss", *METRICS, "average", "n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a report is about, and where it lies."""

    name: str
    """judge, calibration, pairwise or offline."""
    out: Path
    provenance: dict[str, Any]
    """Versions and machine."""
    stories: StoryConfig
    models: tuple[Path, ...] = ()
    judge: JudgeConfig | None = None
    forms: tuple[Form, ...] = ()
    sources: dict[str, Any] | None = None
    """Files that measures without a judge are taken from."""

    def check(self) -> None:
        """Refuse to replace a report on something else, or on more. One without an answer may be replaced.

        Raises:
            InputError: the report in ``out`` was made with other options or on models that are not in ``models``, or
                ``out`` holds other files.
        """
        names = {path.name for path in self.out.iterdir() if not path.name.startswith(".")} if self.out.is_dir() else ()
        if names and not FILES & set(names):
            raise InputError(f"{self.out} holds other files and no results of a judge; choose another --out")
        path, report = self.out / f"{self.name}.json", self.out / f"{self.name}.md"
        if not path.exists():
            return
        try:
            there = _Stored.model_validate(read_json(path))
        except ValidationError:
            raise InputError(f"{path} is damaged; delete it, or choose another --out") from None
        if there.run is not None and not there.run.answered:
            return
        asked = {"judge": self._judged_by(), "models": [{"path": str(path)} for path in self.models]}
        theirs, mine = (
            stored.options(self.name, str(path)) for stored in (there, _Stored.model_validate(self._identity() | asked))
        )
        if other := [_shown(name, theirs.get(name)) for name in theirs | mine if theirs.get(name) != mine.get(name)]:
            raise InputError(f"{report} was made {' and '.join(other)}; do the same, or choose another --out")
        if missing := ", ".join(sorted(set(there.paths) - {str(path) for path in self.models})):
            raise InputError(
                f"{report} reports on {excerpt(missing)} too; name all models (nothing is asked twice), or choose "
                "another --out"
            )

    def _identity(self) -> dict[str, Any]:
        prompts = dict(zip(("prompt", "pair_prompt"), (plain(form.prompt) for form in self.forms), strict=False))
        stories = plain(self.stories) | {"completions": self.stories.number()}
        return {**prompts, "stories": stories, **(self.sources or {})}

    def _judged_by(self, *servers: str) -> dict[str, Any] | None:
        judge = self.judge
        return judge and {"model": judge.judge, "temperature": judge.judge_temperature, "servers": list(servers)}

    def write(
        self, values: dict[str, Any], tally: Tally | None = None, servers: Sequence[str] = (), **text: Any
    ) -> None:
        """Write both files.

        Args:
            values: what was found.
            tally: what became of the questions.
            servers: those that gave the answers.
            text: fills the template, beside ``report``, ``tally``, ``judge`` and ``provenance``.
        """
        judge = self._judged_by(*servers)
        asked = {} if judge is None or tally is None else {"judge": judge, "run": plain(tally)}
        write_json(
            self.out / f"{self.name}.json",
            {**asked, **self._identity(), **values, "provenance": self.provenance},
        )
        shared = {"report": self, "tally": tally, "judge": judge, "provenance": self.provenance}
        page = render("frailt.evaluation.judge", f"{self.name}.md", **shared, **text)
        write_text(self.out / f"{self.name}.md", page.rstrip("\n") + "\n")


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _StoredJudge(_Lenient):
    model: str
    temperature: float | None = None


class _StoredModel(_Lenient):
    path: str


class _StoredRun(_Lenient):
    answered: int


class _Stored(_Lenient):
    """What a report says of its subject. Version 0.1 wrote some of it in other places."""

    judge: _StoredJudge | str | None = None
    judge_temperature: float | None = None
    prompt: dict[str, str] | None = None
    pair_prompt: dict[str, str] | None = None
    stories: dict[str, Any] | int
    models: list[_StoredModel] = []
    model_a: _StoredModel | None = None
    model_b: _StoredModel | None = None
    run: _StoredRun | None = None
    training_text: list[str] = []
    reference: str | None = None
    probes: int = 0
    files: dict[str, str] = {}

    @property
    def paths(self) -> list[str]:
        return [model.path for model in (*self.models, self.model_a, self.model_b) if model is not None]

    def options(self, name: str, source: str) -> dict[str, Any]:
        """What the report ``name`` is on, by option. One at its default is missing, so a later version may add some.

        Raises:
            InputError: an option of the stories is unknown or damaged.
        """
        stories = self.stories if isinstance(self.stories, dict) else {"completions": self.stories}
        settings = changed(from_json(StoryConfig, stories, source))
        settings |= settings.pop("sampling", {})
        if name == "calibration":
            settings["stories"] = settings.pop("completions")
        if stories is not self.stories:
            settings["held_out"] = "(which, that version did not say)"
        if isinstance(self.judge, _StoredJudge):
            settings |= {"judge": self.judge.model, "judge_temperature": self.judge.temperature}
        else:
            settings |= {"judge": self.judge, "judge_temperature": self.judge_temperature}
        text, reference = (
            [f"{file} ({self.files.get(file, '')[:12]})" for file in files]
            for files in (self.training_text, [self.reference] if self.reference else [])
        )
        settings |= {"prompt": self.prompt, "text": text, "reference": reference, "probes": self.probes}
        options = {f"--{setting.replace('_', '-')}": value for setting, value in settings.items()}
        options["the prompt for pairs"] = self.pair_prompt
        return options | ({"the models": self.paths} if name == "pairwise" else {})


def _shown(option: str, value: Any) -> str:
    if value in (None, [], ()):
        return f"without {option}"
    words = value.get("version") if isinstance(value, dict) else value
    return f"with {option} {excerpt(' '.join(map(str, words)) if isinstance(words, list | tuple) else str(words))}"


# Grades


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """A model with its grades."""

    student: Student
    answers: list[dict[str, Any]]
    grades: dict[str, Mean]
    """The four metrics and "average"; empty where no completion was graded."""

    @property
    def cells(self) -> tuple[str, ...]:
        """A row in the order of ``GRADES``."""
        student, grades = self.student, [self.grades.get(name) for name in (*METRICS, "average")]
        values = [f"{grade.value:.2f}" if grade else "" for grade in grades]
        loss = "" if student.loss is None else f"{student.loss:.3f}"
        return student.name, student.shape, str(student.dim), loss, *values, str(grades[0].count if grades[0] else 0)


def grade_questions(students: Sequence[Student]) -> list[Question]:
    """A question for each completion."""
    return [
        Question(source=student.name, beginning=item.beginning, completions=(item.text,), index=item.index)
        for student in students
        for item in student.written
    ]


def graded(students: Sequence[Student], answers: Sequence[dict[str, Any]]) -> list[Graded]:
    """The answers to `grade_questions`, by model. Models that wrote the same share one in the ledger, but not here."""
    by_model = {student.name: [item for item in answers if item["source"] == student.name] for student in students}
    return [
        Graded(student=student, answers=by_model[student.name], grades=summary(by_model[student.name]))
        for student in students
    ]


def summary(answers: Sequence[dict[str, Any]]) -> dict[str, Mean]:
    """Means of the four grades and of their average, with intervals over beginnings; empty where nothing is graded."""
    groups = [item["beginning"] for item in answers]
    grades = {metric: [float(item[metric]) for item in answers] for metric in METRICS}
    return means({**grades, "average": [average(item) for item in answers]}, groups)


def means(values: dict[str, list[float]], groups: Sequence[str] | None = None) -> dict[str, Mean]:
    return {name: result for name, numbers in values.items() if (result := mean(numbers, groups))}


def average(answer: dict[str, Any]) -> float:
    return sum(answer[metric] for metric in METRICS) / len(METRICS)


def write_grades(
    models: Sequence[Graded], tally: Tally, report: Report, more: dict[str, Any], section: Markdown
) -> None:
    """Write grades down, and ``more`` values and a ``section`` about them."""
    values = [
        {
            **described(item.student),
            "grades": plain(item.grades),
            "grades_by_beginning": [
                {"beginning": answer["beginning"], "index": answer["index"], **{m: answer[m] for m in METRICS}}
                for answer in item.answers
            ],
        }
        for item in models
    ]
    columns = (*METRICS, "average")
    intervals = [(item.student.name, *(item.grades.get(name) or "" for name in columns)) for item in models]
    sources = [item.student.loss_of or "not known" for item in models]
    report.write(
        {"models": values, **more},
        tally,
        servers_of(*(item.answers for item in models)),
        grades=markdown_table(GRADES, [item.cells for item in models], words=2),
        intervals=markdown_table(("model", *columns), intervals),
        losses=[(source, sources.count(source)) for source in dict.fromkeys(sources)],
        section=section,
    )


def plain(value: Any) -> Any:
    """Values of results as JSON values."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def described(student: Student) -> dict[str, Any]:
    """A student without its stories, as JSON values."""
    return asdict(replace(student, written=())) | {"written": len(student.written)}


def servers_of(*answers: Sequence[dict[str, Any]]) -> list[str]:
    """The servers that gave these answers."""
    return sorted({answer["server"] for group in answers for answer in group})


def cell(value: Mean | float | None) -> str:
    """A value as a table shows it; None as an empty cell."""
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

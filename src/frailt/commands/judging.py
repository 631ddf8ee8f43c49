"""The commands of `frailt judge`: parse, call, print."""

import math
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from frailt.console import LOG_SECONDS, ProgressLine
from frailt.data.text import read_stories
from frailt.device import Device
from frailt.errors import InputError
from frailt.evaluation.judge import checks, reports
from frailt.evaluation.judge.asking import Asked, Tally, consult, summary
from frailt.evaluation.judge.client import Judge, JudgeConfig
from frailt.evaluation.judge.estimate import estimate
from frailt.evaluation.judge.grading import METRICS, Form, compare_form, grade_form
from frailt.evaluation.judge.ledger import Question
from frailt.evaluation.judge.prompt import GRADE, read_prompt
from frailt.evaluation.judge.reports import Report, servers_of
from frailt.evaluation.judge.students import Completion, Loss, StoryConfig, Student, whole_stories, write_stories
from frailt.inference.storyteller import Storyteller
from frailt.options import Words, parse, table


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What models write."""

    models: Words[tuple[Path, ...]] = ()
    """Run folders, saved models or llama2.c .bin files."""
    out: Path = Path("runs/judge")
    """Folder for completions, replies and reports."""
    stories: StoryConfig = field(default_factory=StoryConfig)
    tokenizer: Path | None = None
    """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
    device: Device = "cpu"
    """Where models write. Small ones are fastest on the CPU."""

    def __post_init__(self) -> None:
        if not self.models:  # Where they stand after an option that takes several files, it has taken them.
            raise InputError(
                "name at least one model, before options that take several files: a run folder, a saved model's folder "
                "or a llama2.c .bin file"
            )

    def report(self, name: str, **options: Any) -> Report:
        """The report on these models."""
        return _report(name, self.out, self.stories, models=self.models, **options)

    def students(self, **options: Any) -> list[Student]:
        """The models with their stories; ``options`` are those of `write_stories`."""
        beginnings, number = len(self.stories.given()), self.stories.number()
        if rest := number % beginnings if number > beginnings else 0:
            print(
                f"{number} completions over {beginnings} beginnings: {rest} of them have one more than the others; "
                f"with --completions {number - rest} or {number - rest + beginnings} all have as many",
                file=sys.stderr,
            )
        with ProgressLine() as line:
            options |= {"tokenizer": self.tokenizer, "device": self.device, "report": partial(line.show, "writing")}
            return write_stories(self.models, self.stories, self.out, **options)


@dataclass(frozen=True, kw_only=True)
class Measured(Writing):
    """Models with their losses."""

    valid: tuple[Path, ...] = ()
    """Text to measure validation losses on; unset: the last validation of each run."""

    def loss_of(self, path: Path, model: Storyteller) -> Loss:
        """A model's loss, and where it comes from."""
        if self.valid:
            from frailt.evaluation.loss import text_loss

            loss = text_loss(path, model.tokenizer, self.valid, self.device)
            return loss.nats_per_token, ", ".join(file.name for file in self.valid)
        from frailt.training.run_folder import RunFolder

        run = RunFolder(path)
        if not (path / "run.json").is_file() or run.result is None:
            return None, None
        return run.result.valid_loss, f"its run, on {run.record().data.name}"


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Who is asked, and how."""

    judge: JudgeConfig = field(default_factory=JudgeConfig)
    estimate: bool = False
    """Print calls, tokens and price; ask nothing and write nothing."""
    again: bool = False
    """Ask the questions again too that failed or were refused."""

    def check(self, report: Report) -> None:
        """Say what is wrong with key, address, proxy or folder before models write."""
        if not self.estimate:
            Judge(self.judge).close()
            report.check()

    def ask(self, report: Report, *questions: Sequence[Question]) -> tuple[Tally, list[list[dict[str, Any]]]] | None:
        """The answers to the questions of each of the report's forms; None where their cost was to be printed."""
        asked: Asked = list(zip(report.forms, questions, strict=True))
        ledger = report.out / "replies.jsonl"
        if self.estimate:
            print(estimate(asked, self.judge, ledger))
            return None
        with ProgressLine() as line:
            return consult(asked, self.judge, ledger, again=self.again, report=_shown(line))


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What is asked."""

    prompt: Path | None = None
    """Text file with another wording of the question; {story} is where the exercise goes."""

    @property
    def form(self) -> Form:
        """The question."""
        return grade_form(GRADE if self.prompt is None else read_prompt(self.prompt))


@dataclass(frozen=True, kw_only=True)
class Grade(Wording, Asking, Measured):
    """Options of ``frailt judge grade``."""


@dataclass(frozen=True, kw_only=True)
class Pairwise(Asking, Writing):
    """Options of ``frailt judge pairwise``."""

    def __post_init__(self) -> None:
        if len(self.models) != 2:
            raise InputError("name two models, before options that take several files; for more, grade them")


@dataclass(frozen=True, kw_only=True)
class Calibrate(Wording, Asking):
    """Options of ``frailt judge calibrate``."""

    out: Path = Path("runs/judge")
    """Folder for replies and reports."""
    stories: int = 20
    """Stories to cut in the middle; each takes 11 questions."""
    held_out: tuple[Path, ...] = ()
    """Text files of stories; unset: stories of the embedded world."""


@dataclass(frozen=True, kw_only=True)
class Offline(Measured):
    """Options of ``frailt judge offline``."""

    text: tuple[Path, ...] = ()
    """Training text, for what stories have in common with it."""
    reference: Path | None = None
    """Model for the perplexity of what the others wrote."""
    probes: int = 0
    """Stories of the embedded world that each model goes on with, for the facts it keeps."""


def grade(args: list[str], description: str) -> None:
    from frailt.paper.grades_report import beside_the_paper, models_of
    from frailt.paper.section_4_2 import claims

    command: Grade = parse(Grade, "judge grade", args, description)
    report = command.report("judge", judge=command.judge, forms=(command.form,))
    command.check(report)
    students = command.students(write=not command.estimate, loss_of=command.loss_of)
    if (reply := command.ask(report, reports.grade_questions(students))) is None:
        return
    tally, [answers] = reply
    graded = reports.graded(students, answers)
    models = models_of(graded)
    reports.write_grades(graded, tally, report, *beside_the_paper(models, command.out))
    print(table(reports.GRADES, [item.cells for item in graded]))
    for claim in claims(models):
        print(textwrap.fill(f"{claim.verdict}: {claim.text} ({claim.detail})", 80, subsequent_indent="  "))
    _finish(report, tally, f"   Figures: {command.out / 'figure-6.png'}, figure-7.png")


def calibrate(args: list[str], description: str) -> None:
    command: Calibrate = parse(Calibrate, "judge calibrate", args, description)
    stories = StoryConfig(completions=command.stories, held_out=command.held_out)
    report = _report("calibration", command.out, stories, judge=command.judge, forms=(command.form, compare_form()))
    command.check(report)
    if not command.held_out:
        print("no --held-out given: cutting stories of the embedded world", file=sys.stderr)
    beginnings = whole_stories(command.held_out, command.stories, least=checks.SENTENCES)
    if (reply := command.ask(report, checks.questions(beginnings), checks.pair_questions(beginnings))) is None:
        return
    tally, [graded, paired] = reply
    result = checks.calibration(graded, paired, len(beginnings))
    checks.write_calibration(result, tally, servers_of(graded, paired), report)
    rows = [(name, *(f"{grade.value:.2f}" for grade in row.values())) for name, row in result.grades.items() if row]
    print(table(("ending", *METRICS, "average"), rows))
    pairs = [(name, *checks.preference_cells(preference)) for name, preference in result.pairs.items()]
    print(table(("real ending (A) or", *checks.PREFERENCE), _short(pairs)))
    print(f"Endings: {result.verdict}.")
    _finish(report, tally)


def pairwise(args: list[str], description: str) -> None:
    command: Pairwise = parse(Pairwise, "judge pairwise", args, description)
    report = command.report("pairwise", judge=command.judge, forms=(compare_form(),))
    command.check(report)
    students = command.students(write=not command.estimate)
    if (reply := command.ask(report, checks.model_pairs(students))) is None:
        return
    tally, [answers] = reply
    result = checks.preference(answers)
    checks.write_preference(students, result, tally, servers_of(answers), report)
    print(f"A: {students[0].name}   B: {students[1].name}")
    print(table(checks.PREFERENCE, _short([checks.preference_cells(result)])))
    _finish(report, tally)


def offline(args: list[str], description: str) -> None:
    from frailt.evaluation.judge.offline import Facts, facts_kept, measure, report_offline, sources_of
    from frailt.inference.torch_decoder import TorchStoryteller

    command: Offline = parse(Offline, "judge offline", args, description)
    # Whatever is wrong with them is said before the models write.
    training_text = read_stories(command.text) if command.text else None
    reference = TorchStoryteller.load(command.reference, command.tokenizer) if command.reference is not None else None
    report = command.report("offline", sources=sources_of(command.text, command.reference, command.probes))
    report.check()
    facts: dict[str, Facts] = {}

    def probe(name: str, model: Storyteller) -> None:
        if command.probes:
            facts[name] = facts_kept(model, command.probes)

    students = command.students(loss_of=command.loss_of, visit=probe)
    texts = {student.name: list(student.written) for student in students}
    if command.stories.held_out:
        texts["(the real endings)"] = [
            Completion(beginning=half.text, text=half.ending or "", index=0) for half in command.stories.given()
        ]
    if training_text is not None:
        print("reading the training text", file=sys.stderr)
    measures = measure(texts, training_text=training_text, reference=reference)
    head, rows = report_offline(students, measures, facts, report)
    print(table(head, _short(rows)))
    print("None of these figures is a grade.")
    print(f"Table: {command.out / 'offline.md'}   All figures: {command.out / 'offline.json'}")


def _report(name: str, out: Path, stories: StoryConfig, **options: Any) -> Report:
    import torch

    from frailt.training.provenance import provenance

    return Report(name=name, out=out, stories=stories, provenance=provenance(torch.device("cpu")), **options)


def _short(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Cells without their intervals, which are in the files: with them a row is wider than a terminal."""
    return [tuple(cell.split(" [")[0] for cell in row) for row in rows]


def _finish(report: Report, tally: Tally, more: str = "") -> None:
    """Say what was not answered, and where the reports lie."""
    if rest := summary(tally):
        print(f"{tally.answered} of {tally.questions} questions answered; {rest}", file=sys.stderr)
    print(f"Report: {report.out / f'{report.name}.md'}   Replies: {report.out / 'replies.jsonl'}{more}")


def _shown(line: ProgressLine) -> Callable[[Tally], None]:
    """What shows where the asking stands, and says now and then what is wrong with the judge. Writes to stderr."""
    waited, notes = -math.inf, set[str]()

    def show(tally: Tally) -> None:
        nonlocal waited
        refused = f", {tally.refused} refused" if tally.refused else ""
        state = (
            f"{tally.answered}/{tally.questions} answered, {tally.failed} failed{refused}, {tally.calls} calls, "
            f"{tally.prompt_tokens + tally.completion_tokens:,} tokens"
        )
        line.show("asking", tally.questions - tally.open, tally.questions, state)
        for note in (tally.notice and f"the judge refuses a question ({tally.notice})", tally.stopped):
            if note and note not in notes:
                notes.add(note)
                print(note, file=sys.stderr, flush=True)
        if tally.waiting and time.monotonic() - waited > LOG_SECONDS:
            waited = time.monotonic()
            print(tally.waiting, file=sys.stderr, flush=True)

    return show

"""Grade models' stories by a language model, or measure them without one."""

import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from frailt.errors import InputError
from frailt.options import Words, parse, table


def run(args: list[str]) -> None:
    from frailt.evaluation.judge.client import JudgeConfig, read_key
    from frailt.evaluation.judge.judging import StoryConfig

    @dataclass(frozen=True, kw_only=True)
    class Command:
        models: Words[tuple[Path, ...]] = ()
        """Run folders, saved models or llama2.c .bin files."""
        out: Path = Path("runs/judge")
        """Folder for completions, replies and reports."""
        stories: StoryConfig = field(default_factory=StoryConfig)
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        prompt: Path | None = None
        """Text file with another wording of the question; {story} is where the exercise goes."""
        estimate: bool = False
        """Print calls, tokens and price, and ask nothing."""
        calibrate: bool = False
        """Measure the judge itself: real endings against spoiled ones."""
        pairwise: tuple[Path, Path] | None = None
        """Compare the stories of two models side by side, in both orders."""
        offline: bool = False
        """Measures that need no judge and no network; none of them is a grade."""
        text: tuple[Path, ...] = ()
        """With --offline: training text, for what stories have in common with it."""
        reference: Path | None = None
        """With --offline: model for the perplexity of what the others wrote."""
        probes: int = 0
        """With --offline: stories of the embedded world that each model goes on with, for the facts it keeps."""
        valid: tuple[Path, ...] = ()
        """Text to measure validation losses on; unset: the last validation of each run."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
        """Where models write. Small ones are fastest on the CPU."""

    command = parse(Command, "judge", args, __doc__)
    chosen = [name for name in ("calibrate", "pairwise", "offline") if getattr(command, name)]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} are two runs; give one of them")
    if command.models and chosen in (["calibrate"], ["pairwise"]):
        raise InputError(f"--{chosen[0]} takes no models before it; leave out {command.models[0]}")
    if not command.offline and (command.text or command.reference or command.probes):
        raise InputError("--text, --reference and --probes belong to --offline; add it, or leave them out")
    if not (command.offline or command.estimate):
        read_key(command.judge)  # A missing key is said before models write.
    {"calibrate": _calibrate, "pairwise": _pairwise, "offline": _offline}.get("".join(chosen), _grade)(command)


def _grade(command: Any) -> None:
    from frailt.paper.grades_report import HEADERS, cells, check_report, grade, grade_questions
    from frailt.paper.section_4_2 import claims

    form = _form(command)
    if not command.estimate:
        check_report(command.models, form, command.stories, command.judge, command.out)
    students = _students(command, command.models)
    if _estimated(command, [(form, grade_questions(students))]):
        return
    with _asking() as report:
        tally, graded = grade(students, form, command.stories, command.judge, command.out, _provenance(), report=report)
    print(table(HEADERS, cells(graded)))
    for claim in claims(graded):
        print(textwrap.fill(f"{claim.verdict}: {claim.text} ({claim.detail})", 80, subsequent_indent="  "))
    _finish(command, tally, "judge")


def _calibrate(command: Any) -> None:
    from frailt.evaluation.judge.calibrate import SENTENCES
    from frailt.evaluation.judge.checks import PREFERENCE, calibrate_judge, calibration_questions, preference_cells
    from frailt.evaluation.judge.judging import check_folder

    form = _form(command)
    check_folder(command.out)
    if not command.stories.held_out:
        print("no --held-out given: cutting stories of the embedded world", file=sys.stderr)
    beginnings = command.stories.whole(SENTENCES)
    if _estimated(command, calibration_questions(beginnings, form)):
        return
    with _asking() as report:
        tally, found = calibrate_judge(
            beginnings, form, command.stories, command.judge, command.out, _provenance(), report=report
        )
    columns = list(next((own for own in found.grades.values() if own), {}))
    rows = [(name, *(f"{own[c].value:.2f}" for c in columns)) for name, own in found.grades.items() if own]
    print(table(("ending", *columns), rows))
    pairs = [(name, *preference_cells(own)) for name, own in found.pairs.items()]
    print(table(("real ending (A) or", *PREFERENCE), _short(pairs)))
    print(f"Endings: {found.verdict}.")
    _finish(command, tally, "calibration")


def _pairwise(command: Any) -> None:
    from frailt.evaluation.judge.checks import PREFERENCE, compare_models, pair_questions, preference_cells
    from frailt.evaluation.judge.grading import compare_form

    if command.prompt is not None:
        raise InputError("--prompt is the wording of a grade, and --pairwise has its own; leave out --prompt")
    students = _students(command, command.pairwise)
    if _estimated(command, [(compare_form(), pair_questions(students))]):
        return
    with _asking() as report:
        tally, found = compare_models(
            students, command.stories, command.judge, command.out, _provenance(), report=report
        )
    print(f"A: {students[0].name}   B: {students[1].name}")
    print(table(PREFERENCE, _short([preference_cells(found)])))
    _finish(command, tally, "pairwise")


def _offline(command: Any) -> None:
    from frailt.data.text import read_stories
    from frailt.evaluation.judge.checks import report_offline
    from frailt.evaluation.judge.judging import hashes
    from frailt.evaluation.judge.offline import Facts, facts_kept, measure
    from frailt.evaluation.judge.students import Completion
    from frailt.inference.torch_decoder import TorchStoryteller

    if command.estimate:
        raise InputError("--offline asks no judge and costs nothing; leave out --estimate")
    # Whatever is wrong with them is said before the models write.
    stories = read_stories(command.text) if command.text else None
    reference = TorchStoryteller.load(command.reference, command.tokenizer) if command.reference is not None else None
    facts: dict[str, Facts] = {}

    def probe(name: str, teller: Any) -> None:
        if command.probes:
            facts[name] = facts_kept(teller, command.probes)

    students = _students(command, command.models, visit=probe)
    texts = {student.name: list(student.written) for student in students}
    if command.stories.held_out:
        texts["(the real endings)"] = [
            Completion(beginning=one.text, text=one.ending or "", index=0) for one in command.stories.given()
        ]
    if stories is not None:
        print("reading the training text", file=sys.stderr)
    measures = measure(texts, training_text=stories, reference=reference)
    sources = {
        "training_text": [path.name for path in command.text],
        "reference": command.reference.name if command.reference is not None else None,
        "probes": command.probes,
        "files": hashes(*command.text, *filter(None, [command.reference])),
    }
    head, rows = report_offline(students, measures, facts, command.stories, sources, command.out, _provenance())
    print(table(head, _short(rows)))
    print("None of these figures is a grade.")
    print(f"Table: {command.out / 'offline.md'}   All figures: {command.out / 'offline.json'}")


def _form(command: Any) -> Any:
    from frailt.evaluation.judge.grading import grade_form
    from frailt.evaluation.judge.prompt import GRADE, read_prompt

    return grade_form(GRADE if command.prompt is None else read_prompt(command.prompt))


def _students(command: Any, paths: Any, **options: Any) -> Any:
    from frailt.console import ProgressLine
    from frailt.evaluation.judge.judging import write_stories
    from frailt.training.device import choose_device

    with ProgressLine() as line:
        return write_stories(
            paths,
            command.stories,
            command.out,
            tokenizer=command.tokenizer,
            valid=command.valid,
            device=choose_device(command.device),
            report=lambda done, total, state: line.show("writing", done, total, state),
            **options,
        )


def _estimated(command: Any, asked: Any) -> bool:
    """Whether an estimate was all that was wanted; it is printed."""
    from frailt.evaluation.judge.estimate import estimate

    if command.estimate:
        print(estimate(asked, command.judge, command.out / "replies.jsonl"))
    return command.estimate


def _short(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Cells without their intervals, which are in the files: with them a row is wider than a terminal."""
    return [tuple(cell.split(" [")[0] for cell in row) for row in rows]


def _provenance() -> dict[str, Any]:
    import torch

    from frailt.training.run_folder import provenance

    return provenance(torch.device("cpu"))


def _finish(command: Any, tally: Any, name: str) -> None:
    """Say what was not answered, and where the reports lie."""
    from frailt.evaluation.judge.asking import summary

    if rest := summary(tally):
        print(f"{tally.answered} of {tally.questions} questions answered; {rest}", file=sys.stderr)
    figures = f"   Figures: {command.out / 'figure-6.png'}, figure-7.png" if name == "judge" else ""
    print(f"Report: {command.out / f'{name}.md'}   Replies: {command.out / 'replies.jsonl'}{figures}")


@contextmanager
def _asking() -> Iterator[Callable[[Any], None]]:
    """What shows where the asking stands, and says now and then what is wrong with the judge. Writes to stderr."""
    from frailt.console import LOG_SECONDS, ProgressLine

    said, shown = -math.inf, set[str]()
    with ProgressLine() as line:

        def report(tally: Any) -> None:
            nonlocal said
            refused = f", {tally.refused} refused" if tally.refused else ""
            state = (
                f"{tally.answered}/{tally.questions} answered, {tally.failed} failed{refused}, {tally.calls} calls, "
                f"{tally.prompt_tokens + tally.completion_tokens:,} tokens"
            )
            line.show("asking", tally.questions - tally.open, tally.questions, state)
            for note in (tally.notice and f"the judge refuses a question ({tally.notice})", tally.stopped):
                if note and note not in shown:
                    shown.add(note)
                    print(note, file=sys.stderr, flush=True)
            if tally.waiting and time.monotonic() - said > LOG_SECONDS:
                said = time.monotonic()
                print(tally.waiting, file=sys.stderr, flush=True)

        yield report

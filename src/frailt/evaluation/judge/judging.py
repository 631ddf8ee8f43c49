"""Whole runs of `frailt judge`: models write, a judge grades or measures are taken, a folder is filled.

===================  ==========================================================================
completions/         what each model wrote, a JSON file for each model and way of asking it
replies.jsonl        every reply of a judge; see ``evaluation/judge/ledger.py``
judge.json, .md      grades, Tables 4 and 5, fits and verdicts, with figure-6.png and figure-7.png
calibration.json     what is known about the judge itself, with calibration.md
pairwise.json        two models side by side, with pairwise.md
offline.json         measures that need no judge, with offline.md
===================  ==========================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from frailt.data.storyworld import stories
from frailt.data.text import read_stories
from frailt.errors import InputError
from frailt.evaluation.judge.beginnings import (
    Beginning,
    held_out_beginnings,
    own_beginnings,
    read_beginnings,
)
from frailt.evaluation.judge.students import Completion, completions_of, labels, weights_of
from frailt.evaluation.loss import stream_loss
from frailt.evaluation.text import encode_text
from frailt.files import read_json
from frailt.inference.sampling import Sampling
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.model.counts import count
from frailt.model.variant import Variant
from frailt.statistics import Mean
from frailt.training.run_folder import RunFolder

FILES = {"completions", "replies.jsonl"} | {
    f"{name}.{suffix}" for name in ("judge", "calibration", "pairwise", "offline") for suffix in ("json", "md")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoryConfig:
    """What models are given to complete, and how they do it."""

    completions: int = 20
    """Completions of each model, spread over the beginnings in turn. With --calibrate: stories."""
    beginnings: Path | None = None
    """YAML list or text file of beginnings; unset: the project's own."""
    held_out: tuple[Path, ...] = ()
    """Text files of stories to cut in the middle, in place of beginnings."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.beginnings is not None and self.held_out:
            raise InputError("give --beginnings or --held-out, not both")
        if self.completions < 1:
            raise InputError(f"completions is {self.completions}; it must be at least 1")

    def given(self) -> list[Beginning]:
        """The beginnings that every model gets, in their order."""
        if self.held_out:
            return held_out_beginnings(read_stories(self.held_out), self.completions)
        return read_beginnings(self.beginnings) if self.beginnings is not None else own_beginnings()

    def whole(self, least: int) -> list[Beginning]:
        """Beginnings of which the real ending is known, with so many sentences at least."""
        if self.beginnings is not None:
            raise InputError("--calibrate needs whole stories: give --held-out in place of --beginnings")
        source = (
            read_stories(self.held_out)
            if self.held_out
            else (story.text for story in stories(20 * self.completions, seed=2**31))
        )
        return held_out_beginnings(source, self.completions, least=least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A model, and what it wrote."""

    name: str
    path: str
    shape: str
    """Its name (``model/variant.py``): shape, and what else is special about it."""
    dim: int
    parameters: int
    loss: float | None
    """Nats per token; None where it is not known."""
    loss_of: str | None
    """Where the loss comes from."""
    weights: str
    """SHA-256 of the weights."""
    written: tuple[Completion, ...]


def write_stories(
    paths: Sequence[Path],
    config: StoryConfig,
    out: Path,
    *,
    tokenizer: Path | None = None,
    valid: Sequence[Path] = (),
    device: Any = "cpu",
    visit: Callable[[str, TorchStoryteller], None] = lambda name, teller: None,
    report: Callable[[float, float, str], None] = lambda done, total, state: None,
) -> list[Student]:
    """Have each model complete the beginnings; what it wrote before is read, be it only a part.

    Args:
        paths: run folders, saved models or llama2.c ``.bin`` files.
        config: what they are given.
        out: folder of results; completions go to ``out/completions``.
        tokenizer: of ``.bin`` files.
        valid: text to measure validation losses on; without it, a run's own last validation counts.
        device: a ``torch.device``.
        visit: called with each model, for further measures.
        report: told how many stories are written, of how many, and in words which model is writing.

    Raises:
        InputError: a model or a file cannot be read, or ``out`` holds something else.
    """
    if not paths:
        raise InputError("name at least one model: a run folder, a saved model's folder or a llama2.c .bin file")
    check_folder(out)
    beginnings, students = config.given(), []
    for name, path in zip(labels(paths), paths, strict=True):
        before, total = len(students) * config.completions, len(paths) * config.completions

        def told(done: float, state: str, name: str = name, before: int = before, total: int = total) -> None:
            report(before + done, total, f"{name}: {state}")

        teller = TorchStoryteller.load(path, tokenizer if path.is_file() else None, device=device)
        written = completions_of(
            name, path, teller, beginnings, config.completions, config.sampling, out / "completions", told
        )
        loss, source = _loss(path, teller, valid)
        visit(name, teller)
        students.append(
            Student(
                name=name,
                path=str(path),
                shape=str(Variant.of(teller.model.config)),
                dim=teller.model.config.dim,
                parameters=count(teller.model.config).parameters,
                loss=loss,
                loss_of=source,
                weights=weights_of(path),
                written=tuple(written),
            )
        )
    return students


def check_folder(out: Path) -> None:
    """Refuse a folder with other things in it.

    Raises:
        InputError: it holds files, and none of a judge's.
    """
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if there and not there & FILES:
        raise InputError(f"{out} holds other files and no results of a judge; choose another --out")


def hashes(*paths: Path) -> dict[str, str]:
    """The SHA-256 of files, by name; of a folder, that of the weights in it."""
    return {path.name: weights_of(path) for path in paths}


def plain(value: Any) -> Any:
    """Values of results as JSON values."""
    if isinstance(value, Mean):
        return {"value": value.value, "interval": value.interval, "count": value.count}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def described(student: Student) -> dict[str, Any]:
    """A student without its stories, as JSON values."""
    return asdict(replace(student, written=())) | {"written": len(student.written)}


def _loss(path: Path, teller: TorchStoryteller, valid: Sequence[Path]) -> tuple[float | None, str | None]:
    if valid:
        tokens, size = encode_text(list(valid), teller.tokenizer)
        return stream_loss(teller.model, tokens, text_bytes=size).nats_per_token, ", ".join(p.name for p in valid)
    if (path / "run.json").is_file() and (result := RunFolder(path).result):
        return result["valid_loss"], f"its run, on {read_json(path / 'run.json')['data']['name']}"
    return None, None

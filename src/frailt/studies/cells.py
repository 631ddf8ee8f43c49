"""The runs of a study: how a folder is named by what is trained in it, and what is kept of a run that is complete.

A study is any list of ``TrainConfig``. Each has a folder of its own in ``OUT/runs``, so studies with other settings or
other data can share ``OUT``, and nothing is ever trained over. A complete run leaves a record in ``OUT/cells``: a few
kilobytes, without its weights. Reports need no more: ``OUT/runs`` may be deleted, or never have been on this machine.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from frailt.configs import changed, from_json
from frailt.data.corpus import Corpus
from frailt.data.manifest import Manifest
from frailt.errors import InputError
from frailt.evaluation.loss import Loss
from frailt.files import read_json, write_json
from frailt.model.config import ModelConfig
from frailt.model.counts import count
from frailt.model.variant import Variant
from frailt.studies.gap import Gap, gap_closed
from frailt.training.config import TrainConfig
from frailt.training.run_folder import INCIDENTAL, DataRecord, RunFolder

Settings = dict[str, Any]
"""Values by the names of fields, of the training, its model or its optimizer."""


def label(config: TrainConfig) -> str:
    """A run's name for people and files, from width, model and seed: ``d64-1x8-none-s0``."""
    return f"d{config.model.dim}-{Variant.of(config.model).slug}-s{config.seed}"


def labels(configs: Iterable[TrainConfig]) -> dict[TrainConfig, str]:
    """``label`` of each run, and the settings of the training in which the runs differ: ``d64-1-s0 lr=0.001``."""
    named = {"seed", *INCIDENTAL, *asdict(ModelConfig())}
    settings = {config: settings_of(config) for config in configs}
    usual = next(iter(settings.values()), {})
    varied = [name for name in usual.keys() - named if any(own[name] != usual[name] for own in settings.values())]
    return {
        config: " ".join([label(config), *(f"{name}={own[name]}" for name in sorted(varied))])
        for config, own in settings.items()
    }


def settings_of(config: TrainConfig) -> Settings:
    """All settings of a run by their names, which no two of the three configs share."""
    stored = asdict(config)
    return stored.pop("model") | stored.pop("optimizer") | stored


def with_settings(base: TrainConfig, settings: Settings, source: str) -> TrainConfig:
    """``base`` with other values of some settings.

    Raises:
        InputError: ``source`` has a setting that there is not, a value is refused, or the values do not go together.
    """
    stored = asdict(base)
    for name, value in settings.items():
        part = next((part for part in (stored["model"], stored["optimizer"]) if name in part), stored)
        part[name] = value
    return from_json(TrainConfig, stored, source)


def training_flops(config: TrainConfig) -> int:
    """Forward FLOPs of all training tokens: what a run costs beside others."""
    return count(config.model).flops * config.steps * config.tokens_per_step


def same_run(a: TrainConfig, b: TrainConfig) -> bool:
    """Whether two configs train the same: all but how often to save, and where to compute, is equal."""
    return replace(a, **{name: getattr(b, name) for name in INCIDENTAL}) == b


def cell_folder(config: TrainConfig, corpus: Corpus, out: Path) -> Path:
    """The run folder of a config in a study's folder ``out``.

    Its name ends in a hash of the data and of the settings that differ from their defaults, so that a setting which a
    later version adds changes no name. A folder that an earlier version named by another rule is still taken where its
    record has this config.
    """
    settings = {name: value for name, value in changed(config).items() if name not in INCIDENTAL}
    content = json.dumps([settings, corpus.digest], sort_keys=True)
    name = label(config)
    path = out / "runs" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    if not path.exists():
        for record in sorted(path.parent.glob(f"{name}-*/run.json")):
            try:
                if same_run(config, RunFolder(record.parent).config()) and trained_on(record.parent, corpus):
                    return record.parent
            except (InputError, OSError):
                continue  # Nothing that can be gone on with.
    return path


def trained_on(folder: Path, corpus: Corpus) -> bool:
    """Whether a run's record names this data."""
    return RunFolder(folder).record().data.hashes == corpus.digest


def steps_done(config: TrainConfig, folder: Path) -> int:
    """Training steps of a run that need not be made again: those before the saved state that it goes on from."""
    run = RunFolder(folder)
    return config.steps if record_file(folder).is_file() or run.result is not None else run.saved


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyData:
    """The data that all runs of a study were trained on."""

    name: str
    """Its folder's name."""
    manifest: Manifest

    @classmethod
    def of(cls, corpus: Corpus) -> "StudyData":
        """A prepared folder's."""
        return cls(name=corpus.folder.name, manifest=corpus.manifest)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteRun:
    """A run that is trained to its end: what its record holds."""

    config: TrainConfig
    data: DataRecord
    loss: Loss
    stories: tuple[float, ...]
    """Nats of each validation story."""
    curve: tuple[tuple[float, ...], ...]
    """Training tokens and validation loss along the run."""
    provenance: dict[str, Any]
    """Versions, commit, machine and precision that trained it."""

    @classmethod
    def of(cls, run: RunFolder, corpus: Corpus) -> "CompleteRun":
        """What a run folder holds.

        Raises:
            InputError: the run is not complete, or a file is damaged or does not fit the data.
        """
        if run.result is not None and not run.is_complete:
            raise InputError(f"{run.path} lacks the losses of its stories; train it with --resume, which adds them")
        nats, record = run.story_nats(), run.record()
        stories = max(1, int(np.count_nonzero(np.asarray(corpus.valid.tokens) == corpus.manifest.bos)))
        if len(nats) != stories:
            raise InputError(f"{run.path} has losses of {len(nats)} stories, and the data has {stories}")
        return cls(
            config=record.config,
            data=record.data,
            loss=Loss(nats=float(nats.sum()), tokens=len(corpus.valid) - 1, bytes=corpus.valid_bytes),
            stories=tuple(nats.tolist()),
            curve=tuple((m.tokens, m.valid_loss) for m in run.metrics() if m.valid_loss is not None),
            provenance=record.provenance,
        )

    @classmethod
    def read(cls, path: Path) -> "CompleteRun":
        """Read a record.

        Raises:
            InputError: it is missing or damaged.
        """
        return from_json(cls, read_json(path), str(path))

    def write(self, path: Path) -> None:
        """Write the record; losses of stories to the millionth of a nat."""
        write_json(path, asdict(replace(self, stories=tuple(round(nats, 6) for nats in self.stories))))


def record_file(folder: Path) -> Path:
    """Where the record of the run in ``OUT/runs/NAME`` is kept: ``OUT/cells/NAME.json``."""
    return folder.parent.parent / "cells" / f"{folder.name}.json"


def keep_record(folder: Path, corpus: Corpus) -> None:
    """Write the record of a run that is complete and has none yet.

    Raises:
        InputError: a file of the run is damaged.
    """
    if not record_file(folder).is_file() and RunFolder(folder).is_complete:
        CompleteRun.of(RunFolder(folder), corpus).write(record_file(folder))


def is_done(folder: Path) -> bool:
    """Whether a run is complete, or its record is there."""
    return record_file(folder).is_file() or RunFolder(folder).is_complete


def complete_runs(
    out: Path, corpus: Corpus, wanted: Callable[[TrainConfig], bool]
) -> tuple[list[CompleteRun], dict[str, str]]:
    """The complete runs of a study that were trained on this data, by name, and those that cannot be read.

    Args:
        out: folder of a study.
        corpus: the data; runs on other data are none of the study's.
        wanted: whether a config is of the study.

    Returns:
        The runs, and reasons by the name of each run that is left out.
    """
    recorded = {path.stem: path for path in out.glob("cells/*.json")}
    folders = {path.parent.name: path.parent for path in out.glob("runs/*/run.json")}
    runs, damaged = [], {}
    for name in sorted(recorded.keys() | folders.keys()):
        try:
            if name in recorded:
                found = CompleteRun.read(recorded[name])
                if found.data.hashes == corpus.digest and wanted(found.config):
                    runs.append(found)
                continue
            run = RunFolder(folders[name])
            if trained_on(run.path, corpus) and wanted(run.config()) and run.result is not None:
                runs.append(CompleteRun.of(run, corpus))
        except (InputError, OSError) as error:
            damaged[name] = str(error)
    return runs, damaged


def gap_of(variant: Variant, runs: Mapping[Variant, Mapping[int, CompleteRun]], *, spread: float | None) -> Gap | None:
    """The gap that a model closes; ``None`` for a standard one, and where its twins were not run with its seeds.

    Args:
        variant: the model.
        runs: of all models of one width, by seed.
        spread: see ``gap_closed``.
    """
    if variant.shape.standard:
        return None
    shallow, model, deep = (
        {seed: np.asarray(run.stories) for seed, run in runs.get(name, {}).items()}
        for name in (variant.shallow, variant, variant.deep)
    )
    return gap_closed(shallow, model, deep, spread=spread)

"""Train a model with every combination of some settings: rates, batches, shapes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from frailt.errors import InputError, excerpt
from frailt.options import corpus_in, parse, parse_known


def run(args: list[str]) -> None:
    from frailt.commands.study import Study
    from frailt.compiling import announce_compiling
    from frailt.studies.cells import settings_of
    from frailt.studies.sweep import check_folder
    from frailt.studies.vary import combinations, write_sweep
    from frailt.training.config import TrainConfig
    from frailt.training.presets import PRESETS, Preset
    from frailt.training.run_folder import INCIDENTAL

    @dataclass(frozen=True, kw_only=True)
    class Start:
        preset: Preset = "paper"

    @dataclass(frozen=True, kw_only=True)
    class Command:
        vary: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
        """A setting and its values, like lr=1e-3,2e-3 or shape=8,1^8. Given again, all combinations are trained."""
        config: TrainConfig
        preset: Preset = "paper"
        """Where the other options start from."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
        out: Path = Path("runs/sweep")
        """Folder for runs and report."""
        study: Study = field(default_factory=Study)

    def axis(text: str, base: TrainConfig) -> tuple[str, list[Any]]:
        """Name and values, read as the option of that name is."""
        path, _, values = text.partition("=")
        name = path.strip().rpartition(".")[2].replace("-", "_")
        given = path.strip().rpartition(".")[0]
        known = settings_of(base).keys() - INCIDENTAL - {"vocab_size"}
        if name not in known or given not in ("", "model", "optimizer") or not values:
            raise InputError(
                f"--vary {excerpt(text)!r} is not understood; write a setting and values, like lr=1e-3,2e-3"
            )
        words = [value.strip() for value in values.split(",")]
        if isinstance(settings_of(base)[name], bool):
            if not set(words) <= {"true", "false"}:
                raise InputError(f"{name} is true or false, not {excerpt(values)!r}")
            return name, [word == "true" for word in words]
        flag = f"--{name.replace('_', '-')}"
        configs = [parse(TrainConfig, "sweep", [flag, word], None, default=base) for word in words]
        return name, [settings_of(config)[name] for config in configs]

    start = parse_known(Start, "sweep", args)
    default = Command(preset=start.preset, config=PRESETS[start.preset]())
    command = parse(Command, "sweep", args, __doc__, default=default)
    if not command.vary:
        raise InputError("--vary must be given, like --vary lr=1e-3,2e-3; see `frailt sweep --help`")
    base = command.config
    axes = dict(axis(text, base) for text in command.vary)
    if len(axes) < len(command.vary):
        raise InputError("a setting is varied twice; give it once, with all its values")
    for name, values in axes.items():
        if len(set(values)) < len(values):
            raise InputError(f"{name} has a value twice; list each once")
    announce_compiling()
    check_folder(command.out)
    corpus = corpus_in(command.data)
    base = replace(base, model=replace(base.model, vocab_size=corpus.vocab_size))
    cells = combinations(base, axes)
    command.study.run(
        "sweep",
        cells,
        corpus,
        command.out,
        jobs=command.study.jobs_at({cell.model.dim for cell in cells}, base.device),
        report=lambda: write_sweep(base, axes, corpus, command.out),
    )

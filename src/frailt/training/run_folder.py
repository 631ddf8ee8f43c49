"""A run folder: everything about one training run, readable while it goes on and after it.

===================  ==========================================================================
run.json             resolved config, seed, versions, git commit, data hashes
metrics.jsonl        one line each ten steps, and one for each validation
config.json          the model's config, with model.safetensors a model that load() reads
model.safetensors    the weights at the last validation
tokenizer.json       the tokenizer of its data
story_nats.npy       nats of each validation story at the last validation, float64
loss.png             training and validation loss against tokens
resume.pt            state to go on from; deleted when the run is complete
===================  ==========================================================================
"""

import io
import math
import tokenize
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.errors import InputError, excerpt
from frailt.files import hold, naming, read_json, remove_leftovers, write_bytes, write_json
from frailt.training.checkpoint import Start, State, read_start, read_state, saved_step, write_state
from frailt.training.config import TrainConfig
from frailt.training.device import choose_precision
from frailt.training.metrics import Metrics, append_metrics, cut_metrics, last_metrics, read_metrics
from frailt.training.provenance import provenance

INCIDENTAL = {"checkpoint_seconds", "device"}
"""Settings that do not change what is trained: a run may go on with others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """The data of a run."""

    name: str
    """Its folder's name, for the reader."""
    train: str
    """SHA-256 of the training tokens."""
    valid: str
    """SHA-256 of the validation tokens."""

    @property
    def hashes(self) -> dict[str, str]:
        """As ``Corpus.digest`` gives them."""
        return {"train": self.train, "valid": self.valid}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """``run.json``. A later version may say more."""

    config: TrainConfig
    data: DataRecord
    precision: Literal["float32", "bfloat16"] | None = None
    """In which it began. Early versions had no choice, and did not record it."""
    start: Start | None = None
    """``None``: from fresh weights."""
    frailt: str = "unknown"
    """Version, as of the next three."""
    torch: str = "unknown"
    numpy: str = "unknown"
    python: str = "unknown"
    commit: str | None = None
    """The git commit of the code, where there was one."""
    device: str = "unknown"
    """Kind of device that the run began on."""
    machine: str = "unknown"
    """Its processor and threads, or its GPU."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run's result came from: precision, versions, commit and machine."""
        known = asdict(self) | {"precision": self.precision or self.config.precision}
        return {name: known[name] for name in known if name not in ("config", "data", "start")}


class RunFolder:
    """Access to the files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record, self._metrics, self._state, self._story_nats = (
            path / name for name in ("run.json", "metrics.jsonl", "resume.pt", "story_nats.npy")
        )
        self._lock: Any = None

    def open(
        self, config: TrainConfig, corpus: Corpus, device: torch.device, start: Path | None = None, *, resume: bool
    ) -> None:
        """Lock the folder for this run, and make it where there is none.

        Raises:
            BusyError: another process has it.
            InputError: it holds a run and ``resume`` is false, or holds another run or other files, or a new run
                cannot begin from ``start``.
        """
        self._refuse(config, corpus, start, resume=resume)  # Before anything is written.
        if start is not None and not self._record.exists():
            read_start(start, config.model)
        busy = f"{self.path} is being trained by another process; wait for it or choose another --out"
        self._lock = hold(self.path / ".lock", busy)  # Until ``unlock`` or the end of this process, however it ends.
        try:
            self._refuse(config, corpus, start, resume=resume)  # Another process may have been here since.
            remove_leftovers(self.path)
            if not self._record.exists():
                record = RunRecord(
                    config=config,
                    data=DataRecord(name=corpus.folder.name, **corpus.digest),
                    precision=choose_precision(config.precision, device),
                    start=Start.of(start) if start is not None else None,
                    **provenance(device),
                )
                write_json(self._record, asdict(record))
        except BaseException:
            self.unlock()
            raise

    def _refuse(self, config: TrainConfig, corpus: Corpus, start: Path | None, *, resume: bool) -> None:
        if not self._record.exists():
            # Hidden files may be what a kill left of a write.
            if self.path.exists() and any(not path.name.startswith(".") for path in self.path.iterdir()):
                raise InputError(f"{self.path} holds other files and no run; choose another --out")
            return
        if not resume:
            raise InputError(f"{self.path} holds a run already; add --resume to go on, or choose another --out")
        self.check(config, corpus)
        began = self.record().start
        if start is None or (began is not None and str(start) == began.path):
            return  # The record suffices: the model need not be there any more.
        if began is None or Start.of(start).sha256 != began.sha256:
            raise InputError(
                f"{self.path} began from {f'the model {excerpt(began.path)}' if began else 'fresh weights'}; "
                "leave out --start, or choose another --out"
            )

    def check(self, config: TrainConfig, corpus: Corpus) -> None:
        """Check that the folder's run has this config, but for incidental settings, and this data.

        Raises:
            InputError: it has not.
        """
        record = self.record()
        before, now = _settings(record.config), _settings(config)
        for name in now:
            if before[name] != now[name]:
                different = f"{name} ({before[name]}, now {now[name]})"
                raise InputError(f"{self.path} holds a run with another {different}; use its value or another --out")
        if record.data.hashes != corpus.digest:
            raise InputError(f"{self.path} was trained on other data; use that data or another --out")

    def unlock(self) -> None:
        """Let others use the folder; nothing happens where this process has not locked it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def record(self) -> RunRecord:
        """What ``run.json`` says.

        Raises:
            InputError: it is missing or damaged.
        """
        return from_json(RunRecord, read_json(self._record), str(self._record), ignore_unknown=True)

    def config(self) -> TrainConfig:
        """The run's config."""
        return self.record().config

    def log(self, line: Metrics) -> None:
        """Add a line to the metrics."""
        append_metrics(self._metrics, line)

    def metrics(self) -> list[Metrics]:
        """All metrics so far, in order. A last line that was cut off in writing is left out."""
        return read_metrics(self._metrics)

    def save_state(self, state: State) -> None:
        """Store what ``--resume`` needs, atomically."""
        write_state(self._state, state)

    def load_state(self, model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int) -> State | None:
        """The last stored state, with the metrics cut back to it; ``None`` if the run has not saved one.

        Raises:
            InputError: state or metrics are damaged; nothing has changed then.
        """
        state = read_state(self._state, model, optimizers, steps) if self._state.exists() else None
        cut_metrics(self._metrics, state.step if state else -1)
        return state

    def first_weights(self, start: Path | None) -> dict[str, torch.Tensor]:
        """Those of the saved model that the run begins from, which may lie at ``start`` now; none if it begins fresh.

        Raises:
            InputError: the model is not there any more, or has changed.
        """
        record = self.record()
        if record.start is None:
            return {}
        path = start or Path(record.start.path)
        if Start.of(path).sha256 != record.start.sha256:
            raise InputError(f"{path} has changed since {self.path} began from it; restore it, or choose another --out")
        return read_start(path, record.config.model)

    @property
    def saved(self) -> int:
        """The step of the last stored state, from which ``--resume`` goes on; 0 if there is none.

        Raises:
            InputError: the state cannot be read.
        """
        return saved_step(self._state, self.config().steps) if self._state.exists() else 0

    def finish(self) -> None:
        """Drop the state: there is nothing left to go on with."""
        self._state.unlink(missing_ok=True)

    @property
    def step(self) -> int:
        """The step of the last metrics line; 0 before the first."""
        line = last_metrics(self._metrics)
        return line.step if line else 0

    @property
    def result(self) -> Metrics | None:
        """The last metrics line of a run that is trained to its end; ``None`` before."""
        line = last_metrics(self._metrics)
        return line if line and line.final else None

    @property
    def is_complete(self) -> bool:
        """Whether the run is trained to its end and the nats of its stories are kept."""
        return self.result is not None and self._story_nats.is_file()

    def save_story_nats(self, nats: np.ndarray) -> None:
        """Store the nats of each validation story."""
        data = io.BytesIO()
        np.save(data, nats, allow_pickle=False)
        write_bytes(self._story_nats, data.getbuffer())

    def story_nats(self) -> np.ndarray:
        """Nats of each validation story under the model of a complete run: float64 of shape ``(stories,)``.

        Raises:
            InputError: the run is not complete, or the file is damaged or of another run.
        """
        result, path = self.result, self._story_nats
        if result is None or not path.is_file():
            raise InputError(f"{self.path} holds no complete run; train it to its end with --resume")
        assert result.nats is not None
        assert result.targets is not None
        try:
            with naming(path):  # Mapped, since reading would first take as much memory as the header claims.
                mapped = np.lib.format.open_memmap(path, mode="r")
            # A story has at least one target, so there are no more stories than targets.
            if mapped.ndim != 1 or mapped.dtype != np.dtype("<f8") or len(mapped) > result.targets:
                raise ValueError("header")
            if mapped.offset + mapped.nbytes != path.stat().st_size:
                raise ValueError("more than the array")
            nats = np.array(mapped)
            # It may have been measured on another device than the loss.
            if not np.isfinite(nats).all() or not math.isclose(nats.sum(), result.nats, rel_tol=1e-3):
                raise ValueError("sum")
        except (ValueError, OverflowError, TypeError, EOFError, SyntaxError, tokenize.TokenError):
            raise InputError(
                f"{path} is damaged or of another run; delete it, and --resume measures it again"
            ) from None
        return nats


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its name, nested ones too, but for ``INCIDENTAL`` ones."""
    settings: dict[str, Any] = {}
    for name, value in asdict(config).items():
        settings |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in settings.items() if name not in INCIDENTAL}

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

import dataclasses
import fcntl
import io
import json
import math
import pickle
import platform
import subprocess
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.files import BusyError, read_json, write_bytes, write_json, write_text
from frailt.training.config import TrainConfig
from frailt.training.device import choose_precision

INCIDENTAL = {"checkpoint_seconds", "device"}
"""Settings that do not change what is trained: a run may go on with others."""


STORY_NATS = "story_nats.npy"


class RunFolder:
    """Access to the files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, config: TrainConfig, corpus: Corpus, device: torch.device, *, resume: bool) -> None:
        """Make the folder, or check that it holds this same run.

        Raises:
            BusyError: the folder is in use by another process.
            InputError: it holds a run and ``resume`` is false, or holds another run or other files.
        """
        record = {
            "config": dataclasses.asdict(config),
            "data": {"name": corpus.folder.name, **corpus.digest},
            "precision": choose_precision(config.precision, device),
            **provenance(device),
        }
        self._refuse(config, corpus, resume=resume)  # Before anything is written.
        self.hold()
        try:
            self._refuse(config, corpus, resume=resume)  # Another process may have been here since.
            if not (self.path / "run.json").exists():
                write_json(self.path / "run.json", record)
        except BaseException:
            self.release()
            raise

    def _refuse(self, config: TrainConfig, corpus: Corpus, *, resume: bool) -> None:
        if not (self.path / "run.json").exists():
            # Hidden files may be what a kill left of a write.
            if self.path.exists() and any(not path.name.startswith(".") for path in self.path.iterdir()):
                raise InputError(f"{self.path} holds other files and no run; choose another --out")
            return
        if not resume:
            raise InputError(f"{self.path} holds a run already; add --resume to go on, or choose another --out")
        self.check(config, corpus)

    def check(self, config: TrainConfig, corpus: Corpus) -> None:
        """Whether the folder's run has this config, but for incidental settings, and this data.

        Raises:
            InputError: it has not.
        """
        stored = self.record()
        if wrong := _differences(stored["config"], dataclasses.asdict(config)):
            raise InputError(f"{self.path} holds a run with another {wrong[0]}; use its value or another --out")
        if {**stored["data"], "name": ""} != {**corpus.digest, "name": ""}:
            raise InputError(f"{self.path} was trained on other data; use that data or another --out")

    def hold(self) -> None:
        """Lock the folder, until ``release`` or the end of the process.

        Raises:
            BusyError: another process has it.
        """
        # The lock belongs to the open file: it ends with the process, however that ends. It is a file of its own, since
        # one that is replaced could be locked twice.
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock = (self.path / ".lock").open("a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise BusyError(
                f"{self.path} is being trained by another process; wait for it or choose another --out"
            ) from None

    def release(self) -> None:
        """Let others use the folder."""
        self.lock.close()

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        return read_json(self.path / "run.json")

    @property
    def precision(self) -> str:
        """The precision that it began in. Runs without a record of it were told which."""
        record = self.record()
        return record.get("precision", record["config"]["precision"])

    def config(self) -> TrainConfig:
        """The run's config."""
        return from_json(TrainConfig, self.record()["config"], str(self.path / "run.json"))

    def log(self, **values: Any) -> None:
        """Add a line to the metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All metrics so far, in order. A last line that was cut off in writing is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged ({error}); train into another --out") from None

    def save_state(self, state: dict[str, Any]) -> None:
        """Store what ``--resume`` needs, atomically."""
        # Through memory: torch reports a full disk as another kind of error.
        data = io.BytesIO()
        torch.save(state, data)
        write_bytes(self.path / "resume.pt", data.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """The last stored state, with the metrics cut back to it; ``None`` if the run has not saved one.

        Raises:
            InputError: the state cannot be read.
        """
        path = self.path / "resume.pt"
        if not path.exists():
            write_text(self.path / "metrics.jsonl", "")
            return None
        with _readable(path):
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():  # torch does not look at the checksums.
                    raise zipfile.BadZipFile(broken)
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state.keys() != {"step", "model", "optimizer"}:
                raise KeyError("model")
        kept = [line for line in self.metrics() if line["step"] <= state["step"]]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        return state

    @property
    def saved(self) -> int:
        """The step of the last stored state, from which ``--resume`` goes on; 0 if there is none.

        Raises:
            InputError: the state cannot be read.
        """
        path = self.path / "resume.pt"
        if not path.exists():
            return 0
        with _readable(path):  # Mapped: the weights stay on the disk.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"]

    def save_story_nats(self, nats: np.ndarray) -> None:
        """Store the nats of each validation story."""
        data = io.BytesIO()
        np.save(data, nats, allow_pickle=False)
        write_bytes(self.path / STORY_NATS, data.getvalue())

    def story_nats(self) -> np.ndarray:
        """Nats of each validation story under the model of a complete run: float64 of shape ``(stories,)``.

        Raises:
            InputError: the run is not complete, or the file is damaged or of another run.
        """
        result, path = self.result, self.path / STORY_NATS
        if result is None or not path.is_file():
            raise InputError(f"{self.path} holds no complete run; train it to its end with --resume")
        damaged = f"{path} is damaged or of another run; delete it, and the same command measures it again"
        # A story has at least one target, so there are no more stories than targets; the header takes a page at most.
        if path.stat().st_size > 8 * result["targets"] + 4096:
            raise InputError(damaged)
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(version)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                if len(shape) != 1 or fortran or dtype != np.dtype("<f8"):
                    raise ValueError(shape)
                nats = np.frombuffer(file.read(), "<f8")
        except (ValueError, EOFError, SyntaxError, tokenize.TokenError):
            raise InputError(damaged) from None
        if (
            nats.shape != shape
            or not np.isfinite(nats).all()
            or not math.isclose(nats.sum(), result["nats"], rel_tol=1e-3)
        ):
            raise InputError(damaged)
        return nats

    @property
    def is_complete(self) -> bool:
        """Whether the run is trained to its end and its stories are measured."""
        return self.result is not None and (self.path / STORY_NATS).is_file()

    def finish(self) -> None:
        """Drop the state: there is nothing left to go on with."""
        (self.path / "resume.pt").unlink(missing_ok=True)

    @property
    def step(self) -> int:
        """The step of the last metrics line; 0 before the first."""
        lines = self.metrics()
        return lines[-1]["step"] if lines else 0

    @property
    def result(self) -> dict[str, Any] | None:
        """The last metrics line of a complete run; ``None`` while it is not complete."""
        lines = self.metrics()
        return lines[-1] if lines and lines[-1].get("final") else None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong within is the fault of the saved state ``path``."""
    try:
        yield
    except (zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}); delete it to train this run from its start"
        ) from None


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, code and machine that a result came from."""
    return {
        "frailt": version("frailt"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "device": device.type,
        "machine": machine(device),
    }


def commit() -> str | None:
    """The git commit of this code; ``None`` where it is installed without its repository, or there is no git."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(device: torch.device) -> str:
    """Processor and threads, or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the settings in which two configs differ, but for ``INCIDENTAL`` ones."""
    found = []
    for name in sorted(a.keys() | b.keys()):
        if name in INCIDENTAL:
            continue
        left, right = a.get(name), b.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right)
        elif left != right:
            found.append(f"{name} ({left}, now {right})")
    return found

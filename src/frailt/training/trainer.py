"""The training loop."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frailt.data.batches import Corpus
from frailt.data.prepare import embedded
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.evaluation.loss import Loss, stream_loss
from frailt.model.checkpoint import put_weights, save_model, stored_weights
from frailt.model.frailt import Block, FraiLT
from frailt.model.shape import Shape
from frailt.training.config import TrainConfig
from frailt.training.figures import draw_losses
from frailt.training.optimization import learning_rate, make_optimizer
from frailt.training.run_folder import RunFolder

DRAW_SECONDS = 30.0
"""Least time between pictures of the loss while a run goes on."""
LOG_EVERY = 10
"""Steps between metrics lines; also how often the loss is fetched from the device and checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int
    steps: int
    loss: float
    """Mean training loss since the last report, nats per token."""
    tokens_per_second: float
    seconds_left: float
    valid_loss: float | None
    """The last validation loss so far."""


Reporter = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A complete run."""

    folder: Path
    loss: Loss
    """Over all validation tokens, at the last step."""
    tokens: int
    """Tokens trained on."""
    tokens_per_second: float
    """Median over the run, validation not counted."""


def train(
    config: TrainConfig,
    corpus: Corpus | None = None,
    out: Path | None = None,
    *,
    resume: bool = False,
    report: Reporter = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a model into a run folder.

    A run that was cut off, by Ctrl-C or by a power failure, goes on with ``resume=True`` from its last saved
    state; on a CPU the result is the same, bit for bit, as without the cut. A complete run is not trained again.

    Args:
        config: what to train.
        corpus: prepared data; its vocabulary must be the model's. Unset: the embedded story world.
        out: the run folder (see ``run_folder.py``); unset: ``default_folder(config)``.
        resume: go on with the run in ``out`` if there is one.
        report: called each ten steps.
        stop: asked after each step; where it says true, the run saves its state and ends like at Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C, or ``stop``; the state is saved.
        InputError: config and data do not fit, ``out`` holds something else, the saved state is damaged, or the
            loss is no longer finite (the last good state is kept).
        OSError: the disk is full; the last good state is kept.
    """
    corpus = corpus or Corpus(embedded())
    out = out or default_folder(config)
    if corpus.vocab_size != config.model.vocab_size:
        raise InputError(
            f"the model has vocab_size {config.model.vocab_size}, the tokenizer of {corpus.folder} has "
            f"{corpus.vocab_size}; set vocab_size to {corpus.vocab_size}"
        )
    corpus.train.windows(config.model.context)  # Too few tokens are refused before there is a folder.
    training = _Training(config, corpus, choose_device(config.device))
    run = RunFolder(out)
    run.start(config, corpus, training.device, resume=resume)
    try:
        if run.result is None:
            Tokenizer.load(corpus.folder).save(out / "tokenizer.json")
            training.restore(run)
            with _Interrupt(stop) as interrupt:
                training.loop(run, report, interrupt)
        run.finish()
        return _result(run, corpus)
    finally:
        run.release()


def default_folder(config: TrainConfig) -> Path:
    """``runs/`` in the working folder, and a name from shape and width."""
    return Path("runs") / f"{Shape.parse(config.model.shape).slug}-d{config.model.dim}"


class _Interrupt:
    """Ctrl-C as a flag, so that it ends a run between two steps and not within one. A second one ends it at once.

    Args:
        stop: another reason to end, asked where the flag is.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop
        self.noted = False

    @property
    def came(self) -> bool:
        """Whether the run is to end."""
        self.noted = self.noted or self.stop()
        return self.noted

    def __enter__(self) -> "_Interrupt":
        # Signals reach the main thread only; elsewhere there is no Ctrl-C to wait for.
        self.handled = threading.current_thread() is threading.main_thread()
        if self.handled:
            self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: Any) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.handled:
            signal.signal(signal.SIGINT, self.before)
        if self.noted and kind is None:
            raise KeyboardInterrupt


class _Training:
    """Everything that changes while a run goes on."""

    def __init__(self, config: TrainConfig, corpus: Corpus, device: torch.device) -> None:
        self.config, self.corpus, self.device = config, corpus, device
        torch.manual_seed(config.seed)
        self.model = FraiLT(config.model).to(device)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.step = 0
        self.drawn = time.monotonic()
        if config.compile:
            compile_blocks(self.model)

    def restore(self, run: RunFolder) -> None:
        """Go back to the last saved state, if there is one."""
        state = run.load_state()
        if state is not None:
            put_weights(self.model, state["model"], str(run.path / "resume.pt"))
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def loop(self, run: RunFolder, report: Reporter, interrupt: "_Interrupt") -> None:
        """Train to the end of the budget, or to the end of the step in which Ctrl-C came."""
        config = self.config
        validate_at = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
        valid_loss = next((m["valid_loss"] for m in reversed(run.metrics()) if "valid_loss" in m), None)
        saved, speeds = time.monotonic(), list[float]()
        since, losses = time.perf_counter(), list[Tensor]()
        good = self.step
        while self.step < config.steps:
            losses.append(self.train_step())
            self.step += 1
            last = self.step == config.steps
            if not (last or interrupt.came or self.step % LOG_EVERY == 0 or self.step in validate_at):
                continue
            loss = torch.stack(losses).mean().item()
            speeds.append(len(losses) * config.tokens_per_step / (time.perf_counter() - since))
            # The loss is that of the weights before the step, so the new ones are looked at too.
            if not (math.isfinite(loss) and all(bool(p.isfinite().all()) for p in self.model.parameters())):
                kept = f"the state of step {good} is kept" if good else "no state was saved before"
                raise InputError(
                    f"the loss is {loss} at step {self.step} and training has diverged; {kept}. "
                    f"Lower lr (now {config.optimizer.lr:g}) or lengthen warmup, into another --out"
                )
            run.log(
                step=self.step,
                tokens=self.step * config.tokens_per_step,
                loss=loss,
                lr=learning_rate(self.step - 1, config.steps, config.optimizer),
                tokens_per_second=round(speeds[-1]),
            )
            pace = float(np.median(speeds[-50:]))
            report(
                Progress(
                    step=self.step,
                    steps=config.steps,
                    loss=loss,
                    tokens_per_second=pace,
                    seconds_left=(config.steps - self.step) * config.tokens_per_step / pace,
                    valid_loss=valid_loss,
                )
            )
            if self.step in validate_at:
                valid_loss = self.validate(run, last)
            if not last and (interrupt.came or time.monotonic() - saved > config.checkpoint_seconds):
                self.save(run)
                good, saved = self.step, time.monotonic()
                if interrupt.came:
                    raise KeyboardInterrupt
            since, losses = time.perf_counter(), []

    def train_step(self) -> Tensor:
        """One optimizer step; the mean loss of its batch, still on the device."""
        config = self.config
        x, y = self.corpus.train.batch(self.step, batch=config.batch, context=config.model.context, seed=config.seed)
        rate = learning_rate(self.step, config.steps, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)
        for part_x, part_y in zip(x.chunk(config.accumulate), y.chunk(config.accumulate), strict=True):
            with autocast(config, self.device):
                logits = self.model(self.placed(part_x), iterations=self.passes()).logits
            loss = F.cross_entropy(logits.flatten(0, 1), self.placed(part_y).flatten()) / config.accumulate
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def placed(self, tokens: Tensor) -> Tensor:
        """Tokens on the device. A plain copy to a GPU would wait until it has done all work before."""
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens.to(self.device)

    def passes(self) -> tuple[int, ...] | None:
        """The number of passes of this step, by group."""
        if self.config.passes == "fixed":
            return None
        random = np.random.default_rng([self.config.seed, self.step])
        return tuple(
            1 + int(random.poisson(g.iterations - 1)) if g.iterations > 1 else 1 for g in self.config.model.groups
        )

    def validate(self, run: RunFolder, last: bool) -> float:
        tokens = self.corpus.valid.tokens if last else self.corpus.valid.tokens[: self.config.eval_tokens]
        self.model.eval()
        with autocast(self.config, self.device):
            loss = stream_loss(self.model, tokens, text_bytes=self.corpus.valid_bytes)
        self.model.train()
        save_model(self.model, run.path)
        run.log(
            step=self.step,
            tokens=self.step * self.config.tokens_per_step,
            valid_loss=loss.nats_per_token,
            **({"nats": loss.nats, "targets": loss.tokens, "final": True} if last else {}),
        )
        if last or time.monotonic() - self.drawn > DRAW_SECONDS:
            title = f"{self.config.model.shape}, width {self.config.model.dim}"
            draw_losses(run.metrics(), run.path / "loss.png", title=title)
            self.drawn = time.monotonic()
        return loss.nats_per_token

    def save(self, run: RunFolder) -> None:
        run.save_state(
            {"step": self.step, "model": stored_weights(self.model), "optimizer": self.optimizer.state_dict()}
        )


def measure_speed(config: TrainConfig, corpus: Corpus) -> Callable[[], float]:
    """A function that does one training step and waits for its loss, on a fresh model that is kept nowhere."""
    training = _Training(config, corpus, choose_device(config.device))

    def step() -> float:
        loss = training.train_step().item()
        training.step += 1
        return loss

    return step


def compile_blocks(model: FraiLT) -> None:
    """Compile the body of a block once and use it in every block, pass and group.

    Compiling the whole model would unroll its passes: two minutes for 8^8 where one block takes seconds.
    """
    for module in model.modules():
        if isinstance(module, Block):
            module.transform = _compiled_block().__get__(module)


@cache
def _compiled_block() -> Callable[..., Tensor]:
    # One for all models of the process: those of equal width share what was compiled.
    return torch.compile(Block.transform)


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The precision that ``config`` asks for."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def choose_device(name: str) -> torch.device:
    """The device for a name.

    Raises:
        InputError: it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, here in there.items() if here))
    if not there[name]:
        raise InputError(
            f"device {name} is not available here; use one of {', '.join(k for k, h in there.items() if h)}"
        )
    return torch.device(name)


def _result(run: RunFolder, corpus: Corpus) -> TrainResult:
    final = run.result
    assert final is not None
    speeds = [m["tokens_per_second"] for m in run.metrics() if "tokens_per_second" in m]
    return TrainResult(
        folder=run.path,
        loss=Loss(nats=final["nats"], tokens=final["targets"], bytes=corpus.valid_bytes),
        tokens=final["tokens"],
        tokens_per_second=float(np.median(speeds)),
    )

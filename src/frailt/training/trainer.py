"""The training loop."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.data.prepare import embedded
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.evaluation.loss import Loss, story_sums, token_losses
from frailt.model.checkpoint import load_model, put_weights, save_model, stored_weights
from frailt.model.frailt import Block, FraiLT
from frailt.model.shape import Shape
from frailt.training.config import TrainConfig
from frailt.training.device import Precision, choose_device, choose_precision
from frailt.training.figures import draw_losses
from frailt.training.optimizers import learning_rate, make_optimizer
from frailt.training.ranks import Ranks, Sharding, join
from frailt.training.run_folder import RunFolder

DRAW_SECONDS = 30.0
"""Least time between pictures of the loss while a run goes on."""
VALIDATION = 1 / 2
"""What a token of validation takes, in tokens of training: a third of the work, but always in float32."""
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

    def describe(self) -> str:
        """Step, losses, speed and time left in a few words."""
        valid = "" if self.valid_loss is None else f", valid {self.valid_loss:.3f}"
        return (
            f"step {self.step}/{self.steps}, loss {self.loss:.3f}{valid}, "
            f"{self.tokens_per_second:,.0f} tokens/s, {clock(self.seconds_left)} left"
        )


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
    story_nats: np.ndarray = field(compare=False, repr=False)
    """Nats of each validation story, float64; they sum up to ``loss.nats``."""


def train(
    config: TrainConfig,
    corpus: Corpus | None = None,
    out: Path | None = None,
    *,
    resume: bool = False,
    report: Reporter = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    sharding: Sharding = "ddp",
) -> TrainResult:
    """Train a model into a run folder.

    A run that was cut off, by Ctrl-C, SIGTERM or a power failure, goes on with ``resume=True`` from its last saved
    state; on a CPU the result is the same, bit for bit, as without the cut. A complete run is not trained again.

    Under torchrun the processes train one model together (``ranks.py``); each gets the result.

    Args:
        config: what to train.
        corpus: prepared data; its vocabulary must be the model's. Unset: the embedded story world.
        out: the run folder (see ``run_folder.py``); unset: ``default_folder(config)``.
        resume: go on with the run in ``out`` if there is one.
        report: called each ten steps.
        stop: asked after each step; where it says true, the run saves its state and ends like at Ctrl-C.
        sharding: how processes that torchrun started share the model (``ranks.py``); it does not change the result.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM, or ``stop``; the state is saved.
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
    ranks = join(config, corpus, choose_device(config.device), sharding)
    training = _Training(config, corpus, ranks)
    run = ranks.folder(out)
    run.start(config, corpus, training.device, resume=resume)
    try:
        if run.result is None:
            ranks.first(Tokenizer.load(corpus.folder).save, out / "tokenizer.json")
            training.restore(run)
            with _Interrupt(ranks, stop) as interrupt:
                training.loop(run, partial(ranks.first, report), interrupt)
        elif not run.is_complete:
            ranks.first(_measure_stories, run.path, corpus, training.device)
        run.finish()
        return _result(run, corpus)
    finally:
        run.release()


def default_folder(config: TrainConfig) -> Path:
    """``runs/`` in the working folder, and a name from shape and width."""
    return Path("runs") / f"{Shape.parse(config.model.shape).slug}-d{config.model.dim}"


class _Interrupt:
    """Ctrl-C or SIGTERM as a flag, so that it ends a run between two steps and not within one. A second one ends it at
    once.

    One that came to any of several ranks ends them all; there a second one is none, since torchrun repeats them.

    Args:
        ranks: the processes of the run.
        stop: another reason to end, asked where the flag is.
    """

    def __init__(self, ranks: Ranks, stop: Callable[[], bool]) -> None:
        self.ranks, self.stop = ranks, stop
        self.noted = False

    @property
    def came(self) -> bool:
        """Whether the run is to end, as far as this rank knows."""
        self.noted = self.noted or self.stop()
        return self.noted

    def __enter__(self) -> "_Interrupt":
        # Signals reach the main thread only; elsewhere there is no Ctrl-C to wait for.
        self.handled = threading.current_thread() is threading.main_thread()
        if self.handled:
            self.before = {number: signal.signal(number, self._note) for number in self.ranks.signals}
        return self

    def _note(self, *_: Any) -> None:
        if self.noted and self.ranks.count == 1:
            raise KeyboardInterrupt
        self.noted = True

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.handled:
            for number, handler in self.before.items():
                signal.signal(number, handler)
        if kind is None and self.ranks.any(self.noted):
            raise KeyboardInterrupt


class _Training:
    """Everything that changes while a run goes on."""

    def __init__(self, config: TrainConfig, corpus: Corpus, ranks: Ranks) -> None:
        self.config, self.corpus, self.ranks, self.device = config, corpus, ranks, ranks.device
        torch.manual_seed(config.seed)
        self.model = FraiLT(config.model)
        self.wrapped = ranks.wrap(self.model)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.step = 0
        self.drawn = time.monotonic()
        if config.compile:
            compile_blocks(self.model)

    def restore(self, run: RunFolder) -> None:
        """Go back to the last saved state, if there is one."""
        state = run.load_state()
        if state is not None:
            state = self.ranks.spread(state)
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
            # Asked in every step, since torchrun waits for 30 seconds only, which may be less than LOG_EVERY steps.
            stop = self.ranks.any(interrupt.came)
            if not (last or stop or self.step % LOG_EVERY == 0 or self.step in validate_at):
                continue
            loss = self.ranks.mean(torch.stack(losses).mean().item())
            speeds.append(len(losses) * config.tokens_per_step / (time.perf_counter() - since))
            # The loss is that of the weights before the step, so the new ones are looked at too.
            if self.ranks.any(
                not (math.isfinite(loss) and all(bool(p.isfinite().all()) for p in self.model.parameters()))
            ):
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
                    seconds_left=self.tokens_left(validate_at) / pace,
                    valid_loss=valid_loss,
                )
            )
            if self.step in validate_at:
                valid_loss = self.validate(run, last)
            stop = self.ranks.any(interrupt.came)
            if not last and (stop or self.ranks.any(time.monotonic() - saved > config.checkpoint_seconds)):
                self.save(run)
                good, saved = self.step, time.monotonic()
                if stop:
                    raise KeyboardInterrupt
            since, losses = time.perf_counter(), []

    def tokens_left(self, validate_at: set[int]) -> float:
        """What is still to be done, in tokens of training."""
        config = self.config
        validations = sum(step >= self.step for step in validate_at)
        every = len(self.corpus.valid.tokens)
        validation = (validations - 1) * min(config.eval_tokens, every) + every
        return (config.steps - self.step) * config.tokens_per_step + VALIDATION * validation

    def train_step(self) -> Tensor:
        """One optimizer step; the mean loss of its batch, still on the device."""
        config = self.config
        x, y = self.corpus.train.batch(
            self.step, batch=config.batch, context=config.model.context, seed=config.seed, share=self.ranks.share
        )
        rate = learning_rate(self.step, config.steps, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)
        parts = list(zip(x.chunk(config.accumulate), y.chunk(config.accumulate), strict=True))
        for i, (part_x, part_y) in enumerate(parts, 1):
            with self.ranks.part(self.wrapped, last=i == len(parts)), autocast(config.precision, self.device):
                logits = self.wrapped(self.placed(part_x), iterations=self.passes()).logits
            # In float32: a loss in bfloat16 has three digits.
            loss = F.cross_entropy(logits.flatten(0, 1).float(), self.placed(part_y).flatten()) / config.accumulate
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
        # In float32, as `frailt evaluate` computes: bfloat16 is a way to train, and its rounding no part of the result.
        losses = self.ranks.token_losses(self.model, tokens)
        nats, targets = float(losses.sum()), len(losses)
        self.model.train()
        self.ranks.first(save_model, self.model, run.path, self.ranks.gather(stored_weights(self.model)))
        if last:
            run.save_story_nats(story_sums(np.asarray(tokens), losses, self.corpus.manifest.bos))
        run.log(
            step=self.step,
            tokens=self.step * self.config.tokens_per_step,
            valid_loss=nats / targets,
            **({"nats": nats, "targets": targets, "final": True} if last else {}),
        )
        if self.ranks.any(last or time.monotonic() - self.drawn > DRAW_SECONDS):
            title = f"{self.config.model.shape}, width {self.config.model.dim}"
            self.ranks.first(draw_losses, run.metrics(), run.path / "loss.png", title=title)
            self.drawn = time.monotonic()
        return nats / targets

    def save(self, run: RunFolder) -> None:
        state = {"step": self.step, "model": stored_weights(self.model), "optimizer": self.optimizer.state_dict()}
        run.save_state(self.ranks.gather(state))


def measure_speed(config: TrainConfig, corpus: Corpus) -> Callable[[], float]:
    """A function that does one training step and waits for its loss, on a fresh model that is kept nowhere."""
    training = _Training(config, corpus, Ranks(choose_device(config.device)))

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


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Around a forward pass in this precision."""
    if choose_precision(precision, device) == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _result(run: RunFolder, corpus: Corpus) -> TrainResult:
    final = run.result
    assert final is not None
    speeds = [m["tokens_per_second"] for m in run.metrics() if "tokens_per_second" in m]
    return TrainResult(
        folder=run.path,
        loss=Loss(nats=final["nats"], tokens=final["targets"], bytes=corpus.valid_bytes),
        tokens=final["tokens"],
        tokens_per_second=float(np.median(speeds)),
        story_nats=run.story_nats(),
    )


def _measure_stories(folder: Path, corpus: Corpus, device: torch.device) -> None:
    """For a complete run of an earlier version, which did not keep the nats of each story."""
    tokens = np.asarray(corpus.valid.tokens)
    losses = token_losses(load_model(folder).to(device), tokens)
    RunFolder(folder).save_story_nats(story_sums(tokens, losses, corpus.manifest.bos))

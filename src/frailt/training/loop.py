"""The training loop: steps, validations, saved states."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import story_sums
from frailt.model.checkpoint import save_model
from frailt.model.frailt import FraiLT
from frailt.training.checkpoint import State
from frailt.training.compiled import compile_blocks
from frailt.training.config import TrainConfig
from frailt.training.depth import mean_depth, passes_at
from frailt.training.device import autocast, choose_precision
from frailt.training.interrupt import Interrupt
from frailt.training.metrics import Metrics, draw_losses
from frailt.training.objective import cross_entropy
from frailt.training.optimizers import learning_rate, make_optimizers, set_rates
from frailt.training.ranks import Ranks
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


class Training:
    """A run between two steps: model, optimizer, and how far they are.

    Args:
        config: what to train.
        corpus: its data.
        ranks: the processes that train together.
    """

    def __init__(self, config: TrainConfig, corpus: Corpus, ranks: Ranks) -> None:
        self.config, self.corpus, self.ranks, self.device = config, corpus, ranks, ranks.device
        self.precision: Literal["float32", "bfloat16"] = choose_precision(config.precision, self.device)
        torch.manual_seed(config.seed)
        self.model = FraiLT(config.model)
        self.wrapped = ranks.wrap(self.model)
        self.optimizers = make_optimizers(self.model, config.optimizer)
        ranks.prepare(self.optimizers)
        if config.compile:
            compile_blocks(self.model)
        self.step = 0
        self.losses: list[Tensor] = []
        """Of the steps since the last metrics line, on the device."""
        self.gradient_norm = torch.zeros(())
        self.validate_at = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
        self.drawn = time.monotonic()

    def restore(self, run: RunFolder, start: Path | None) -> None:
        """Go back to the last saved state; without one, begin from the model that the run's record names, if any.

        Rank 0 reads them.
        """
        state = State(step=0, model={}, optimizer={}, losses=torch.empty(0))  # The other ranks keep this one.

        def read() -> tuple[int, list[float], bool]:
            nonlocal state
            saved = run.load_state(self.model, self.optimizers, self.config.steps)
            state = saved or replace(state, model=run.first_weights(start))
            return state.step, state.losses.tolist(), bool(state.model)

        self.step, losses, has_weights = self.ranks.on_rank_0(read)
        self.losses = list(torch.tensor(losses, device=self.device))
        if has_weights:
            self.ranks.load_weights(self.model, state.model)
        if self.step:
            self.ranks.load_optimizer_state(self.model, self.optimizers, state.optimizer)

    def save(self, run: RunFolder) -> None:
        """Store the state to go on from."""
        weights = self.ranks.weights(self.model)
        optimizer = self.ranks.optimizer_state(self.model, self.optimizers)
        losses = self.ranks.mean(torch.stack(self.losses)).float() if self.losses else torch.empty(0)
        self.ranks.on_rank_0(
            lambda: run.save_state(State(step=self.step, model=weights, optimizer=optimizer, losses=losses))
        )

    def loop(self, run: RunFolder, report: Reporter, interrupt: Interrupt) -> None:
        """Train to the end of the budget, or to the end of the step in which ``interrupt`` asks to stop.

        Raises:
            KeyboardInterrupt: ``interrupt`` has asked; the state is saved.
            InputError: training has diverged; the last state that had not is kept.
        """
        config, ranks = self.config, self.ranks
        valid_loss = ranks.on_rank_0(lambda: [m.valid_loss for m in run.metrics() if m.valid_loss is not None][-1:])
        speeds = list[float]()
        good, saved = self.step, time.monotonic()
        timed_step, timed = self.step, time.perf_counter()
        while self.step < config.steps:
            self.losses.append(self.train_step())
            self.step += 1
            last = self.step == config.steps
            # Asked in every step, since torchrun waits for 30 seconds only, which may be less than LOG_EVERY steps.
            stop = ranks.any(interrupt.requested)
            due = last or self.step % LOG_EVERY == 0 or self.step in self.validate_at
            if not (due or stop):
                continue
            loss, gradient_norm = self.figures(good)
            if due:  # A line for a stop would make this run's metrics differ from those of one that was not stopped.
                speeds.append((self.step - timed_step) * config.tokens_per_step / (time.perf_counter() - timed))
                line = Metrics(
                    step=self.step,
                    tokens=self.step * config.tokens_per_step,
                    loss=loss,
                    lr=learning_rate(self.step - 1, config.steps, config.optimizer, config.optimizer.lr),
                    gradient_norm=gradient_norm,
                    tokens_per_second=round(speeds[-1]),
                )
                ranks.on_rank_0(run.log, line)
                self.losses = []
                if self.step in self.validate_at:
                    valid_loss = [self.validate(run, good)]
                if not stop:  # The terminal may be gone, and the state is not saved yet.
                    speed = float(np.median(speeds[-50:]))
                    progress = Progress(
                        step=self.step,
                        steps=config.steps,
                        loss=loss,
                        tokens_per_second=speed,
                        seconds_left=self.tokens_left() / speed,
                        valid_loss=valid_loss[0] if valid_loss else None,
                    )
                    ranks.on_rank_0(report, progress)
                stop = ranks.any(interrupt.requested)
            if not last and (stop or ranks.any(time.monotonic() - saved > config.checkpoint_seconds)):
                self.save(run)
                good, saved = self.step, time.monotonic()
                if stop:
                    raise KeyboardInterrupt
            timed_step, timed = self.step, time.perf_counter()

    def train_step(self) -> Tensor:
        """One optimizer step; the mean loss of its batch, still on the device."""
        config, context = self.config, self.config.model.context
        rows = self.corpus.train.rows(
            self.step, batch=config.batch, context=context, seed=config.seed, share=self.ranks.share
        )
        if self.device.type == "cuda":  # A copy from memory that is not pinned would wait for all work before it.
            rows = rows.pin_memory()
        rows = rows.to(self.device, non_blocking=True)
        set_rates(self.optimizers, self.step, config.steps, config.optimizer)
        passes = passes_at(config, self.step)
        total = torch.zeros((), device=self.device)
        micro_batches = rows.chunk(config.accumulate)
        for i, micro_batch in enumerate(micro_batches, 1):
            with (
                self.ranks.no_sync(self.wrapped, last=i == len(micro_batches)),
                autocast(self.precision, self.device),
            ):
                output = self.wrapped(micro_batch[:, :-1], iterations=passes)
            loss = cross_entropy(output, micro_batch[:, 1:]) / config.accumulate
            loss.backward()
            total += loss.detach()
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    def figures(self, good: int) -> tuple[float, float]:
        """Mean loss since the last metrics line, and the last gradient's norm.

        Raises:
            InputError: one of them is not finite, or a weight is not.
        """
        # The loss is that of the weights before the step, so the new ones are looked at too. One wait for the device.
        weights = self.ranks.whole(torch.nn.utils.get_total_norm(self.model.parameters()))
        gradient = self.ranks.whole(self.gradient_norm)
        loss, gradient_norm, weight_norm = self.ranks.mean(
            torch.stack([torch.stack(self.losses).mean(), gradient, weights])
        ).tolist()
        if not all(map(math.isfinite, (loss, gradient_norm, weight_norm))):
            raise self.diverged(loss, good)
        return loss, gradient_norm

    def diverged(self, loss: float, good: int) -> InputError:
        """What to say when numbers are not finite and the last good state is that of step ``good``."""
        kept = f"the state of step {good} is kept" if good else "no state was saved before"
        optimizer = self.config.optimizer
        rates = f"lr (now {optimizer.lr:g})"
        if optimizer.optimizer == "muon":
            rates += f" or muon_lr (now {optimizer.muon_lr:g})"
        return InputError(
            f"the loss is {loss} at step {self.step} and training has diverged; {kept}. "
            f"Lower {rates} or lengthen warmup, into another --out"
        )

    def validate(self, run: RunFolder, good: int) -> float:
        """Validation loss, nats per token; with it the model is stored. The last validation takes all tokens."""
        ranks, last = self.ranks, self.step == self.config.steps
        tokens = np.asarray(self.corpus.valid.tokens[: None if last else self.config.eval_tokens])
        self.model.eval()
        # In float32, as `frailt evaluate` computes: bfloat16 is a way to train, and its rounding not in the result.
        losses = ranks.token_losses(self.model, tokens)
        self.model.train()
        nats, targets = float(losses.sum()), len(losses)
        if not math.isfinite(nats):
            raise self.diverged(nats, good)
        weights = ranks.weights(self.model)
        draw = ranks.any(last or time.monotonic() - self.drawn > DRAW_SECONDS)

        def store() -> None:
            save_model(self.model, run.path, weights)
            if last:
                run.save_story_nats(story_sums(tokens, losses, self.corpus.manifest.bos))
            line = Metrics(
                step=self.step,
                tokens=self.step * self.config.tokens_per_step,
                valid_loss=nats / targets,
                nats=nats if last else None,
                targets=targets if last else None,
                final=last,
            )
            if draw:
                title = f"{self.config.model.shape}, width {self.config.model.dim}"
                draw_losses([*run.metrics(), line], run.path / "loss.png", title=title)
            run.log(line)  # The last line says that the run is complete, so all else is written before it.

        ranks.on_rank_0(store)
        if draw:
            self.drawn = time.monotonic()
        return nats / targets

    def tokens_left(self) -> float:
        """What is still to be done, in tokens of training at the depth of the last step."""
        config, everything = self.config, len(self.corpus.valid.tokens)
        validation = sum(
            everything if step == config.steps else min(config.eval_tokens, everything)
            for step in self.validate_at
            if step > self.step
        )
        now = mean_depth(config, self.step - 1, self.step)
        steps = config.steps - self.step
        left = steps * mean_depth(config, self.step, config.steps) if steps else 0.0
        return (left * config.tokens_per_step + VALIDATION * validation * config.model.depth) / now

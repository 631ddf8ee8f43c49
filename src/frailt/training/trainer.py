"""``train``: one run, from a config to a complete run folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from frailt.data.corpus import Corpus
from frailt.data.prepare import embedded
from frailt.data.tokenizer import Tokenizer
from frailt.device import choose_device
from frailt.errors import InputError
from frailt.evaluation.loss import Loss, story_sums, token_losses
from frailt.model.checkpoint import load_model
from frailt.model.shape import Shape
from frailt.training.config import TrainConfig
from frailt.training.device import explain_out_of_memory
from frailt.training.interrupt import Interrupt
from frailt.training.loop import Progress, Reporter, Training
from frailt.training.ranks import Ranks, Sharding, join
from frailt.training.run_folder import RunFolder

__all__ = ["Progress", "Reporter", "TrainResult", "default_folder", "measure_speed", "train"]


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
    start: Path | str | None = None,
    resume: bool = False,
    report: Reporter = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    sharding: Sharding = "ddp",
) -> TrainResult:
    """Train a model into a run folder.

    A run that was cut off, by Ctrl-C or a power failure, say, goes on with ``resume=True`` from its last saved
    state; on a CPU the result is the same, bit for bit, as without the cut. A complete run is not trained again.

    Under torchrun the processes train one model together (``ranks.py``); each gets the result.

    Args:
        config: what to train.
        corpus: prepared data; its vocabulary must be the model's. Unset: the embedded story world.
        out: the run folder (see ``run_folder.py``); unset: ``default_folder(config)``.
        start: a saved model to begin from instead of fresh weights: a folder or file that `load` reads, with tensors of
            the same names and shapes. The run's record names it, so to go on with the run it need not be given again.
        resume: go on with the run in ``out`` if there is one.
        report: called each ten steps.
        stop: asked after each step; where it says true, the run saves its state and ends like at Ctrl-C.
        sharding: how processes that torchrun started share the model (``ranks.py``); it does not change the result.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM, a closed terminal, or ``stop``; the state is saved.
        InputError: config, data and ``start`` do not fit, ``out`` holds something else, a file in it is damaged, memory
            does not suffice, or the loss is no longer finite (the last good state is kept).
        OSError: the disk is full; the last good state is kept.
    """
    corpus, out = corpus or Corpus(embedded()), Path(out or default_folder(config))
    if corpus.vocab_size != config.model.vocab_size:
        raise InputError(
            f"the model has vocab_size {config.model.vocab_size}, the tokenizer of {corpus.folder} has "
            f"{corpus.vocab_size}; set vocab_size to {corpus.vocab_size}"
        )
    corpus.train.windows(config.model.context)  # Too few tokens are refused before there is a folder.
    ranks = join(config, corpus, choose_device(config.device), sharding)
    run = RunFolder(out)
    start = Path(start) if start is not None else None  # Read by rank 0 alone: other machines may not have it.
    ranks.on_rank_0(run.open, config, corpus, ranks.device, start, resume=resume)
    try:
        with explain_out_of_memory(ranks.device, config.batch):
            if ranks.on_rank_0(lambda: run.result) is None:
                ranks.on_rank_0(Tokenizer.load(corpus.folder).save, out / "tokenizer.json")
                training = Training(config, corpus, ranks)
                training.restore(run, start)
                with Interrupt(ranks, stop) as interrupt:
                    training.loop(run, report, interrupt)
            elif not ranks.on_rank_0(lambda: run.is_complete):
                ranks.on_rank_0(_measure_stories, run, corpus, ranks.device)
        ranks.on_rank_0(run.finish)
        return ranks.on_rank_0(_result, run, corpus)
    finally:
        run.unlock()


def default_folder(config: TrainConfig) -> Path:
    """``runs/`` in the working folder, and a name from shape and width."""
    return Path("runs") / f"{Shape.parse(config.model.shape).slug}-d{config.model.dim}"


def measure_speed(config: TrainConfig, corpus: Corpus) -> Callable[[], float]:
    """A function that does one training step and waits for its loss, on a fresh model that is kept nowhere.

    Raises:
        InputError: memory does not suffice; the function raises it, too.
    """
    device = choose_device(config.device)
    with explain_out_of_memory(device, config.batch):
        training = Training(config, corpus, Ranks(device))

    def step() -> float:
        with explain_out_of_memory(device, config.batch):
            loss = training.train_step().item()
        training.step += 1
        return loss

    return step


def _measure_stories(run: RunFolder, corpus: Corpus, device: torch.device) -> None:
    """For a complete run of an earlier version, which did not keep the nats of each story."""
    tokens = np.asarray(corpus.valid.tokens)
    losses = token_losses(load_model(run.path).to(device), tokens)
    run.save_story_nats(story_sums(tokens, losses, corpus.manifest.bos))


def _result(run: RunFolder, corpus: Corpus) -> TrainResult:
    final = run.result
    assert final is not None
    assert final.nats is not None
    assert final.targets is not None
    speeds = [m.tokens_per_second for m in run.metrics() if m.tokens_per_second is not None]
    if not speeds:
        raise InputError(f"{run.path / 'metrics.jsonl'} is damaged: no line has tokens_per_second; restore it")
    return TrainResult(
        folder=run.path,
        loss=Loss(nats=final.nats, tokens=final.targets, bytes=corpus.valid_bytes),
        tokens=final.tokens,
        tokens_per_second=float(np.median(speeds)),
        story_nats=run.story_nats(),
    )

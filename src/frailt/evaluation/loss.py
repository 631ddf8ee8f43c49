"""Validation loss, in nats per token and in bits per byte, at any number of passes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from frailt.data.corpus import windows
from frailt.data.tokenizer import Tokenizer
from frailt.device import Device, choose_device
from frailt.evaluation.text import encode_text
from frailt.model.checkpoint import load_model
from frailt.model.frailt import FraiLT


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Cross-entropy over a text."""

    nats: float
    """Summed over all tokens."""
    tokens: int
    """Targets: every token of the stream but the first."""
    bytes: int
    """UTF-8 bytes of the text itself, separators not counted."""

    @property
    def nats_per_token(self) -> float:
        """Mean cross-entropy, token weighted: the paper's "validation loss"."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """The same information spread over bytes, so that tokenizers can be compared."""
        return self.nats / math.log(2) / self.bytes


@torch.inference_mode()
def token_losses(
    model: FraiLT, tokens: np.ndarray, *, iterations: int | tuple[int, ...] | None = None, batch: int = 16
) -> np.ndarray:
    """Cross-entropy of each token but the first, in nats: float64 of shape ``(len(tokens) - 1,)``.

    Args:
        model: in evaluation mode.
        tokens: BOS and story, BOS and story, ...; a BOS counts as a target like any other token. The stream is
            cut into consecutive windows of the model's context, across stories.
        iterations: passes, as for ``FraiLT.forward``.
        batch: windows computed at once; it does not change the result.
    """
    device = next(model.parameters()).device
    losses = [
        F.cross_entropy(
            model(x.to(device), iterations=iterations).logits.flatten(0, 1),
            y.flatten().to(device),
            reduction="none",
        )
        for x, y in windows(tokens, context=model.config.context, batch=batch)
    ]
    return torch.cat(losses).cpu().double().numpy()


def story_sums(tokens: np.ndarray, losses: np.ndarray, bos: int) -> np.ndarray:
    """Nats of each story from those of each token: float64 of shape ``(stories,)``.

    A story's targets are its own tokens and the BOS that opens it. The first story's BOS is no target, since nothing
    comes before it.

    Args:
        tokens: BOS and story, BOS and story, ...
        losses: of each token but the first, as ``token_losses`` gives them.
        bos: the token that opens a story.
    """
    # Loss i is of token i + 1. What stands before the first BOS counts to the first story.
    story = np.maximum(np.cumsum(tokens == bos)[1:] - 1, 0)
    return np.bincount(story, weights=losses)


def stream_loss(
    model: FraiLT,
    tokens: np.ndarray,
    *,
    text_bytes: int,
    iterations: int | tuple[int, ...] | None = None,
    batch: int = 16,
) -> Loss:
    """Loss over a whole stream of tokens that stand for ``text_bytes`` bytes; see ``token_losses``."""
    losses = token_losses(model, tokens, iterations=iterations, batch=batch)
    return Loss(nats=float(losses.sum()), tokens=len(losses), bytes=text_bytes)


def text_loss(path: Path, tokenizer: Tokenizer, texts: Sequence[Path], device: Device = "cpu") -> Loss:
    """Loss of the model at ``path`` over text files, computed in torch.

    Raises:
        InputError: model or text cannot be read, or the device is not there.
    """
    tokens, size = encode_text(list(texts), tokenizer)
    return stream_loss(load_model(path).to(choose_device(device)), tokens, text_bytes=size)


@dataclass(frozen=True, kw_only=True, slots=True)
class PassLoss:
    """What one more pass does."""

    passes: int
    loss: Loss
    change: float | None
    """Relative L2 distance between the final states with this many passes and with one fewer,
    |x_p - x_(p-1)| / |x_p|, mean over tokens; None for the first pass."""
    divergence: float | None
    """KL(prediction with p passes || with p - 1), in nats, mean over tokens; None for the first pass."""


@torch.inference_mode()
def pass_losses(model: FraiLT, tokens: np.ndarray, *, most: int, text_bytes: int, batch: int = 16) -> list[PassLoss]:
    """Loss with 1 to ``most`` passes in every group that has more than one, and how far each pass moves.

    Where only the last group has several passes, its states in one forward pass are those of all smaller numbers.
    Else each number of passes is a forward pass of its own: fewer passes in one group change what the next one sees.
    """
    device = next(model.parameters()).device
    nats, moved, diverged = np.zeros(most), np.zeros(most), np.zeros(most)
    count = 0
    for x, y in windows(tokens, context=model.config.context, batch=batch):
        targets = y.flatten().to(device)
        count += len(targets)
        before = None
        for p, last_state in enumerate(_last_states(model, x.to(device), most)):
            state, scores = last_state.flatten(0, 1), model.read_out(last_state).flatten(0, 1).log_softmax(-1)
            nats[p] += F.nll_loss(scores, targets, reduction="sum").item()
            if before is not None:
                moved[p] += ((state - before[0]).norm(dim=-1) / state.norm(dim=-1)).sum().item()
                diverged[p] += F.kl_div(before[1], scores, reduction="sum", log_target=True).item()
            before = state, scores
    return [
        PassLoss(
            passes=p + 1,
            loss=Loss(nats=float(nats[p]), tokens=count, bytes=text_bytes),
            change=float(moved[p] / count) if p else None,
            divergence=float(diverged[p] / count) if p else None,
        )
        for p in range(most)
    ]


def _last_states(model: FraiLT, x: Int[Tensor, "batch time"], most: int) -> Iterator[Float[Tensor, "batch time dim"]]:
    """The residual stream at the end, with 1 to ``most`` passes in every group that has more than one."""
    looped = [group.iterations > 1 for group in model.config.groups]
    if looped[-1] and not any(looped[:-1]):
        yield from model(x, iterations=most, last_only=True).states[-1]
    else:
        for passes in range(1, most + 1):
            yield model(x, iterations=passes, last_only=True).states[-1][-1]

"""Stories from a model in torch: any device, several at once in one batch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.exit_torch import step
from frailt.inference.generation import Reader, Teller, tokenizer_of
from frailt.model.cache import Cache
from frailt.model.checkpoint import load_model
from frailt.model.frailt import FraiLT
from frailt.model.shape import Shape


class Storyteller(Teller):
    """A model with its tokenizer.

    Args:
        model: in evaluation mode, on the device to use.
        tokenizer: the one it was trained with.
    """

    def __init__(self, model: FraiLT, tokenizer: Tokenizer) -> None:
        self.config, self.model, self.tokenizer = model.config, model, tokenizer

    @classmethod
    def load(cls, path: Path, tokenizer: Path | None = None) -> "Storyteller":
        """Read a model and its tokenizer.

        Args:
            path: a run folder, a saved model's folder, or a llama2.c ``.bin``.
            tokenizer: where it is not stored beside the model.

        Raises:
            InputError: either is missing or damaged, or their vocabularies differ.
        """
        model = load_model(path)
        return cls(model, tokenizer_of(path, model.config, tokenizer))

    def reader(
        self, iterations: int | tuple[int, ...] | None = None, early_exit: EarlyExit | None = None
    ) -> "TorchReader":
        return TorchReader(self.model, iterations, early_exit)


def load(path: str | Path, tokenizer: str | Path | None = None) -> Storyteller:
    """Read a model to generate with; see ``Storyteller.load``."""
    return Storyteller.load(Path(path), Path(tokenizer) if tokenizer is not None else None)


class TorchReader(Reader):
    """Reads a batch with one cache; see ``telling.Reader``."""

    def __init__(
        self, model: FraiLT, iterations: int | tuple[int, ...] | None = None, early_exit: EarlyExit | None = None
    ) -> None:
        super().__init__(model.config.context)
        self.model, self.iterations, self.early_exit = model, iterations, early_exit
        shape = Shape.parse(model.config.shape)
        self._all = shape.passes(iterations)
        if early_exit is not None:
            early_exit.groups(shape, self._all)  # Refused before anything is read.
        self.device = next(model.parameters()).device
        self.cache = Cache(self.context)

    def read(self, rows: list[list[int]]) -> NDArray[Any]:
        """Padded on the left to equal lengths."""
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        padded = bool((lengths < longest).any())
        real = torch.arange(longest, device=self.device) >= longest - lengths[:, None] if padded else None
        self.cache = Cache(self.context)
        return self._scores(tokens, real)

    @torch.inference_mode()
    def step(self, tokens: list[int], again: dict[int, list[int]]) -> NDArray[Any]:
        if not again:
            return self._next(tokens)
        # Those that go on, and those that are read again, apart; then one batch as before.
        going = [place for place in range(len(tokens)) if place not in again]
        order = np.argsort([*going, *again])
        if not going:
            return self.read(list(again.values()))[order]
        self.cache.select(going)
        scores, passes, cache = self._next([tokens[place] for place in going]), self.passes, self.cache
        scores = np.concatenate((scores, self.read(list(again.values()))))[order]
        self.passes = np.concatenate((passes, self.passes))[order]
        cache.join(self.cache)
        cache.select(order.tolist())
        self.cache = cache
        return scores

    def _next(self, tokens: list[int]) -> NDArray[Any]:
        read = torch.tensor(tokens, device=self.device)
        if self.early_exit is None:
            return self._scores(read[:, None], None)
        logits, passes = step(self.model, read, self.cache, self.early_exit, self.iterations)
        self.passes = passes.cpu().numpy()
        return logits.cpu().numpy()

    @torch.inference_mode()
    def select(self, places: list[int]) -> None:
        self.cache.select(places)

    @torch.inference_mode()
    def _scores(self, tokens: torch.Tensor, real: torch.Tensor | None) -> NDArray[Any]:
        self.passes = np.tile(np.array(self._all, np.int64), (len(tokens), 1))
        return self.model(tokens, self.cache, self.iterations, real=real, last_only=True).logits[:, -1].cpu().numpy()

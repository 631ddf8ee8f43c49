"""Stories from a model in torch: any device, several at once in one batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.exit_torch import step
from frailt.inference.generation import Decoder
from frailt.inference.storyteller import Storyteller, tokenizer_of
from frailt.model.cache import Cache
from frailt.model.checkpoint import load_model
from frailt.model.frailt import FraiLT
from frailt.model.shape import Iterations, Shape


class TorchStoryteller(Storyteller):
    """``model`` is in evaluation mode, on the device to use; ``tokenizer`` is the one that it was trained with."""

    def __init__(self, model: FraiLT, tokenizer: Tokenizer) -> None:
        self.config, self.model, self.tokenizer = model.config, model, tokenizer

    @classmethod
    def load(
        cls, path: Path, tokenizer: Path | None = None, *, device: str | torch.device = "cpu"
    ) -> "TorchStoryteller":
        """Read a model and its tokenizer; arguments and errors as for ``storyteller.load``."""
        model = load_model(path)
        return cls(model.to(device), tokenizer_of(path, model.config, tokenizer))

    def decoder(self, iterations: Iterations = None, early_exit: EarlyExit | None = None) -> "TorchDecoder":
        return TorchDecoder(self.model, iterations, early_exit)


class TorchDecoder(Decoder):
    """Reads a batch with one cache; see ``generation.Decoder``."""

    def __init__(self, model: FraiLT, iterations: Iterations = None, early_exit: EarlyExit | None = None) -> None:
        super().__init__(model.config.context)
        self.model, self.iterations, self.early_exit = model, iterations, early_exit
        self._all = model.config.passes(iterations)
        if early_exit is not None:
            early_exit.groups(Shape.parse(model.config.shape), self._all)  # Refused before anything is read.
        self.device = next(model.parameters()).device
        self._clear()

    @property
    def passes(self) -> list[tuple[int, ...]]:
        return self._passes

    @torch.inference_mode()
    def add(self, texts: list[list[int]]) -> NDArray[Any]:
        """Padded on the left to equal lengths."""
        longest = max(map(len, texts))
        tokens = torch.tensor([[0] * (longest - len(text)) + text for text in texts], device=self.device)
        lengths = torch.tensor([len(text) for text in texts], device=self.device)
        padded = bool((lengths < longest).any())
        real = torch.arange(longest, device=self.device) >= longest - lengths[:, None] if padded else None
        cache = Cache(self.context)
        scores = self._scores(tokens, cache, real)
        with self._all_or_nothing():
            if len(self._passes):
                self.cache.join(cache)
            else:
                self.cache = cache
            self._passes = [*self._passes, *[self._all] * len(texts)]
        return scores

    @torch.inference_mode()
    def step(self, tokens: list[int]) -> NDArray[Any]:
        if len(tokens) != len(self._passes):
            raise InputError(f"{len(tokens)} tokens are given for {len(self._passes)} rows; give one for each")
        read = torch.tensor(tokens, device=self.device)
        with self._all_or_nothing():
            if self.early_exit is None:
                scores, self._passes = self._scores(read[:, None], self.cache), [self._all] * len(tokens)
            else:
                logits, passes = step(self.model, read, self.cache, self.early_exit, self.iterations)
                scores, self._passes = logits.cpu().numpy(), [*map(tuple, passes.tolist())]
        return scores

    @torch.inference_mode()
    def select(self, rows: list[int]) -> None:
        with self._all_or_nothing():
            if rows:
                self.cache.select(rows)
                self._passes = [self._passes[row] for row in rows]
            else:
                self._clear()

    def _scores(self, tokens: torch.Tensor, cache: Cache, real: torch.Tensor | None = None) -> NDArray[Any]:
        return self.model(tokens, cache, self.iterations, real=real, last_only=True).logits[:, -1].cpu().numpy()

    def _clear(self) -> None:
        self.cache, self._passes = Cache(self.context), list[tuple[int, ...]]()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """The cache is changed in place: whoever is interrupted there must not go on with half of it."""
        try:
            yield
        except BaseException:
            self._clear()
            raise

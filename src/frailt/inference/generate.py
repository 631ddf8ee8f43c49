"""Stories from a model in torch: any device, several at once in one batch."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.inference.telling import Reader, Teller, tokenizer_of
from frailt.model.cache import Cache
from frailt.model.checkpoint import load_model
from frailt.model.frailt import FraiLT


class Storyteller(Teller):
    """A model with its tokenizer.

    Args:
        model: in evaluation mode, on the device to use.
        tokenizer: the one it was trained with.
    """

    def __init__(self, model: FraiLT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

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

    def reader(self, iterations: int | tuple[int, ...] | None) -> "TorchReader":
        return TorchReader(self.model, iterations)


def load(path: str | Path, tokenizer: str | Path | None = None) -> Storyteller:
    """Read a model to generate with; see ``Storyteller.load``."""
    return Storyteller.load(Path(path), Path(tokenizer) if tokenizer is not None else None)


class TorchReader(Reader):
    """Reads a batch with one cache; see ``telling.Reader``."""

    def __init__(self, model: FraiLT, iterations: int | tuple[int, ...] | None) -> None:
        super().__init__(model.config.context)
        self.model, self.iterations = model, iterations
        self.device = next(model.parameters()).device
        self.cache = Cache(self.context)

    @property
    def length(self) -> int:
        return self.cache.length

    def read(self, rows: list[list[int]]) -> NDArray[Any]:
        """Padded on the left to equal lengths."""
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        padded = bool((lengths < longest).any())
        real = torch.arange(longest, device=self.device) >= longest - lengths[:, None] if padded else None
        self.cache = Cache(self.context)
        return self._scores(tokens, real)

    def step(self, tokens: list[int]) -> NDArray[Any]:
        return self._scores(torch.tensor(tokens, device=self.device)[:, None], None)

    def select(self, places: list[int]) -> None:
        self.cache.select(places)

    @torch.inference_mode()
    def _scores(self, tokens: torch.Tensor, real: torch.Tensor | None) -> NDArray[Any]:
        return self.model(tokens, self.cache, self.iterations, real=real).logits[:, -1].cpu().numpy()

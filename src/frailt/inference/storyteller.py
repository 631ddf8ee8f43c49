"""Prompts in, text out, whatever computes the scores; and ``load``, the one way from a file to a model that writes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frailt.data.tokenizer import Tokenizer
from frailt.device import Device, choose_device
from frailt.errors import InputError
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.generation import Batch, Decoder, Finish, Row, generators
from frailt.inference.sampling import Sampling
from frailt.model.config import ModelConfig
from frailt.model.shape import Iterations
from frailt.model.stored import read_model

if TYPE_CHECKING:
    from frailt.inference.cpu.packing import Weights


class Token(NamedTuple):
    """One more token of a text, as it is written."""

    row: int
    """Which of the prompts it follows."""
    id: int
    """In the vocabulary."""
    text: str
    """What it adds to the text; empty where it ends the text, or where a character is not complete yet."""
    passes: tuple[int, ...]
    """Passes through each group of the model that led to it."""
    finish: Finish | None
    """Why this is the last token of the text; unset where it is not."""


class Storyteller(ABC):
    """A model with its tokenizer, which completes prompts."""

    config: ModelConfig
    tokenizer: Tokenizer

    @abstractmethod
    def decoder(self, iterations: Iterations = None, early_exit: EarlyExit | None = None) -> Decoder:
        """A new decoder with these passes, as for ``FraiLT.forward``, or fewer where a token may leave early."""

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        iterations: Iterations = None,
        early_exit: EarlyExit | None = None,
    ) -> list[str]:
        """Complete each prompt; the completions alone, without their prompts.

        A text does not depend on the other prompts of its batch. A prompt that occurs several times gets a
        different completion each time.

        Args:
            prompts: beginnings; spaces at their ends are dropped, since the next word brings its own.
            sampling: options; unset: the defaults of ``Sampling``.
            iterations: passes, as for ``FraiLT.forward``.
            early_exit: when a token needs no further pass; unset: all tokens do all passes.

        Raises:
            InputError: an option is impossible, or the model's weights are not numbers.
        """
        texts = [""] * len(prompts)
        for token in self.write(prompts, sampling, iterations=iterations, early_exit=early_exit):
            texts[token.row] += token.text
        return texts

    def stream(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        iterations: Iterations = None,
        early_exit: EarlyExit | None = None,
    ) -> Iterator[str]:
        """Complete one prompt, piece by piece as it is written. The pieces join to what ``generate`` gives."""
        for token in self.write([prompt], sampling, iterations=iterations, early_exit=early_exit):
            yield token.text

    def write(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        rows: Sequence[int] | None = None,
        iterations: Iterations = None,
        early_exit: EarlyExit | None = None,
    ) -> Iterator[Token]:
        """Yield tokens as completions are written side by side.

        Args:
            prompts, sampling, iterations, early_exit: as for ``generate``.
            rows: complete these of the prompts alone; their texts are those that ``generate`` gives them.
        """
        if isinstance(prompts, str):
            raise InputError("generate() takes a list of prompts; put the one prompt into brackets")
        sampling = sampling or Sampling()
        tokens = [[self.tokenizer.bos, *self.tokenizer.encode(prompt.rstrip(" "))] for prompt in prompts]
        random = generators(tokens, sampling.seed)
        chosen = range(len(prompts)) if rows is None else rows
        streams = {row: self.tokenizer.stream() for row in chosen}
        for row, stream in streams.items():
            for token in tokens[row]:
                stream.push(token)
        batch = Batch(self.decoder(iterations, early_exit), sampling, self.tokenizer.ends)
        batch.add([Row(row, tokens[row], random[row]) for row in chosen])
        while batch.rows:
            for row, token, passes, finish in batch.step():
                stream = streams[row.number]
                text = "" if finish == "end" else stream.push(token)
                yield Token(row.number, token, text + stream.flush() if finish else text, passes, finish)


def load(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: Device = "cpu",
    weights: "Weights" = "auto",
    threads: int | None = None,
) -> Storyteller:
    """Read a model to write with: in compiled code on the CPU, without torch; in torch on other devices.

    Args:
        path: a run folder, a saved model's folder, or a llama2.c ``.bin``.
        tokenizer: where it is not stored beside the model.
        device: where to compute; auto: cuda, else mps, else cpu. Small models write fastest on the CPU.
        weights: on the CPU, how they are kept in memory: auto (as stored), float32, bfloat16 or int8.
        threads: on the CPU, exactly this many; unset: as many as turn out to be fastest.

    Raises:
        InputError: model or tokenizer is missing or damaged, their vocabularies differ, the device is not there, or it
            is not the CPU and ``weights`` or ``threads`` are given.
    """
    path, given = Path(path), Path(tokenizer) if tokenizer is not None else None
    kind = "cpu" if device == "cpu" else choose_device(device).type
    if kind != "cpu":
        if weights != "auto" or threads is not None:
            raise InputError(
                f"weights and threads are for the CPU, and this is {kind}; choose device cpu or leave them out"
            )
        from frailt.inference.torch_decoder import TorchStoryteller

        return TorchStoryteller.load(path, given, device=kind)
    from frailt.inference.cpu.decoder import CompiledStoryteller
    from frailt.inference.cpu.packing import pack

    stored = read_model(path)
    pieces = tokenizer_of(path, stored.config, given)
    return CompiledStoryteller(pack(stored, weights), pieces, threads=threads)


def tokenizer_of(path: Path, config: ModelConfig, tokenizer: Path | None) -> Tokenizer:
    """The tokenizer of the model at ``path``, or the one that is given.

    Raises:
        InputError: it is missing or damaged, or has another vocabulary than the model.
    """
    pieces = Tokenizer.load(tokenizer or (path if path.is_dir() else path.parent), config.vocab_size)
    if pieces.vocab_size != config.vocab_size:
        raise InputError(
            f"{path} has a vocabulary of {config.vocab_size}, its tokenizer {pieces.vocab_size}; "
            "give the right one with --tokenizer"
        )
    return pieces

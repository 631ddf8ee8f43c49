"""Measure the loss of a model on a text."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frailt.errors import InputError
from frailt.options import Words, parse, table


def run(args: list[str]) -> None:
    from frailt.compiling import announce_compiling
    from frailt.evaluation.loss import pass_losses, stream_loss
    from frailt.evaluation.text import encode_text
    from frailt.inference.torch_decoder import TorchStoryteller
    from frailt.model.shape import Shape
    from frailt.training.device import Device, choose_device

    @dataclass(frozen=True, kw_only=True)
    class Command:
        model: Words[Path]
        """Run folder, saved model, or llama2.c .bin."""
        text: tuple[Path, ...]
        """Text files: plain, .xz, .gz or .zst, stories closed by <|endoftext|>."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: bool = False
        """Also the loss with 1 to 2M passes, and how far each pass moves state and prediction."""
        device: Device = "auto"
        """Where to compute."""
        json: bool = False
        """Print JSON."""

    command = parse(Command, "evaluate", args, __doc__)
    announce_compiling()
    storyteller = TorchStoryteller.load(command.model, command.tokenizer, device=choose_device(command.device))
    model = storyteller.model
    tokens, size = encode_text(list(command.text), storyteller.tokenizer)
    loss = stream_loss(model, tokens, text_bytes=size)
    if not math.isfinite(loss.nats):
        raise InputError(f"{command.model} gives a loss of {loss.nats}: its weights are damaged or its training failed")
    found: dict[str, Any] = {
        "model": str(command.model),
        "text": [str(path) for path in command.text],
        "tokens": loss.tokens,
        "bytes": loss.bytes,
        "nats_per_token": loss.nats_per_token,
        "bits_per_byte": loss.bits_per_byte,
    }
    if command.passes:
        several = {group.iterations for group in Shape.parse(model.config.shape).groups if group.iterations > 1}
        if not several:
            raise InputError(
                f"{command.model} has shape {model.config.shape}: every block is passed once; leave out --passes"
            )
        trained = max(several)
        # With groups of different M, no row of the table is the model as it was trained.
        found["trained_passes"] = trained if len(several) == 1 else None
        found["passes"] = [
            {
                "passes": p.passes,
                "nats_per_token": p.loss.nats_per_token,
                "bits_per_byte": p.loss.bits_per_byte,
                "relative_l2": p.change,
                "kl": p.divergence,
            }
            for p in pass_losses(model, tokens, most=2 * trained, text_bytes=size)
        ]
    if command.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{loss.nats_per_token:.4f} nats/token, {loss.bits_per_byte:.4f} bits/byte over {loss.tokens:,} tokens")
    if command.passes:
        rows = [
            (
                str(p["passes"]),
                f"{p['nats_per_token']:.4f}",
                f"{p['bits_per_byte']:.4f}",
                "" if p["relative_l2"] is None else f"{p['relative_l2']:.4f}",
                "" if p["kl"] is None else f"{p['kl']:.4f}",
                "(as trained)" if p["passes"] == found["trained_passes"] else "",
            )
            for p in found["passes"]
        ]
        print(table(("passes", "nats/token", "bits/byte", "relative L2", "KL", ""), rows))

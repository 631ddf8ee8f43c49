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
    from frailt.device import Device, choose_device
    from frailt.evaluation.loss import pass_losses, stream_loss
    from frailt.evaluation.text import encode_text
    from frailt.inference.torch_decoder import TorchStoryteller

    @dataclass(frozen=True, kw_only=True)
    class Command:
        model: Words[Path]
        """Run folder, saved model, or llama2.c .bin."""
        text: tuple[Path, ...]
        """Text files: plain, .xz, .gz, .bz2 or .zst, stories closed by <|endoftext|>."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: bool = False
        """Also the loss with one pass up to twice the trained ones, and how far each moves state and prediction."""
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
    report: dict[str, Any] = {
        "model": str(command.model),
        "text": [str(path) for path in command.text],
        "tokens": loss.tokens,
        "bytes": loss.bytes,
        "nats_per_token": loss.nats_per_token,
        "bits_per_byte": loss.bits_per_byte,
    }
    if command.passes:
        trained = {group.iterations for group in model.config.groups if group.iterations > 1}
        if not trained:
            raise InputError(
                f"{command.model} has shape {model.config.shape}: every block is passed once; leave out --passes"
            )
        # With groups of different M, no row of the table is the model as it was trained.
        report["trained_passes"] = max(trained) if len(trained) == 1 else None
        report["passes"] = [
            {
                "passes": row.passes,
                "nats_per_token": row.loss.nats_per_token,
                "bits_per_byte": row.loss.bits_per_byte,
                "relative_l2": row.change,
                "kl": row.divergence,
            }
            for row in pass_losses(model, tokens, most=2 * max(trained), text_bytes=size)
        ]
    print(json.dumps(report, indent=2) if command.json else _text(report))


def _text(report: dict[str, Any]) -> str:
    nats, bits, tokens = report["nats_per_token"], report["bits_per_byte"], report["tokens"]
    summary = f"{nats:.4f} nats/token, {bits:.4f} bits/byte over {tokens:,} tokens"
    if "passes" not in report:
        return summary
    columns = ("nats_per_token", "bits_per_byte", "relative_l2", "kl")
    rows = [
        (
            str(row["passes"]),
            *("" if row[column] is None else f"{row[column]:.4f}" for column in columns),
            "(as trained)" if row["passes"] == report["trained_passes"] else "",
        )
        for row in report["passes"]
    ]
    return f"{summary}\n{table(('passes', 'nats/token', 'bits/byte', 'relative L2', 'KL', ''), rows)}"

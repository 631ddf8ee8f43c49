"""Describe a model."""

from dataclasses import dataclass
from pathlib import Path

from frailt.errors import excerpt
from frailt.options import Words, megabytes, parse


def run(args: list[str]) -> None:
    from frailt.model.counts import count
    from frailt.model.stored import read_model

    @dataclass(frozen=True, kw_only=True)
    class Command:
        model: Words[Path]
        """Run folder, saved model, or llama2.c .bin."""

    command = parse(Command, "info", args, __doc__)
    config = read_model(command.model).config
    counts = count(config)
    print(f"shape {config.shape}: effective depth {config.depth}, width {config.dim}, {config.heads} heads")
    print(f"encoding {config.encoding}, vocabulary {config.vocab_size}, context {config.context}")
    print(f"{counts.parameters:,} parameters ({megabytes(counts.weight_bytes)} in float32)")
    print(f"{counts.flops / 1e6:.2f} MFLOPs per token, cache {megabytes(counts.cache_bytes)} at full context")
    if (command.model / "run.json").is_file():
        from frailt.training.run_folder import RunFolder  # With torch, which a model alone does without.

        run = RunFolder(command.model)
        record, result = run.record(), run.result
        state = f"validation loss {result.valid_loss:.4f} after {result.tokens:,} tokens" if result else "not complete"
        print(f"trained on {excerpt(record.data.name)}, seed {record.config.seed}: {state}")

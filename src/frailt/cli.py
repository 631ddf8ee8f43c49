"""The command line: parse, call one function, print."""

import json
import math
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from frailt.errors import InputError
from frailt.options import Words, parse, split_words


def prepare(args: list[str]) -> None:
    """Turn stories into a folder of tokens."""
    from frailt.data.prepare import PrepareConfig, prepare

    config = _parse(PrepareConfig, "prepare", args)
    result = prepare(config, progress=sys.stderr.isatty())
    train, valid = result.manifest["train"], result.manifest["valid"]
    print(
        f"{result.folder}: {train['stories']:,} training stories ({train['tokens']:,} tokens), "
        f"{valid['stories']:,} for validation ({valid['tokens']:,} tokens)"
        + ("" if result.fresh else ", prepared before")
    )


def train(args: list[str]) -> None:
    """Train one model into a run folder."""
    from frailt.training.config import TrainConfig
    from frailt.training.presets import PRESETS
    from frailt.training.progress import ProgressLine
    from frailt.training.trainer import default_folder, train

    @dataclass(frozen=True, kw_only=True)
    class Command:
        config: TrainConfig
        preset: Literal["paper", "llama2c", "demo"] = "paper"
        """Where the other options start from: a cell of the paper, llama2.c's recipe, or a minute's try."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
        out: Path | None = None
        """Run folder; unset: runs/ and a name from shape and width."""
        resume: bool = False
        """Go on with the run in the folder, if there is one."""

    preset = PRESETS.get(dict(pairwise(args)).get("--preset", "paper"), PRESETS["paper"])
    command = _parse(Command, "train", args, default=Command(config=preset()))
    config, corpus = command.config, _corpus(command.data)
    if not {"--vocab-size", "--vocab_size"} & set(args):
        config = replace(config, model=replace(config.model, vocab_size=corpus.vocab_size))
    out = command.out or default_folder(config)
    with ProgressLine() as line:
        result = train(config, corpus, out, resume=command.resume, report=lambda p: line(out.name, p))
    loss = f"{result.loss.nats_per_token:.4f} nats/token, {result.loss.bits_per_byte:.4f} bits/byte"
    print(f"{out}: validation loss {loss} after {result.tokens:,} tokens; loss curve in {out / 'loss.png'}")


def evaluate(args: list[str]) -> None:
    """Measure the loss of a model on a text."""
    from frailt.evaluation.loss import pass_losses, stream_loss
    from frailt.evaluation.text import encode_text
    from frailt.inference.generate import load
    from frailt.model.shape import Shape
    from frailt.training.trainer import choose_device

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
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        """Where to compute."""
        json: bool = False
        """Print JSON."""

    command = _parse(Command, "evaluate", args)
    teller = load(command.model, command.tokenizer)
    model = teller.model.to(choose_device(command.device))
    tokens, size = encode_text(list(command.text), teller.tokenizer)
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
        print(_table(("passes", "nats/token", "bits/byte", "relative L2", "KL", ""), rows))


def story(args: list[str]) -> None:
    """Tell a story."""
    from frailt.inference.generate import load
    from frailt.inference.sampling import Sampling
    from frailt.training.trainer import choose_device

    @dataclass(frozen=True, kw_only=True)
    class Command:
        beginning: Words[str] = "Once upon a time"
        """How the story begins."""
        model: Path | None = None
        """Run folder, saved model, or llama2.c .bin; unset: the newest in runs/."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: str | None = None
        """Passes through each group that has several, or a number for each group: 4 or 1,4,1; unset: as trained."""
        sampling: Sampling = field(default_factory=Sampling)
        device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
        """Where to compute. Small models write fastest on the CPU."""

    command = _parse(Command, "story", args)
    teller = load(command.model or _newest_run(), command.tokenizer)
    teller.model.to(choose_device(command.device))
    pieces = teller.stream(command.beginning, command.sampling, iterations=_passes(command.passes))
    print(command.beginning.rstrip(" ") + next(pieces, ""), end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def compare(args: list[str]) -> None:
    """Train models side by side, and show what the passes are worth."""
    from frailt.model.frailt import ModelConfig
    from frailt.paper.compare import compare
    from frailt.paper.comparison import CompareConfig
    from frailt.paper.report import HEADERS, caption, cells
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.progress import ProgressLine

    @dataclass(frozen=True, kw_only=True)
    class Command:
        shapes: str = "1,1^8,8"
        """Models, joined by commas. An encoding may follow a colon: 1^8:none, 1^8:sinusoidal."""
        dim: int = 64
        """Width of every model."""
        tokens: int = 4_000_000
        """Training budget of every model."""
        seeds: str = "0"
        """Seeds, joined by commas; every model is trained with each."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
        out: Path | None = None
        """Folder for runs, table and figure; unset: runs/compare and the width."""
        lr: float = OptimizerConfig().lr
        """Peak learning rate."""
        batch: int = TrainConfig().batch
        """Sequences in one step."""
        context: int = 512
        """Longest sequence, in tokens."""
        heads: int = 8
        """Attention heads."""
        kv_heads: int | None = None
        """Key and value heads; unset: as many as heads."""
        precision: Literal["float32", "bfloat16"] = "float32"
        """Of matrix products."""
        compile: bool = False
        """Compile the block with torch.compile."""
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        """Where to compute."""

    command = _parse(Command, "compare", args)
    corpus = _corpus(command.data)
    base = TrainConfig(
        model=ModelConfig(
            dim=command.dim,
            heads=command.heads,
            kv_heads=command.kv_heads,
            context=command.context,
            vocab_size=corpus.vocab_size,
        ),
        optimizer=OptimizerConfig(lr=command.lr),
        tokens=command.tokens,
        batch=command.batch,
        precision=command.precision,
        compile=command.compile,
        device=command.device,
    )
    seeds = _numbers("seeds", command.seeds)
    shapes = tuple(command.shapes.replace(" ", "").split(","))
    config = CompareConfig(shapes=shapes, seeds=seeds, base=base)
    out = command.out or Path("runs") / f"compare-d{command.dim}"
    with ProgressLine() as line:
        result = compare(config, corpus, out, report=line)
    print(_table(HEADERS, cells(result)))
    print(textwrap.fill(caption(result), 80))
    print(f"Figure: {out / 'compare.png'}   Table: {out / 'table.md'}   All figures: {out / 'compare.json'}")


def plan(args: list[str]) -> None:
    """Show a model's standard twins: equal depth, equal parameters, equal FLOPs."""
    from frailt.model.counts import activation_bytes
    from frailt.model.frailt import ModelConfig
    from frailt.paper.plan import plan

    config = _parse(ModelConfig, "plan", args)
    twins = plan(config)
    headers = ("", "shape", "width", "hidden", "parameters", "MFLOPs", "cache", "training")
    rows = [
        (
            twin.rule,
            twin.config.shape,
            str(twin.config.dim),
            str(twin.config.feed_forward_dim),
            f"{twin.counts.parameters:,}",
            f"{twin.counts.flops / 1e6:.2f}",
            f"{twin.counts.cache_bytes / 1e6:.2f}",
            f"{activation_bytes(twin.config, batch=1) / 1e6:.2f}",
        )
        for twin in twins
    ]
    print(_table(headers, rows))
    fewer = "".join(f" {t.rule.capitalize()}: {t.config.heads} heads." for t in twins if t.config.heads < config.heads)
    note = (
        "MFLOPs: of a forward pass, per token. Cache, and what training keeps for its backward pass: MB in float32 for "
        "one sequence of full context. Weights: 4 bytes a parameter."
    )
    print(textwrap.fill(note + fewer, 80))


def info(args: list[str]) -> None:
    """Describe a model."""
    from frailt.files import read_json
    from frailt.model.checkpoint import load_model
    from frailt.model.counts import count
    from frailt.training.run_folder import RunFolder

    @dataclass(frozen=True, kw_only=True)
    class Command:
        model: Words[Path]
        """Run folder, saved model, or llama2.c .bin."""

    command = _parse(Command, "info", args)
    config = load_model(command.model).config
    counts = count(config)
    print(f"shape {config.shape}: effective depth {config.depth}, width {config.dim}, {config.heads} heads")
    print(f"encoding {config.encoding}, vocabulary {config.vocab_size}, context {config.context}")
    print(f"{counts.parameters:,} parameters ({_megabytes(counts.weight_bytes)} in float32)")
    print(f"{counts.flops / 1e6:.2f} MFLOPs per token, cache {_megabytes(counts.cache_bytes)} at full context")
    if (command.model / "run.json").is_file():
        record = read_json(command.model / "run.json")
        result = RunFolder(command.model).result
        state = (
            f"validation loss {result['valid_loss']:.4f} after {result['tokens']:,} tokens"
            if result
            else "not complete"
        )
        print(f"trained on {record['data']['name']}, seed {record['config']['seed']}: {state}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "story": story,
    "plan": plan,
    "info": info,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    # What is not text in the terminal's encoding arrives as lone surrogates, which no tokenizer can read.
    words = [word.encode(errors="replace").decode() for word in split_words(sys.argv[1:] if argv is None else argv)]
    verb, args = (words[0], words[1:]) if words else ("--help", [])
    try:
        _run(verb, args)
        sys.stdout.flush()
        return 0
    except InputError as error:
        print(f"frailt: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has left (`| head`); keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"frailt: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = {"train": "; it goes on with --resume", "compare": "; the same command goes on from here"}.get(verb, "")
        print(f"\nfrailt: stopped{how}", file=sys.stderr)
        return 130


def _run(verb: str, args: list[str]) -> None:
    if verb in COMMANDS:
        COMMANDS[verb](args)
    elif verb in ("-h", "--help"):
        print("usage: frailt COMMAND [OPTIONS]\n")
        print("Language models that think longer instead of growing larger.\n")
        for name, command in COMMANDS.items():
            print(f"  {name:9} {command.__doc__}")
        print("\n`frailt COMMAND --help` shows its options.")
    elif verb == "--version":
        from importlib.metadata import version

        print(f"frailt {version('frailt')}")
    else:
        raise InputError(f"there is no command {verb!r}; choose one of {', '.join(COMMANDS)}")


def _parse(kind: Any, verb: str, args: list[str], **default: Any) -> Any:
    return parse(kind, verb, args, COMMANDS[verb].__doc__, **default)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of plain text, the first to the left: nothing is cut off, however narrow the terminal."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headers, *rows)
    )


def _corpus(folder: Path | None) -> Any:
    """The prepared data in a folder, or the embedded story world."""
    from frailt.data.batches import Corpus

    if folder is not None:
        return Corpus(folder)
    from frailt.data.prepare import embedded

    print("no --data given: using the embedded story world", file=sys.stderr)
    return Corpus(embedded(progress=sys.stderr.isatty()))


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers joined by commas."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{name} {text!r} are not whole numbers joined by commas") from None


def _passes(text: str | None) -> int | tuple[int, ...] | None:
    """One number of passes for all groups, or one for each."""
    numbers = _numbers("passes", text) if text is not None else ()
    return numbers[0] if len(numbers) == 1 else numbers or None


def _newest_run() -> Path:
    """The model in runs/ that was written last."""
    found = [*Path("runs").glob("*/model.safetensors"), *Path("runs").glob("*/runs/*/model.safetensors")]
    if not found:
        raise InputError("there is no model in runs/; train one with `frailt train`, or name one with --model")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"

"""Training on this machine: frailt's steps against those of transformers' Llama.

    python bench/train.py [--widths 64,256,512] [--json FILE]
    python bench/train.py --device cuda --widths 512,1024 --batch 32

One process, all sides in turn, a step each round: the same batch of windows of 512, the same model of eight blocks
from the same first weights, the same fused AdamW and clipping; vocabulary 512, tied. The first losses must agree. A
ratio is the median over the rounds, with the quarters below and above. transformers runs with torch's own attention
("sdpa", its default) and with the written-out one ("eager"), in float32 as a user meets it, and in bfloat16 (autocast)
and compiled, as ours.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

from frailt.data.corpus import Corpus
from frailt.device import choose_device
from frailt.export.transformers import NAMES
from frailt.files import sha256, write_json
from frailt.model.frailt import FraiLT, ModelConfig
from frailt.training.config import TrainConfig
from frailt.training.device import autocast, choose_precision
from frailt.training.trainer import measure_speed

BATCH, CONTEXT, VOCABULARY = 4, 512, 512
OURS = {
    "cpu": ("float32", "float32 compiled", "bfloat16", "bfloat16 compiled"),
    "cuda": ("bfloat16", "bfloat16 compiled"),
}
"""What to measure on a device."""
THEIRS = {
    "cpu": (
        "transformers sdpa float32",
        "transformers eager float32",
        "transformers sdpa bfloat16",
        "transformers sdpa bfloat16 compiled",
    ),
    "cuda": ("transformers sdpa bfloat16 compiled",),
}
"""What to measure it against."""

Step = Callable[[], float]
"""One optimizer step; the loss before it."""


def random_corpus(folder: Path) -> Corpus:
    """Random tokens; what they are makes no difference to the time."""
    manifest: dict[str, Any] = {"vocab_size": VOCABULARY}
    for side, count in (("train", 1_000_000), ("valid", 10_000)):
        np.random.default_rng(0).integers(0, VOCABULARY, count, dtype="<u2").tofile(folder / f"{side}.bin")
        manifest[side] = {"tokens": count, "bytes": count, "sha256": sha256(folder / f"{side}.bin"), "stories": 1}
    write_json(folder / "manifest.json", manifest)
    return Corpus(folder)


def llama(config: TrainConfig, attention: str) -> Any:
    """transformers' model of the same shape, with the same first weights as ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=config.model.dim,
            intermediate_size=config.model.feed_forward_dim,
            num_hidden_layers=config.model.depth,
            num_attention_heads=config.model.heads,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=config.model.norm_eps,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation=attention,
        )
    )
    torch.manual_seed(config.seed)
    model.load_state_dict(renamed(FraiLT(config.model)), strict=False)
    return model.to(choose_device(config.device)).train()


def adamw(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    """Ours for any model: matrices decay, gains do not."""
    kinds = ([p for p in model.parameters() if (p.ndim > 1) == decays] for decays in (True, False))
    decay = (config.optimizer.weight_decay, 0.0)
    groups = [{"params": params, "weight_decay": each} for params, each in zip(kinds, decay, strict=True)]
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    return torch.optim.AdamW(groups, lr=config.optimizer.lr, betas=betas, fused=True)


def theirs(config: TrainConfig, corpus: Corpus, attention: str) -> Step:
    """A step of transformers' model."""
    device = choose_device(config.device)
    model = llama(config, attention)
    optimizer = adamw(model, config)
    forward = torch.compile(model) if config.compile else model
    step = 0

    def train_step() -> float:
        nonlocal step
        rows = corpus.train.rows(step, batch=config.batch, context=CONTEXT, seed=config.seed)
        with autocast(choose_precision(config.precision, device), device):
            logits = forward(input_ids=rows[:, :-1].to(device)).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten().to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        return loss.item()

    return train_step


def renamed(model: FraiLT) -> dict[str, Tensor]:
    """The weights of a model of plain blocks by transformers' names."""
    weights = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for n in range(model.config.depth):
        for name, there in NAMES.items():
            weights[f"model.layers.{n}.{there}.weight"] = model.get_parameter(f"groups.0.blocks.{n}.{name}.weight")
    return weights


def make_sides(dim: int, corpus: Corpus, device: Literal["cpu", "cuda"], batch: int) -> dict[str, Step]:
    """A training for each name: its words are precision and compilation, and whose it is."""
    model = ModelConfig(shape="8", dim=dim, vocab_size=VOCABULARY, context=CONTEXT)
    sides = {}
    for name in (*OURS[device], *THEIRS[device]):
        words = name.split()
        config = TrainConfig(
            model=model,
            batch=batch,
            device=device,
            precision="bfloat16" if "bfloat16" in words else "float32",
            compile="compiled" in words,
        )
        sides[name] = theirs(config, corpus, words[1]) if name in THEIRS[device] else measure_speed(config, corpus)
    return sides


def measure(sides: dict[str, Step], seconds: float) -> list[dict[str, float]]:
    """Rounds of a step each, for about so long; at least five."""
    firsts = {name: step() for name, step in sides.items()}
    for name, first in firsts.items():
        off = abs(first - next(iter(firsts.values())))
        assert off < (0.01 if "bfloat16" in name else 1e-4), f"{name}: first loss off by {off}"
    for step in sides.values():
        step()
    rounds, start = list[dict[str, float]](), perf_counter()
    while len(rounds) < 5 or (perf_counter() - start < seconds and len(rounds) < 100):
        times = {}
        for name, step in sides.items():
            gc.collect()
            began = perf_counter()
            step()
            times[name] = perf_counter() - began
        rounds.append(times)
    return rounds


def report(dim: int, rounds: list[dict[str, float]], device: str, batch: int) -> dict[str, Any]:
    """Print one width; its figures."""
    print(f"\nwidth {dim}: {len(rounds)} rounds; tokens/s")
    speeds = {name: batch * CONTEXT / median(r[name] for r in rounds) for name in rounds[0]}
    for name, speed in speeds.items():
        print(f"  {name:36} {speed:8.0f}")
    ratios = []
    for their in THEIRS[device]:
        for own in OURS[device]:
            low, middle, high = quantiles((r[their] / r[own] for r in rounds), n=4)
            ratios.append({"of": own, "over": their, "median": middle, "quarters": [low, high]})
            print(f"  {own} over {their}: {middle:.2f} ({low:.2f} to {high:.2f})")
    return {
        "seconds": {name: [r[name] for r in rounds] for name in rounds[0]},
        "tokens_per_second": speeds,
        "ratios": ratios,
    }


def main() -> None:
    """Time, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="64,256,512")
    parser.add_argument("--seconds", type=float, default=90, help="measuring at each width")
    parser.add_argument("--device", choices=tuple(OURS), default="cpu")
    parser.add_argument("--batch", type=int, default=BATCH, help="windows in a step")
    parser.add_argument("--threads", type=int, help="unset: torch's choice, all cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: dict[str, Any] = {
        "machine": machine(options.device),
        "batch": options.batch,
        "context": CONTEXT,
        "depth": 8,
        "widths": {},
    }
    print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    with tempfile.TemporaryDirectory() as folder:
        corpus = random_corpus(Path(folder))
        for dim in map(int, options.widths.split(",")):
            sides = make_sides(dim, corpus, options.device, options.batch)
            found["widths"][dim] = report(dim, measure(sides, options.seconds), options.device, options.batch)
            torch.compiler.reset()
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()

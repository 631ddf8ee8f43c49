"""Starting points for a run, as functions: change what you like with ``dataclasses.replace`` or flags."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from frailt.model.config import ModelConfig
from frailt.training.config import OptimizerConfig, TrainConfig

RECIPE = OptimizerConfig(optimizer="muon", lr=8e-3, schedule="linear")
"""What measurement says (docs/log.md): at equal tokens far below the best AdamW, for standard and looped models alike.
``OptimizerConfig()`` itself stays as it was, since a run of an earlier version that names no optimizer means that."""


def paper(dim: int = 64, shape: str = "2^4") -> TrainConfig:
    """A cell of the paper's grid: 8 heads, vocabulary 512, context 512 (table 1), width 64 to 1024.

    The paper states neither optimizer nor budget; those are this project's, the same for every cell.
    """
    return TrainConfig(model=ModelConfig(shape=shape, dim=dim), optimizer=RECIPE)


def llama2c() -> TrainConfig:
    """llama2.c's recipe for its stories260K: 5 plain blocks of width 64, 6.55 B tokens in steps of 65,536.

    Its dropout of 0.05 is left out: this project trains without dropout.
    """
    return TrainConfig(
        model=ModelConfig(shape="5", dim=64, heads=8, kv_heads=4),
        optimizer=OptimizerConfig(lr=1e-3, beta2=0.99, weight_decay=0.01, warmup=0.01),
        tokens=100_000 * 128 * 512,
        batch=128,
        evaluations=50,
    )


def demo() -> TrainConfig:
    """About a minute on two cores, with the embedded story world."""
    base = paper(dim=64, shape="1^8")
    return replace(base, model=replace(base.model, context=128), tokens=1_000_000, batch=8, evaluations=5)


Preset = Literal["paper", "llama2c", "demo"]

PRESETS: dict[Preset, Callable[[], TrainConfig]] = {"paper": paper, "llama2c": llama2c, "demo": demo}

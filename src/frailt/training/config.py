"""What a training run is: one frozen config, and presets as functions."""

from dataclasses import dataclass, field
from typing import Literal

from frailt.configs import require
from frailt.device import Device
from frailt.errors import InputError
from frailt.model.config import ModelConfig
from frailt.training.device import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Optimizer, warm-up and schedule. The defaults are those of the first versions; presets have the recipe."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices inside blocks, AdamW for embedding, head, norms and encodings."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    muon_lr: float = 2e-2
    """Peak learning rate of Muon."""
    momentum: float = 0.95
    """Decay of Muon's running mean of gradients."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.95
    """Decay of the squared gradient's running mean."""
    weight_decay: float = 0.1
    """Decay of weight matrices. Norms and iteration encodings do not decay."""
    looped_decay: float = 1.0
    """Factor of weight_decay for the matrices of groups with more than one pass."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    warmup: float = 0.05
    """Share of the steps in which the rate climbs linearly from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate then falls to 0: along half a cosine, a line, or a line at the end only."""
    cooldown: float = 0.2
    """Share of the steps in which a constant rate falls to 0 at the end."""

    def __post_init__(self) -> None:
        require(self, "lr muon_lr clip cooldown", 0, above=True)
        require(self, "beta1 beta2 momentum warmup", 0, 1)
        require(self, "weight_decay looped_decay", 0)
        if self.schedule == "constant" and self.cooldown > 1 - self.warmup:
            raise InputError(f"cooldown {self.cooldown:g} and warmup {self.warmup:g} are more than the whole run, 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run. Two runs with equal configs on a CPU give equal weights, bit for bit."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape and sizes."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Learning rate, weight decay, clipping."""
    tokens: int = 4_000_000
    """Training budget, rounded up to whole steps."""
    batch: int = 4
    """Sequences of the model's context in one optimizer step, over all processes. Small, since at small budgets steps
    count for more than smooth gradients (docs/log.md)."""
    accumulate: int = 1
    """Gradient accumulation: micro-batches that a batch is computed in, to save memory. The gradient is the whole
    batch's."""
    passes: Literal["fixed", "random", "late"] = "fixed"
    """random: each step draws 1 + min(Poisson(M - 1), 3 M) passes: M on average, at most 3 M + 1. late: one pass at
    first, M for the last part of the run."""
    late: float = 0.6
    """Share of the steps that late passes make with one pass."""
    precision: Precision = "auto"
    """bfloat16: matrix products in bfloat16; weights, norms and the residual stream stay float32. auto: bfloat16 on
    GPUs and x86 processors that have instructions for it, else float32. Which it was stands in the run's record, as
    the device does."""
    compile: bool = False
    """Compile the block with torch.compile, once for all passes; needs a C++ compiler on a CPU."""
    device: Device = "auto"
    """Where to compute; auto: cuda, else mps, else cpu."""
    seed: int = 0
    """Decides the first weights, the data order and random passes."""
    evaluations: int = 10
    """Validation losses along the run, evenly spaced; the last one is the result."""
    eval_tokens: int = 250_000
    """Validation tokens used for those before the last, which always uses all."""
    checkpoint_seconds: float = 60.0
    """Time between saved states, from which --resume goes on."""

    def __post_init__(self) -> None:
        require(self, "tokens batch accumulate evaluations", 1)
        require(self, "eval_tokens", 2)
        require(self, "checkpoint_seconds", 0)
        if self.batch % self.accumulate:
            raise InputError(f"accumulate {self.accumulate} must divide batch {self.batch}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed is {self.seed}; it must be from 0 to {2**31 - 1}")
        require(self, "late", 0, 1)
        if self.passes != "fixed" and all(g.iterations == 1 for g in self.model.groups):
            raise InputError(
                f"passes are {self.passes}, but shape {self.model.shape} has only one pass; use a shape like 1^8"
            )

    @property
    def tokens_per_step(self) -> int:
        """Targets in one optimizer step."""
        return self.batch * self.model.context

    @property
    def steps(self) -> int:
        """Optimizer steps that the budget pays for."""
        return -(-self.tokens // self.tokens_per_step)

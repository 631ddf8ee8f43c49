"""Options of the commands that train many models: the data, and the one protocol for all of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from frailt.device import Device
from frailt.model.config import ModelConfig
from frailt.training.config import OptimizerConfig, TrainConfig
from frailt.training.device import Precision
from frailt.training.presets import RECIPE


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How all models of a study are trained."""

    seeds: str = "0"
    """Seeds, joined by commas; every model is trained with each."""
    data: Path | None = None
    """Folder made by `frailt prepare`; unset: the embedded story world."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: this project's recipe, by Muon and AdamW together. adamw: AdamW alone with a cosine, as was usual."""
    lr: float | None = None
    """Peak learning rate of AdamW; unset: the recipe's."""
    batch: int = TrainConfig().batch
    """Sequences in one step."""
    context: int = 512
    """Longest sequence, in tokens."""
    heads: int = 8
    """Attention heads."""
    precision: Precision = "auto"
    """Of matrix products; auto: bfloat16 where the device is fast at it."""
    compile: bool = False
    """Compile the block with torch.compile."""
    device: Device = "auto"
    """Where to compute."""

    def base(self, model: dict[str, Any], **settings: Any) -> TrainConfig:
        """The training that all models share; ``model`` and ``settings`` are what has no option here."""
        optimizer = RECIPE if self.optimizer == "muon" else OptimizerConfig()
        return TrainConfig(
            model=ModelConfig(heads=self.heads, context=self.context, **model),
            optimizer=optimizer if self.lr is None else replace(optimizer, lr=self.lr),
            batch=self.batch,
            precision=self.precision,
            compile=self.compile,
            device=self.device,
            **settings,
        )

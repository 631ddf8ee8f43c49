"""Language models that think longer instead of growing larger.

    import frailt

    teller = frailt.load("runs/1x8-d64")
    print(teller.generate(["Once upon a time"])[0])

What is named here is loaded at first use, so that ``import frailt`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "CompareConfig": "frailt.paper.comparison",
    "Corpus": "frailt.data.batches",
    "EarlyExit": "frailt.inference.early_exit",
    "FraiLT": "frailt.model.frailt",
    "InputError": "frailt.errors",
    "ModelConfig": "frailt.model.config",
    "OptimizerConfig": "frailt.training.config",
    "PrepareConfig": "frailt.data.prepare",
    "Sampling": "frailt.inference.sampling",
    "Storyteller": "frailt.inference.generate",
    "Tokenizer": "frailt.data.tokenizer",
    "TrainConfig": "frailt.training.config",
    "compare": "frailt.paper.compare",
    "load": "frailt.inference.generate",
    "load_fast": "frailt.inference.fast_decoder",
    "prepare": "frailt.data.prepare",
    "train": "frailt.training.trainer",
}

__all__ = [
    "CompareConfig",
    "Corpus",
    "EarlyExit",
    "FraiLT",
    "InputError",
    "ModelConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "Sampling",
    "Storyteller",
    "Tokenizer",
    "TrainConfig",
    "compare",
    "load",
    "load_fast",
    "prepare",
    "train",
]

if TYPE_CHECKING:
    from frailt.data.batches import Corpus
    from frailt.data.prepare import PrepareConfig, prepare
    from frailt.data.tokenizer import Tokenizer
    from frailt.errors import InputError
    from frailt.inference.early_exit import EarlyExit
    from frailt.inference.fast_decoder import load_fast
    from frailt.inference.generate import Storyteller, load
    from frailt.inference.sampling import Sampling
    from frailt.model.config import ModelConfig
    from frailt.model.frailt import FraiLT
    from frailt.paper.compare import compare
    from frailt.paper.comparison import CompareConfig
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.trainer import train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'frailt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Language models that think longer instead of growing larger.

    import frailt

    storyteller = frailt.load("runs/1x8-d64")
    print(storyteller.generate(["Once upon a time"])[0])

What is named here is loaded at first use, so that ``import frailt`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "CompareConfig": "frailt.studies.comparison",
    "Corpus": "frailt.data.corpus",
    "EarlyExit": "frailt.inference.exit_rule",
    "FraiLT": "frailt.model.frailt",
    "InputError": "frailt.errors",
    "ModelConfig": "frailt.model.config",
    "OptimizerConfig": "frailt.training.config",
    "PrepareConfig": "frailt.data.prepare",
    "Sampling": "frailt.inference.sampling",
    "Storyteller": "frailt.inference.storyteller",
    "Token": "frailt.inference.storyteller",
    "Tokenizer": "frailt.data.tokenizer",
    "TrainConfig": "frailt.training.config",
    "compare": "frailt.studies.compare",
    "load": "frailt.inference.storyteller",
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
    "Token",
    "Tokenizer",
    "TrainConfig",
    "compare",
    "load",
    "prepare",
    "train",
]

if TYPE_CHECKING:
    from frailt.data.corpus import Corpus
    from frailt.data.prepare import PrepareConfig, prepare
    from frailt.data.tokenizer import Tokenizer
    from frailt.errors import InputError
    from frailt.inference.exit_rule import EarlyExit
    from frailt.inference.sampling import Sampling
    from frailt.inference.storyteller import Storyteller, Token, load
    from frailt.model.config import ModelConfig
    from frailt.model.frailt import FraiLT
    from frailt.studies.compare import compare
    from frailt.studies.comparison import CompareConfig
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.trainer import train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'frailt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

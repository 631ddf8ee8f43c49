"""What the figures of a benchmark depend on: machine, versions, and how busy the machine was."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from frailt.training.provenance import provenance


def machine(device: str = "cpu") -> dict[str, Any]:
    """For the JSON of a benchmark's results."""
    found = provenance(torch.device(device))
    for name in ("numba", "transformers", "llama-cpp-python"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "load": round(os.getloadavg()[0], 1)}

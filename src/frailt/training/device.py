"""Where a run computes, and in what precision."""

from typing import Literal

import torch

from frailt.errors import InputError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: Device) -> torch.device:
    """The device for a name; auto: cuda, else mps, else cpu.

    Raises:
        InputError: it is not there.
    """
    there = _there()
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise InputError(f"device {name} is not available here; use one of {', '.join(there)}")
    return torch.device(name)


def fast_precision(name: Device) -> Literal["float32", "bfloat16"]:
    """bfloat16 where the device has instructions for it, and training is known to gain by it (`bench/train.py`).

    A device that is not there gets float32: ``choose_device`` says what is wrong.
    """
    device = _there()[0] if name == "auto" else name
    fast = False
    if device == "cuda":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu":
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def _there() -> list[Device]:
    """Devices of this machine, the best one first."""
    found: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [kind for kind, here in found.items() if here]

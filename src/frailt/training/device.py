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
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, here in there.items() if here))
    if not there[name]:
        raise InputError(
            f"device {name} is not available here; use one of {', '.join(k for k, h in there.items() if h)}"
        )
    return torch.device(name)


def choose_precision(name: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision for a name; auto: bfloat16 where the device has instructions for it that training is known to gain
    by (`bench/train.py`), else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        fast = device.type == "cpu" and bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return "bfloat16" if fast else "float32"

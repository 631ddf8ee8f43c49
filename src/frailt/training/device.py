"""Where a run computes, and in what precision."""

from typing import Literal

import torch

from frailt.device import Device as Device
from frailt.device import choose_device as choose_device

Precision = Literal["auto", "float32", "bfloat16"]


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

"""Which processor computes, and how precisely."""

import os

import torch


def default_device() -> torch.device:
    """The GPU when there is one, under torchrun this process's own; otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16, which makes training up to twice as fast. A CPU that emulates
    bfloat16 is slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device) -> torch.autocast:
    """Convolutions and matrix products in bfloat16 where the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))

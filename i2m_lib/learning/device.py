"""Processors: which one computes, how precisely, and how several that torchrun starts share one training.

Each process computes an equal share of every batch, and gradients are averaged. Loss terms are means over views and
random numbers are drawn for the whole batch, so the number of processes changes a run only by rounding. For batch norms
this needs SyncBatchNorm, which torch has on GPUs only; on CPUs each process uses the statistics of its own share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


def default_device() -> torch.device:
    """The GPU when there is one, under torchrun this process's own; otherwise the CPU."""
    own = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16, which makes training up to twice as fast. A CPU that emulates
    bfloat16 is slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, model: nn.Module) -> torch.autocast:
    """Convolutions and matrix products in bfloat16 where the hardware has it. On CPUs the gradients of depthwise
    convolutions are several times slower in bfloat16, so models that have some stay in float32 there."""
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    slower = device.type == "cpu" and depthwise
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device) and not slower)


@dataclass(frozen=True)
class Share:
    """Process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def of(self, n: int) -> slice:
        """This process's part of n rows; the parts are equal if world divides n."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)


def share() -> Share:
    """The share of this process; everything where there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        return Share(distributed.get_rank(), distributed.get_world_size())
    return Share()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the other processes if torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def parallel(model: nn.Module) -> nn.Module:
    """A wrapper of the model that averages gradients over processes; the model itself where there is only one."""
    if share().world == 1:
        return model
    device = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def synchronised(model: nn.Module) -> nn.Module:
    """The model with batch norms over all processes, on GPUs."""
    several = share().world > 1 and next(model.parameters()).is_cuda
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if several else model


def total(x: Tensor) -> Tensor:
    """The sum of x over processes."""
    if share().world > 1:
        distributed.all_reduce(x)
    return x


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if share().world > 1:
        distributed.barrier()

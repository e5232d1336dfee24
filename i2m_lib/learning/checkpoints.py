"""Model and optimiser as one file of tensors, and back, exactly."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2m_lib.files import whole


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, whole or not there."""
    with whole(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)


def write_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """All that the next step depends on."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    write_tensors(path, tensors)


def read_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restores what `write_state` wrote."""
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            # In the parameter's memory format: other strides are computed in another order, and rounded otherwise.
            like = parameters[int(i)]
            same = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(i), {})[name] = same
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

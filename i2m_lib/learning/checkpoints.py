"""Networks and optimisers as safetensors files, and back."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2m_lib.files import whole


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file under a temporary name and moves it into place."""
    with whole(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)


def write_halves(path: Path, model: nn.Module) -> None:
    """Writes a model's weights in half precision."""
    write_tensors(path, {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()})


def read_halves(path: Path, model: nn.Module) -> nn.Module:
    """The model with the weights of a file, in single precision and evaluation mode."""
    model.load_state_dict(load_file(path))
    return model.float().eval()


def write_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes everything that the next step depends on."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    write_tensors(path, tensors)


def read_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restores exactly what `write_state` wrote."""
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            # In the parameter's memory format: other strides change the order of sums, and so the rounding.
            like = parameters[int(i)]
            same = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(i), {})[name] = same
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

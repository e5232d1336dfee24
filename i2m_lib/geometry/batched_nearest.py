"""Nearest points in torch, in batches and with gradients: the twin of `nearest` for losses and for a GPU."""

import torch
from torch import Tensor


def offsets(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., n, k), y (..., m, k): from its nearest y to each x (..., n, k), and from its nearest x to each y
    (..., m, k). Leading dimensions are broadcast. Which points are nearest is not differentiated."""
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    with torch.no_grad():
        squared = torch.cdist(x, y)
        to_y, to_x = squared.min(-1).indices, squared.min(-2).indices  # on a CPU four times as fast as argmin
    return x - y.gather(-2, to_y[..., None].expand_as(x)), y - x.gather(-2, to_x[..., None].expand_as(y))


def squared_chamfer(x: Tensor, y: Tensor) -> Tensor:
    """Sum (...) of squared distances to the nearest point, both ways, of x (..., n, k) and y (..., m, k)."""
    forward, back = offsets(x, y)
    return forward.square().sum((-1, -2)) + back.square().sum((-1, -2))

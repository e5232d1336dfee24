"""Azimuths as probabilities over bins of the circle.

A table may look alike from the front and from behind. The mean of two such answers would be wrong, so the network
answers with a distribution. Bin i is centred at 2 pi i / N_BINS, and mirroring left and right takes bin i to bin -i.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

N_BINS = 24
WIDTH = math.radians(15)  # of a label's bell
NEAR = 2  # bins on either side of the likeliest that refine its angle


def centres(device: torch.device | str = "cpu") -> Tensor:
    """Angles (N_BINS,) in radians."""
    return torch.arange(N_BINS, device=device) * (2 * math.pi / N_BINS)


def soft_bins(azimuth: Tensor) -> Tensor:
    """Labels (b, N_BINS) that sum to 1: a von Mises bell around each azimuth (b,), radians."""
    return (torch.cos(azimuth[:, None] - centres(azimuth.device)) / WIDTH**2).softmax(1)


def divergence(logits: Tensor, azimuth: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the labels from softmax(logits (b, N_BINS)), divided by that from a uniform
    answer: 0 for the labels themselves, 1 for a uniform answer."""
    labels = soft_bins(azimuth)
    entropy = -(labels * labels.log()).sum(1)
    off = -(labels * log_softmax(logits.float(), dim=1)).sum(1) - entropy
    return (off / (math.log(N_BINS) - entropy)).mean()


def mirrored(logits: Tensor) -> Tensor:
    """Logits (..., N_BINS) for the mirrored image."""
    return logits.flip(-1).roll(1, -1)


def mode(logits: Tensor) -> Tensor:
    """The likeliest azimuths (b,), radians in [0, 2 pi), of logits (b, N_BINS), refined by the neighbouring bins."""
    p = logits.float().softmax(-1)
    best = p.argmax(-1, keepdim=True)
    offsets = torch.arange(-NEAR, NEAR + 1, device=p.device)
    beside = p.gather(-1, (best + offsets).remainder(N_BINS))
    shift = (beside * offsets).sum(-1) / beside.sum(-1)
    return ((best[:, 0] + shift) * (2 * math.pi / N_BINS)).remainder(2 * math.pi)

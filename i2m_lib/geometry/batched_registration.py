"""`registration.fit_ffd` of one source onto many targets at once, in torch, for a GPU: the same steps.

Nearest points come from dense distances. On a CPU, KD-trees and one fit at a time are faster.
"""

import numpy as np
import torch
from torch import Tensor

from .ffd import BENDING, displace
from .registration import FFD_STIFFNESS, HOLD, LEAST, MAX_TURNED, N_HARDER, RIDGE, stretch_of
from .source_mesh import Source


def fit_many(
    source: Source, points: np.ndarray, *, device: str, dtype: torch.dtype = torch.float32, size: int = 256
) -> np.ndarray:
    """d (b, 32, 3) that move the source onto targets with samples points (b, m, 3), `size` of them at a time. In single
    precision a nearest point may be another than `registration.fit_ffd` finds."""
    arrays = {"S": source.S, "M": source.MS, "edges": source.E @ source.V, "ME": source.ME, "normals": source.normals}
    t = {name: torch.from_numpy(a).to(device, dtype) for name, a in arrays.items()}
    found = []
    for chunk in np.array_split(points, -(-len(points) // size)):
        start = np.stack([stretch_of(source, p) for p in chunk])
        x = _fit(t, *(torch.from_numpy(a).to(device, dtype) for a in (start, chunk)))
        found.append(x.double().cpu().numpy())
    return np.concatenate(found)


def _fit(t: dict[str, Tensor], start: Tensor, points: Tensor) -> Tensor:
    """d (b, 32, 3), by the steps of `registration._alternate` from the plain stretch, start (b, 32, 3)."""
    M, energy = t["M"], torch.from_numpy(BENDING + RIDGE * np.eye(BENDING.shape[-1])).to(points)
    moved, safe = t["S"] + displace(M, start), t["edges"] + displace(t["ME"], start)
    hold = points.new_zeros(len(points), len(t["normals"]))
    for i, weight in enumerate(FFD_STIFFNESS):
        fine = 1 if 2 * i >= len(FFD_STIFFNESS) - 1 else 2
        basis, rest = M[:, ::fine], t["S"][::fine]
        w, goal = _correspond(moved[:, ::fine], points[:, ::fine])
        normal = basis.mT @ (w[:, None, :, None] * basis) / len(rest) + weight * energy
        right = basis.mT @ (goal - w[..., None] * rest).mT[..., None] / len(rest)
        x = _solve(t, normal, right, hold, safe)
        hold = hold + HOLD * (_uprightness(t, x, safe) < LEAST)
        moved = t["S"] + displace(M, x)
    for _ in range(N_HARDER):
        upright = _uprightness(t, x, safe)
        folded = (upright < 0).to(x).mean(1) > MAX_TURNED
        hold = torch.where(folded[:, None], 4 * hold + HOLD * (upright < LEAST), hold)
        x = torch.where(folded[:, None, None], _solve(t, normal, right, hold, safe), x)
    folded = (_uprightness(t, x, safe) < 0).to(x).mean(1) > MAX_TURNED
    return torch.where(folded[:, None, None], start, x)


def _solve(t: dict[str, Tensor], normal: Tensor, right: Tensor, hold: Tensor, safe: Tensor) -> Tensor:
    basis, w = t["ME"], hold.repeat_interleave(2, 1)[:, None, :, None] / hold.shape[1]
    normal = normal + basis.mT @ (w * basis)
    right = right + basis.mT @ (w * (safe - t["edges"]).mT[..., None])
    return torch.linalg.solve(normal, right)[..., 0].mT


def _uprightness(t: dict[str, Tensor], x: Tensor, safe: Tensor) -> Tensor:
    spanned = [torch.linalg.cross(e[:, ::2], e[:, 1::2]) for e in (t["edges"] + displace(t["ME"], x), safe)]
    now, then = ((s * t["normals"]).sum(-1) for s in spanned)
    return now / then.abs()


def _correspond(moved: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """As `registration.correspond`, both directions from one table of distances (b, s, m)."""
    distances = torch.cdist(moved, points)
    forward, back = distances.min(2).indices, distances.min(1).indices
    share = moved.shape[1] / points.shape[1]
    count = torch.zeros_like(moved[..., 0]).scatter_add(1, back, torch.ones_like(points[..., 0]))
    pulled = torch.zeros_like(moved).scatter_add(1, back[..., None].expand_as(points), points)
    nearest = points.gather(1, forward[..., None].expand_as(moved))
    return 1 + share * count, nearest + share * pulled

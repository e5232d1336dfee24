"""The network's input: the object on a plain background, cropped to its mask; with random changes in training."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

MARGIN = 1.15  # side of the crop, in longest sides of the object's box
N_DRAWS = 20  # random numbers that `augment` needs for a view


def crop_to_mask(
    rgba: Tensor, size: int, *, jitter: Tensor | None = None, flip: Tensor | None = None, stretch: Tensor | None = None
) -> Tensor:
    """Square crops (b, 4, size, size) around the masks of rgba (b, 4, h, w) in [0, 1], transparent outside.

    jitter (b, 3) scales the crop by 1 + jitter[:, 0] and shifts it by jitter[:, 1:] crop sides; flip (b,) bool
    mirrors left and right; stretch (b,) multiplies the object's height first. An empty mask gives the whole image.
    """
    b, _, h, w = rgba.shape
    taller = rgba.new_ones(b) if stretch is None else stretch
    left, right = _extent((rgba[:, 3] > 0.5).any(1), w)
    top, bottom = _extent((rgba[:, 3] > 0.5).any(2), h)
    side = torch.maximum((right - left) * w, (bottom - top) * h * taller) * MARGIN
    x, y = right + left - 1, bottom + top - 1  # centre in [-1, 1]
    if jitter is not None:
        side = side * (1 + jitter[:, 0])
        x, y = x + 2 * jitter[:, 1] * side / w, y + 2 * jitter[:, 2] * side / h / taller
    sx = side / w if flip is None else torch.where(flip, -side / w, side / w)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([sx, zero, x], 1), torch.stack([zero, side / h / taller, y], 1)], 1)
    # Premultiplied, so that the arbitrary colours under a zero mask do not bleed into the object.
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    return grid_sample(premultiplied, affine_grid(theta, [b, 4, size, size], align_corners=False), align_corners=False)


def _extent(occupied: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """First and last edge, in [0, 1], of the occupied cells (b, n); 0 and 1 where there is none."""
    empty = ~occupied.any(1)
    first = torch.where(empty, 0, occupied.float().argmax(1)) / n
    last = 1 - torch.where(empty, 0, occupied.flip(1).float().argmax(1)) / n
    return first, last


def compose(crop: Tensor, background: Tensor | float = 1.0) -> Tensor:
    """Premultiplied crops (b, 4, s, s) over a background, broadcastable to (b, 3, s, s)."""
    return crop[:, :3] + (1 - crop[:, 3:]) * background


def augment(batch: dict[str, Tensor], size: int, draws: Tensor, stretch: float = 0.0) -> dict[str, Tensor]:
    """A training batch of uint8 images (b, 4, h, w) with random crop, mirroring, height, colours and background. All
    randomness of a view comes from its row of draws (b, N_DRAWS), uniform in [0, 1]. `mirrored` (b,) says which views
    are mirror images.

    Each colour channel becomes a random mean of all three, and a quarter of the views become negatives, so that the
    network cannot tell training shapes by their colours. A mirrored view shows the mirrored object from the opposite
    azimuth; its lattice displacements are the same, since the lattice is symmetric. A view stretched by s shows, to an
    orthographic camera, an object t times as high from elevation e', where sin e' = s sin e and t = s cos e / cos e';
    log t is uniform in [-stretch, stretch].
    """
    scale, dx, dy, mirror, gain, ground, red, green, blue, height, negative, *shares = draws.unbind(1)
    taller = torch.exp(stretch * (2 * height - 1))
    sine, cosine = batch["elevation"].sin(), batch["elevation"].cos()
    s = taller / (cosine**2 + (taller * sine) ** 2).sqrt()
    flip = mirror < 0.5
    jitter = torch.stack([0.25 * scale - 0.1, 0.1 * dx - 0.05, 0.1 * dy - 0.05], 1)
    crop = crop_to_mask(batch["image"].float() / 255, size, jitter=jitter, flip=flip, stretch=s)
    mixture = torch.stack(shares, 1).view(-1, 3, 3) ** 4  # mostly of one channel
    mixture = (0.7 + 0.6 * gain)[:, None, None] * mixture / mixture.sum(2, keepdim=True)
    colour = torch.einsum("bij,bjhw->bihw", mixture, crop[:, :3]).minimum(crop[:, 3:])
    colour = torch.where((negative < 0.25)[:, None, None, None], crop[:, 3:] - colour, colour)
    white = (ground < 0.7).float()[:, None]
    background = torch.stack([red, green, blue], 1).maximum(white)
    return batch | {
        "image": compose(torch.cat([colour, crop[:, 3:]], 1), background[:, :, None, None]),
        "mirrored": flip,
        "azimuth": torch.where(flip, -batch["azimuth"], batch["azimuth"]),
        "elevation": (s * sine).asin(),
        "stretch": batch["stretch"] * torch.stack([torch.ones_like(taller), taller, torch.ones_like(taller)], 1),
    }


def plain(batch: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """A batch of uint8 images as at inference: cropped, on white."""
    return batch | {"image": compose(crop_to_mask(batch["image"].float() / 255, size))}

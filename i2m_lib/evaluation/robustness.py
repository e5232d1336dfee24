"""How the error grows as images get worse: occlusion, background, crop, noise and resolution, each by itself.

An image (4, h, w) in [0, 1], its mask the last channel, and a random generator go in; a crop (4, s, s) for the network
comes out. A background changes nothing where the mask is known, since the object is cut out: so the network is given
what lies in the object's `box`, as a detector would have it, or the `frame` as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.learning.images import crop_to_mask
from i2m_lib.reconstruction.reconstructor import Reconstructor

from .swaps import Distances

Spoil = Callable[[Tensor, int, np.random.Generator], Tensor]
SHARES, SCALES, SHIFTS = (0.1, 0.2, 0.3, 0.4, 0.5), (-0.3, -0.15, 0.15, 0.3), (0.05, 0.1, 0.2)
NOISES, SIDES = (0.1, 0.2), (32, 16, 8)
# What each kind of condition calls an image that is left as it is.
UNCHANGED = {"occlusion": 0, "crop scale": 0, "crop shift": 0, "noise": 0, "pixels": "all"}


@dataclass(frozen=True)
class Condition:
    """One way to spoil images: what is done to them, how much of it, and, of backgrounds, what the network is given."""

    kind: str
    level: float | str
    spoil: Spoil
    given: str = "mask"


def conditions() -> list[Condition]:
    """All of them but for those that leave the image as it is, `same`."""
    found = [Condition("occlusion", share, partial(occluded, share=share)) for share in SHARES]
    for given in ("box", "frame"):
        grounds = {name: partial(before, make=make, given=given) for name, make in BACKGROUNDS.items()}
        found += [Condition("background", n, g, given) for n, g in grounds.items() if (given, n) != ("box", "white")]
    found += [Condition("crop scale", scale, partial(jittered, scale=scale)) for scale in SCALES]
    found += [Condition("crop shift", shift, partial(jittered, shift=shift)) for shift in SHIFTS]
    found += [Condition("noise", deviation, partial(noisy, deviation=deviation)) for deviation in NOISES]
    return found + [Condition("pixels", side, partial(coarse, side=side)) for side in SIDES]


def same() -> list[Condition]:
    """What changes nothing: no degree of a kind, any background where the mask is known, and white around the box."""
    grounds = [("mask", name) for name in BACKGROUNDS] + [("box", "white")]
    found = [Condition(kind, level, unchanged) for kind, level in UNCHANGED.items()]
    return found + [Condition("background", name, unchanged, given) for given, name in grounds]


def robustness(
    dataset: Dataset, reconstructor: Reconstructor, views: pd.DataFrame, *, seed: int, workers: int = -1
) -> pd.DataFrame:
    """Chamfer-L1 (`limits.Distances`) of the answers to spoiled views.

    Returns:
        A row for each condition and view: synset, category, model_id, view, kind, given, level (a text), chamfer_l1.
        What is random in a view depends on the seed and its index alone.
    """
    index, done = views["index"].to_numpy(), [same()[0], *conditions()]
    images = load_images(dataset, index).float() / 255
    crops = (spoiled(images, index, c.spoil, reconstructor.size, seed) for c in done)
    device = reconstructor.model.means.device
    surfaces = [(r.V, r.F) for crop in crops for r in reconstructor.predict_crops(crop.to(device))]
    values = Distances(dataset, seed).of_all(surfaces, np.tile(views.model_id, len(done)).tolist(), workers)
    plain, *worse = values.reshape(len(done), len(views))
    category = views.model_id.map(dataset.models.set_index("model_id").category)
    columns = views[["synset", "model_id", "view"]].assign(category=category)
    found = [(c, plain) for c in same()] + list(zip(done[1:], worse, strict=True))
    rows = [columns.assign(kind=c.kind, given=c.given, level=str(c.level), chamfer_l1=value) for c, value in found]
    return pd.concat(rows, ignore_index=True)


def spoiled(images: Tensor, index: np.ndarray, spoil: Spoil, size: int, seed: int) -> Tensor:
    """Crops (b, 4, size, size) of images (b, 4, h, w) in [0, 1], the same whenever index (b,) and seed are."""
    rngs = (np.random.default_rng([seed, int(i)]) for i in index)
    return torch.stack([spoil(image, size, rng) for image, rng in zip(images, rngs, strict=True)])


def _crop(image: Tensor, size: int, **changes: Tensor) -> Tensor:
    return crop_to_mask(image[None], size, **changes)[0]


def unchanged(image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    return _crop(image, size)


def occluded(image: Tensor, size: int, rng: np.random.Generator, *, share: float) -> Tensor:
    """Without a share of its mask's pixels: what one of CUTS, at random, meets first."""
    mask = image[3].numpy() > 0.5
    at = np.argwhere(mask)
    order = np.argsort(CUTS[rng.integers(len(CUTS))](at, rng), kind="stable")
    rows, columns = at[order[: round(share * len(at))]].T
    image = image.clone()
    image[:, rows, columns] = 0
    return _crop(image, size)


def _half_plane(at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return at @ [np.sin(angle), np.cos(angle)]


def _disc(at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.norm(at - rng.choice(at), axis=1)


def _rectangle(at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.abs((at - rng.choice(at)) * rng.uniform(0.5, 1, 2)).max(1)


# In which order the pixels (n, 2) of a mask are lost: a number (n,) each, the lowest first.
CUTS = (_half_plane, _disc, _rectangle)


def before(image: Tensor, size: int, rng: np.random.Generator, *, make: Callable, given: str) -> Tensor:
    """Before a background (3, h, w) that make(h, rng) gives, cropped to the object's `box` or, as one finds it, the
    whole `frame`; opaque."""
    ground = make(image.shape[-1], rng)
    full = torch.cat([image[:3] * image[3:] + (1 - image[3:]) * ground, torch.ones_like(image[3:])])
    if given == "frame":
        return interpolate(full[None], (size, size), mode="bilinear", antialias=True)[0]
    crop = _crop(image, size)
    ground = interpolate(ground[None], (size, size), mode="bilinear", antialias=True)[0]
    return torch.cat([crop[:3] + (1 - crop[3:]) * ground, torch.ones_like(crop[3:])])


def _white(side: int, rng: np.random.Generator) -> Tensor:
    return torch.ones(3, side, side)


def _colour(side: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.uniform(size=(3, 1, 1))).float().expand(3, side, side)


def _noise(side: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.uniform(size=(3, side, side))).float()


def _clouds(side: int, rng: np.random.Generator) -> Tensor:
    """Amplitudes fall as 1 / frequency, as they do in photographs."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=(3, side, side))) / np.maximum(frequency, 1 / side)
    picture = np.fft.irfft2(spectrum, (side, side))
    low, high = np.percentile(picture, (1, 99))
    return torch.from_numpy(((picture - low) / (high - low)).clip(0, 1)).float()


BACKGROUNDS = {"white": _white, "colour": _colour, "noise": _noise, "photo-like": _clouds}


def jittered(image: Tensor, size: int, rng: np.random.Generator, *, scale: float = 0.0, shift: float = 0.0) -> Tensor:
    """The crop 1 + scale times as large, and shifted by `shift` of its sides in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return _crop(image, size, jitter=torch.tensor([[scale, shift * np.cos(angle), shift * np.sin(angle)]]).float())


def noisy(image: Tensor, size: int, rng: np.random.Generator, *, deviation: float) -> Tensor:
    """The object's colours with Gaussian noise, independent in each pixel of the crop."""
    crop = _crop(image, size)
    colour = crop[:3] + deviation * crop[3:] * torch.from_numpy(rng.normal(size=crop[:3].shape)).float()
    return torch.cat([colour.clamp(min=0).minimum(crop[3:]), crop[3:]])


def coarse(image: Tensor, size: int, rng: np.random.Generator, *, side: int) -> Tensor:
    """The crop as if it had `side` pixels a side, enlarged again."""
    small = interpolate(_crop(image, size)[None], (side, side), mode="bilinear", antialias=True)
    return interpolate(small, (size, size), mode="bilinear")[0]

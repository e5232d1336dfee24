"""How the error grows as images get worse: occlusion, background, crop, noise and resolution, one at a time.

A spoiler makes a crop (4, s, s) for the network from an image (4, h, w) in [0, 1], whose last channel is the mask.
Where the mask is known, a background changes nothing, because the object is cut out. So for backgrounds the network is
given the object's `box`, as from a detector, or the whole `frame`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.learning.images import crop_to_mask
from i2m_lib.reconstruction.reconstructor import Reconstructor

from .distances import Distances


class Condition(NamedTuple):
    """A kind of spoiler, its level, spoil(image, size, rng), and what the network is given (mask, box or frame)."""

    kind: str
    level: float | str
    spoil: Callable[[Tensor, int, np.random.Generator], Tensor]
    given: str = "mask"


def same() -> list[Condition]:
    """Conditions that leave an image unchanged: no spoiler, and backgrounds that the mask removes or that are white."""
    levels = {"occlusion": 0, "crop scale": 0, "crop shift": 0, "noise": 0, "pixels": "all"}
    found = [Condition(kind, level, unchanged) for kind, level in levels.items()]
    found += [Condition("background", name, unchanged) for name in BACKGROUNDS]
    return [*found, Condition("background", "white", unchanged, "box")]


def conditions() -> list[Condition]:
    """All other conditions."""
    found = [Condition("occlusion", x, partial(occluded, share=x)) for x in (0.1, 0.2, 0.3, 0.4, 0.5)]
    for given, name in [(given, name) for given in ("box", "frame") for name in BACKGROUNDS][1:]:
        found.append(Condition("background", name, partial(before, ground=name, given=given), given))
    found += [Condition("crop scale", x, partial(jittered, scale=x)) for x in (-0.3, -0.15, 0.15, 0.3)]
    found += [Condition("crop shift", x, partial(jittered, shift=x)) for x in (0.05, 0.1, 0.2)]
    found += [Condition("noise", x, partial(noisy, deviation=x)) for x in (0.1, 0.2)]
    return found + [Condition("pixels", x, partial(coarse, side=x)) for x in (32, 16, 8)]


def robustness(
    dataset: Dataset, reconstructor: Reconstructor, views: pd.DataFrame, *, seed: int, workers: int = -1
) -> pd.DataFrame:
    """A row for each condition and view: synset, model_id, view, category, kind, given, level (a text) and chamfer_l1
    (`Distances`). What is random depends only on the seed and the index of the view."""
    index, distances, parts = views["index"].to_numpy(), Distances(dataset, seed), []
    category = views.model_id.map(dataset.models.set_index("model_id").category)
    table = views[["synset", "model_id", "view"]].assign(category=category)
    images = load_images(dataset, index).float() / 255
    for alike in (same(), *([c] for c in conditions())):
        crops = spoiled(images, index, alike[0].spoil, reconstructor.size, seed)
        answers = reconstructor.predict_crops(crops.to(reconstructor.model.means.device))
        value = distances.of_all([(r.V, r.F) for r in answers], views.model_id, workers)
        parts += [table.assign(kind=c.kind, given=c.given, level=str(c.level), chamfer_l1=value) for c in alike]
    return pd.concat(parts, ignore_index=True)


def spoiled(images: Tensor, index: np.ndarray, spoil: Callable, size: int, seed: int) -> Tensor:
    """Crops (b, 4, size, size) of images (b, 4, h, w) in [0, 1] with indices (b,)."""
    rngs = (np.random.default_rng([seed, int(i)]) for i in index)
    return torch.stack([spoil(image, size, rng) for image, rng in zip(images, rngs, strict=True)])


def _crop(image: Tensor, size: int, **changes: Tensor) -> Tensor:
    return crop_to_mask(image[None], size, **changes)[0]


def _resized(image: Tensor, size: int) -> Tensor:
    return interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]


def _direction(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def unchanged(image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """The crop as the network always sees it."""
    return _crop(image, size)


# Half-plane, disc and rectangle: numbers (n,) of the pixels (n, 2) of a mask, the lowest of which are hidden first.
CUTS = (
    lambda at, rng: at @ _direction(rng)[::-1],
    lambda at, rng: np.linalg.norm(at - rng.choice(at), axis=1),
    lambda at, rng: np.abs((at - rng.choice(at)) * rng.uniform(0.5, 1, 2)).max(1),
)


def occluded(image: Tensor, size: int, rng: np.random.Generator, *, share: float) -> Tensor:
    """Without a share of the mask's pixels, hidden in a random one of the ways of CUTS."""
    at = np.argwhere(image[3].numpy() > 0.5)
    order = np.argsort(CUTS[rng.integers(len(CUTS))](at, rng), kind="stable")
    rows, columns = at[order[: round(share * len(at))]].T
    image = image.clone()
    image[:, rows, columns] = 0
    return _crop(image, size)


def clouds(side: int, rng: np.random.Generator) -> Tensor:
    """Noise (3, side, side) in [0, 1] whose amplitudes fall as 1 / frequency, as those of photographs do."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=(3, side, side))) / np.maximum(frequency, 1 / side)
    picture = np.fft.irfft2(spectrum, (side, side))
    low, high = np.percentile(picture, (1, 99))
    return torch.from_numpy(((picture - low) / (high - low)).clip(0, 1)).float()


BACKGROUNDS = {
    "white": lambda side, rng: torch.ones(3, side, side),
    "colour": lambda side, rng: torch.from_numpy(rng.uniform(size=(3, 1, 1))).float().expand(3, side, side),
    "noise": lambda side, rng: torch.from_numpy(rng.uniform(size=(3, side, side))).float(),
    "photo-like": clouds,
}


def before(image: Tensor, size: int, rng: np.random.Generator, *, ground: str, given: str) -> Tensor:
    """In front of one of BACKGROUNDS, opaque, cropped to the object's `box`, or the whole `frame`."""
    background = BACKGROUNDS[ground](image.shape[-1], rng)
    if given == "frame":
        full = image[:3] * image[3:] + (1 - image[3:]) * background
        return _resized(torch.cat([full, torch.ones_like(image[3:])]), size)
    crop = _crop(image, size)
    return torch.cat([crop[:3] + (1 - crop[3:]) * _resized(background, size), torch.ones_like(crop[3:])])


def jittered(image: Tensor, size: int, rng: np.random.Generator, *, scale: float = 0.0, shift: float = 0.0) -> Tensor:
    """With the crop 1 + scale times as large, and moved by `shift` of its side in a random direction."""
    return _crop(image, size, jitter=torch.tensor([[scale, *(shift * _direction(rng))]]).float())


def noisy(image: Tensor, size: int, rng: np.random.Generator, *, deviation: float) -> Tensor:
    """With Gaussian noise in the object's colours, independent in each pixel of the crop."""
    crop = _crop(image, size)
    colour = crop[:3] + deviation * crop[3:] * torch.from_numpy(rng.normal(size=crop[:3].shape)).float()
    return torch.cat([colour.clamp(min=0).minimum(crop[3:]), crop[3:]])


def coarse(image: Tensor, size: int, rng: np.random.Generator, *, side: int) -> Tensor:
    """With the crop reduced to `side` pixels a side and enlarged again."""
    return interpolate(_resized(_crop(image, size), side)[None], (size, size), mode="bilinear")[0]

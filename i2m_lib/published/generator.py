"""The training data of the `paper` profile: random deformations of templates, rendered (METHOD, sections 4 and 5).

    c uniform; d from a mixture of equal Gaussians about {d_cj : j in E(c)}; a_j ~ Bernoulli(1/2) on edges
    V = (V_c + B Phi d + sum_j a_j V_cj) / (1 + sum_j a_j), moved to the canonical frame

The official code does not divide and ignores scale and centre; here meshes are compared where they lie. Writes what
training reads, so that training needs no renderer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.dataset.render import Camera, Renderer
from i2m_lib.files import save_npz
from i2m_lib.graph.template_graph import Template, TemplateGraph

from .samples import Samples, combine, neighbour_slots

VARIANCE = 1e-3  # of each free lattice coordinate, in canonical units
SHARE_ON = 0.5
AZIMUTHS = tuple(range(0, 360, 60))
# From afar a pinhole camera is orthographic within 1 %. The elevation is not published.
ELEVATION, DISTANCE, WIDTH = 20.0, 50.0, 1.1
IMAGE_SIZE = 192
LIGHT = 3  # seed of the one light that all samples are shown in


def generate(
    graph: TemplateGraph, folder: str | Path, *, n: int, seed: int, azimuths=AZIMUTHS, workers: int = -1
) -> dict[str, Samples]:
    """n samples of each category, in `folder`/<synset>.npz; those that are there already are read."""
    folder = Path(folder)
    todo = [s for s in graph.synsets if not (folder / f"{s}.npz").is_file()]
    Parallel(n_jobs=workers)(delayed(_generate)(graph.of(s), folder / f"{s}.npz", n, seed, azimuths) for s in todo)
    return {s: Samples.load(folder / f"{s}.npz") for s in graph.synsets}


def _generate(templates: list[Template], path: Path, n: int, seed: int, azimuths) -> None:
    rng = np.random.default_rng([seed, int(templates[0].synset)])
    drawn = draw(templates, n, rng)
    images = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE, 2), np.uint8)
    with Renderer(IMAGE_SIZE) as renderer:
        for i in range(n):
            template, camera = templates[drawn.c[i]], _camera(azimuths[i % len(azimuths)])
            V = combine(template, drawn.d[i], drawn.a[i][neighbour_slots(templates)[drawn.c[i]]])
            rgba = renderer.render(V, template.F, template.C, camera, np.random.default_rng(LIGHT))
            images[i] = gray_and_mask(rgba)
    save_npz(path, images=images, c=drawn.c, d=drawn.d, a=drawn.a)


@dataclass(frozen=True)
class Drawn:
    """c (n,) template indices, d (n, 32, 3), a (n, T) 0 or 1, only on edges of c."""

    c: np.ndarray
    d: np.ndarray
    a: np.ndarray


def draw(templates: list[Template], n: int, rng: np.random.Generator) -> Drawn:
    """n parameters of one category's templates."""
    T, slots = len(templates), neighbour_slots(templates)
    c = rng.integers(T, size=n)
    d = rng.normal(0, VARIANCE**0.5, (n, 32, 3))
    a = np.zeros((n, T), np.float32)
    for i, t in enumerate(c):
        if len(slots[t]):
            d[i] += templates[t].d[rng.integers(len(slots[t]))]
            a[i, slots[t]] = rng.random(len(slots[t])) < SHARE_ON
    return Drawn(c, d.astype(np.float32), a)


def _camera(azimuth: float) -> Camera:
    return Camera(azimuth, ELEVATION, DISTANCE, focal=DISTANCE / WIDTH)


def gray_and_mask(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 2) uint8: luminance and alpha."""
    gray = rgba[..., :3] @ np.array([0.299, 0.587, 0.114])
    return np.stack([gray.round().astype(np.uint8), rgba[..., 3]], -1)

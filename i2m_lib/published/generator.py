"""The training data of the `paper` profile: random deformations of templates, rendered (METHOD, sections 4 and 5).

    c uniform; d from a mixture of equal Gaussians about {d_cj : j in E(c)}; a_j ~ Bernoulli(1/2) on edges
    V = (V_c + B Phi d + sum_j a_j V_cj) / (1 + sum_j a_j), moved to the canonical frame

The official code does not divide, and ignores scale and centre; here meshes are compared where they lie.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.artefacts import Key, keep
from i2m_lib.dataset.render import Renderer
from i2m_lib.files import save_npz
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.surfaces import Surface, normalise
from i2m_lib.graph.template_graph import Template, TemplateGraph, digest_of

VERSION = 1  # Raise it when results change.
VARIANCE = 1e-3  # of each free lattice coordinate, in canonical units
SHARE_ON = 0.5
TRAIN_SHARE = 0.7  # 3,500 of 5,000
AZIMUTHS = tuple(range(0, 360, 60))
# At a large distance a pinhole camera is orthographic within 1 %. The paper does not give the elevation.
ELEVATION, DISTANCE, WIDTH = 20.0, 50.0, 1.1
IMAGE_SIZE = 192
LIGHT = 3  # seed of the one light of all samples


@dataclass(frozen=True)
class Samples:
    """n samples of one category: images (n, s, s, 2) uint8, gray and mask; template c (n,), lattice displacements
    d (n, 32, 3), weights a (n, T), 0 or 1 for each template of the category. The first 70 % train."""

    images: np.ndarray
    c: np.ndarray
    d: np.ndarray
    a: np.ndarray

    @property
    def n_train(self) -> int:
        return int(TRAIN_SHARE * len(self.c))

    def surface(self, templates: list[Template], i: int) -> Surface:
        """Vertices and faces of the i-th sample, in the canonical frame."""
        return surface_of(templates, self.c[i], self.d[i], self.a[i])

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal arrays."""
        return digest_of(self.images, self.c, self.d, self.a)


def generate(graph: TemplateGraph, folder: str | Path, *, n: int, seed: int, workers: int = -1) -> dict[str, Samples]:
    """n samples of each category, in `folder`/<synset>.npz; made anew if they are of another graph, n or seed."""
    paths = {synset: Path(folder) / f"{synset}.npz" for synset in graph.synsets}

    def make() -> None:
        todo = [delayed(_write)(path, graph.of(s), n, seed) for s, path in paths.items() if not path.is_file()]
        Parallel(n_jobs=workers)(todo)

    keep(folder, Key("samples", VERSION, {"n": n, "seed": seed, "azimuths": AZIMUTHS}, {"graph": graph.digest}), make)
    return read_samples(folder, graph)


def read_samples(folder: str | Path, graph: TemplateGraph) -> dict[str, Samples]:
    """The samples of each category that `generate` wrote. Raises FileNotFoundError if there are none."""
    return {s: Samples(**np.load(Path(folder) / f"{s}.npz", allow_pickle=False)) for s in graph.synsets}


def _write(path: Path, templates: list[Template], n: int, seed: int) -> None:
    c, d, a = draw(templates, n, np.random.default_rng([seed, int(templates[0].synset)]))
    images = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE, 2), np.uint8)
    with Renderer(IMAGE_SIZE) as renderer:
        for i, template in enumerate(templates[t] for t in c):
            camera = Camera(AZIMUTHS[i % len(AZIMUTHS)], ELEVATION, DISTANCE, focal=DISTANCE / WIDTH)
            V, F = surface_of(templates, c[i], d[i], a[i])
            images[i] = gray_and_mask(renderer.render(V, F, template.C, camera, np.random.default_rng(LIGHT)))
    save_npz(path, images=images, c=c, d=d, a=a)


def draw(templates: list[Template], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n parameters of one category: template indices c (n,), d (n, 32, 3) and a (n, T), 0 or 1 on edges of c."""
    T, slots = len(templates), neighbour_slots(templates)
    c = rng.integers(T, size=n)
    d = rng.normal(0, VARIANCE**0.5, (n, 32, 3))
    a = np.zeros((n, T), np.float32)
    for i, t in enumerate(c):
        if len(slots[t]):
            d[i] += templates[t].d[rng.integers(len(slots[t]))]
            a[i, slots[t]] = rng.random(len(slots[t])) < SHARE_ON
    return c, d.astype(np.float32), a


def neighbour_slots(templates: list[Template]) -> list[np.ndarray]:
    """For each template of a category, the indices (E,) of its neighbours among them."""
    slot = {t.model_id: i for i, t in enumerate(templates)}
    return [np.array([slot[j] for j in t.neighbours], dtype=int) for t in templates]


def surface_of(templates: list[Template], c: int, d: np.ndarray, a: np.ndarray) -> Surface:
    """Vertices and faces of template c of a category under d (32, 3) and those of the weights a (T,) that are edges."""
    return combine(templates[c], d, a[neighbour_slots(templates)[c]]), templates[c].F


def combine(template: Template, d: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Vertices (n, 3) of the paper's linear combination under d (32, 3) and a (E,) in {0, 1}: the mean of the deformed
    template and of the chosen V_cj, in the canonical frame (bounding-box centre 0, diagonal 1)."""
    chosen = [template.correspondence(j) for j in np.flatnonzero(a)]
    return normalise(np.mean([template.decode(d), *chosen], axis=0))[0]


def gray_and_mask(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 2) uint8: luminance and alpha."""
    gray = rgba[..., :3] @ np.array([0.299, 0.587, 0.114])
    return np.stack([gray.round().astype(np.uint8), rgba[..., 3]], -1)

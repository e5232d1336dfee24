"""One model: from its files to its row, its mesh and its views. Depends on model and recipe alone."""

from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from i2m_lib.geometry.cameras import Camera, check_ranges, sample_cameras
from i2m_lib.geometry.surfaces import cross_products, is_watertight, normalise, sample_surface

from .cleaning import clean, load_mesh, simplify
from .dataset import STRETCH
from .near_duplicates import N_SAMPLES, descriptor
from .obj import MeshError
from .r2n2 import read_renderings
from .render import Renderer
from .source import CorpusError, ModelSource
from .splits import hashed
from .textures import Skin

VIEW_COLUMNS = [*(field.name for field in fields(Camera)), *STRETCH]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is made of the models. `seed` is that of splits, samples, cameras and light. Beside `n_views` of each model
    as it is, training models get `n_varied` in other proportions: the log of each axis's factor is uniform within
    `variety` of 0. A model of more than `max_faces` is simplified; its surface samples are still those of the whole
    surface. Near-duplicates across splits are listed; with `drop_near_duplicates`, those in test get the status
    'dropped' and no views. The ranges are those of `cameras.sample_cameras`. `renderings`, a folder in the form of
    `r2n2`, gives the views in place of our own."""

    n_views: int
    image_size: int
    n_surface: int
    seed: int
    n_varied: int = 0
    variety: float = 0.3
    max_faces: int = 200_000
    drop_near_duplicates: bool = False
    azimuth: tuple[float, float] = (0.0, 360.0)
    elevation: tuple[float, float] = (-5.0, 40.0)
    distance: tuple[float, float] = (1.6, 2.4)
    fill: tuple[float, float] = (0.75, 0.95)
    focal: tuple[float, float] | None = None
    renderings: str | Path = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "renderings", self.renderings and Path(self.renderings).absolute())
        check_ranges(**self.ranges)
        if self.renderings and not self.renderings.is_dir():
            raise CorpusError(f"{self.renderings} is no folder: give the one that holds the synsets' renderings.")
        if self.renderings and self.n_varied:
            raise CorpusError(f"renderings show models as they are: n_varied must be 0, not {self.n_varied}.")

    @property
    def ranges(self) -> dict[str, tuple[float, float] | None]:
        return {name: getattr(self, name) for name in ("azimuth", "elevation", "distance", "fill", "focal")}


def prepare(source: ModelSource, recipe: Recipe) -> tuple[dict, dict[str, np.ndarray], Skin | None]:
    """The model's row, its arrays in the canonical frame and its textures."""
    mesh = clean(load_mesh(source))
    V, centre, scale = normalise(mesh.V)
    rng = np.random.default_rng([recipe.seed, hashed(source.model_id)])
    S, face = sample_surface(V, mesh.F, recipe.n_surface, rng)
    N = cross_products(V, mesh.F)[face]
    N /= np.linalg.norm(N, axis=1, keepdims=True)
    mesh = replace(mesh, V=V)
    if len(mesh.F) > recipe.max_faces:
        mesh = simplify(mesh, recipe.max_faces)
    row = {"n_simplified_faces": 0, **mesh.facts, "n_vertices": len(mesh.V), "n_faces": len(mesh.F)}
    row |= {"watertight": is_watertight(mesh.F), "centre": centre.tolist(), "scale": scale}
    row["descriptor"] = descriptor(sample_surface(mesh.V, mesh.F, N_SAMPLES, rng)[0]).tolist()
    arrays = {"V": mesh.V.astype(np.float32), "F": mesh.F.astype(np.int32), "C": mesh.C}
    return row, arrays | {"S": S.astype(np.float32), "N": N.astype(np.float32)}, mesh.skin


def take_views(
    source: ModelSource, row: dict, arrays: dict, skin: Skin | None, recipe: Recipe, n_varied: int, renderer: Renderer
) -> tuple[list[tuple], np.ndarray]:
    """Of each view of a model what `VIEW_COLUMNS` says, and its images (n,size,size,4), drawn or, without a renderer,
    read. Each view has a random generator of its own, so that view k is the same whatever `n_views` is."""
    V, F, views, images = arrays["V"].astype(np.float64), arrays["F"], [], []
    if renderer is None:
        folder = recipe.renderings / source.synset / source.original_id / "rendering"
        sizes = recipe.n_views, recipe.image_size
        cameras, images = read_renderings(folder, row | {"layout": source.layout}, V, F, *sizes)
        return [(*astuple(camera), 1.0, 1.0, 1.0) for camera in cameras], images

    def rng_of(*view: int) -> np.random.Generator:
        return np.random.default_rng([recipe.seed, hashed(source.model_id), *view])

    def shoot(rng: np.random.Generator, stretch: np.ndarray) -> None:
        camera = sample_cameras(1, rng, V=V * stretch, **recipe.ranges)[0]
        images.append(renderer.shoot(camera, rng))
        if not images[-1].any():
            raise MeshError(f"view {len(views)} is empty: nothing was drawn")
        views.append((*astuple(camera), *stretch.tolist()))

    renderer.load(V, F, arrays["C"], skin)
    for view in range(recipe.n_views):
        shoot(rng_of(1 + view), np.ones(3))
    for view in range(n_varied):
        rng = rng_of(1, view)
        stretch = proportions(V, recipe.variety, rng)
        renderer.move(V * stretch)
        shoot(rng, stretch)
    return views, np.stack(images)


def proportions(V: np.ndarray, variety: float, rng: np.random.Generator) -> np.ndarray:
    """Random factors (3,) for the axes of vertices V (n,3) that keep the diagonal of their box: up to a common one,
    their logs are uniform within `variety` of 0."""
    factors = np.exp(rng.uniform(-variety, variety, 3))
    extent = np.ptp(V, axis=0)
    return factors * np.linalg.norm(extent) / np.linalg.norm(factors * extent)

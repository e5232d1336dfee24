"""One model: from its files to its row, its mesh and its views. Depends on model and recipe alone."""

import hashlib
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from i2m_lib.geometry.cameras import Camera, sample_cameras
from i2m_lib.geometry.surfaces import cross_products, is_watertight, normalise, sample_surface

from .cleaning import clean, load_mesh
from .dataset import STRETCH
from .near_duplicates import N_SAMPLES, descriptor
from .obj import MeshError
from .r2n2 import read_renderings
from .render import Renderer
from .simplify import simplify
from .source import ModelSource
from .splits import hashed
from .textures import Skin

VIEW_COLUMNS = [*(field.name for field in fields(Camera)), *STRETCH]


@dataclass(frozen=True)
class Recipe:
    """What is made of the models. Camera ranges are those of `cameras.sample_cameras`. Beside `n_views` as they are,
    models get `n_varied` in other proportions: the log of each axis's factor is uniform within `variety` of 0."""

    n_views: int
    n_varied: int
    variety: float
    image_size: int
    n_surface: int
    seed: int
    max_faces: int
    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    distance: tuple[float, float]
    fill: tuple[float, float]
    focal: tuple[float, float] | None
    renderings: Path | None
    oversized: str
    drop_near_duplicates: bool


def prepare(source: ModelSource, recipe: Recipe) -> tuple[dict, dict[str, np.ndarray], Skin | None]:
    """The model's row, its arrays in the canonical frame and its textures."""
    limit = recipe.max_faces if recipe.oversized == "refuse" else None
    mesh = clean(load_mesh(source, max_faces=limit))
    V, centre, scale = normalise(mesh.V)
    rng = np.random.default_rng([recipe.seed, hashed(source.model_id)])
    S, face = sample_surface(V, mesh.F, recipe.n_surface, rng)
    N = cross_products(V, mesh.F)[face]
    N /= np.linalg.norm(N, axis=1, keepdims=True)
    mesh = replace(mesh, V=V, counts={"n_simplified_faces": 0} | mesh.counts)
    if len(mesh.F) > recipe.max_faces:
        mesh = simplify(mesh, recipe.max_faces)
    row = {
        "sha256": hashlib.sha256(source.read(Path(source.entry).name)).hexdigest(),
        "n_vertices": len(mesh.V),
        "n_faces": len(mesh.F),
        "watertight": is_watertight(mesh.F),
        "centre": centre.tolist(),
        "scale": scale,
        **mesh.counts,
        "descriptor": descriptor(sample_surface(mesh.V, mesh.F, N_SAMPLES, rng)[0]).tolist(),
    }
    arrays = {"V": mesh.V.astype(np.float32), "F": mesh.F.astype(np.int32), "C": mesh.C}
    return row, arrays | {"S": S.astype(np.float32), "N": N.astype(np.float32)}, mesh.skin


def take_views(
    source: ModelSource,
    row: dict,
    arrays: dict[str, np.ndarray],
    skin: Skin | None,
    recipe: Recipe,
    renderer: Renderer | None,
) -> tuple[list[tuple], np.ndarray]:
    """Of each view of a model what `VIEW_COLUMNS` says, and its images (n,size,size,4), drawn here or elsewhere."""
    if renderer is not None:
        return _shoot(source.model_id, arrays, skin, recipe, renderer)
    folder = recipe.renderings / source.synset / source.model_id / "rendering"
    V, layout = arrays["V"].astype(np.float64), {"layout": source.layout}
    sizes = {"n_views": recipe.n_views, "size": recipe.image_size}
    cameras, images = read_renderings(folder, row | layout, V, arrays["F"], **sizes)
    return [(*astuple(camera), 1.0, 1.0, 1.0) for camera in cameras], images


def _shoot(
    model_id: str, arrays: dict[str, np.ndarray], skin: Skin | None, recipe: Recipe, renderer: Renderer
) -> tuple[list[tuple], np.ndarray]:
    """Views as `take_views` gives them. Each has a generator of its own, so that view k is the same whatever
    `n_views` is."""
    V = arrays["V"].astype(np.float64)
    ranges = {name: getattr(recipe, name) for name in ("azimuth", "elevation", "distance", "fill", "focal")}
    views, images = [], []
    for view in range(recipe.n_views + recipe.n_varied):
        varied = view - recipe.n_views
        rng = np.random.default_rng([recipe.seed, hashed(model_id), *([1, varied] if varied >= 0 else [1 + view])])
        stretch = proportions(V, recipe.variety, rng) if varied >= 0 else np.ones(3)
        if varied >= 0 or view == 0:
            renderer.load(V * stretch, arrays["F"], arrays["C"], skin)
        camera = sample_cameras(1, rng, V=V * stretch, **ranges)[0]
        views.append((*astuple(camera), *stretch.tolist()))
        images.append(renderer.shoot(camera, rng))
        if not images[-1].any():
            raise MeshError(f"view {view} is empty: nothing was drawn")
    return views, np.stack(images)


def proportions(V: np.ndarray, variety: float, rng: np.random.Generator) -> np.ndarray:
    """Random factors (3,) for the axes of vertices V (n,3) that keep the diagonal of their box: up to a common one,
    their logs are uniform within `variety` of 0."""
    factors = np.exp(rng.uniform(-variety, variety, 3))
    extent = np.ptp(V, axis=0)
    return factors * np.linalg.norm(extent) / np.linalg.norm(factors * extent)

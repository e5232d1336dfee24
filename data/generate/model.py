"""One factory and seed -> the text of one small OBJ and its MTL."""

import numpy as np

import factories
import geometry
import scene

LARGEST = 6.0  # metres, diagonal; some bed frames explode under Infinigen's smoothing


def make_model(factory: str, seed: int) -> tuple[str, str]:
    """Return the MTL and the OBJ text of one seed; ValueError where it yields no usable mesh."""
    V, F, paint, palette = scene.read(factories.build(factory, seed))
    size = np.linalg.norm(np.ptp(V, axis=0))
    if not size < LARGEST:
        raise ValueError(f"{factory} {seed} measures {size:.1f} m across")
    parts = decimate(geometry.split_parts(V, F, paint), size)
    n_faces = sum(len(f) for _, f, _ in parts)
    if not geometry.FEWEST_FACES <= n_faces <= geometry.MAX_FACES:
        raise ValueError(f"{factory} {seed} has {n_faces} faces after decimation")
    parts = geometry.to_frame(parts)
    used = sorted(set().union(*(p.tolist() for _, _, p in parts)))
    parts = [(v, f, np.searchsorted(used, p)) for v, f, p in parts]
    palette = [palette[k] for k in used]
    return geometry.mtl_text(palette), geometry.obj_text(parts, palette)


def decimate(parts: list[tuple], whole: float) -> list[tuple]:
    """Return the parts (V, F, paint) with few faces, but each still like itself."""
    budgets = geometry.face_budgets(parts)
    small = []
    for part, budget in zip(parts, budgets, strict=True):
        collapse = scene.Decimator(*part)
        result = collapse(budget)
        while not geometry.resembles(result, part, whole) and budget < len(part[1]):
            budget *= 2
            result = collapse(budget)
        collapse.close()
        small.append(result)
    return small

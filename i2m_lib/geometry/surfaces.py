"""Triangle surfaces as arrays: areas, samples, the canonical frame, and what makes a surface or bounds a solid."""

import numpy as np

Surface = tuple[np.ndarray, np.ndarray]  # V (n, 3), F (m, 3)
# Far beyond any shape of diagonal 1, and far below where squared distances lose their meaning.
LARGEST_COORDINATE = 1e6
SMALLEST_AREA = 1e-12


def normalise(V: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """V with bounding-box centre 0 and diagonal 1, and the centre (3,) and the scale that were removed:
    input = output * scale + centre. Raises ValueError if all vertices are equal."""
    low, high = V.min(0), V.max(0)
    scale = float(np.linalg.norm(high - low))
    if not scale > 0:
        raise ValueError("all vertices are equal: there is no scale")
    centre = (low + high) / 2
    return (V - centre) / scale, centre, scale


def cross_products(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(m, 3) normals of the faces, as long as twice their areas."""
    a, b, c = np.moveaxis(V[F], 1, 0)
    return np.cross(b - a, c - a)


def double_areas(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(m,) twice the areas of the faces."""
    return np.linalg.norm(cross_products(V, F), axis=1)


def barycentric_samples(
    V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n points uniform on the surface: the face (n,) of each and its barycentric weights (n, 3). Raises ValueError if
    the surface has no area."""
    total = np.cumsum(double_areas(V, F))
    if not (len(total) and total[-1] > 0):
        raise ValueError("cannot sample a surface without area")
    # side='right' never selects a face without area.
    face = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    root, t = np.sqrt(rng.random(n)), rng.random(n)
    return face, np.stack([1 - root, root * (1 - t), root * t], axis=1)


def sample_surface(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n points (n, 3) uniform on the surface and the index (n,) of the face of each. Raises ValueError if the surface
    has no area."""
    face, weights = barycentric_samples(V, F, n, rng)
    return np.einsum("nk,nkc->nc", weights, V[F[face]]), face


def edge_keys(F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A whole number for each side of the faces (3m,), equal for equal edges: without direction, and with it."""
    edges = F[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    width = edges.max() + 1
    return edges.min(1) * width + edges.max(1), edges[:, 0] * width + edges[:, 1]


def is_watertight(F: np.ndarray) -> bool:
    """Every edge belongs to exactly two faces."""
    return bool((np.unique(edge_keys(F)[0], return_counts=True)[1] == 2).all())


def bounds_solid(F: np.ndarray) -> bool:
    """Every edge belongs to exactly two faces, which run along it in opposite directions."""
    directed = edge_keys(F)[1]
    return is_watertight(F) and len(np.unique(directed)) == len(directed)


def used(V: np.ndarray, F: np.ndarray) -> Surface:
    """The vertices, as float64, that faces name, and the faces: spare vertices are no part of a surface."""
    index, F = np.unique(F, return_inverse=True)
    return np.asarray(V, dtype=np.float64)[index], F.reshape(-1, 3)


def merged(V: np.ndarray, F: np.ndarray) -> Surface:
    """The surface with vertices of equal position made one, without faces that then have two equal corners."""
    V, index = np.unique(V, axis=0, return_inverse=True)
    F = index.reshape(-1)[F]
    return V, F[(np.roll(F, 1, axis=1) != F).all(1)]


def why_broken(V: np.ndarray, F: np.ndarray) -> str | None:
    """Why vertices V (n, 3) and faces F (m, 3) make no surface, as a clause, or None if they do."""
    V, F = np.asarray(V), np.asarray(F)
    if V.ndim != 2 or V.shape[1] != 3 or F.ndim != 2 or F.shape[1] != 3:
        return f"V {V.shape} and F {F.shape} are not (n, 3) and (m, 3)"
    if not len(V) or not len(F):
        return f"it is empty: {len(V)} vertices and {len(F)} faces"
    if not np.isfinite(V).all():
        return f"{int((~np.isfinite(V).all(1)).sum())} of {len(V)} vertices are NaN or infinite"
    if np.abs(V).max() > LARGEST_COORDINATE:
        return f"a coordinate is {np.abs(V).max():.3g}, beyond {LARGEST_COORDINATE:g}"
    if F.dtype.kind not in "iu":
        return f"face indices are {F.dtype}, not integers"
    if F.min() < 0 or F.max() >= len(V):
        return f"face indices run from {F.min()} to {F.max()}, but there are {len(V)} vertices"
    area = double_areas(V, F).sum() / 2
    return f"its area is {area:.3g}, not above {SMALLEST_AREA:g}" if area <= SMALLEST_AREA else None

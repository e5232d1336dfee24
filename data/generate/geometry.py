"""Arrays to a small clean model: parts, face budgets, ShapeNet's frame, OBJ and MTL text.

V vertices (n,3), F faces (m,3), paint (m,) the index of each face's colour.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

MAX_FACES, TARGET_FACES, FEWEST_FACES = 3_000, 2_000, 12
DECIMALS = 5  # of a metre: welds what Infinigen leaves apart and drops its numerical noise
TO_FRAME = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])  # Infinigen: +Z up, +X front


def row_keys(V: np.ndarray) -> np.ndarray:
    """Return an integer for each row of V (n,3), equal for equal rows and ordered as they are.

    V lies on the grid of DECIMALS and within 10 of the origin.
    """
    return np.rint(V * 10**DECIMALS).astype(np.int64) @ [1 << 42, 1 << 21, 1]


def canonical(V: np.ndarray, F: np.ndarray, paint: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return V, F, paint with coincident vertices made one and all rows in ascending order.

    Collapsed and doubled faces are dropped, and so are unused vertices. Infinigen repeats a shape
    but not the order of its rows, on which decimation depends.
    """
    _, first, inverse = np.unique(row_keys(V), return_index=True, return_inverse=True)
    V, F = V[first], inverse[F].astype(np.int64)
    start = F.argmin(axis=1)[:, None] + np.arange(3)
    F = np.take_along_axis(F, start % 3, axis=1)  # the same way round, from the smallest index
    whole = np.flatnonzero((np.roll(F, 1, axis=1) != F).all(axis=1))
    n = len(V)
    _, first = np.unique(np.sort(F[whole], axis=1) @ [n * n, n, 1], return_index=True)
    used, rows = np.unique(F[whole[first]], return_inverse=True)
    return V[used], rows.reshape(-1, 3), paint[whole[first]]


def close_seams(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """Return F (m,3) with coincident vertices on open edges made one."""
    edges = np.sort(F[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    edges, uses = np.unique(edges @ [len(V), 1], return_counts=True)
    rim = np.unique(np.divmod(edges[uses == 1], len(V)))
    _, first, inverse = np.unique(row_keys(V[rim]), return_index=True, return_inverse=True)
    target = np.arange(len(V))
    target[rim] = rim[first[inverse]]
    return target[F]


def split_parts(V: np.ndarray, F: np.ndarray, paint: np.ndarray) -> list[tuple]:
    """Return canonical V, F, paint of each connected part, in an order of their own.

    Open seams are closed before the parts are told apart, all other coincident vertices after it,
    so that closed parts which merely touch stay apart.
    """
    V = np.round(V, DECIMALS) + 0.0  # no -0.0
    F = close_seams(V, F)
    links = coo_matrix((np.ones(2 * len(F)), (F[:, :2].ravel(), F[:, 1:].ravel())), (len(V),) * 2)
    label = connected_components(links, directed=False)[1][F[:, 0]]
    parts = [canonical(V, F[label == k], paint[label == k]) for k in np.unique(label)]
    return sorted((p for p in parts if len(p[1])), key=lambda p: p[0][[0, -1]].tolist())


def area(V: np.ndarray, F: np.ndarray) -> float:
    """Return the surface area."""
    a, b, c = V[F].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def face_budgets(parts: list[tuple]) -> np.ndarray:
    """Return the number of faces (k,) each part (V, F, paint) may keep, TARGET_FACES in all.

    A share grows with the square root of the area, so that a thin rod keeps its roundness beside a
    wide board; what a part cannot use is shared among the others.
    """
    counts = np.array([len(F) for _, F, _ in parts])
    share = np.sqrt([area(V, F) for V, F, _ in parts])
    scale = TARGET_FACES / share.sum()
    for _ in range(50):
        budget = np.clip(scale * share, np.minimum(FEWEST_FACES, counts), counts)
        scale *= TARGET_FACES / budget.sum()
    return np.ceil(budget).astype(int)


def resembles(small: tuple, part: tuple, whole: float) -> bool:
    """Tell whether a decimated part keeps its shape, seen at the size of the whole (its diagonal).

    Its bounding box may move by 1 % of the whole and its area change by 10 %, or by 1e-4 of the
    whole squared where that is more.
    """
    (V, F, _), (V0, F0, _) = small, part
    if not len(F):
        return False
    box = np.abs([V.min(0) - V0.min(0), V.max(0) - V0.max(0)]).max()
    before = area(V0, F0)
    return box < 0.01 * whole and abs(area(V, F) - before) < max(0.1 * before, 1e-4 * whole**2)


def to_frame(parts: list[tuple]) -> list[tuple]:
    """Return parts with +Y up, -Z front, bounding-box centre 0 and diagonal 1, to 5 decimals."""
    V = np.concatenate([V for V, _, _ in parts]) @ TO_FRAME.T
    low, high = V.min(axis=0), V.max(axis=0)
    V = np.round((V - (low + high) / 2) / np.linalg.norm(high - low), 5) + 0.0  # no -0.0
    ends = np.cumsum([len(v) for v, _, _ in parts])[:-1]
    return [canonical(v, f, p) for v, (_, f, p) in zip(np.split(V, ends), parts, strict=True)]


def obj_text(parts: list[tuple], palette: list[tuple]) -> str:
    """Return the OBJ of parts (V, F, paint): one group a part, one material a colour."""
    lines, n = ["mtllib model_normalized.mtl"], 1
    for k, (V, F, paint) in enumerate(parts):
        lines.append(f"g part_{k}")
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in V]
        for p in np.unique(paint):
            lines.append(f"usemtl {p}_{palette[p][0]}")
            lines += [f"f {a} {b} {c}" for a, b, c in F[paint == p] + n]
        n += len(V)
    return "\n".join(lines) + "\n"


def mtl_text(palette: list[tuple]) -> str:
    """Return the MTL of a palette [(name, (r, g, b))]."""
    return "".join(
        f"newmtl {p}_{name}\nKd {r:.3f} {g:.3f} {b:.3f}\n"
        for p, (name, (r, g, b)) in enumerate(palette)
    )

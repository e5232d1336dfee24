"""Meshes to turn with the mouse, in a notebook (k3d)."""

import warnings

import k3d
import numpy as np


def show(*meshes: tuple[np.ndarray, np.ndarray, np.ndarray], gap: float = 0.9, height: int = 360) -> k3d.Plot:
    """A plot of meshes (V (n, 3), F (m, 3), C (m, 3) uint8 face colours) side by side along x.

    End the cell with the plot itself: `show((V, F, C))`.
    """
    plot = k3d.plot(grid_visible=False, camera_auto_fit=False, height=height, axes_helper=0)
    width = gap * (len(meshes) - 1)
    for i, (V, F, C) in enumerate(meshes):
        plot += _mesh(V + np.array([gap * i - width / 2, 0, 0]), F, C)
    # From the front (-Z), a little to the side and above; +Y is up.
    distance = 1.1 + 0.75 * gap * len(meshes)
    plot.camera = [0.35 * distance, 0.35 * distance, -distance, 0, 0, 0, 0, 1, 0]
    return plot


def _mesh(V: np.ndarray, F: np.ndarray, C: np.ndarray):
    # Vertices are not shared between faces: k3d colours vertices, and CAD is made of flat faces.
    corners = np.asarray(V[F].reshape(-1, 3), dtype=np.float32)
    indices = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
    rgb = np.asarray(C, dtype=np.uint32)
    packed = np.repeat((rgb[:, 0] << 16) + (rgb[:, 1] << 8) + rgb[:, 2], 3).astype(np.uint32)
    with warnings.catch_warnings():
        # traittypes compares dtypes in a way that numpy 2 warns about; the arrays are right.
        warnings.simplefilter("ignore")
        return k3d.mesh(corners, indices, colors=packed, flat_shading=True, side="double")

"""Meshes to turn with the mouse, in a notebook (k3d). End a cell with what these functions return."""

import warnings

import ipywidgets
import k3d
import numpy as np

from i2m_lib.geometry.ffd import Lattice, displace, symmetric_basis
from i2m_lib.graph.template_graph import Template


def show(*meshes: tuple[np.ndarray, np.ndarray, np.ndarray], gap: float = 0.9, height: int = 360) -> k3d.Plot:
    """A plot of meshes (V (n, 3), F (m, 3), C (m, 3) uint8 face colours) side by side along x."""
    plot = k3d.plot(grid_visible=False, camera_auto_fit=False, height=height, axes_helper=0)
    for i, (V, F, C) in enumerate(meshes):
        plot += _mesh(V + np.array([gap * (i - (len(meshes) - 1) / 2), 0, 0]), F, C)
    # From the front (-Z), a little to the side and above; +Y is up.
    distance = 1.1 + 0.75 * gap * len(meshes)
    plot.camera = [0.35 * distance, 0.35 * distance, -distance, 0, 0, 0, 0, 1, 0]
    return plot


def explore(templates: list[Template], height: int = 420) -> ipywidgets.VBox:
    """Pick an edge i -> j and watch i deform into j; move one control point of the lattice and watch the mesh follow.
    Without a running kernel only the first picture is seen."""
    edges = [
        (f"{t.model_id:.8} → {j:.8}", (i, k))
        for i, t in enumerate(templates)
        for k, j in enumerate(t.neighbours or ["none"])
    ]
    n_free = templates[0].d.shape[1]
    pick = {
        "edge": ipywidgets.Dropdown(options=edges, description="edge"),
        "share": ipywidgets.FloatSlider(0.0, min=0, max=1, step=0.02, description="deformed"),
        "point": ipywidgets.IntSlider(0, min=0, max=n_free - 1, description="control point"),
        **{axis: ipywidgets.FloatSlider(0.0, min=-0.3, max=0.3, step=0.01, description=axis) for axis in "xyz"},
    }
    box = ipywidgets.VBox()

    def start(*_) -> None:
        t = templates[pick["edge"].value[0]]
        plot = show((t.V, t.F, t.C), height=height)
        plot += k3d.points(
            Lattice.around(t.V).points.astype(np.float32), point_size=0.012, color=0x2C6FA6, shader="flat"
        )
        box.children = [ipywidgets.HBox([*pick.values()], layout={"flex_flow": "row wrap"}), plot]
        move()

    def move(*_) -> None:
        (i, k), push = pick["edge"].value, [pick[axis].value for axis in "xyz"]
        V, P = deformed(templates[i], k, pick["share"].value, pick["point"].value, push)
        mesh, points = box.children[1].objects
        mesh.vertices, points.positions = _corners(V, templates[i].F), P.astype(np.float32)

    for name, widget in pick.items():
        widget.observe(start if name == "edge" else move, "value")
    start()
    return box


def deformed(template: Template, k: int, share: float, point: int, push: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The template a share of the way to its k-th neighbour, with one free control point, and its mirror image, pushed
    by (x, y, z): vertices (n, 3) and control points (64, 3)."""
    a = np.zeros(len(template.neighbours))
    a[k : k + 1] = share  # nothing where there is no neighbour
    d = np.tensordot(a, template.d, 1)
    d[point] += push
    lattice = Lattice.around(template.V)
    dP = displace(symmetric_basis(np.eye(len(lattice.points))), d)
    return template.decode(d, a), lattice.points + dP


def _corners(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    # Vertices are not shared between faces: k3d colours vertices, and CAD is made of flat faces.
    return np.asarray(V[F].reshape(-1, 3), dtype=np.float32)


def _mesh(V: np.ndarray, F: np.ndarray, C: np.ndarray):
    indices = np.arange(3 * len(F), dtype=np.uint32).reshape(-1, 3)
    colours = np.repeat(C.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), 3)
    with warnings.catch_warnings():
        # traittypes compares dtypes in a way that numpy 2 warns about; the arrays are right.
        warnings.simplefilter("ignore")
        return k3d.mesh(_corners(V, F), indices, colors=colours, flat_shading=True, side="double")

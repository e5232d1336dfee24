"""Bodies whose volumes are known."""

import numpy as np
import trimesh


def box(extents=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.box(extents)
    return np.array(mesh.vertices) + np.array(shift), np.array(mesh.faces)


def ball(radius=1.0):
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    return np.array(mesh.vertices), np.array(mesh.faces)


def together(*meshes):
    starts = np.cumsum([0] + [len(V) for V, _ in meshes])
    return np.vstack([V for V, _ in meshes]), np.vstack([F + s for (_, F), s in zip(meshes, starts, strict=False)])


def solids():
    V, F = ball()
    turned = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    return {
        "ball": (V, F),
        "box": box((1.0, 2.0, 0.5)),
        "turned box": (box()[0] @ turned.T, box()[1]),
        "overlapping": together(box(), box(shift=(0.4, 0.3, 0.2))),
        "hollow": together((V, F), (0.5 * V, F[:, ::-1])),
        "inside out": (V, F[:, ::-1]),
        "torus": (lambda m: (np.array(m.vertices), np.array(m.faces)))(trimesh.creation.torus(1.0, 0.3)),
    }

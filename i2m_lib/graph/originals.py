"""The templates' own files: faces, texture coordinates and materials as their makers left them.

A deformation is a map of space, so it moves the vertices of the original file as well as those of the clean mesh that
was fitted. Nothing has to be matched, and nothing is lost.
"""

import logging
import posixpath
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from i2m_lib.dataset.cleaning import V1_TO_CANONICAL
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.dataset.obj import MeshError, read_obj
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import CorpusError, ModelSource
from i2m_lib.dataset.textures import paint
from i2m_lib.files import whole

from .template_graph import Template, TemplateGraph, original_path

log = logging.getLogger(__name__)


def keep_originals(dataset: Dataset, graph: TemplateGraph, corpus_root: str | Path, folder: str | Path) -> None:
    """Writes, beside the graph in `folder`, the originals of the templates that have texture coordinates, as glb in
    the canonical frame. One that cannot be read is left out with a warning."""
    sources = {s.model_id: s for s in Corpus.open(corpus_root, split_seed=0).models}
    rows = dataset.models.set_index("model_id")
    for t in graph.templates:
        try:
            scene = read_original(sources[t.model_id], rows.centre[t.model_id], rows.scale[t.model_id])
        except (KeyError, MeshError, CorpusError, OSError) as error:
            log.warning("%s keeps no textures (%s: %s)", t.model_id, type(error).__name__, error)
            continue
        if scene is not None:
            with whole(original_path(folder, t)) as temporary:
                temporary.write_bytes(scene.export(file_type="glb"))


def read_original(source: ModelSource, centre: np.ndarray, scale: float) -> trimesh.Scene | None:
    """The model's file in the canonical frame, a mesh for each material, or None if no corner has texture coordinates;
    centre (3,) and scale are those that `normalise` took away. Raises MeshError or CorpusError."""
    obj = read_obj(source.read(posixpath.basename(source.entry)))
    if not np.isfinite(obj.UV).any():
        return None
    C, skin, _ = paint(obj, source)
    uv, texture = (np.nan_to_num(obj.UV), np.full(len(obj.F), -1)) if skin is None else (skin.uv, skin.texture)
    turn = V1_TO_CANONICAL if source.layout == "v1" else np.eye(3)
    V, scene = (obj.V @ turn.T - np.asarray(centre)) / scale, trimesh.Scene()
    finite, looks = np.isfinite(V[obj.F]).all((1, 2)), np.stack([obj.material, texture], axis=1)
    for m, k in np.unique(looks[finite], axis=0):
        faces = np.flatnonzero(finite & (looks == (m, k)).all(1))
        colour = np.append(C[faces].mean(0).round(), 255).astype(np.uint8)
        look = {"baseColorTexture": Image.fromarray(skin.images[k])} if k >= 0 else {"baseColorFactor": colour}
        # A vertex for each different pair of place and texture coordinates.
        corners = np.column_stack([obj.F[faces].ravel(), uv[faces].reshape(-1, 2)])
        corners, index = np.unique(corners, axis=0, return_inverse=True)
        name = obj.materials[m].encode("utf-8", "backslashreplace").decode() if m >= 0 else "none"
        visual = trimesh.visual.TextureVisuals(corners[:, 1:], material=PBRMaterial(name=name, **look))
        places = V[corners[:, 0].astype(int)]
        scene.add_geometry(trimesh.Trimesh(places, index.reshape(-1, 3), visual=visual, process=False), geom_name=name)
    return scene


def dress(template: Template, d: np.ndarray | None = None, a: np.ndarray | None = None) -> trimesh.Scene:
    """The original of a template that has one, deformed as `Template.decode` deforms the template."""
    scene = trimesh.load_scene(template.original, process=False)
    for part in scene.geometry.values():
        part.vertices = template.deform(np.asarray(part.vertices, np.float64), d, a)
    return scene

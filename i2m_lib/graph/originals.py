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


def keep_originals(dataset: Dataset, graph: TemplateGraph, corpus_root: str | Path, folder: str | Path) -> int:
    """Writes, beside the graph in `folder`, the originals of the templates that have texture coordinates, as glb in
    the canonical frame; returns how many. The others have nothing but the colours of their faces. One that cannot be
    read is passed over with a warning."""
    sources = {s.model_id: s for s in Corpus.open(corpus_root, split_seed=0).models}
    rows = dataset.models.set_index("model_id")
    n_kept = 0
    for t in graph.templates:
        if t.model_id not in sources:
            log.warning("%s keeps no textures: %s lacks it", t.model_id, corpus_root)
            continue
        try:
            scene = read_original(sources[t.model_id], rows.centre[t.model_id], rows.scale[t.model_id])
        except (MeshError, CorpusError, OSError) as error:
            log.warning("%s keeps no textures: %s", t.model_id, error)
            continue
        if scene is not None:
            with whole(original_path(folder, t)) as temporary:
                temporary.write_bytes(scene.export(file_type="glb"))
            n_kept += 1
    return n_kept


def read_original(source: ModelSource, centre: np.ndarray, scale: float) -> trimesh.Scene | None:
    """The model's file in the canonical frame, a mesh for each material and texture, or None if no corner has texture
    coordinates; centre (3,) and scale are those that `normalise` took away. Raises MeshError or CorpusError."""
    obj = read_obj(source.read(posixpath.basename(source.entry)))
    mapped = np.isfinite(obj.UV).all(2)
    if not mapped.any():
        return None
    C, skin, _ = paint(obj, source)
    texture = np.full(len(obj.F), -1) if skin is None else skin.texture
    turn = V1_TO_CANONICAL if source.layout == "v1" else np.eye(3)
    V = (obj.V @ turn.T - np.asarray(centre)) / scale
    scene = trimesh.Scene()
    for m, k in np.unique(np.stack([obj.material, texture], axis=1), axis=0):
        faces = np.flatnonzero((obj.material == m) & (texture == k) & np.isfinite(V[obj.F]).all((1, 2)))
        look = {"baseColorTexture": Image.fromarray(skin.images[k])} if k >= 0 else {"baseColorFactor": _mean(C[faces])}
        material = PBRMaterial(name=obj.materials[m] if m >= 0 else "none", **look)
        scene.add_geometry(_part(V, obj.F[faces], np.nan_to_num(obj.UV[faces]), material), geom_name=material.name)
    return scene


def _mean(C: np.ndarray) -> np.ndarray:
    return np.append(C.mean(0).round(), 255).astype(np.uint8)


def _part(V: np.ndarray, F: np.ndarray, UV: np.ndarray, material: PBRMaterial) -> trimesh.Trimesh:
    """The mesh of some faces, with a vertex for each different pair of place and texture coordinates (m, 3, 2)."""
    corners = np.column_stack([F.ravel(), UV.reshape(-1, 2)])
    unique, index = np.unique(corners, axis=0, return_inverse=True)
    visual = trimesh.visual.TextureVisuals(uv=unique[:, 1:], material=material)
    return trimesh.Trimesh(V[unique[:, 0].astype(int)], index.reshape(-1, 3), visual=visual, process=False)


def dress(template: Template, d: np.ndarray | None = None, a: np.ndarray | None = None) -> trimesh.Scene:
    """The template deformed (see `Template.decode`) with all that its original has, or else with its face colours.
    Export it to glb or obj."""
    if template.original is None:
        mesh = trimesh.Trimesh(template.decode(d, a), template.F, face_colors=template.C, process=False)
        return trimesh.Scene({template.model_id: mesh})
    scene = trimesh.load_scene(template.original, process=False)
    for part in scene.geometry.values():
        part.vertices = template.deform(np.asarray(part.vertices, np.float64), d, a)
    return scene

"""The templates' own files: faces, texture coordinates and materials as their makers left them.

A deformation is a map of space. So it moves the vertices of the original file as well as those of the clean mesh
that it was fitted with: nothing has to be matched, and nothing is lost.
"""

import logging
import posixpath
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import trimesh

from i2m_lib.dataset.cleaning import V1_TO_CANONICAL
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import ModelSource
from i2m_lib.files import whole

from .template_graph import Template, TemplateGraph, original_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Beside:
    """What trimesh asks for materials and textures: they come through ModelSource.read alone."""

    source: ModelSource

    def get(self, name: str) -> bytes:
        return self.source.read(name)

    __getitem__ = get


def keep_originals(dataset: Dataset, graph: TemplateGraph, corpus_root: str | Path, folder: str | Path) -> int:
    """Writes, beside the graph in `folder`, the originals of the templates that have texture coordinates, as glb in
    the canonical frame. For others the colours of faces tell all. One that cannot be read is passed over with a
    warning.

    Returns:
        How many there are.
    """
    sources = {s.model_id: s for s in Corpus.open(corpus_root, split_seed=0).models}
    rows = dataset.models.set_index("model_id")
    kept = 0
    for t in graph.templates:
        try:
            scene = read_original(sources[t.model_id], rows.centre[t.model_id], rows.scale[t.model_id])
            if not any(getattr(part.visual, "uv", None) is not None for part in scene.geometry.values()):
                continue
            with whole(original_path(folder, t)) as temporary:
                temporary.write_bytes(scene.export(file_type="glb"))
            kept += 1
        except Exception as error:  # trimesh raises whatever its parsers run into
            log.warning("%s keeps no textures (%s: %s)", t.model_id, type(error).__name__, error)
    return kept


def read_original(source: ModelSource, centre: np.ndarray, scale: float) -> trimesh.Scene:
    """The model's file as it is, materials and all, in the canonical frame; centre (3,) and scale are those that
    `normalise` took away."""
    name = posixpath.basename(source.entry)
    file_type = posixpath.splitext(name)[1][1:]
    scene = trimesh.load_scene(BytesIO(source.read(name)), file_type=file_type, resolver=_Beside(source), process=False)
    turn = V1_TO_CANONICAL if source.layout == "v1" else np.eye(3)
    for part in scene.geometry.values():
        part.vertices = (part.vertices @ turn.T - np.asarray(centre)) / scale
    return scene


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

"""What ShapeNetCore would cost, measured on models that are made to cost as much as its own."""

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import trimesh
from PIL import Image

from i2m_lib.geometry.surfaces import double_areas

from .build import build_dataset
from .dataset import Dataset, Mesh
from .model import Recipe

SHAPENET_MODELS = 51_300  # of ShapeNetCore (Chang et al. 2015, arXiv 1512.03012)
# Of a model: faces, each of which lies there twice, front and back; textures, their pixels and how often they repeat.
N_FACES, N_TEXTURES, SIDE, TURNS = 8_000, 2, 1024, 5


def shapenet_cost(dataset: Dataset, n_models: int = 4) -> pd.DataFrame:
    """Of at most `n_models` of `dataset`, made like ShapeNet's by subdividing, doubling and texturing their faces:
    mesh_seconds and view_seconds (see `Dataset.cost`) and the bytes that each takes on disk. They are built as
    `dataset` was, but all for training, drawn by ourselves and in one process."""
    recipe = {field.name: dataset.parameters[field.name] for field in fields(Recipe)} | {"renderings": ""}
    ids = dataset.models.model_id[:: -(-len(dataset.models) // n_models)]
    with TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus", Path(folder) / "out"
        for model_id in ids:
            _write(dataset.mesh(model_id), corpus / f"03001627/{model_id}/models")
        (corpus / "all.csv").write_text("modelId,split\n" + "".join(f"{model_id},train\n" for model_id in ids))
        built = build_dataset(corpus, out, workers=1, progress=False, **recipe)
        n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return built.cost.assign(bytes=n_bytes / len(ids))


def _write(mesh: Mesh, folder: Path) -> None:
    V, F = mesh.V, mesh.F
    while (n := (N_FACES - len(F)) // 3) > 0:
        V, F = trimesh.remesh.subdivide(V, F, face_index=np.argsort(-double_areas(V, F))[:n])
    F = np.concatenate([F[:N_FACES], F[:N_FACES, ::-1]]) + 1
    lines = ["mtllib model_normalized.mtl", *("v {} {} {}".format(*v) for v in V)]
    lines += ["vt {} {}".format(*uv) for uv in TURNS * V[:, :2]]
    materials = []
    folder.mkdir(parents=True)
    for i, faces in enumerate(np.array_split(F, N_TEXTURES)):
        lines += [f"usemtl {i}", *("f {0}/{0} {1}/{1} {2}/{2}".format(*face) for face in faces)]
        materials += [f"newmtl {i}", f"map_Kd {i}.jpg"]
        noise = np.random.default_rng(i).integers(0, 256, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((SIDE, SIDE)).save(folder / f"{i}.jpg")
    (folder / "model_normalized.obj").write_text("\n".join(lines))
    (folder / "model_normalized.mtl").write_text("\n".join(materials))

"""A small corpus in ShapeNet's layout, and the dataset built from it."""

import csv
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

SPLITS = ("train", "train", "val", "test")
MTL = "newmtl wood\nKd 0.6 0.4 0.2\nnewmtl cloth\nKd 0.2 0.3 0.8\n"


def furniture(size: float, back: bool) -> str:
    """OBJ text of a seat or top on four legs, with a back at +Z if it is a chair."""
    s, t = size / 2, 0.08
    boxes = [("cloth", (-s, 0.4, -0.25), (s, 0.5, 0.25))]
    boxes += [("wood", (x, 0, z), (x + t, 0.4, z + t)) for x in (-s, s - t) for z in (-0.25, 0.25 - t)]
    if back:
        boxes.append(("cloth", (-s, 0.5, 0.25 - t), (s, 1.0, 0.25)))
    lines = ["mtllib model_normalized.mtl"]
    for i, (material, *bounds) in enumerate(boxes):
        box = trimesh.creation.box(bounds=bounds)
        lines += ["v {} {} {}".format(*v) for v in box.vertices]
        lines += [f"usemtl {material}", *("f {} {} {}".format(*f) for f in box.faces + 1 + 8 * i)]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def corpus_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four chairs in folders and four tables in a zip."""
    root = tmp_path_factory.mktemp("ShapeNetCore.v2")
    names = {"03001627": "chair", "04379243": "table,desk"}
    nodes = [{"synsetId": synset, "name": name} for synset, name in names.items()]
    (root / "taxonomy.json").write_text(json.dumps(nodes))
    rows = [("id", "synsetId", "subSynsetId", "modelId", "split")]
    with zipfile.ZipFile(root / "04379243.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for synset in names:
            for i, size in enumerate(np.linspace(0.4, 1.0, 4)):
                model_id = f"{synset}model{i}"
                rows.append((str(i), synset, synset, model_id, SPLITS[i]))
                texts = {"obj": furniture(size, back=synset == "03001627"), "mtl": MTL}
                for suffix, text in texts.items():
                    name = f"{synset}/{model_id}/models/model_normalized.{suffix}"
                    if synset == "04379243":
                        archive.writestr(name, text)
                    else:
                        (root / name).parent.mkdir(parents=True, exist_ok=True)
                        (root / name).write_text(text)
    with (root / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session")
def dataset(corpus_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """The corpus above with 4 views of 48 pixels and 500 surface samples a model."""
    from i2m_lib.dataset.build import build_dataset

    out = tmp_path_factory.mktemp("dataset")
    return build_dataset(corpus_root, out, n_views=4, image_size=48, n_surface=500, seed=0, workers=1, progress=False)


@pytest.fixture(scope="session")
def tiny_run(dataset, tmp_path_factory: pytest.TempPathFactory):
    """A run with graph, fits and a network trained for one epoch: folder, graph, fits, model, settings, views."""
    import torch

    from i2m_lib.graph.build_graph import build_graph
    from i2m_lib.learning.batches import ViewDataset
    from i2m_lib.learning.settings import Settings
    from i2m_lib.learning.train import train

    folder = tmp_path_factory.mktemp("run")
    graph, fits = build_graph(dataset, n_templates=2, seed=0, workers=1)
    graph.save(folder / "graph")
    settings = Settings(epochs=1, batch_size=8, lr=1e-3, backbone="mobilenetv3_small_100", size=64)
    model, _ = train(dataset, graph, fits, folder, settings, device=torch.device("cpu"))
    views = ViewDataset(dataset, "train")
    return SimpleNamespace(folder=folder, graph=graph, fits=fits, model=model, settings=settings, views=views)

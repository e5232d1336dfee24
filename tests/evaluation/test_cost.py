import json

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.dataset.dataset import load_images
from i2m_lib.evaluation import cost
from i2m_lib.evaluation.ladder import summarised_shapes
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def memory(dataset, tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "memory.npz"
    Memory.of(Reconstructor.load(tiny_run.folder), dataset).save(path)
    return path


@pytest.fixture(scope="module")
def clusters(dataset, tiny_run):
    return summarised_shapes(dataset, tiny_run.folder, 0, 1)[0]


def test_every_method_answers(dataset, tiny_run, memory, clusters):
    images = load_images(dataset, np.arange(2))
    known = set(dataset.select("train").model_id)
    for method in cost.SETTINGS:
        answers = cost.answerer(method, tiny_run.folder, memory, clusters)(images, [])
        assert len(answers) == 2
        if not method.startswith("image2mesh"):
            assert set(answers) <= known


def test_a_method_is_measured_in_a_process_of_its_own(dataset, tiny_run, memory, clusters, monkeypatch):
    monkeypatch.setattr(cost, "SETTINGS", {"image2mesh": {}})
    (row,) = cost.measure(dataset, tiny_run.folder, memory, clusters, n_images=2).to_dict("records")
    assert row["method"] == "image2mesh"
    assert 0 < row["seconds"] < 10
    assert 50 < row["peak_mb"] < 5000
    assert np.isnan(row["graph"])
    assert row["training"] > 0


def test_memory_at_its_highest_stays():
    before = cost.peak_mb()
    block = torch.ones(64 * 2**18)  # 64 MiB
    assert cost.peak_mb() >= before
    del block
    assert cost.peak_mb() >= before


def test_preparation_is_what_the_run_recorded(tmp_path):
    assert all(np.isnan(x) for x in cost.preparation(tmp_path, "image2mesh").values())
    (tmp_path / "provenance.json").write_text(json.dumps({"notebooks": {"02_template_graph": {"seconds": 7.5}}}))
    for folder, seconds in {"training": [1.0, 2.0], "paper/1/autoencoder": [4.0], "paper/2/regressor": [1.0]}.items():
        (tmp_path / folder).mkdir(parents=True)
        pd.DataFrame({"seconds": seconds}).to_parquet(tmp_path / folder / "history.parquet")
    for method in ("image2mesh", "image_retrieval"):
        assert cost.preparation(tmp_path, method) == {"graph": 7.5, "training": 3.0}
    assert cost.preparation(tmp_path, "image2mesh_paper") == {"graph": 7.5, "training": 5.0}

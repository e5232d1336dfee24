import numpy as np
import torch

from i2m_lib.dataset.dataset import chunks
from i2m_lib.evaluation import cost
from i2m_lib.evaluation.ladder import PUBLISHED, ladder_methods


def test_methods_are_loaded_as_the_ladder_has_them(dataset, tiny_run):
    methods = {m.name: m for m in ladder_methods(dataset, tiny_run.folder, seed=0, workers=1)}
    views = next(chunks(dataset, dataset.first_views(dataset.select("test"), 1)))
    for name, load in cost.LOADERS.items():
        if name not in PUBLISHED:
            method = load(dataset, tiny_run.folder)
            surfaces = method.answer(views)
            assert len(surfaces) == len(views)
            if name in methods:
                for (V, _), (expected, _) in zip(surfaces, methods[name].answer(views), strict=True):
                    np.testing.assert_allclose(V, expected, atol=1e-5)


def test_a_method_is_measured_in_a_process_of_its_own(dataset, tiny_run):
    loaders = {"mine": cost.LOADERS["image2mesh"]}
    (row,) = cost.measure(dataset, tiny_run.folder, loaders, n_images=2).to_dict("records")
    assert (row["method"], row["told"]) == ("mine", "the image")
    assert 0 < row["seconds"] < 10
    assert 50 < row["peak_mb"] < 5000
    assert row["training"] > 0
    assert row["views"] == len(tiny_run.views)


def test_memory_at_its_highest_stays():
    before = cost.peak_mb()
    block = torch.ones(64 * 2**18)  # 64 MiB
    assert cost.peak_mb() >= before
    del block
    assert cost.peak_mb() >= before

import numpy as np
import pytest
import torch

from i2m_lib.dataset.dataset import views_of
from i2m_lib.evaluation.ablation import ablate
from i2m_lib.evaluation.distances import Distances
from i2m_lib.learning.losses import TERMS
from i2m_lib.learning.settings import read_description
from i2m_lib.reconstruction.reconstructor import Reconstructor


def test_each_term_is_left_out_once(dataset, tiny_run, tmp_path):
    def run():
        settings = tiny_run.settings
        return ablate(dataset, tiny_run.graph, tiny_run.fits, tmp_path, settings, device=torch.device("cpu"), n_views=1)

    table = run()
    assert table.without.tolist() == ["nothing", *TERMS]
    for term in TERMS:
        assert read_description(tmp_path / term)[1].without == (term,)
    views, images = views_of(dataset, "val", 1)
    rows, category = table.set_index("without"), views.model_id.map(dataset.models.set_index("model_id").category)
    for name in table.without:
        answers = Reconstructor.load(tmp_path / name).predict(images)
        assert rows.chamfer_l1[name] == pytest.approx(Distances(dataset).mean([(r.V, r.F) for r in answers], views))
        assert rows.right_category[name] == np.mean(category == [r.category for r in answers])
    # Heads that start at zero stay there without their term.
    assert rows.elevation["elevation"] == pytest.approx(views.elevation.abs().median())
    assert not any(r.weights.any() for r in Reconstructor.load(tmp_path / "weights").predict(images))
    assert run().equals(table)  # finished networks are read, not trained

import numpy as np
import torch

from i2m_lib.evaluation.ablation import ablate
from i2m_lib.learning.losses import TERMS
from i2m_lib.learning.settings import read_description


def test_each_term_is_left_out_once(dataset, tiny_run, tmp_path):
    def run():
        settings = tiny_run.settings
        return ablate(dataset, tiny_run.graph, tiny_run.fits, tmp_path, settings, device=torch.device("cpu"), n_views=1)

    table = run()
    assert table.without.tolist() == ["nothing", *TERMS]
    assert np.isfinite(table.drop(columns="without")).all(axis=None)
    assert table.right_category.between(0, 1).all() and table.azimuth.between(0, 180).all()
    for term in TERMS:
        assert read_description(tmp_path / term)[1].without == (term,)
    assert run().equals(table)  # finished networks are read, not trained

import numpy as np
import pytest

from i2m_lib.dataset.dataset import views_of
from i2m_lib.evaluation.swaps import swap_parts
from i2m_lib.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def reconstructor(tiny_run):
    return Reconstructor.load(tiny_run.folder)


def test_what_is_right_of_a_training_template_is_itself(dataset, reconstructor, tiny_run):
    """A template needs no deformation, so with all parts right its distance is that of its own fit."""
    table = swap_parts(dataset, reconstructor, tiny_run.fits, split="train").set_index("model_id")
    assert (table["all"] < 0.05).all()
    assert table["all"].mean() < table["as predicted"].mean()


def test_a_network_that_is_right_gains_nothing(dataset, reconstructor, tiny_run, monkeypatch):
    views, images = views_of(dataset, "val", 1)
    plain = swap_parts(dataset, reconstructor, tiny_run.fits)
    assert plain.model_id.tolist() == views.model_id.tolist()
    slots = {t.model_id: i for i, t in enumerate(reconstructor.graph.templates)}
    for view, image in zip(views.itertuples(), images, strict=True):
        fits = tiny_run.fits[view.synset]
        row = fits.model_ids.tolist().index(view.model_id)
        best = reconstructor.graph.of(view.synset)[int(fits.cost[row].argmin())]
        out = reconstructor.outputs(image[None])
        out["logits"][0, slots[best.model_id]] = 99
        with monkeypatch.context() as patch:
            patch.setattr(Reconstructor, "outputs", lambda self, rgba, out=out: out)
            one = swap_parts(dataset, reconstructor, tiny_run.fits).set_index("model_id").loc[view.model_id]
        assert one["template"] == pytest.approx(one["as predicted"])
        assert np.isfinite(one.drop("synset").astype(float)).all()

import dataclasses

import numpy as np
import pandas as pd
import pytest

from i2m_lib.dataset.dataset import load_images
from i2m_lib.geometry.silhouettes import silhouette
from i2m_lib.reconstruction.doubt import SIGNS, WEIGHTS, Doubt, masks_of, predicted_camera, signs_of_doubt
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def reconstructor(tiny_run):
    return Reconstructor.load(tiny_run.folder)


@pytest.fixture(scope="module")
def memory(dataset, reconstructor):
    return Memory.of(reconstructor, dataset)


@pytest.fixture(scope="module")
def shown(dataset, reconstructor):
    """Answers to the training views, and their masks."""
    views = dataset.views[dataset.views.model_id.isin(dataset.select("train").model_id)]
    images = load_images(dataset, views["index"].to_numpy())
    return reconstructor.predict(images), masks_of(images)


def test_signs_have_their_ranges_and_known_views_are_not_strange(shown, memory):
    signs = signs_of_doubt(*shown, memory, workers=1)
    assert list(signs) == SIGNS
    assert ((signs >= 0) & (signs <= 1)).drop(columns="strangeness").all(axis=None)
    np.testing.assert_allclose(signs.strangeness, 0, atol=1e-5)


def test_equal_probabilities_are_all_doubt_and_one_alone_is_none(shown, memory):
    answers, masks = (x[:2] for x in shown)
    n = len(answers[0].probabilities)
    told = [np.full(n, 1 / n), np.eye(n)[0]]
    changed = [dataclasses.replace(r, probabilities=p) for r, p in zip(answers, told, strict=True)]
    np.testing.assert_allclose(signs_of_doubt(changed, masks, memory, workers=1).entropy, [1, 0], atol=1e-9)


def test_an_answer_that_fills_the_mask_does_not_disagree(shown, memory):
    r, mask = shown[0][0], np.zeros((64, 64), bool)
    mask[10:50, 12:44] = True
    camera = predicted_camera(r.V, r.azimuth, r.elevation, mask)
    signs = signs_of_doubt([r, r], np.stack([silhouette(r.V, r.F, camera, 64), ~mask]), memory, workers=1)
    assert signs.disagreement[0] < 0.05
    assert signs.disagreement[1] > 0.3


def test_doubt_is_the_share_of_the_reference_that_is_surer():
    reference = pd.DataFrame({sign: np.arange(10.0) for sign in SIGNS})
    doubt = Doubt(reference.sample(frac=1, random_state=0))
    assert doubt(reference).mean() == pytest.approx(0.5)
    np.testing.assert_allclose(doubt(reference - 100), 0)
    np.testing.assert_allclose(doubt(reference + 100), 1)
    one = pd.DataFrame([dict.fromkeys(SIGNS, -1.0) | {sign: 99.0} for sign in SIGNS])
    np.testing.assert_allclose(doubt(one), np.array(WEIGHTS) / sum(WEIGHTS))


def test_validation_views_are_the_reference(dataset, reconstructor, memory):
    doubt = Doubt.on_validation(dataset, reconstructor, memory, n_views=2, workers=1)
    assert doubt.reference[SIGNS].shape == (2 * len(dataset.select("val")), len(SIGNS))
    with pytest.raises(ValueError, match="no validation models"):
        empty = dataclasses.replace(dataset, views=dataset.views.iloc[:0])
        Doubt.on_validation(empty, reconstructor, memory, n_views=2)

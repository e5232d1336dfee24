import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset.dataset import load_images
from i2m_lib.evaluation.diagnosis import N_VALIDATION, doubt_on_validation, kept_doubt
from i2m_lib.geometry.silhouettes import silhouette
from i2m_lib.reconstruction.doubt import SIGNS, Doubt, masks_of, predicted_camera, signs_of_doubt
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
    doubt = Doubt(reference.sample(frac=1, random_state=0), (1, 3, 2))
    assert doubt(reference).mean() == pytest.approx(0.5)
    np.testing.assert_allclose(doubt(reference - 100), 0)
    np.testing.assert_allclose(doubt(reference + 100), 1)
    one = pd.DataFrame([dict.fromkeys(SIGNS, -1.0) | {sign: 99.0} for sign in SIGNS])
    np.testing.assert_allclose(doubt(one), np.array([1, 3, 2]) / 6)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 0, 1), (1, 3, 1), (2, 1, 3)])
def test_the_weights_are_chosen_that_order_the_errors_best(weights):
    """Errors that are a mean of the ranks of signs, with whole weights: these weights are found, in any units."""
    ranks = pd.DataFrame({sign: np.random.default_rng(i).permutation(200) for i, sign in enumerate(SIGNS)})
    table = np.exp(ranks / 50).assign(chamfer_l1=np.exp(ranks @ np.array(weights) / 100))
    doubt = Doubt.chosen(table)
    assert doubt.weights == weights
    assert spearmanr(doubt(table), table.chamfer_l1).statistic == pytest.approx(1, abs=1e-4)


def test_validation_views_are_the_reference_and_choose_the_weights(dataset, reconstructor, memory):
    doubt = doubt_on_validation(dataset, reconstructor, memory, workers=1)
    assert len(doubt.reference) == len(dataset.first_views(dataset.select("val"), N_VALIDATION))
    assert doubt(doubt.reference).mean() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no validation models"):
        empty = dataclasses.replace(dataset, views=dataset.views.iloc[:0])
        doubt_on_validation(empty, reconstructor, memory)


def test_weights_are_read_from_a_file_of_the_same_model_and_dataset(dataset, reconstructor, memory, tmp_path):
    with pytest.raises(StaleError, match="run 05_robustness again"):
        Doubt.load(tmp_path, reconstructor, dataset)
    kept = kept_doubt(tmp_path, dataset, reconstructor, memory, workers=1)
    signs = pd.DataFrame([dict.fromkeys(SIGNS, -1.0) | {sign: 99.0} for sign in SIGNS])
    np.testing.assert_allclose(kept(signs), np.array(kept.weights) / sum(kept.weights))
    content = json.loads((tmp_path / "doubt.json").read_text())
    (tmp_path / "doubt.json").write_text(json.dumps(content | {"weights": [0, 1, 1]}))
    again = kept_doubt(tmp_path, dataset, reconstructor, None)  # it is not chosen again
    np.testing.assert_allclose(again(signs), [0, 0.5, 0.5])
    with pytest.raises(StaleError, match="its model is another"):
        Doubt.load(tmp_path, dataclasses.replace(reconstructor, digest="other"), dataset)

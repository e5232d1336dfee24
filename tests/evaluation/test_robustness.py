from functools import partial

import numpy as np
import pytest
import torch

from i2m_lib.dataset.dataset import load_images
from i2m_lib.evaluation.robustness import (
    BACKGROUNDS,
    before,
    coarse,
    conditions,
    jittered,
    noisy,
    occluded,
    robustness,
    same,
    spoiled,
    unchanged,
)
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.reconstruction.reconstructor import Reconstructor

SIZE = 32


@pytest.fixture(scope="module")
def images(dataset):
    return load_images(dataset, np.arange(6)).float() / 255


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_occluded_share_is_exact(images, share, monkeypatch):
    monkeypatch.setattr("i2m_lib.evaluation.robustness._crop", lambda image, size: image)
    for seed, image in enumerate(images):
        mask = image[3] > 0.5
        left = occluded(image, SIZE, np.random.default_rng(seed), share=share)[3] > 0.5
        assert (left & ~mask).sum() == 0
        assert left.sum() == mask.sum() - round(share * int(mask.sum()))


def test_what_is_occluded_has_no_colour_either(images, rng):
    crop = occluded(images[0], SIZE, rng, share=0.4)
    assert (crop[:3] <= crop[3:] + 1e-6).all()


def test_nothing_done_is_what_the_network_always_sees(images):
    nothing = [
        unchanged,
        partial(occluded, share=0.0),
        jittered,
        partial(noisy, deviation=0.0),
    ]
    for spoil in nothing:
        torch.testing.assert_close(spoiled(images, np.arange(6), spoil, SIZE, 0), crop_to_mask(images, SIZE))
    on_white = spoiled(images, np.arange(6), partial(before, ground="white", given="box"), SIZE, 0)
    torch.testing.assert_close(compose(on_white), compose(crop_to_mask(images, SIZE)), atol=1e-5, rtol=0)
    assert (on_white[:, 3] == 1).all()


def test_what_is_random_depends_on_seed_and_index_alone(images):
    for condition in conditions():
        both = spoiled(images[:2], np.array([4, 9]), condition.spoil, SIZE, 0)
        torch.testing.assert_close(both[1], spoiled(images[1:2], np.array([9]), condition.spoil, SIZE, 0)[0])
        assert both.shape == (2, 4, SIZE, SIZE)
        assert both.min() >= -1e-6
        assert both.max() <= 1 + 1e-5


def test_a_larger_crop_shows_a_smaller_object(images, rng):
    areas = [jittered(images[0], 64, rng, scale=s)[3].mean() for s in (0.0, 0.5)]
    assert areas[1] / areas[0] == pytest.approx(1 / 1.5**2, rel=0.05)


def test_a_photo_like_background_is_brighter_on_the_whole_than_in_detail(rng):
    smooth, rough = (BACKGROUNDS[name](64, rng) for name in ("photo-like", "noise"))
    step = [x.diff(dim=2).abs().mean() / x.std() for x in (smooth, rough)]
    assert step[0] < step[1] / 2


def test_few_pixels_keep_the_mean_colour(images, rng):
    crop = coarse(images[0], SIZE, rng, side=8)
    torch.testing.assert_close(crop.mean((1, 2)), crop_to_mask(images[:1], SIZE)[0].mean((1, 2)), atol=0.01, rtol=0)


def test_every_condition_is_scored_for_every_view(dataset, tiny_run):
    views = dataset.views[dataset.views.model_id.isin(dataset.select("test").model_id) & (dataset.views.view == 0)]
    table = robustness(dataset, Reconstructor.load(tiny_run.folder), views, seed=0, workers=1)
    assert len(table) == len(views) * (len(conditions()) + len(same()))
    assert np.isfinite(table.chamfer_l1).all()
    assert not table.duplicated(["model_id", "view", "kind", "given", "level"]).any()
    plain = table[(table.given == "mask") & ((table.kind == "background") | table.level.isin(["0", "all"]))]
    assert len(plain) == len(views) * (len(same()) - 1)
    assert plain.groupby("model_id").chamfer_l1.nunique().eq(1).all()

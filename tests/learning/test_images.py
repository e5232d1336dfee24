import numpy as np
import pytest
import torch

from i2m_lib.learning.images import N_DRAWS, augment, compose, crop_to_mask, plain


def disc(size, centre, radius):
    """RGBA (1, 4, size, size): a disc, red on its left half and blue on its right."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    inside = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2).float()
    left = (x < centre[0]).float()
    return torch.stack([left, torch.zeros_like(left), 1 - left, inside])[None]


def test_the_crop_does_not_see_where_or_how_large_the_object_was():
    a = crop_to_mask(disc(128, (64, 64), 50), 32)
    b = crop_to_mask(disc(256, (150, 100), 75), 32)
    assert (a - b).abs().mean() < 0.02
    occupied = a[0, 3].amax(0) > 0.5
    assert int(occupied.sum()) == pytest.approx(32 / 1.15, abs=2)
    assert occupied.flip(0).tolist() == occupied.tolist()


def test_a_flipped_crop_is_the_mirror_image():
    image = disc(64, (30, 34), 20)
    flipped = crop_to_mask(image, 32, flip=torch.tensor([True]))
    torch.testing.assert_close(flipped, crop_to_mask(image, 32).flip(3), atol=1e-4, rtol=0)


def test_an_empty_mask_is_not_cropped():
    image = torch.rand(1, 4, 32, 32)
    image[:, 3] = 0
    assert not crop_to_mask(image, 16).any()


def test_jitter_scales_and_shifts():
    image = disc(128, (64, 64), 30)
    wide = crop_to_mask(image, 64, jitter=torch.tensor([[1.0, 0, 0]]))
    assert float(wide[0, 3].mean()) == pytest.approx(float(crop_to_mask(image, 64)[0, 3].mean()) / 4, rel=0.1)
    shifted = crop_to_mask(image, 64, jitter=torch.tensor([[0.0, 0.25, 0]]))
    torch.testing.assert_close(shifted[..., :48], crop_to_mask(image, 64)[..., 16:], atol=1e-4, rtol=0)


def test_a_stretched_view_is_one_of_a_taller_object_from_higher_up():
    """An orthographic view of points: v = y cos e + w sin e, with w the depth."""
    given = batch() | {"elevation": torch.linspace(-0.1, 0.7, 8)}
    views = augment(given, 32, draws(1), stretch=0.3)
    y, w, e, f = 0.3, -0.2, given["elevation"], views["elevation"]
    before, after = y * e.cos() + w * e.sin(), views["stretch"][:, 1] * y * f.cos() + w * f.sin()
    s = f.sin() / e.sin()
    torch.testing.assert_close(after, s * before)
    assert views["stretch"][:, 1].log().abs().max() <= 0.3
    assert (views["stretch"][:, [0, 2]] == 1).all()
    crops = (crop_to_mask(disc(128, (64, 64), 30), 64, stretch=torch.tensor([x])) for x in (1.0, 1.5))
    tall = [(c[0, 3] > 0.5).float() for c in crops]
    ratios = [float(t.amax(1).sum() / t.amax(0).sum()) for t in tall]
    assert ratios == pytest.approx([1, 1.5], rel=0.05)


def test_background_shows_where_the_object_is_not():
    crop = crop_to_mask(disc(64, (32, 32), 20), 32)
    assert compose(crop)[0, :, 0, 0].tolist() == [1, 1, 1]
    assert compose(crop, 0.25)[0, :, 0, 0].tolist() == [0.25] * 3


def batch(n=8):
    images = torch.cat([disc(48, (24, 24), 8 + i) for i in range(n)])
    angles = {"azimuth": torch.linspace(0.1, 3, n), "elevation": torch.zeros(n)}
    return {"image": (images * 255).byte(), "stretch": torch.ones(n, 3), **angles}


def draws(seed, n=8):
    return torch.rand(n, N_DRAWS, generator=torch.Generator().manual_seed(seed))


def test_augmentation_comes_from_its_draws_alone_row_by_row():
    a, b = (augment(batch(), 32, draws(3)) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["image"], augment(batch(), 32, draws(4))["image"])
    half = augment({k: v[4:] for k, v in batch().items()}, 32, draws(3)[4:])
    torch.testing.assert_close(half["image"], a["image"][4:])


def test_mirrored_views_come_from_the_opposite_azimuth():
    chosen = draws(0)
    chosen[:, 10], chosen[:, 11:] = 1, torch.eye(3).ravel()  # colours as they are
    given, views = batch(), augment(batch(), 32, chosen)
    turned = views["azimuth"] < 0
    assert 0 < turned.sum() < len(turned)
    assert torch.equal(views["azimuth"].abs(), given["azimuth"])
    # The red half is on the right exactly where the view is mirrored.
    red = views["image"][:, 0, 12:20, 20:24].mean((1, 2)) > views["image"][:, 2, 12:20, 20:24].mean((1, 2))
    assert red.tolist() == turned.tolist()


def test_images_stay_in_range():
    for views in (augment(batch(), 32, draws(0)), plain(batch(), 32)):
        assert views["image"].shape == (8, 3, 32, 32)
        assert views["image"].min() >= -1e-5
        assert views["image"].max() <= 1 + 1e-5
    np.testing.assert_allclose(plain(batch(), 32)["image"][:, :, 0, 0], 1, atol=1e-6)


def test_colours_are_mixed_within_the_mask_and_a_quarter_are_negative():
    grey = torch.full((1, 4, 48, 48), 0.4)
    grey[:, 3] = 1
    views = {k: v[:1].expand(400, *v.shape[1:]) for k, v in batch().items()} | {
        "image": (grey * 255).byte().expand(400, -1, -1, -1)
    }
    chosen = draws(1, 400)
    centre = augment(views, 16, chosen)["image"][:, :, 8, 8]
    # Means of equal channels are equal: what is left is the light, from 0.7 to 1.3.
    torch.testing.assert_close(centre, centre[:, :1].expand(-1, 3), atol=1e-5, rtol=0)
    light = (0.7 + 0.6 * chosen[:, 4]) * 0.4
    negative = (centre[:, 0] - (1 - light)).abs() < 2e-3
    assert ((centre[:, 0] - light).abs() < 2e-3)[~negative].all()
    assert 0.18 < negative.float().mean() < 0.32

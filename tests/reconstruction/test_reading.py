import numpy as np
import pytest
from PIL import Image

from i2m_lib.reconstruction.reading import WORKING_SIZE, read_image


@pytest.fixture(scope="module")
def view(dataset):
    return dataset.image(0)


def test_the_object_is_cut_out_centred_and_reduced():
    picture = np.full((500, 900, 3), 255, np.uint8)
    picture[100:200, 100:800] = 90
    rgba = read_image(picture)
    assert rgba.shape == (WORKING_SIZE, WORKING_SIZE, 4)
    rows, columns = np.nonzero(rgba[..., 3] > 127)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(WORKING_SIZE / 2, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(WORKING_SIZE / 2, abs=1)
    assert np.ptp(columns) / WORKING_SIZE == pytest.approx(1 / 1.2, abs=0.02)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1 / 7, abs=0.02)


def test_white_ground_and_transparency_say_the_same(view):
    white = np.where(view[..., 3:] > 0, view[..., :3], 255).astype(np.uint8)
    view = np.where(view[..., 3:] > 0, view, 0)
    a, b = read_image(view).astype(float), read_image(white).astype(float)
    assert np.abs(a - b)[..., 3].mean() < 8


def test_a_file_and_its_pixels_say_the_same(view, tmp_path):
    Image.fromarray(view).save(tmp_path / "view.png")
    np.testing.assert_array_equal(read_image(tmp_path / "view.png"), read_image(view))


def test_bad_images_are_named(tmp_path, monkeypatch, view):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(view).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    for name in ("missing.png", "text.png", "cut.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match="shows nothing: give one object on white"):
        read_image(np.full((8, 8, 3), 255, np.uint8))
    with pytest.raises(ValueError, match=r"must be \(h, w, 3 or 4\) uint8, not \(8, 8\) float64"):
        read_image(np.zeros((8, 8)))
    Image.fromarray(view).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"bomb.png cannot be read as an image \(Image size"):
        read_image(tmp_path / "bomb.png")

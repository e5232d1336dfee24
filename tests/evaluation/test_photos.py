import numpy as np
import pytest
from PIL import Image

from i2m_lib.evaluation.photos import look_at, mask_of, pictures, read_photos
from i2m_lib.reconstruction.reconstructor import Reconstructor

HEADER = "path,cls,mask\n"


@pytest.fixture
def folder(tmp_path):
    """A photograph of a brown block, wider than high, with its mask, and one without."""
    (tmp_path / "house").mkdir()
    picture, mask = np.full((60, 90, 3), 200, np.uint8), np.zeros((60, 90), np.uint8)
    picture[20:40, 15:75], mask[20:40, 15:75] = (120, 80, 40), 255
    Image.fromarray(picture).save(tmp_path / "house" / "a.png")
    Image.fromarray(mask).save(tmp_path / "house" / "a_mask.png")
    (tmp_path / "manifest.csv").write_text(HEADER + "house/a.png,chair,house/a_mask.png\nhouse/b.png,chair,\n")
    return tmp_path


def test_photographs_are_cut_square_around_their_masks(folder):
    (photo,) = read_photos(folder).itertuples()
    assert (photo.source, photo.cls, photo.path) == ("house", "chair", "house/a.png")
    assert photo.rgba.shape[0] == photo.rgba.shape[1] >= 60
    mask = mask_of(photo.rgba)
    assert mask.sum() == pytest.approx(20 * 60, rel=0.05)
    np.testing.assert_allclose(photo.rgba[mask][:, :3].mean(0), (120, 80, 40), atol=2)


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ("path,cls\n", "lacks the columns mask"),
        (HEADER + "house/a.png,chair,\n", "names no mask"),
        (HEADER + "house/a.png,chair,house/gone.png\n", r"gone.png cannot be read"),
        (HEADER + "house/a.png,chair,house/small.png\n", "give one of its size"),
        (HEADER + "house/a.png,chair,house/black.png\n", "shows nothing"),
    ],
)
def test_a_wrong_manifest_is_told_in_a_sentence(folder, manifest, sentence):
    Image.new("L", (3, 3)).save(folder / "house" / "small.png")
    Image.new("L", (90, 60)).save(folder / "house" / "black.png")
    (folder / "manifest.csv").write_text(manifest)
    with pytest.raises(ValueError, match=sentence):
        read_photos(folder)


def test_a_folder_without_manifest_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv is not there"):
        read_photos(tmp_path)


def test_a_look_holds_answer_camera_and_pictures(folder, tiny_run):
    looks = look_at(Reconstructor.load(tiny_run.folder), read_photos(folder), workers=1)
    look = looks.iloc[0]
    assert 0.3 < look.silhouette_iou <= 1
    assert [look.source, look.cls, look.predicted] == ["house", "chair", look.answer.category]
    images = pictures(look)
    assert [x.dtype for x in images] == [np.uint8] * 4
    covered, mask = (images[3] != images[0]).any(-1), mask_of(look.rgba)
    assert (covered & mask).sum() / (covered | mask).sum() == pytest.approx(look.silhouette_iou)

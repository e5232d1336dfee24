import io
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from i2m_lib.reconstruction import reading
from i2m_lib.reconstruction.object_mask import find_mask
from i2m_lib.reconstruction.reading import WORKING_SIZE, read_image

SIDE = 96


@pytest.fixture(scope="module")
def view(dataset):
    return dataset.image(0)


@pytest.fixture(scope="module")
def rgba():
    """An L of two colours with a hole, upright and in no way symmetric, off the centre of a transparent picture."""
    x = np.zeros((SIDE, SIDE, 4), np.uint8)
    x[20:70, 30:42] = 120, 90, 60, 255
    x[58:70, 30:66] = 60, 40, 90, 255
    x[62:66, 50:58] = 0
    return x


def on(rgba, ground):
    """The object over a ground: a colour, or colours (h, w, 3)."""
    return np.where(rgba[..., 3:] > 127, rgba[..., :3], np.asarray(ground)).astype(np.uint8)


def agree(image, rgba, atol=0):
    """The image is read as the object alone is, without a warning."""
    found, sentences = read_image(image)
    wanted = read_image(rgba)[0]
    assert sentences == ()
    # Colours under no mask are arbitrary.
    found, wanted = (np.where(x[..., 3:] > 0, x, 0).astype(float) for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, atol=atol)


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_the_object_is_read_image_centred_and_reduced():
    picture = np.full((500, 900, 3), 255, np.uint8)
    picture[100:200, 100:800] = 90
    rgba, _ = read_image(picture)
    assert rgba.shape == (WORKING_SIZE, WORKING_SIZE, 4)
    rows, columns = np.nonzero(rgba[..., 3] > 127)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(WORKING_SIZE / 2, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(WORKING_SIZE / 2, abs=1)
    assert np.ptp(columns) / WORKING_SIZE == pytest.approx(1 / 1.2, abs=0.02)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1 / 7, abs=0.02)


def test_white_ground_and_transparency_say_the_same(view):
    white = np.where(view[..., 3:] > 0, view[..., :3], 255).astype(np.uint8)
    view = np.where(view[..., 3:] > 0, view, 0)
    a, b = (read_image(x)[0].astype(float) for x in (view, white))
    assert np.abs(a - b)[..., 3].mean() < 8


def test_views_of_the_dataset_keep_their_masks(dataset):
    for i in range(len(dataset.images)):
        alpha = dataset.image(i)[..., 3]
        np.testing.assert_array_equal(find_mask(Image.fromarray(dataset.image(i)))[0], (alpha > 127) * np.uint8(255))


@pytest.mark.parametrize("alpha", [255, 254, 128])
def test_alpha_that_hides_nothing_is_an_image_on_its_ground(rgba, alpha):
    agree(np.dstack([on(rgba, 255), np.full((SIDE, SIDE), alpha, np.uint8)]), rgba)


@pytest.mark.parametrize("ground", [0, 128, 235, 244, 255, (40, 90, 200), (0, 177, 64)])
def test_a_plain_ground_of_any_colour_is_found(rgba, ground):
    agree(on(rgba, ground), rgba)


def test_a_noisy_ground_is_plain(rgba):
    noise = np.random.default_rng(0).integers(-6, 7, (SIDE, SIDE, 3))
    agree(on(rgba, 230 + noise), rgba)


def test_a_line_around_the_picture_is_no_ground(rgba):
    picture = on(rgba, 255)
    for side in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        side[:] = 150
    agree(picture, rgba)


def test_shades_of_a_ground_are_left_out_with_a_warning(rgba):
    y, x = np.mgrid[:256, :256] / 255 - 0.5
    large = np.asarray(Image.fromarray(rgba).resize((256, 256), Image.Resampling.NEAREST))
    truth = large[..., 3] > 127
    vignette = 1 - 0.35 * 2 * (x**2 + y**2)
    shadow = 1 - 0.2 * np.exp(-((x / 0.3) ** 2) - ((y - 0.2) / 0.15) ** 2)
    for shade in (vignette, shadow):
        picture = np.dstack([on(large, 240 * shade[..., None]), np.full((256, 256), 255, np.uint8)])
        mask, doubts = find_mask(Image.fromarray(picture))
        mask = np.asarray(mask) > 0
        assert (mask & truth).sum() / (mask | truth).sum() > 0.95
        assert [d.split(":")[0] for d in doubts] == ["shades of the ground were left out of the object"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_a_viewer_turns_it(rgba, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose
    picture, exif = Image.fromarray(on(rgba, 255)), Image.Exif()
    exif[0x112] = orientation
    if orientation > 1:
        picture = picture.transpose(Image.Transpose(undo[orientation]))
    agree(saved(picture, "png", exif=exif), rgba)


def test_sixteen_bits_and_floats_say_what_eight_bits_say(rgba):
    white = on(rgba, 255)
    grey = np.asarray(Image.fromarray(white).convert("L"))
    wide, unit = grey.astype(np.uint16) * 257, grey.astype(np.float32) / 255
    key = saved(Image.fromarray(wide), "png", transparency=65535)
    files = [saved(Image.fromarray(x), "tiff") for x in (wide, wide.astype(np.int32), unit, unit * 255)]
    for image in (wide, unit, unit * 255, grey.astype(int), saved(Image.fromarray(wide), "png"), key, *files):
        agree(image, np.dstack([grey, grey, grey, rgba[..., 3]]))
    agree(white / 255, rgba)
    agree(rgba / 255.0, rgba)
    agree(white.astype(np.uint16) * 257, rgba)


def test_transparency_of_any_mode_is_read(rgba):
    picture = Image.fromarray(rgba)
    agree(picture.convert("RGBa"), rgba)
    palette = picture.quantize(8, method=Image.Quantize.FASTOCTREE)
    palette.info.pop("transparency", None)
    assert (palette.mode, palette.palette.mode) == ("P", "RGBA")
    agree(palette, rgba, atol=4)
    grey = picture.convert("LA")
    agree(grey.convert("La"), grey.convert("RGBA"))
    agree(saved(Image.fromarray(on(rgba, 255)), "png", transparency=(255, 255, 255)), rgba)
    agree(Image.fromarray(on(rgba, 255)).convert("CMYK"), rgba, atol=2)


def test_paths_bytes_files_and_pixels_say_the_same(rgba, tmp_path):
    data = saved(Image.fromarray(rgba), "png")
    path = tmp_path / "sp ace ü 椅子.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        for image in (path, str(path), data, bytearray(data), io.BytesIO(data), file, Image.open(path)):
            agree(image, rgba)
        assert not file.closed


@pytest.mark.parametrize("thing", [None, [[0, 1]], torch.zeros(3, 8, 8), 7], ids=lambda x: type(x).__name__)
def test_other_things_are_refused_in_a_sentence(thing):
    with pytest.raises(ValueError, match=rf"{type(thing).__name__} is not read as an image: give a path, the bytes"):
        read_image(thing)


def test_arrays_of_other_shapes_and_values_are_refused():
    for x in (np.zeros((3, 8, 8)), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((0, 8)), np.full((8, 8), "a")):
        with pytest.raises(ValueError, match=r"must be \(h, w\) or \(h, w, 3 or 4\) of numbers, not"):
            read_image(x)
    for x in (np.full((8, 8), np.nan), np.full((8, 8), -1.0), np.full((8, 8), 300.0), np.full((8, 8), 70000)):
        with pytest.raises(ValueError, match=r"must lie in 0\.\.1, 0\.\.255 or 16 bits"):
            read_image(x)


def test_specks_far_from_the_object_are_ignored(rgba):
    picture = on(rgba, 255)
    picture[1:3, 2:4] = picture[-3:-1, -4:-2] = 0
    agree(picture, rgba)
    alpha = rgba.copy()
    alpha[2, 2] = 255
    agree(alpha, rgba)


def test_parts_beside_the_object_are_kept(rgba):
    rgba = rgba.copy()
    rgba[16:18, 32:34] = 255
    assert (np.asarray(find_mask(Image.fromarray(rgba))[0])[16:18, 32:34] == 255).all()


def test_doubtful_masks_are_warned_of(rgba):
    cases = {
        "the image: 2 parts far from each other": np.concatenate([rgba, rgba], axis=1),
        "the object is cut by the border": on(rgba, 255)[25:],
        "no plain ground was found": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8),
        "fills the picture to its borders": np.full((60, 60, 4), 255, np.uint8),
        "fills the picture to its": np.pad(np.full((90, 90, 3), 80, np.uint8), ((2, 2), (2, 2), (0, 0))),
    }
    cases["fills the picture to its"][:40] *= 2  # within a frame, and of two colours
    cases["fills the picture to its borders"][0, 0, 3] = 0
    for words, image in cases.items():
        with pytest.warns(UserWarning, match=words) as caught:
            read_image(image)
        assert len(caught) == 1
    # A picture that was trimmed to its object is as good as any.
    agree(rgba[20:70, 30:66], rgba)


def test_bad_images_are_named(tmp_path, monkeypatch, view):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(view).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    for name in ("missing.png", "text.png", "cut.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            read_image(tmp_path / name)
    for data in (b"", b"no image"):
        with pytest.raises(ValueError, match="the image cannot be read as an image"):
            read_image(data)
    with pytest.raises(ValueError, match="shows nothing: give one object on a plain or on transparent ground"):
        read_image(np.full((8, 8, 3), 255, np.uint8))
    with pytest.raises(ValueError, match=r"shows nothing \(no alpha is above 1 of 255\)"):
        read_image(np.where(view[..., 3:] > 0, np.uint8(1), np.uint8(0)).repeat(4, axis=2))
    Image.fromarray(view).save(tmp_path / "bomb.png")
    monkeypatch.setattr(reading, "MAX_PIXELS", 10)
    with pytest.raises(ValueError, match=r"bomb.png cannot be read as an image \(.* are more than 0 million"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(1, 40000), (40000, 3)])
def test_pictures_of_extreme_shapes_cost_little(shape):
    picture = np.zeros((*shape, 4), np.uint8)
    picture.reshape(-1, 4)[: picture.size // 8] = 255
    tracemalloc.start()
    rgba = read_image(picture)[0]
    assert rgba.shape == (WORKING_SIZE, WORKING_SIZE, 4)
    assert tracemalloc.get_traced_memory()[1] < 3e8
    tracemalloc.stop()


def spoil(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut off or repeated at random places."""
    x = np.frombuffer(data, np.uint8).copy()
    a, b = np.sort(rng.integers(0, len(x), 2))
    kind = rng.integers(3)
    if kind == 0:
        x[rng.integers(0, len(x), rng.integers(1, 20))] ^= np.uint8(rng.integers(1, 256))
        return x.tobytes()
    return data[:a] + data[b:] if kind == 1 else data[:b] + data[a:]


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "tiff", "webp"])
@pytest.mark.parametrize("seed", range(12))
def test_spoiled_files_are_read_or_refused_in_a_sentence(rgba, kind, seed):
    data = spoil(saved(Image.fromarray(on(rgba, 255)), kind), np.random.default_rng([seed, len(kind)]))
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found, _ = read_image(data)
            assert found.dtype == np.uint8
            assert found.shape[2] == 4
            assert (found[..., 3] > 0).any()
        except ValueError as error:
            assert str(error).count("\n") == 0
            assert len(str(error)) < 300
    assert time.process_time() - start < 10

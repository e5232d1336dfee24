import itertools
import pickle  # noqa: TID251 - loader processes do it
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.dataset.dataset import Dataset, chunks, load_images, overlay, views_of


def test_open_tells_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 01_dataset first"):
        Dataset.open(tmp_path)


def test_mesh_has_the_promised_types(dataset):
    mesh = dataset.mesh(dataset.models.model_id[0])
    assert [getattr(mesh, key).dtype for key in "VFCSN"] == [
        np.float64,
        np.int64,
        np.uint8,
        np.float64,
        np.float64,
    ]
    assert mesh.F.max() == len(mesh.V) - 1
    assert mesh.C.shape == mesh.F.shape
    with pytest.raises(KeyError, match="no usable model nobody"):
        dataset.mesh("nobody")


def test_models_have_plain_numbers(dataset):
    kinds = {name: dataset.models[name].to_numpy().dtype.kind for name in ("n_faces", "scale")}
    assert kinds == {"n_faces": "i", "scale": "f"}
    assert dataset.models.watertight.to_numpy().dtype == bool


def test_select(dataset):
    assert len(dataset.select()) == 8
    assert len(dataset.select("train")) == 4
    assert len(dataset.select(synset="03001627")) == 4
    (row,) = dataset.select("val", "04379243").itertuples()
    assert row.model_id == "04379243model2"
    assert row.Index == 0
    assert dataset.select("train", "02691156").empty


def test_without_a_category_it_is_another_dataset(dataset):
    chairs = dataset.without("04379243")
    assert set(chairs.manifest.synset) == set(chairs.views.synset) == {"03001627"}
    assert np.array_equal(chairs.image(3), dataset.image(3))
    assert len({dataset.digest, chairs.digest, dataset.without("03001627").digest}) == 3
    none, same = (dataset.without(a).without(b) for a, b in (("04379243", "03001627"), ("03001627", "04379243")))
    assert none.digest == same.digest != chairs.digest


@pytest.mark.parametrize("size", [1, 4, 6, 16, 99])
def test_chunks_keep_the_views_of_a_model_together(dataset, size):
    parts = list(chunks(dataset, dataset.views, size))
    pd.testing.assert_frame_equal(pd.concat([part.rows for part in parts], ignore_index=True), dataset.views)
    images = load_images(dataset, dataset.views["index"].to_numpy())
    assert torch.equal(torch.cat([part.images for part in parts]), images)
    assert all(len(part) >= size for part in parts[:-1])
    assert all(set(a.rows.model_id).isdisjoint(b.rows.model_id) for a, b in itertools.pairwise(parts))


def test_views_of_a_split(dataset):
    rows, images = views_of(dataset, "val", 3)
    assert rows.view.tolist() == [0, 1, 2] * 2
    assert set(rows.model_id) == set(dataset.select("val").model_id)
    assert np.array_equal(images[4].permute(1, 2, 0), dataset.image(rows["index"][4]))


def test_overlay_covers_every_mask_and_sees_a_wrong_camera(dataset):
    ious = overlay(dataset, dataset.views)
    assert len(ious) == len(dataset.views)
    assert ious.min() > 0.99
    some = dataset.views.sample(8, random_state=0)
    assert np.array_equal(overlay(dataset, some), ious[some.index])
    assert overlay(dataset, some.assign(azimuth=some.azimuth + 30)).max() < 0.9
    assert overlay(dataset, some.assign(focal=some.focal * 1.1)).max() < 0.95


def test_pickles_carry_no_pixels(dataset):
    pixels = dataset.image(3)
    data = pickle.dumps(dataset)
    assert len(data) < dataset.images.nbytes / 4
    assert np.array_equal(pickle.loads(data).image(3), pixels)


def test_training_needs_neither_vtk_nor_trimesh():
    code = (
        "import sys, i2m_lib.dataset.dataset, i2m_lib.dataset.cleaning, i2m_lib.dataset.shapenet\n"
        "assert not {'vtk', 'vtkmodules', 'pyvista', 'trimesh'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

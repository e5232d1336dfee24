import pickle  # noqa: TID251 - loader processes do it
import subprocess
import sys

import numpy as np
import pytest

from i2m_lib.dataset.dataset import Dataset, overlay


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

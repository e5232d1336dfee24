import pickle  # noqa: TID251 - loader processes do it
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from i2m_lib.dataset.dataset import Dataset, overlay
from i2m_lib.learning.batches import ViewDataset


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


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_hold_the_views_of_their_split(dataset, split):
    views = ViewDataset(dataset, split)
    assert views.model_ids == dataset.select(split).model_id.tolist()
    rows = dataset.views[dataset.views.model_id.isin(views.model_ids)].reset_index()
    assert len(views) == len(rows)
    order = np.random.default_rng(0).permutation(len(views)).tolist()
    batch = views.__getitems__(order)
    assert {key: value.dtype for key, value in batch.items()} == {
        "image": torch.uint8,
        "model": torch.int64,
        "azimuth": torch.float32,
        "elevation": torch.float32,
        "stretch": torch.float32,
    }
    for i, place in enumerate(order):
        row = rows.loc[place]
        image = dataset.image(row["index"])
        assert np.array_equal(batch["image"][i], image.transpose(2, 0, 1))
        assert views.model_ids[batch["model"][i]] == row.model_id
        assert np.degrees(batch["azimuth"][i].item()) == pytest.approx(row.azimuth, rel=1e-5)
        assert np.degrees(batch["elevation"][i].item()) == pytest.approx(row.elevation, rel=1e-5)
        assert all(torch.equal(views[place][key], batch[key][i]) for key in batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_loader(dataset, workers):
    views = ViewDataset(dataset, "train")
    loader = DataLoader(views, batch_size=6, num_workers=workers, collate_fn=ViewDataset.collate)
    batches = list(loader)
    assert [tuple(b["image"].shape) for b in batches] == [
        (6, 4, 48, 48),
        (6, 4, 48, 48),
        (4, 4, 48, 48),
    ]
    assert torch.equal(torch.cat([b["model"] for b in batches]), torch.arange(4).repeat_interleave(4))


def test_overlay_covers_every_mask_and_sees_a_wrong_camera(dataset):
    ious = overlay(dataset, dataset.views)
    assert len(ious) == len(dataset.views)
    assert ious.min() > 0.99
    some = dataset.views.sample(8, random_state=0)
    assert np.array_equal(overlay(dataset, some), ious[some.index])
    assert overlay(dataset, some.assign(azimuth=some.azimuth + 30)).max() < 0.9
    assert overlay(dataset, some.assign(focal=some.focal * 1.1)).max() < 0.95


def test_pickles_carry_no_pixels(dataset):
    views = ViewDataset(dataset, "train")
    views[0]
    data = pickle.dumps(views)
    assert len(data) < dataset.images.nbytes / 4
    assert torch.equal(pickle.loads(data)[3]["image"], views[3]["image"])


def test_training_needs_neither_vtk_nor_trimesh():
    code = (
        "import sys, i2m_lib.dataset.dataset, i2m_lib.dataset.cleaning, i2m_lib.dataset.shapenet\n"
        "assert not {'vtk', 'vtkmodules', 'pyvista', 'trimesh'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

import numpy as np
import pytest
import torch

from i2m_lib.learning import device
from i2m_lib.learning.batches import Batches, ViewDataset, balanced
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import models_of

DTYPES = {"image": torch.uint8, "model": torch.int64}


@pytest.mark.parametrize("split", ["train", "val"])
def test_views_are_those_of_their_split(dataset, split):
    views, model_ids = ViewDataset(dataset, split), models_of(dataset)
    assert model_ids == dataset.select("train").model_id.tolist() + dataset.select("val").model_id.tolist()
    rows = dataset.views[dataset.views.model_id.isin(dataset.select(split).model_id)].reset_index()
    assert len(views) == len(rows)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(views)))
    batch = views.read(order)
    assert list(batch) == ["image", "model", "azimuth", "elevation", "stretch"]
    assert all(value.dtype == DTYPES.get(name, torch.float32) for name, value in batch.items())
    for i, place in enumerate(order.tolist()):
        row = rows.loc[place]
        assert np.array_equal(batch["image"][i], dataset.image(row["index"]).transpose(2, 0, 1))
        assert model_ids[batch["model"][i]] == row.model_id
        assert np.degrees(batch["azimuth"][i].item()) == pytest.approx(row.azimuth, rel=1e-5)
        assert np.degrees(batch["elevation"][i].item()) == pytest.approx(row.elevation, rel=1e-5)
        assert batch["stretch"][i].tolist() == pytest.approx([row.stretch_x, row.stretch_y, row.stretch_z])


def batches(views, epoch, batch_size=4):
    return Batches(views, Settings(1, batch_size, 1e-3, size=32), torch.device("cpu"), epoch)


def test_batches_repeat_by_epoch_and_vary_between_epochs(tiny_run):
    first, again, later = (torch.cat([b["image"] for b in batches(tiny_run.views, epoch)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_a_batch_is_the_same_whichever_came_before(tiny_run):
    expected = [b["image"] for b in batches(tiny_run.views, 3)]
    jumping = batches(tiny_run.views, 3)
    for i in (2, 0, 1, 3):
        assert torch.equal(jumping[i]["image"], expected[i])
    with pytest.raises(IndexError):
        jumping[len(expected)]


@pytest.mark.parametrize("epoch", [0, None])
def test_shares_of_processes_make_up_the_batch(tiny_run, monkeypatch, epoch):
    whole = batches(tiny_run.views, epoch)[1]
    parts = []
    for rank in range(2):
        monkeypatch.setattr("i2m_lib.learning.batches.share", lambda rank=rank: device.Share(rank, 2))
        parts.append(batches(tiny_run.views, epoch)[1])
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), value)
    with pytest.raises(ValueError, match="a batch of 3 cannot be divided among 2 processes"):
        batches(tiny_run.views, epoch, batch_size=3)


def test_validation_sees_every_view_once_in_order(tiny_run):
    found = list(batches(tiny_run.views, None, batch_size=3))
    assert torch.cat([b["model"] for b in found]).tolist() == tiny_run.views.model.tolist()
    assert len(found[-1]["model"]) == len(tiny_run.views) % 3 or 3


def test_categories_are_drawn_equally_often(dataset, tiny_run):
    synsets = dataset.models.set_index("model_id").synset.loc[models_of(dataset)]
    weight = balanced(tiny_run.views)
    shares = [float(weight[torch.tensor((synsets == s).to_numpy())[tiny_run.views.model]].sum()) for s in set(synsets)]
    assert shares == pytest.approx([1.0] * len(shares))

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from i2m_lib.learning.training import Schedule, Trainer

SCHEDULE = Schedule(epochs=4, lr=0.05)


class KilledError(Exception):
    """Stands for SIGKILL: nothing after the callback runs."""


def make(folder, schedule=SCHEDULE, callbacks=(), factor=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def batches(split, epoch):
        generator = torch.Generator().manual_seed(epoch if split == "train" else 99)
        x = torch.randn(5, 16, 3, generator=generator)
        return [{"x": b, "y": b.sum(1, keepdim=True)} for b in x]

    def step(batch):
        return {"fit": factor * (model(batch["x"]) - batch["y"]).square().mean()}

    return Trainer(model, step, batches, schedule, folder, callbacks)


def test_it_learns_and_tells_how(tmp_path):
    told = []
    history = make(tmp_path, callbacks=[lambda rows: told.append(len(rows))]).run()
    assert history.epoch.tolist() == told == [1, 2, 3, 4]
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert history.val_loss.iloc[-1] < history.val_loss.iloc[0]


@pytest.mark.parametrize("after", [1, 3])
def test_killed_and_resumed_is_bitwise_the_same(tmp_path, after):
    whole = make(tmp_path / "whole")
    whole.run()

    def kill(history):
        if len(history) == after:
            raise KilledError

    with pytest.raises(KilledError):
        make(tmp_path / "resumed", callbacks=[kill]).run()
    resumed = make(tmp_path / "resumed")
    history = resumed.run()
    assert len(history) == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(tmp_path):
    make(tmp_path).run()
    again = make(tmp_path, callbacks=[lambda rows: pytest.fail("trained again")])
    assert len(again.run()) == 4


def test_one_checkpoint_is_kept_and_it_is_no_pickle(tmp_path):
    make(tmp_path).run()
    (path,) = tmp_path.glob("checkpoint_*")
    assert {name.split(".")[0] for name in load_file(path)} == {"model", "optimizer"}


def test_another_schedule_does_not_resume(tmp_path):
    make(tmp_path).run()
    with pytest.raises(ValueError, match="to start anew"):
        make(tmp_path, Schedule(epochs=9, lr=0.05)).run()


def test_a_loss_that_explodes_is_named(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        make(tmp_path, factor=math.nan).run()


def test_warm_up_and_cosine_decay():
    schedule = Schedule(epochs=1, lr=1, warmup=0.2)
    assert schedule.factor(0.1) == pytest.approx(0.5)
    assert schedule.factor(0.2) == pytest.approx(1)
    assert schedule.factor(0.6) == pytest.approx(0.5)
    assert schedule.factor(1) == pytest.approx(0)

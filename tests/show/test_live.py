from types import SimpleNamespace

import torch

from i2m_lib.learning.trainer import Schedule
from i2m_lib.show import live


def trainer(position, n_epochs):
    row = {"train_loss": 1.0, "val_loss": 2.0}
    history = [{"epoch": e + 1, **row} for e in range(n_epochs)]
    sums = {"loss": torch.tensor(6.0), "n": torch.tensor(4.0)}
    return SimpleNamespace(position=position, n_steps=3, history=history, sums=sums, schedule=Schedule(5, 1e-3))


def test_nobody_watches_papermill(monkeypatch, capsys):
    monkeypatch.setattr(live, "watched", lambda: False)
    callback = live.Live()
    callback(trainer(1, 0))
    assert callback.bar is None
    assert capsys.readouterr() == ("", "")


def test_in_jupyterlab_a_bar_fills_and_curves_grow(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "03_training.ipynb")
    shown = []
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setattr(live, "display", lambda figure, display_id: shown.append(figure) or handle)
    callback = live.Live()
    for position in (1, 2, 3):
        callback(trainer(position, 0))
    assert (callback.bar.n, callback.bar.total) == (3, 3)
    assert "loss=1.500" in str(callback.bar)
    callback(trainer(0, 1))
    assert callback.bar is None
    callback(trainer(2, 1))  # resumed in the middle of an epoch
    assert callback.bar.n == 2
    callback(trainer(0, 2))
    assert len(shown) == 2
    assert [len(axis.lines[0].get_xdata()) for axis in (f.axes[0] for f in shown)] == [1, 2]

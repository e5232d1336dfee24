import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from i2m_lib.artefacts import Key, StaleError, device, read_key
from i2m_lib.learning.device import process_group, share
from i2m_lib.learning.trainer import Budget, Schedule, Trainer, seed_of

SCHEDULE = Schedule(epochs=4, lr=0.02)
N_STEPS = 5


class KilledError(Exception):
    """Stands for SIGKILL: nothing after the callback runs."""


def key(**parameters):
    return Key("test", 1, parameters, {"dataset": "abc"})


KEY = key()


def make(folder, schedule=SCHEDULE, callbacks=(), factor=1.0, norm=True, n_val=2, size=16, made_of=KEY, **options):
    """A training whose convolution is kept channels-last and whose dropout draws random numbers."""
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(8) if norm else nn.Identity()
    layers = [nn.Conv2d(3, 8, 3), middle, nn.Dropout(0.1 if norm else 0.0), nn.Flatten(), nn.Linear(32, 1)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def batches(split, epoch):
        generator = torch.Generator().manual_seed(epoch if split == "train" else 99)
        x = torch.randn(N_STEPS if split == "train" else n_val, 16, 3, 4, 4, generator=generator)
        x, mine = (x, share().of(16)) if split == "train" else (x[:, :size], share().of(size))
        return [{"x": b[mine], "y": b[:, 0].mean((1, 2))[mine, None]} for b in x]

    def step(network, batch):
        return {"fit": factor * (network(batch["x"]) - batch["y"]).square().mean()}

    return Trainer(model, step, batches, schedule, folder, made_of, callbacks, **options)


def assert_same_weights(a: dict, b: dict):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_it_learns_and_tells_how(tmp_path):
    told = []
    history = make(tmp_path, callbacks=[lambda trainer: told.append((len(trainer.history), trainer.position))]).run()
    assert history.epoch.tolist() == [1, 2, 3, 4]
    assert told == [(epoch + (step == 0), step) for epoch in range(4) for step in (1, 2, 3, 4, 5, 0)]
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert history.val_loss.iloc[-1] < history.val_loss.iloc[0]
    assert pd.read_parquet(tmp_path / "history.parquet").equals(history)


def test_a_training_ends_where_it_always_did(tmp_path):
    """Where it does not, networks change: raise VERSION of `train`, `learning_ffd` and `paper`. The number of threads
    changes how sums are rounded, and with it the end by a hundredth."""
    assert make(tmp_path).run().val_loss.iloc[-1] == pytest.approx(0.036, rel=3e-2)


@pytest.mark.parametrize(("after", "save_seconds"), [(1, 0.0), (7, 0.0), (7, 60.0), (10, 60.0), (12, 0.0)])
def test_stopped_at_any_step_and_resumed_is_bitwise_the_same(tmp_path, after, save_seconds):
    whole = make(tmp_path / "whole")
    expected = whole.run()

    def kill(trainer):
        if trainer.position and len(trainer.history) * N_STEPS + trainer.position == after:
            raise KilledError

    with pytest.raises(KilledError):
        make(tmp_path / "resumed", callbacks=[kill], save_seconds=save_seconds).run()
    resumed = make(tmp_path / "resumed")
    history = resumed.run()
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True)
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict())


def test_a_killed_process_leaves_a_checkpoint_that_ends_the_same(tmp_path):
    """All in processes of their own: what else a process has loaded may change how its sums are rounded."""
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_trainer import make
def tell(trainer):
    print(trainer.position, flush=True)
    time.sleep(float(sys.argv[2]))
make(sys.argv[1], callbacks=[tell], save_seconds=0.0).run()
"""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", code, killed, "0.05"], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(8):  # into the second epoch
            process.stdout.readline()
        time.sleep(0.03)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = json.loads((killed / "checkpoint.json").read_text())
    assert 0 < len(left["history"]) < 4
    for folder in (killed, whole):
        subprocess.run([sys.executable, "-c", code, folder, "0"], stdout=subprocess.DEVNULL, check=True)
    ends = [load_file(next(folder.glob("checkpoint_4_0.*"))) for folder in (killed, whole)]
    assert_same_weights(*ends)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = make(tmp_path)
    first.run()
    again = make(tmp_path, callbacks=[lambda trainer: pytest.fail("trained again")])
    assert len(again.run()) == 4
    assert_same_weights(first.model.state_dict(), again.model.state_dict())


def test_the_best_weights_are_kept_and_patience_ends(tmp_path):
    """Validation gets worse from the third epoch on: its target is what the model said after the second."""
    states = []
    trainer = make(tmp_path, Schedule(epochs=9, lr=0.02, patience=2))
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.1])
    trainer.validate = lambda: (
        states.append({k: v.clone() for k, v in trainer.model.state_dict().items()}) or {"loss": next(losses)}
    )
    history = trainer.run()
    assert history.val_loss.tolist() == [3.0, 1.0, 2.0, 1.5]
    assert_same_weights(trainer.model.state_dict(), states[1])


def test_a_measure_and_not_the_loss_says_which_weights_are_best(tmp_path):
    """The loss falls in each epoch; what is measured is least after the second, and patience counts from there."""
    values, states = iter([0.3, 0.1, 0.2, 0.4]), []

    def measure(model, batch):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return torch.tensor(next(values))

    trainer = make(tmp_path, Schedule(epochs=9, lr=0.02, patience=2), n_val=1, measure=measure)
    history = trainer.run()
    assert history.val_chamfer_l1.tolist() == pytest.approx([0.3, 0.1, 0.2, 0.4])
    assert history.val_loss.is_monotonic_decreasing
    assert_same_weights(trainer.model.state_dict(), states[1])


def test_without_validation_the_last_weights_are_kept(tmp_path):
    trainer = make(tmp_path, n_val=0)
    assert "val_loss" not in trainer.run()
    assert trainer.best["epoch"] == 4


def test_only_two_files_of_weights_are_kept_and_they_are_no_pickle(tmp_path):
    make(tmp_path, save_seconds=0.0).run()
    best, checkpoint = sorted(tmp_path.glob("*.safetensors"))
    assert best.name.startswith("best_")
    assert {name.split(".")[0] for name in load_file(checkpoint)} == {"model", "optimizer"}


@pytest.mark.parametrize(
    ("other", "clause"),
    [
        (key(size=96), "size is 64, not 96"),
        (Key("test", 2, {"size": 64}, {"dataset": "abc"}), "version is 1, not 2"),
        (Key("test", 1, {"size": 64}, {"dataset": "def"}), "its dataset is another"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_training_with_another_key_is_made_anew(tmp_path, caplog, other, clause, finished):
    def kill(trainer):
        if not finished and len(trainer.history) == 2:
            raise KilledError

    first = make(tmp_path, callbacks=[kill], made_of=key(size=64))
    with nullcontext() if finished else pytest.raises(KilledError):
        first.run()
    started = []
    with caplog.at_level("INFO", "i2m_lib"):
        again = make(tmp_path, callbacks=[lambda trainer: started.append(trainer.position)], made_of=other)
        assert len(again.run()) == 4
    assert len(started) == 4 * (N_STEPS + 1)
    assert clause in caplog.text and "made anew" in caplog.text
    assert read_key(tmp_path) == other


def test_a_half_made_training_has_an_unfinished_key(tmp_path):
    def kill(trainer):
        if len(trainer.history) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        make(tmp_path, callbacks=[kill]).run()
    assert read_key(tmp_path) is None
    assert read_key(tmp_path, finished=False) == key()
    make(tmp_path).run()
    assert read_key(tmp_path) == key()


def test_files_without_a_key_are_not_deleted(tmp_path):
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(StaleError, match="files without a key"):
        make(tmp_path).run()
    assert (tmp_path / "checkpoint.json").is_file()


def test_a_budget_is_the_sum_of_the_trainings_below_a_folder(tmp_path):
    assert Budget.of(tmp_path) == Budget()
    histories = [make(tmp_path / name, n_views=80).run() for name in ("a/training", "b")]
    budget = Budget.of(tmp_path)
    assert (budget.views, budget.steps) == (160, 2 * 4 * N_STEPS)
    assert budget.seconds == pytest.approx(sum(history.seconds.sum() for history in histories))
    assert budget.device == device()
    assert Budget.of(tmp_path / "b").steps == 4 * N_STEPS


def test_a_loss_that_explodes_is_named_and_not_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        make(tmp_path, factor=math.nan, save_seconds=0.0).run()
    assert not list(tmp_path.glob("*.safetensors"))


def test_warm_up_and_cosine_decay():
    schedule = Schedule(epochs=1, lr=1, warmup=0.2)
    assert schedule.factor(0.1) == pytest.approx(0.5)
    assert schedule.factor(0.2) == pytest.approx(1)
    assert schedule.factor(0.6) == pytest.approx(0.5)
    assert schedule.factor(1) == pytest.approx(0)


def test_seeds_differ_by_each_of_their_numbers():
    assert len({seed_of(a, b, c) for a in range(4) for b in range(4) for c in range(4)}) == 64
    assert seed_of(1, 2) == seed_of(1, 2)


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def train_share(folder, size):
    """What torchrun runs once a process, in the environment that it sets."""
    with process_group(torch.device("cpu")):
        trainer = make(folder, norm=False, size=size)
        trainer.run()
        state = {k: v.contiguous() for k, v in trainer.model.state_dict().items()}
        save_file(state, folder / f"rank_{share().rank}.safetensors")


@pytest.mark.parametrize("size", [16, 1], ids=["", "one without rows of validation"])
def test_two_processes_learn_as_one_does(tmp_path, monkeypatch, size):
    """The same curve as of one process with the whole, that is the doubled, batch, to rounding."""
    one, two = make(tmp_path / "one", norm=False, size=size), tmp_path / "two"
    expected = one.run()
    make(two, norm=False, made_of=key(size=64)).run()  # both processes begin anew
    torchrun = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    other = os.environ | {"RANK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, __file__, two, str(size)], env=other) as process:
        train_share(two, size)
    assert process.returncode == 0
    history = pd.read_parquet(two / "history.parquet")
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-4)
    ranks = [load_file(two / f"rank_{rank}.safetensors") for rank in range(2)]
    assert_same_weights(*ranks)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    train_share(Path(sys.argv[1]), int(sys.argv[2]))

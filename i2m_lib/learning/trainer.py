"""A small trainer: it knows batches, a step and a folder, and nothing of the model.

All randomness comes from (seed, epoch, step), and a checkpoint holds everything else. A run that is killed at any step
and resumed ends exactly as an undisturbed one.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from i2m_lib.artefacts import Key, keep, key_file
from i2m_lib.files import save_json, save_parquet

from .checkpoints import read_state, write_state, write_tensors
from .device import parallel, share, total, wait_for_all

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]  # or outputs of a network, or terms of a loss
Step = Callable[[nn.Module, Batch], Batch]
Callbacks = Iterable[Callable[["Trainer"], None]]
SELECTED_BY = "chamfer_l1"  # the measure that decides which weights are best


@dataclass(frozen=True)
class Schedule:
    """`lr`, the highest learning rate, has a linear warm-up over the share `warmup` of all steps and a cosine decay to
    zero; `shares`: of parameters whose names begin so, their share of it; `clip`: highest norm of gradients;
    `patience`: epochs without better weights on validation before training stops, 0 for never."""

    epochs: int
    lr: float
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 0
    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)

    def factor(self, progress: float) -> float:
        """Learning rate divided by `lr` at `progress` in [0, 1] of the run."""
        if progress < self.warmup:
            return progress / self.warmup
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


@dataclass(frozen=True)
class Budget:
    """What a method was trained on: different views, optimiser steps, seconds and device; nothing if it was not."""

    views: int = 0
    steps: int = 0
    seconds: float = 0.0
    device: str = ""

    @classmethod
    def of(cls, folder: str | Path) -> "Budget":
        """The sum over all trainings in and below a folder. The device is known once a training is finished."""
        views, steps, seconds, devices = 0, 0, 0.0, {}
        for path in sorted(Path(folder).rglob("checkpoint.json")):
            content = json.loads(path.read_text())
            views += content["views"]
            steps += len(content["history"]) * content["n_steps"] + content["position"]
            seconds += sum(row["seconds"] for row in content["history"]) + content["seconds"]
            devices[json.loads(key_file(path.parent).read_text()).get("device")] = None
        return cls(views, steps, seconds, ", ".join(filter(None, devices)))


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Trainer:
    """Trains `model` by `step(model, batch) -> {name: loss term}`, whose sum is minimised. `run` leaves it with the
    weights that are best on validation; without validation, with the last ones.

    Args:
        batches: batches(split, epoch) -> a sequence of batches on the device; "train" varies by epoch, "val" may be
            empty. Under torchrun each process is given its share of every batch.
        folder: receives checkpoint.json, the tensors it names, history.parquet and key.json.
        key: of everything that determines the result. A training in `folder` with the same key is continued or, if
            finished, loaded; one with another key is deleted and made anew.
        callbacks: each is called with the trainer after every step and every epoch; `position` is 0 after an epoch.
        n_views: how many different views train, for `Budget`.
        measure: measure(model, batch) -> mean over a batch of validation, SELECTED_BY in the history: where it is given
            it says, instead of the loss, which weights are best.
        save_seconds: time between checkpoints within an epoch; each epoch ends with one.
    """

    def __init__(
        self, model: nn.Module, step: Step, batches: Callable[[str, int], Sequence[Batch]], schedule: Schedule,
        folder: str | Path, key: Key, callbacks: Callbacks = (), n_views: int = 0, save_seconds: float = 60.0,
        measure: Callable[[nn.Module, Batch], Tensor] | None = None,
    ):  # fmt: skip
        self.model, self.step, self.batches, self.schedule, self.key = model, step, batches, schedule, key
        self.folder, self.callbacks = Path(folder), list(callbacks)
        self.n_views, self.save_seconds, self.measure = n_views, save_seconds, measure
        groups: dict[tuple, list] = {}  # by weight decay, which vectors do not have, and share of the learning rate
        for name, p in model.named_parameters():
            share_of_lr = next((x for prefix, x in schedule.shares.items() if name.startswith(prefix)), 1.0)
            groups.setdefault((schedule.weight_decay * (p.ndim > 1), share_of_lr), []).append(p)
        options = [{"params": ps, "weight_decay": decay, "share": s} for (decay, s), ps in groups.items()]
        self.optimizer = torch.optim.AdamW(options, lr=schedule.lr)
        self.history: list[dict] = []
        self.position, self.n_steps, self.sums, self.seconds = 0, 1, {}, 0.0  # within the epoch
        self.best = {"epoch": 0, "loss": math.inf}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or validation has not improved for `patience` epochs."""
        done, patience = len(self.history), self.schedule.patience
        return done >= self.schedule.epochs or 0 < patience <= done - self.best["epoch"]

    @property
    def best_file(self) -> Path:
        """The best weights on validation so far."""
        return self.folder / f"best_{self.best['epoch']}.safetensors"

    @property
    def progress(self) -> float:
        """The share of all steps that is done."""
        return (len(self.history) + self.position / self.n_steps) / self.schedule.epochs

    def run(self) -> pd.DataFrame:
        """Trains to the end, from the key's last checkpoint if there is one; returns the history, a row an epoch."""
        # `keep` lets one process delete the files of another key; the others wait for it in `_run`.
        if share().rank or not keep(self.folder, self.key, self._run):
            self._run()
        return pd.DataFrame(self.history)

    def _run(self) -> None:
        wait_for_all()
        self.resume()
        self.parallel, self.saved = parallel(self.model), time.perf_counter()
        while not self.finished:
            start = time.perf_counter() - self.seconds
            self.train(start)
            row = {f"train_{k}": v for k, v in self.means(self.sums).items()}
            row |= {f"val_{k}": v for k, v in self.validate().items()}
            self.close({"epoch": len(self.history) + 1, **row, "seconds": time.perf_counter() - start})
            for callback in self.callbacks:
                callback(self)
        wait_for_all()  # until the first process has written the best weights
        if self.best["epoch"]:
            self.model.load_state_dict(load_file(self.best_file))

    def train(self, start: float) -> None:
        """The rest of an epoch."""
        epoch, seed = len(self.history), self.schedule.seed
        batches = self.batches("train", epoch)
        self.n_steps = len(batches)
        self.parallel.train()
        for i in range(self.position, self.n_steps):
            torch.manual_seed(seed_of(seed, epoch, i, share().rank))  # for layers that draw, such as dropout
            batch = batches[i]
            terms = self.step(self.parallel, batch)
            self.position, self.seconds = i + 1, time.perf_counter() - start
            self.update(sum(terms.values()))
            self.add(self.sums, terms, batch)
            if time.perf_counter() - self.saved >= self.save_seconds:
                self.save()
            for callback in self.callbacks:
                callback(self)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean of each term, and of the measure, over the validation batches; empty if there are none."""
        self.model.eval()
        measured = [SELECTED_BY] if self.measure else []
        # Without a row, too, a process takes part in the sum over processes.
        sums = dict.fromkeys([*self.sums, *measured], 0.0)
        for batch in self.batches("val", 0):
            if len(next(iter(batch.values()))):  # the last batch may leave nothing for this process
                found = {name: self.measure(self.model, batch) for name in measured}
                self.add(sums, self.step(self.model, batch), batch, **found)
        return self.means(sums)

    def update(self, loss: Tensor) -> None:
        """One optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.schedule.lr * self.schedule.factor(self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        self.optimizer.step()

    @staticmethod
    def add(sums: dict, terms: dict[str, Tensor], batch: Batch, **measured: Tensor) -> None:
        """Adds a batch's terms and what was measured, weighted by its length, without waiting for the device."""
        n = len(next(iter(batch.values())))
        for name, value in {**terms, "loss": sum(terms.values()), **measured, "n": torch.ones(())}.items():
            sums[name] = sums.get(name, 0.0) + value.detach().double() * n

    def means(self, sums: dict) -> dict[str, float]:
        """Means over all views of all processes; empty without views. Raises FloatingPointError if not finite."""
        options = {"dtype": torch.float64, "device": next(self.model.parameters()).device}
        values = total(torch.stack([torch.as_tensor(v, **options) for v in sums.values()])).tolist()
        self.check(sum(values))
        found = dict(zip(sums, values, strict=True))
        n = found.pop("n")
        return {name: value / n for name, value in found.items()} if n else {}

    def check(self, loss: float) -> None:
        """Raises FloatingPointError if the loss is not finite."""
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is no longer finite: lower the learning rate ({self.schedule.lr}).")

    def close(self, row: dict) -> None:
        """Ends an epoch: history, best weights, checkpoint."""
        self.history.append(row)
        self.position, self.sums, self.seconds = 0, {}, 0.0
        loss = row.get("val_loss", -len(self.history))  # without validation the last is the best
        loss = row.get(f"val_{SELECTED_BY}", loss)
        if loss < self.best["loss"]:
            self.best = {"epoch": len(self.history), "loss": loss}
            if share().rank == 0:
                write_tensors(self.best_file, self.model.state_dict())
        self.save()
        if share().rank == 0:
            losses = "".join(f"{s} {row[f'{s}_loss']:.4f}, " for s in ("train", "val") if f"{s}_loss" in row)
            log.info("epoch %d/%d: %s%.0f s", row["epoch"], self.schedule.epochs, losses, row["seconds"])

    def save(self) -> None:
        """Writes model, optimiser and position. The json is written last: tensors that it does not name are ignored."""
        self.saved = time.perf_counter()
        sums = {k: float(v) for k, v in self.sums.items()}
        self.check(sum(sums.values()))
        if share().rank:
            return
        name = f"checkpoint_{len(self.history)}_{self.position}.safetensors"
        write_state(self.folder / name, self.model, self.optimizer)
        content = {"file": name, "views": self.n_views, "n_steps": self.n_steps, "sums": sums}
        content |= {k: getattr(self, k) for k in ("position", "seconds", "best", "history")}
        save_json(self.folder / "checkpoint.json", content)
        save_parquet(self.folder / "history.parquet", pd.DataFrame(self.history))
        for old in self.folder.glob("*.safetensors"):
            if old not in (self.folder / name, self.best_file):
                old.unlink()

    def resume(self) -> None:
        """Loads the last checkpoint if there is one."""
        path = self.folder / "checkpoint.json"
        if not path.is_file():
            return
        content = json.loads(path.read_text())
        read_state(self.folder / content["file"], self.model, self.optimizer)
        for name in ("history", "position", "sums", "seconds", "best"):
            setattr(self, name, content[name])
        log.info("resumed after epoch %d, step %d", len(self.history), self.position)

"""A small trainer: it knows batches, a step and a folder, and nothing of the model.

Everything random comes from (seed, epoch, step), and a checkpoint holds all the rest, so a run that is killed at any
step and resumed goes on exactly as it would have.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from i2m_lib.files import save_json, save_parquet

from .checkpoints import read_state, write_state, write_tensors
from .distributed import parallel, share, total

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Schedule:
    """Epochs, learning rate with linear warm-up over `warmup` of all steps and cosine decay to zero, weight decay,
    norm that gradients are clipped to; `patience`: epochs without a better validation loss before training stops,
    0 for never."""

    epochs: int
    lr: float
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 0
    seed: int = 0

    def factor(self, progress: float) -> float:
        """Learning rate over `lr` at `progress` in [0, 1] of the run."""
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


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def length(batch: Batch) -> int:
    """How many views a batch has."""
    return len(next(iter(batch.values())))


class Trainer:
    """Trains `model` by `step(model, batch) -> {name: loss term}`, whose sum is minimised.

    Args:
        batches: batches(split, epoch) -> a sequence of batches, already on the device; "train" varies by epoch, "val"
            may be empty. Under torchrun each process is given its share of every batch.
        folder: receives checkpoint.json, the tensors it names and history.parquet.
        callbacks: each is called with the trainer after every step and every epoch; `position` is 0 after an epoch.
        settings: what else defines the run, to be found again in a checkpoint that is resumed.
        save_seconds: time between checkpoints within an epoch; one follows each epoch in any case.

    The best weights on validation are in the model when `run` returns; without validation, the last ones.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Callable[[nn.Module, Batch], dict[str, Tensor]],
        batches: Callable[[str, int], Sequence[Batch]],
        schedule: Schedule,
        folder: str | Path,
        callbacks: Iterable[Callable[["Trainer"], None]] = (),
        settings: dict | None = None,
        save_seconds: float = SAVE_SECONDS,
    ):
        self.model, self.step, self.batches, self.schedule = model, step, batches, schedule
        self.folder, self.callbacks, self.save_seconds = Path(folder), list(callbacks), save_seconds
        self.made_with = asdict(schedule) | (settings or {})
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.lr)
        self.history: list[dict] = []
        self.position, self.n_steps, self.sums, self.seconds = 0, 1, {}, 0.0  # within the epoch
        self.best = {"epoch": 0, "loss": math.inf}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or validation has not got better for `patience` of them."""
        done, patience = len(self.history), self.schedule.patience
        return done >= self.schedule.epochs or 0 < patience <= done - self.best["epoch"]

    @property
    def best_file(self) -> Path:
        return self.folder / f"best_{self.best['epoch']}.safetensors"

    @property
    def progress(self) -> float:
        """Share of all steps that are done."""
        return (len(self.history) + self.position / self.n_steps) / self.schedule.epochs

    def run(self) -> pd.DataFrame:
        """Trains from the last checkpoint, or from the start, to the end; returns the history, a row an epoch."""
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
        total(torch.zeros(1, device=next(self.model.parameters()).device))  # until the first process has written
        if self.best["epoch"]:
            self.model.load_state_dict(load_file(self.best_file))
        return pd.DataFrame(self.history)

    def train(self, start: float) -> None:
        """The rest of an epoch."""
        epoch, seed = len(self.history), self.schedule.seed
        batches = self.batches("train", epoch)
        self.n_steps = len(batches)
        self.parallel.train()
        for i in range(self.position, self.n_steps):
            torch.manual_seed(seed_of(seed, epoch, i, share().rank))  # what layers draw, such as dropout
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
        """Mean of each term on the validation batches; nothing if there are none."""
        self.model.eval()
        sums = {}
        for batch in self.batches("val", 0):
            if length(batch):  # the last batch may leave nothing for this process
                self.add(sums, self.step(self.model, batch), batch)
        return self.means(sums)

    def update(self, loss: Tensor) -> None:
        """One optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * self.schedule.factor(self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        self.optimizer.step()

    @staticmethod
    def add(sums: dict, terms: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch's terms, weighted by its length, without waiting for the device."""
        for name, value in {**terms, "loss": sum(terms.values()), "n": torch.ones(())}.items():
            sums[name] = sums.get(name, 0.0) + value.detach().double() * length(batch)

    def means(self, sums: dict) -> dict[str, float]:
        """Means over all views of all processes. Raises FloatingPointError if they are not finite."""
        if not sums:
            return {}
        device = next(self.model.parameters()).device
        *values, n = total(torch.stack([torch.as_tensor(v, device=device) for v in sums.values()])).tolist()
        self.check(sum(values))
        return dict(zip([name for name in sums if name != "n"], (v / n for v in values), strict=True))

    def check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is no longer finite: lower the learning rate ({self.schedule.lr}).")

    def close(self, row: dict) -> None:
        """Ends an epoch: history, best weights, checkpoint."""
        self.history.append(row)
        self.position, self.sums, self.seconds = 0, {}, 0.0
        loss = row.get("val_loss", -len(self.history))  # without validation the last is the best
        if loss < self.best["loss"]:
            self.best = {"epoch": len(self.history), "loss": loss}
            if share().rank == 0:
                write_tensors(self.best_file, self.model.state_dict())
        self.save()
        if share().rank == 0:
            losses = [f"{split} {row[f'{split}_loss']:.4f}" for split in ("train", "val") if f"{split}_loss" in row]
            text = ", ".join([*losses, f"{row['seconds']:.0f} s"])
            log.info("epoch %d/%d: %s", row["epoch"], self.schedule.epochs, text)

    def save(self) -> None:
        """Model, optimiser and position, each file whole. The json comes last: it vouches for the tensors."""
        self.saved = time.perf_counter()
        sums = {k: float(v) for k, v in self.sums.items()}
        self.check(sum(sums.values()))
        if share().rank:
            return
        name = f"checkpoint_{len(self.history)}_{self.position}.safetensors"
        write_state(self.folder / name, self.model, self.optimizer)
        content = {"file": name, "made_with": self.made_with, "position": self.position, "sums": sums}
        content |= {"seconds": self.seconds, "best": self.best, "history": self.history}
        save_json(self.folder / "checkpoint.json", content)
        save_parquet(self.folder / "history.parquet", pd.DataFrame(self.history))
        for old in self.folder.glob("*.safetensors"):
            if old not in (self.folder / name, self.best_file):
                old.unlink()

    def resume(self) -> None:
        """Loads the last checkpoint if there is one.

        Raises:
            ValueError: it was made with another schedule or other settings.
        """
        path = self.folder / "checkpoint.json"
        if not path.is_file():
            return
        content = json.loads(path.read_text())
        old, new = content.get("made_with", {}), json.loads(json.dumps(self.made_with))
        if differing := [f"{k} = {old.get(k)}, not {v}" for k, v in new.items() if old.get(k) != v]:
            raise ValueError(f"{path} was made with {'; '.join(differing)}: delete {self.folder} to start anew.")
        read_state(self.folder / content["file"], self.model, self.optimizer)
        for name in ("history", "position", "sums", "seconds", "best"):
            setattr(self, name, content[name])
        log.info("resumed after epoch %d, step %d", len(self.history), self.position)

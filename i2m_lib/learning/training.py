"""A small trainer: it knows batches, a step and a folder, and nothing of the model.

Everything random in an epoch comes from (seed, epoch), so a run that is killed and resumed goes on exactly as it
would have; a checkpoint is written after every epoch and moved into place whole.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2m_lib.files import save_json, save_parquet, whole

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """Epochs, learning rate with linear warm-up over `warmup` of all steps and cosine decay to zero, weight decay,
    norm that gradients are clipped to."""

    epochs: int
    lr: float
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0

    def factor(self, progress: float) -> float:
        """Learning rate over `lr` at `progress` in [0, 1] of the run."""
        if progress < self.warmup:
            return progress / self.warmup
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


class Trainer:
    """Trains `model` by `step(batch) -> {name: loss term}`, whose sum is minimised.

    Args:
        batches: batches(split, epoch) -> iterable of batches already on the device; "train" shuffled by epoch.
        folder: receives checkpoint.safetensors, checkpoint.json and history.parquet.
        callbacks: each is called with the history, a list of one dict an epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Callable[[Batch], dict[str, Tensor]],
        batches: Callable[[str, int], Iterable[Batch]],
        schedule: Schedule,
        folder: str | Path,
        callbacks: Iterable[Callable[[list[dict]], None]] = (),
    ):
        self.model, self.step, self.batches, self.schedule = model, step, batches, schedule
        self.folder, self.callbacks = Path(folder), list(callbacks)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.lr)
        self.history: list[dict] = []

    def run(self) -> pd.DataFrame:
        """Trains from the last checkpoint, or from the start, to the end; returns the history."""
        self.resume()
        for epoch in range(len(self.history), self.schedule.epochs):
            start = time.perf_counter()
            train = self.epoch("train", epoch)
            val = self.epoch("val", epoch)
            row = {f"{split}_{k}": v for split, terms in (("train", train), ("val", val)) for k, v in terms.items()}
            self.history.append({"epoch": epoch + 1, **row, "seconds": time.perf_counter() - start})
            self.save()
            log.info(
                "epoch %d/%d: train %.4f, val %.4f, %.0f s",
                epoch + 1,
                self.schedule.epochs,
                row["train_loss"],
                row.get("val_loss", math.nan),
                self.history[-1]["seconds"],
            )
            for callback in self.callbacks:
                callback(self.history)
        return pd.DataFrame(self.history)

    def epoch(self, split: str, epoch: int) -> dict[str, float]:
        """One pass; mean of each term and of their sum."""
        training = split == "train"
        self.model.train(training)
        sums, count = {}, 0
        batches = self.batches(split, epoch)
        n_steps = len(batches)
        with torch.set_grad_enabled(training):
            for i, batch in enumerate(batches):
                terms = self.step(batch)
                loss = sum(terms.values())
                if training:
                    self.update(loss, (epoch + (i + 1) / n_steps) / self.schedule.epochs)
                for name, term in {**terms, "loss": loss}.items():
                    sums[name] = sums.get(name, 0.0) + float(term.detach())
                count += 1
        return {name: total / count for name, total in sums.items()}

    def update(self, loss: Tensor, progress: float) -> None:
        """One optimiser step. Raises FloatingPointError if the loss is not finite."""
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss.detach().item()}: lower the learning rate ({self.schedule.lr})."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * self.schedule.factor(progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        self.optimizer.step()

    def save(self) -> None:
        """Model, optimiser and history, each file whole. The json comes last: it vouches for the tensors."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        name = f"checkpoint_{len(self.history)}.safetensors"
        with whole(self.folder / name) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
        save_json(
            self.folder / "checkpoint.json",
            {"file": name, "schedule": asdict(self.schedule), "history": self.history},
        )
        save_parquet(self.folder / "history.parquet", pd.DataFrame(self.history))
        for old in self.folder.glob("checkpoint_*.safetensors"):
            if old.name != name:
                old.unlink()

    def resume(self) -> None:
        """Loads the last checkpoint if there is one.

        Raises:
            ValueError: it was made under another schedule.
        """
        path = self.folder / "checkpoint.json"
        if not path.is_file():
            return
        content = json.loads(path.read_text())
        if content["schedule"] != asdict(self.schedule):
            raise ValueError(f"{path} was trained under {content['schedule']}: delete {self.folder} to start anew.")
        tensors = load_file(self.folder / content["file"])
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        state = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".")
                state.setdefault(int(i), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history = content["history"]
        log.info("resumed after epoch %d", len(self.history))

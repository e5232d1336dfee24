"""Training watched in JupyterLab: a bar for the epoch's steps and learning curves that grow by the epoch."""

import os
import time

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from tqdm.auto import tqdm

from i2m_lib.learning.trainer import Trainer
from i2m_lib.progress import watched

from .figures import curves

SECONDS = 0.5  # between updates of the bar


class Live:
    """A callback of `Trainer`."""

    def __init__(self):
        self.bar, self.shown, self.figure = None, 0.0, None

    def __call__(self, trainer: Trainer) -> None:
        if watched():
            (self.step if trainer.position else self.epoch)(trainer)

    def step(self, trainer: Trainer) -> None:
        """Moves the bar of the present epoch."""
        if self.bar is None:
            text = f"epoch {len(trainer.history) + 1}/{trainer.schedule.epochs}"
            self.bar = tqdm(total=trainer.n_steps, initial=trainer.position - 1, desc=text, unit="step", leave=False)
            self.shown = 0.0
        now = time.perf_counter()
        if now - self.shown > SECONDS or trainer.position == trainer.n_steps:
            self.shown = now
            loss = float(trainer.sums["loss"]) / float(trainer.sums["n"])
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self.bar.update(trainer.position - self.bar.n)

    def epoch(self, trainer: Trainer) -> None:
        """Removes the bar and, in JupyterLab, draws the curves anew."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if "JPY_SESSION_NAME" in os.environ:
            figure = curves(pd.DataFrame(trainer.history))
            if self.figure is None:
                self.figure = display(figure, display_id=True)
            else:
                self.figure.update(figure)
            plt.close(figure)

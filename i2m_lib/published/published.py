"""Two published methods trained on the same shapes. Both are told the category, as in their papers."""

from pathlib import Path

from torch import Tensor

from .learning_ffd import FFDAnswer, LearningFFDReconstructor
from .paper import Answer, PaperReconstructor

PUBLISHED = {"learning_ffd": LearningFFDReconstructor, "image2mesh_paper": PaperReconstructor}
TRAINED_IN = {"learning_ffd": "learning_ffd", "image2mesh_paper": "paper"}  # folders of a run


def published_answers(run: str | Path, rgba: Tensor, synsets: list[str]) -> dict[str, list[Answer | FFDAnswer]]:
    """{method: its answers, with V and F} to images (b, 4, h, w) uint8 of the categories `synsets`.

    Raises:
        FileNotFoundError: the run has not trained them.
    """
    return {name: kind.load(run).predict(rgba, synsets) for name, kind in PUBLISHED.items()}

"""TEMPORARY: the old interface, until `evaluation` uses `LearningFFDMethod` and `PaperMethod`; then this file goes."""

from types import SimpleNamespace

import pandas as pd

from i2m_lib.dataset.dataset import Views

from .learning_ffd import LearningFFDMethod
from .paper import PaperMethod


def _old(kind):
    def load(run):
        method = kind.load(run)

        def predict(rgba, synsets):
            answers = method.answer(Views(pd.DataFrame({"synset": synsets}), rgba))
            return [SimpleNamespace(V=V, F=F) for V, F in answers]

        return SimpleNamespace(predict=predict)

    return SimpleNamespace(load=load)


PUBLISHED = {"learning_ffd": _old(LearningFFDMethod), "image2mesh_paper": _old(PaperMethod)}
TRAINED_IN = {"learning_ffd": "learning_ffd", "image2mesh_paper": "paper"}  # folders of a run


def published_answers(run, rgba, synsets):
    return {name: kind.load(run).predict(rgba, synsets) for name, kind in PUBLISHED.items()}

"""The settings of a training run, and model.json, which records how a network was made."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from i2m_lib.artefacts import Key, StaleError, read_key
from i2m_lib.graph.template_graph import TemplateGraph

from .losses import IMPORTANCE, TERMS


@dataclass(frozen=True)
class Settings:
    """backbone, node, weights: of the encoder's trunk (`networks.trunk`), whose learning rate is trunk_lr times lr; its
    modules up to `frozen` do not learn; size: side of its input in pixels; n_code, n_axes: lengths of z and y;
    temperature: of the soft template labels, in canonical units; stretch: of heights in augmentation
    (`images.augment`); batch_size: of all processes together; patience: of early stopping, in epochs, 0 for none;
    without: terms of the loss that are left out."""

    epochs: int
    batch_size: int
    lr: float
    backbone: str = "resnet18"
    node: str = ""
    weights: str | None = None
    trunk_lr: float = 1.0
    frozen: str = ""
    size: int = 96
    n_code: int = 256
    n_axes: int = 24
    temperature: float = 1e-3
    stretch: float = 0.3
    seed: int = 0
    patience: int = 0
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: dict) -> "Settings":
        """From json. Raises ValueError for an unknown name."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"no setting is called {', '.join(sorted(unknown))}.")
        return cls(**values | {"without": tuple(values.get("without", ()))})

    def importance(self) -> dict[str, float]:
        """Weight of each term in the loss. Raises ValueError if `without` has an unknown name."""
        if unknown := set(self.without) - set(TERMS):
            names = ", ".join(sorted(unknown))
            raise ValueError(f"the loss has no term {names}: leave out some of {', '.join(TERMS)}.")
        return {name: 0.0 if name in self.without else value for name, value in IMPORTANCE.items()}


def describe(key: Key, settings: Settings, graph: TemplateGraph, categories: dict[str, str]) -> dict:
    """The content of model.json: digests of the training's key and inputs, settings, templates in the order of the
    network's outputs, and {synset: name} of the categories."""
    made_of = {"key": key.digest, "inputs": key.inputs, "settings": asdict(settings)}
    return made_of | {"templates": _names(graph), "categories": categories}


def read_description(folder: str | Path, graph: TemplateGraph | None = None) -> tuple[dict, Settings]:
    """The content of a folder's model.json, and the settings in it.

    Raises:
        FileNotFoundError: there is no model. StaleError: it was trained with another template graph than `graph`, or
            another training was begun since.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no model: run 03_training first.")
    content, begun = json.loads(path.read_text()), read_key(path.with_name("training"), finished=False)
    graph_digest = content.get("inputs", {}).get("graph")  # not recorded by earlier versions
    if graph is not None and (content["templates"] != _names(graph) or graph_digest not in (None, graph.digest)):
        raise StaleError(f"{path} was trained with another template graph: run 03_training again.")
    if begun is not None and begun.digest != content.get("key"):
        raise StaleError(f"{path} is older than {path.with_name('training')}: run 03_training to its end.")
    return content, Settings.of(content["settings"])


def _names(graph: TemplateGraph) -> list[list[str]]:
    return [[t.synset, t.model_id] for t in graph.templates]

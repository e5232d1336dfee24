"""What defines a training run, and the file beside a model that says what it was."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from i2m_lib.graph.template_graph import TemplateGraph

from .losses import IMPORTANCE, TERMS


@dataclass(frozen=True)
class Settings:
    """What defines a training run.

    backbone, node, weights: the encoder (`networks.Encoder`); size: side of its input in pixels; n_code, n_axes:
    lengths of z and of y; temperature: of the soft template labels, in canonical units; stretch: of
    heights in augmentation (`images.augment`); batch_size: of all processes
    together; patience: of early stopping, in epochs, 0 for none; without: terms of the loss that are left out.
    """

    epochs: int
    batch_size: int
    lr: float
    backbone: str = "resnet18"
    node: str = ""
    weights: str | None = None
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
        """From json. Raises ValueError for a name that no setting has."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"no setting is called {', '.join(sorted(unknown))}.")
        return cls(**values | {"without": tuple(values.get("without", ()))})

    def importance(self) -> dict[str, float]:
        """Weight of each term in the loss. Raises ValueError if `without` names another."""
        if unknown := set(self.without) - set(TERMS):
            raise ValueError(
                f"the loss has no term {', '.join(sorted(unknown))}: leave out some of {', '.join(TERMS)}."
            )
        return {name: 0.0 if name in self.without else value for name, value in IMPORTANCE.items()}


def describe(settings: Settings, graph: TemplateGraph) -> dict:
    """The content of model.json: settings and templates, in the order of the network's outputs."""
    return {"settings": asdict(settings), "templates": [[t.synset, t.model_id] for t in graph.templates]}


def read_description(folder: str | Path, graph: TemplateGraph | None = None) -> tuple[dict, Settings]:
    """model.json of a folder, and the settings therein.

    Raises:
        FileNotFoundError: there is no model. ValueError: it was trained with other templates than `graph` has.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no model: run 03_training first.")
    content = json.loads(path.read_text())
    if graph is not None and content["templates"] != [[t.synset, t.model_id] for t in graph.templates]:
        raise ValueError(f"{path} was trained with other templates than the graph has: run 03_training again.")
    return content, Settings.of(content["settings"])

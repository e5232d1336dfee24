"""Methods that are told the true shape: the limits of recognition and of the representation."""

from functools import lru_cache
from pathlib import Path

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.graph.correspondence import prepare
from i2m_lib.graph.oracles import oracle_fit, oracle_template
from i2m_lib.graph.template_graph import TemplateGraph

from .method import surface_of
from .recognition import Shapes


@lru_cache(maxsize=1)
def graph_at(folder: Path, digest: str) -> TemplateGraph:
    """The graph with this digest in a folder, read once a process."""
    return TemplateGraph.load(folder)


def nearest_shape(dataset: Dataset, view: tuple, shapes: Shapes) -> Surface:
    """The training shape, of any category, with the lowest Chamfer-L1."""
    S = dataset.mesh(view.model_id).S
    target = Target.of(S)
    return surface_of(dataset, min(shapes.nearest(S), key=lambda m: chamfer(dataset.mesh(m).S, target)))


def nearest_template(dataset: Dataset, view: tuple, graph: tuple[Path, str], seed: int) -> Surface:
    """The template of the category, undeformed, with the lowest Chamfer-L1; `graph`: folder and digest."""
    templates = graph_at(*graph).of(view.synset)
    best = templates[oracle_template(prepare(templates, seed), dataset.mesh(view.model_id).S)]
    return best.V, best.F


def fitted_template(dataset: Dataset, view: tuple, graph: tuple[Path, str], seed: int) -> Surface:
    """The template of the category that, with lattice and weights fitted, comes nearest."""
    templates = graph_at(*graph).of(view.synset)
    i, d, a = oracle_fit(templates, prepare(templates, seed), dataset.mesh(view.model_id).S)
    return templates[i].decode(d, a), templates[i].F


def true_shape(dataset: Dataset, view: tuple) -> Surface:
    """The model itself, whose score is the noise of sampling."""
    return surface_of(dataset, view.model_id)

"""Which weights of a training are kept: for every method those whose answers to validation views have the least
Chamfer-L1. Losses differ from method to method, and a term that fades would let an early epoch stay the best."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.batched_nearest import offsets
from i2m_lib.geometry.ffd import Lattice
from i2m_lib.graph.template_graph import TemplateGraph

N_POINTS = 1024  # of each surface


def validation_chamfer(dataset: Dataset, graph: TemplateGraph, device: torch.device) -> Callable[..., Tensor]:
    """A function of a batch of answers: model (b,) counts `targets.models_of` the dataset, all of validation; template
    (b,); displacements dP (b, 64, 3) of its control points. It returns their mean Chamfer-L1, without the linear
    combination, in longest edges; categories are weighted such that the mean of all views is the category mean."""
    models, n_train = dataset.select("val"), len(dataset.select("train"))
    meshes = [dataset.mesh(m) for m in models.model_id]
    share = 1 / models.groupby("synset").model_id.transform("size") / models.synset.nunique()
    arrays = (
        [dataset.mesh(t.model_id).S[:N_POINTS] for t in graph.templates],
        [t.V.min(0) for t in graph.templates],
        [np.ptp(t.V, axis=0) for t in graph.templates],
        [mesh.S[:N_POINTS] for mesh in meshes],
        [np.ptp(mesh.V, axis=0).max() for mesh in meshes],
        share * len(models),
    )
    S, origin, extent, clouds, edge, weight = (torch.from_numpy(np.array(x)).float().to(device) for x in arrays)

    def chamfer_l1(model: Tensor, template: Tensor, dP: Tensor) -> Tensor:
        X, row = S[template], model - n_train
        moved = X + Lattice(origin[template], extent[template]).basis(X) @ dP
        both = sum(x.norm(dim=-1).mean(-1) for x in offsets(moved, clouds[row])) / 2
        return (weight[row] * both / edge[row]).mean()

    return chamfer_l1

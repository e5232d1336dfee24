"""Which part of a network's answers costs most: distances when single parts are replaced by the right ones.

Needs fits of the shapes: 02_template_graph fits those of training and validation, `graph.fits.fit_split` any.
"""

import numpy as np
import pandas as pd
import torch

from i2m_lib.dataset.dataset import Dataset, chunks
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.graph.fits import Fits
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.reconstruction.search import used_weights

from .distances import Distances

VERSION = 1  # Raise it when results change.


def swap_parts(
    dataset: Dataset, reconstructor: Reconstructor, fits: dict[str, Fits], *, split: str = "val", workers: int = 1
) -> pd.DataFrame:
    """Chamfer-L1 (`Distances`) of answers to the first view of each model: synset, model_id, `as predicted`, and with
    the right `template` (deformed as predicted), the right `deformation` or `weights` of the predicted template, or
    `all`. For a template of another category the right parts are not known; they stay as predicted."""
    parts = []
    for chunk in chunks(dataset, dataset.first_views(dataset.select(split), 1)):
        rows = chunk.rows
        swapped = [
            _swap(reconstructor, fits[v.synset], i, v) for v, i in zip(rows.itertuples(), chunk.images, strict=True)
        ]
        surfaces, model_ids = [s for one in swapped for s in one.values()], rows.model_id.repeat(len(swapped[0]))
        values = Distances(dataset).of_all(surfaces, model_ids, workers).reshape(len(rows), -1)
        parts.append(rows[["synset", "model_id"]].join(pd.DataFrame(values, columns=list(swapped[0]))))
    return pd.concat(parts, ignore_index=True)


def _swap(reconstructor: Reconstructor, fits: Fits, image: torch.Tensor, view) -> dict[str, Surface]:
    """The answers to one view, by the column of `swap_parts`."""
    templates, out = reconstructor.graph.templates, reconstructor.outputs(image[None])
    slots = [i for i, t in enumerate(templates) if t.synset == view.synset]
    row = fits.model_ids.tolist().index(view.model_id)
    best, said = slots[int(fits.cost[row].argmin())], int(out["logits"][0].argmax())

    def predicted(t: int) -> tuple[np.ndarray, np.ndarray]:
        d = reconstructor.model.lattice(out["y"][0, [t]], torch.tensor([t]))[0]
        return d.double().numpy(), used_weights(templates[t], out["weights"][0, t].double().numpy())

    def right(t: int) -> tuple[np.ndarray, np.ndarray]:
        if t not in slots:
            return predicted(t)
        k = slots.index(t)
        return fits.d[row, k].astype(float), fits.weights[row, k, : len(templates[t].neighbours)].astype(float)

    (d, a), (right_d, right_a) = predicted(said), right(said)
    answers = {
        "as predicted": (said, d, a),
        "template": (best, *predicted(best)),
        "deformation": (said, right_d, a),
        "weights": (said, d, right_a),
        "all": (best, *right(best)),
    }
    return {name: (templates[t].decode(d, a), templates[t].F) for name, (t, d, a) in answers.items()}

"""Numbers of a tiny graph. Where they change, graphs and fits change: raise `build_graph.VERSION` and add a row."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from i2m_lib.graph.build_graph import VERSION, build_graph

EXPECTED = {
    1: {
        "templates": ["6", "5", "7", "3"],
        "edges": (0.8203, 8.890, 0.22414),
        "neighbours": (102.46, 114.35),
        "fits": (360.38, 1.0096, 29.413),
    }
}


def test_the_graph_of_some_boxes(boxes):
    rows = pd.DataFrame({"model_id": [str(k) for k in range(12)], "synset": "1", "split": ["train"] * 10 + ["val"] * 2})
    dataset = SimpleNamespace(
        models=rows,
        path="boxes",
        select=lambda split, synset=None: rows[rows.split == split],
        mesh=lambda model_id: boxes[0][int(model_id)],
    )
    graph, fits = build_graph(dataset, n_templates=4, seed=0, workers=1)
    wanted, templates, fit = EXPECTED[VERSION], graph.templates, fits["1"]
    assert [t.model_id for t in templates] == wanted["templates"]
    found = [graph.edges[name].sum() for name in ("dist", "iou", "residual")]
    assert found == pytest.approx(wanted["edges"], rel=1e-2)
    found = [sum(np.abs(getattr(t, name)).sum() for t in templates) for name in ("d", "c")]
    assert found == pytest.approx(wanted["neighbours"], rel=1e-2)
    found = [np.abs(getattr(fit, name)).sum() for name in ("d", "cost", "weights")]
    assert found == pytest.approx(wanted["fits"], rel=1e-2)

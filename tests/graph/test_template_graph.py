from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from i2m_lib.artefacts import Key, StaleError, keep
from i2m_lib.graph.template_graph import TemplateGraph, digest_of, original_path


def test_components_and_adjacency(built):
    base = built[0].templates[0]
    edges = {"a": "b", "b": "a", "c": "d", "d": "", "e": "d"}
    chain = TemplateGraph(
        [replace(base, model_id=i, neighbours=tuple(j), d=base.d[:0], c=base.c[:0]) for i, j in edges.items()], None
    )
    assert chain.components(base.synset).tolist() == [0, 0, 1, 1, 1]
    assert np.argwhere(chain.adjacency(base.synset)).tolist() == [[0, 1], [1, 0], [2, 3], [4, 3]]


def test_without_a_category(built):
    graph = built[0]
    rest = graph.without(graph.synsets[0])
    assert rest.synsets == graph.synsets[1:]
    assert rest.templates == graph.of(graph.synsets[1])
    assert set(rest.edges.synset) == {graph.synsets[1]}


def test_the_graph_survives_its_file(built, tmp_path):
    graph = built[0]
    graph.save(tmp_path)
    loaded = TemplateGraph.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.edges, graph.edges)
    for a, b in zip(loaded.templates, graph.templates, strict=True):
        assert (a.synset, a.model_id, a.neighbours) == (b.synset, b.model_id, b.neighbours)
        np.testing.assert_array_equal(a.F, b.F)
        np.testing.assert_allclose(a.correspondence(0), b.correspondence(0), atol=2e-3)


def test_a_newer_file_is_refused(built, tmp_path):
    built[0].save(tmp_path)
    path = next(tmp_path.glob("*.npz"))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "version": np.array(99)})
    with pytest.raises(ValueError, match="has version 99"):
        TemplateGraph.load(tmp_path)


def test_decoding_nothing_is_the_template(built):
    t = built[0].templates[0]
    np.testing.assert_array_equal(t.decode(), t.V)
    np.testing.assert_allclose(t.decode(np.zeros((32, 3)), np.zeros(len(t.neighbours))), t.V, atol=1e-15)


def test_any_point_moves_as_a_vertex_there_does(built):
    rng = np.random.default_rng(0)
    for t in built[0].templates:
        d, a = 0.05 * rng.normal(size=(32, 3)), rng.random(len(t.neighbours))
        np.testing.assert_allclose(t.deform(t.V, d, a), t.decode(d, a), atol=1e-12)


def test_the_digest_is_that_of_the_content(built, tmp_path):
    graph = built[0]
    graph.save(tmp_path)
    loaded = TemplateGraph.load(tmp_path)
    assert loaded.digest == graph.digest
    assert loaded.templates == graph.templates
    assert len(set(loaded.templates + graph.templates)) == len(graph.templates)
    t, *rest = graph.templates
    others = [replace(t, **{name: getattr(t, name) + 1}) for name in ("V", "F", "C", "centres", "d", "c")]
    others += [replace(t, synset="0"), replace(t, model_id="0"), replace(t, neighbours=("0",) * len(t.neighbours))]
    graphs = [TemplateGraph([other, *rest], graph.edges) for other in others]
    graphs += [TemplateGraph([*rest, t], graph.edges), graph.without(t.synset)]
    assert len({graph.digest, *(other.digest for other in graphs)}) == 1 + len(graphs)


def test_the_digest_of_arrays_tells_types_and_shapes():
    arrays = [np.zeros(6), np.zeros((2, 3)), np.zeros(6, np.int64), np.zeros(5)]
    assert digest_of(np.zeros(6)) == digest_of(arrays[0])
    assert len({digest_of(a) for a in arrays}) == len(arrays)
    assert digest_of(arrays[0], arrays[1]) != digest_of(arrays[1], arrays[0])


def test_a_missing_or_half_made_graph_is_refused(built, tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_template_graph first"):
        TemplateGraph.load(tmp_path / "none")

    def killed():
        built[0].save(tmp_path / "graph")
        (tmp_path / "graph" / ".1.03001627.npz").touch()  # left by a write that was killed
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "graph", Key("graph", 1), killed)
    with pytest.raises(StaleError, match="half made: run 02_template_graph to its end"):
        TemplateGraph.load(tmp_path / "graph")
    keep(tmp_path / "graph", Key("graph", 1), lambda: None)
    assert TemplateGraph.load(tmp_path / "graph").digest == built[0].digest


def test_an_original_is_found_beside_the_graph(built, tmp_path):
    graph = built[0]
    graph.save(tmp_path)
    path = original_path(tmp_path, graph.templates[0])
    path.parent.mkdir(parents=True)
    path.touch()
    assert [t.original for t in TemplateGraph.load(tmp_path).templates] == [path] + [None] * (len(graph.templates) - 1)

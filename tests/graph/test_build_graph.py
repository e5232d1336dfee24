import logging

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.artefacts import StaleError
from i2m_lib.geometry.batched_registration import fit_many
from i2m_lib.geometry.registration import MAX_FLIPPED
from i2m_lib.graph import build_graph as module
from i2m_lib.graph.build_graph import build_graph, make_graph, usable_ids
from i2m_lib.graph.fits import digest_of_fits
from i2m_lib.graph.template_graph import TemplateGraph


def test_only_training_shapes_become_templates_and_all_are_connected(dataset, built):
    graph, fits = built
    train = set(dataset.select("train").model_id)
    assert {t.model_id for t in graph.templates} <= train
    for synset in graph.synsets:
        templates = graph.of(synset)
        assert all(len(t.neighbours) == min(3, len(templates) - 1) for t in templates)
        assert set(fits[synset].model_ids) == set(dataset.select(synset=synset).query("split != 'test'").model_id)


def test_neighbours_are_the_selected_edges(built):
    edges = built[0].edges
    for t in built[0].templates:
        assert t.neighbours == tuple(edges[(edges.source == t.model_id) & edges.selected].target)


def test_two_processes_build_what_one_does(dataset, built):
    graph, fits = build_graph(dataset, n_templates=3, seed=0, workers=2)
    for a, b in zip(graph.templates, built[0].templates, strict=True):
        np.testing.assert_allclose(a.c, b.c, atol=1e-6)  # BLAS may sum in another order
    for synset in fits:
        np.testing.assert_allclose(fits[synset].d, built[1][synset].d, atol=1e-6)


def test_no_edge_turns_over_or_collapses_more_faces_than_the_bound(built):
    assert (built[0].edges[["flipped", "collapsed"]] <= MAX_FLIPPED).all(axis=None)


def test_listed_templates_are_taken_and_held_out_ones_refused(dataset, caplog):
    train, test = (dataset.select(s).model_id.tolist() for s in ("train", "test"))
    graph, _ = build_graph(dataset, n_templates=2, seed=0, workers=1, template_ids=[train[0], "unknown"])
    assert "1 of 2 listed templates are not in" in caplog.text
    assert [t.model_id for t in graph.of(graph.synsets[0])] == [train[0]]
    assert len(graph.of(graph.synsets[1])) == 2  # no template of this category is listed
    with pytest.raises(ValueError, match="is in the split test"):
        build_graph(dataset, n_templates=2, seed=0, workers=1, template_ids=test[:1])
    with pytest.raises(ValueError, match="not by 'best'"):
        build_graph(dataset, n_templates=2, seed=0, workers=1, choice="best")
    assert usable_ids(dataset, ["unknown", *train[::-1]]) == sorted(train)


def test_a_gpu_fits_all_shapes_of_a_template_at_once(dataset, built, monkeypatch):
    devices = []

    def on_cpu(source, points, device):
        devices.append(device)
        return fit_many(source, points, device="cpu", dtype=torch.float64)

    monkeypatch.setattr(module, "fit_many", on_cpu)
    graph, fits = build_graph(dataset, n_templates=3, seed=0, workers=1, device="cuda")
    assert devices == ["cuda"] * len(graph.templates)
    for synset in fits:
        np.testing.assert_allclose(fits[synset].d, built[1][synset].d, atol=1e-6)


OPTIONS = {"n_templates": 3, "choice": "coverage", "seed": 0, "workers": 1}


@pytest.fixture
def calls(built, monkeypatch):
    """What `build_graph` was called with; it answers with the graph that was built already."""
    made = []
    monkeypatch.setattr(module, "build_graph", lambda *args, **options: made.append(options) or built)
    return made


def test_a_run_keeps_its_graph_and_fits(dataset, corpus_root, built, calls, tmp_path):
    for _ in range(2):
        graph, fits = make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS)
        assert graph.digest == built[0].digest
        assert digest_of_fits(fits) == digest_of_fits(built[1])
    assert make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS | {"workers": 2})[0].digest == graph.digest
    assert len(calls) == 1
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["fits", "graph"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n_templates": 2}, "n_templates is 3, not 2"),
        ({"seed": 1}, "seed is 0, not 1"),
        ({"choice": "random"}, "choice is 'coverage', not 'random'"),
        ({"template_ids": "ids.txt"}, "template_ids is [], not ['03001627model0']"),
        ({"without": "04379243"}, "its dataset is another"),
        ({"VERSION": 99}, "version is 1, not 99"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_key_is_made_anew(dataset, corpus_root, calls, tmp_path, monkeypatch, caplog, changed, told):
    (tmp_path / "ids.txt").write_text("03001627 (chair)\n03001627model0\n")
    make_graph(dataset, tmp_path / "run", corpus_root=corpus_root, **OPTIONS)
    changed = dict(changed)
    stale = tmp_path / "run" / "graph" / "stale.npz"
    stale.touch()
    if "template_ids" in changed:
        changed = {"template_ids": tmp_path / changed["template_ids"]}
    if "without" in changed:
        dataset = dataset.without(changed.pop("without"))
    if "VERSION" in changed:
        monkeypatch.setattr(module, "VERSION", changed.pop("VERSION"))
    with caplog.at_level(logging.INFO):
        make_graph(dataset, tmp_path / "run", corpus_root=corpus_root, **OPTIONS | changed)
    assert len(calls) == 2
    assert f"graph was made of something else ({told}): it is made anew" in caplog.text
    assert f"fits was made of something else ({told}): it is made anew" in caplog.text
    assert not stale.exists()


def test_a_killed_run_is_refused_and_continues(dataset, corpus_root, built, tmp_path, monkeypatch):
    done = []

    def killed_at(n, name):
        def step(mesh, *args):
            if len(done) == n:
                raise KeyboardInterrupt
            done.append(name)
            return real(mesh, *args)

        real = getattr(module, name)
        return step

    with monkeypatch.context() as patched:
        patched.setattr(module, "_register", killed_at(3, "_register"))
        with pytest.raises(KeyboardInterrupt):
            make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS)
    with pytest.raises(StaleError, match="half made"):
        TemplateGraph.load(tmp_path / "graph")
    monkeypatch.setattr(module, "_register", killed_at(99, "_register"))
    graph, fits = make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS)
    assert len(done) == len(graph.templates) == 4  # three were kept, one was left to do
    assert graph.digest == built[0].digest
    assert digest_of_fits(fits) == digest_of_fits(built[1])
    pd.testing.assert_frame_equal(graph.edges, built[0].edges)
    assert not (tmp_path / "parts").exists()


def test_a_killed_run_does_not_continue_another(dataset, corpus_root, tmp_path, monkeypatch):
    make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr(module, "with_weights", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS | {"seed": 1})
    kept, calls = {p.parent.parent.name for p in tmp_path.rglob("parts/*/*/*.npz")}, []
    register = module._register
    monkeypatch.setattr(module, "_register", lambda *args: calls.append(1) or register(*args))
    graph, _ = make_graph(dataset, tmp_path, corpus_root=corpus_root, **OPTIONS | {"seed": 2})
    assert len(kept) == 1
    assert len(calls) == len(graph.templates)
    assert not (tmp_path / "parts").exists()


def test_files_of_unknown_origin_are_refused_and_a_wrong_choice_deletes_nothing(dataset, corpus_root, calls, tmp_path):
    make_graph(dataset, tmp_path / "a", corpus_root=corpus_root, **OPTIONS)
    with pytest.raises(ValueError, match="not by 'best'"):
        make_graph(dataset, tmp_path / "a", corpus_root=corpus_root, **OPTIONS | {"choice": "best"})
    TemplateGraph.load(tmp_path / "a" / "graph").save(tmp_path / "b" / "graph")
    with pytest.raises(StaleError, match="holds files without a key"):
        make_graph(dataset, tmp_path / "b", corpus_root=corpus_root, **OPTIONS)

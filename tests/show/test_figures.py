import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from i2m_lib.show import figures, viewer


@pytest.fixture
def mesh(dataset):
    mesh = dataset.mesh(dataset.models.model_id[0])
    return mesh.V, mesh.F, mesh.C


def test_portraits_show_the_mesh_on_white(mesh):
    shown, blank = figures.portraits([mesh, None], 48)
    assert (blank == 255).all()
    assert 0.05 < (shown.min(-1) < 250).mean() < 0.9
    assert (shown[[0, -1]] == 255).all()


def test_a_sheet_has_a_place_for_each_picture():
    picture = np.zeros((4, 4, 4), np.uint8)
    figure = figures.sheet([[picture] * 3, [picture]], ["a", "b"], ["x", "y"])
    assert len(figure.axes) == 6
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 0, 0]
    assert figure.axes[0].images[0].get_array().min() == 255  # transparent is white
    plt.close(figure)


def test_places_keep_the_distances_of_the_plane():
    X = np.random.default_rng(0).normal(size=(7, 2))
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    places = figures.arrange(distances)
    np.testing.assert_allclose(np.linalg.norm(places[:, None] - places, axis=2), distances, atol=1e-9)


def test_a_single_place_is_drawn():
    places = figures.arrange(np.zeros((1, 1)))
    assert places.shape == (1, 2)
    figures.draw_graph(places, [np.zeros((8, 8, 3), np.uint8)], [])
    plt.close("all")


def test_a_graph_has_an_arrow_for_each_edge_and_all_places_inside():
    pictures, places = [np.zeros((8, 8, 3), np.uint8)] * 3, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    axis = figures.draw_graph(places, pictures, [(0, 1), (1, 0), (2, 0)]).axes[0]
    assert [(text.xyann, text.xy) for text in axis.texts] == [((0, 0), (1, 0)), ((1, 0), (0, 0)), ((0, 2), (0, 0))]
    assert axis.get_xlim() == pytest.approx((-0.08, 1.08))
    assert axis.get_ylim() == pytest.approx((-0.16, 2.16))
    plt.close("all")


def test_a_saved_figure_is_handed_back(tmp_path):
    figure = figures.sheet([[np.zeros((4, 4, 3), np.uint8)]])
    assert figures.save(figure, tmp_path / "new" / "a.png") is figure
    first = (tmp_path / "new" / "a.png").read_bytes()
    figures.save(figure, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == first
    plt.close(figure)


def test_what_is_transparent_is_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert figures.on_white(rgba).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_curves_and_ladder_show_their_table():
    history = pd.DataFrame(
        {"epoch": [1, 2], "train_a": [2, 1], "val_a": [2, 1.5], "train_loss": [2, 1], "val_loss": [2, 1]}
    )
    figure = figures.curves(history)
    assert [axis.get_title() for axis in figure.axes] == ["a", "loss"]
    assert all(len(axis.lines) == 2 for axis in figure.axes)
    table = pd.DataFrame({"method": ["template", "floor"], "mean": [2, 1], "low": [1, 0.9], "high": [3, 1.2]})
    bars = figures.ladder(table, "x").axes[0]
    assert [p.get_width() for p in bars.patches] == [2, 1]
    plt.close("all")


def test_the_viewer_takes_meshes_without_a_warning(mesh):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = viewer.show(mesh, mesh)
    assert len(plot.objects) == 2
    first = plot.objects[0]
    assert first.vertices.dtype == np.float32
    assert first.indices.dtype == np.uint32
    assert len(first.vertices) == 3 * len(mesh[1])


@pytest.fixture
def templates(dataset):
    from i2m_lib.graph.build_graph import build_graph

    return build_graph(dataset, n_templates=2, seed=0, workers=1)[0].templates[:2]


def test_the_explorer_follows_its_sliders(templates):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box = viewer.explore(templates)
        controls, plot = box.children
        edge, share, _, x, *_ = controls.children
        mesh, points = plot.objects
        t, before = templates[0], mesh.vertices.copy()
        share.value = 1.0
    V = t.correspondence(0)
    np.testing.assert_allclose(mesh.vertices, V[t.F].reshape(-1, 3), atol=1e-6)
    x.value = 0.1
    assert not np.allclose(mesh.vertices, V[t.F].reshape(-1, 3), atol=1e-3)
    assert len(points.positions) == 64
    edge.value = (1, 0)
    assert box.children[1] is not plot
    assert len(before) == 3 * len(t.F)


def test_a_pushed_control_point_takes_its_mirror_image_along(templates):
    t = templates[0]
    _, rest = viewer.deformed(t, 0, 0.0, 5, [0, 0, 0])
    _, pushed = viewer.deformed(t, 0, 0.0, 5, [0.1, 0.2, 0.3])
    moved = pushed - rest
    assert (np.abs(moved).sum(1) > 0).sum() == 2
    np.testing.assert_allclose(moved[np.abs(moved).sum(1) > 0], [[0.1, 0.2, 0.3], [-0.1, 0.2, 0.3]])


def test_ceilings_have_a_line_for_each_choice():
    rows = [(c, n, m, 1 / n) for c in ("coverage", "random") for n in (1, 2, 4) for m in "ab"]
    figure = figures.ceilings(pd.DataFrame(rows, columns=["choice", "n_templates", "model_id", "value"]), 0.1)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"coverage", "random", "floor"}
    np.testing.assert_allclose(lines["random"].get_ydata(), [1, 0.5, 0.25])
    plt.close(figure)


def test_bands_sort_numbers_and_keep_the_order_of_names():
    columns = {"mean": 0.2, "low": 0.1, "high": 0.3}
    table = pd.DataFrame(
        [("shift", "mask", level) for level in ("0.3", "-0.1", "0")]
        + [("ground", line, level) for line in ("box", "frame") for level in ("white", "noise")],
        columns=["panel", "line", "level"],
    ).assign(**columns)
    first, second, nothing = figures.bands(table, "error", floor=0.05).axes
    assert first.lines[0].get_xdata().tolist() == [-0.1, 0, 0.3]
    assert [t.get_text() for t in second.get_xticklabels()] == ["white", "noise"]
    assert first.get_legend() is None
    assert not nothing.axison
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.05 * 0.3))
    assert len(second.get_legend().get_texts()) == 2


def test_calibration_draws_what_would_be_true():
    rows = pd.DataFrame({"level": [0.2, 0.8], "mean": [0.3, 0.7], "low": [0.2, 0.6], "high": [0.4, 0.8]})
    error, accuracy = figures.calibration(rows, rows).axes
    dashed = [line for line in accuracy.lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed[0].get_xydata(), [[0, 0], [1, 1]])
    assert error.get_ylim()[0] == 0

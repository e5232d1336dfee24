import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trimesh

from i2m_lib.scoring.__main__ import main
from i2m_lib.scoring.folders import evaluate, evaluate_folder, means, meshes_in, read_surface
from i2m_lib.scoring.protocols import PROTOCOLS

PROTOCOL = PROTOCOLS["atlasnet"]  # the smallest samples


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five ground truths, one of them bad, and predictions: good, unreadable, empty, none, and one too many."""
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    box = trimesh.creation.box((1, 2, 1))
    for name in ("a/good", "a/unreadable", "b/flat", "b/missing", "bad_truth"):
        (gt / name).parent.mkdir(parents=True, exist_ok=True)
        (pred / name).parent.mkdir(parents=True, exist_ok=True)
        box.export(gt / f"{name}.obj")
    box.export(pred / "a" / "good.ply")
    (pred / "a" / "unreadable.glb").write_bytes(b"no mesh")
    trimesh.Trimesh(box.vertices * [1, 0, 0], box.faces, process=False).export(pred / "b" / "flat.off")
    box.export(pred / "extra.stl")
    (gt / "bad_truth.obj").write_text("v 0 0 0\n")
    return pred, gt


def worst() -> dict[str, float]:
    box = trimesh.creation.box((1, 2, 1))
    return PROTOCOL.prepare(box.vertices, box.faces, 0).worst()


def test_a_prediction_is_scored_as_its_protocol_does(folders):
    path = folders[1] / "a" / "good.obj"
    target = PROTOCOL.prepare(*read_surface(path), 0)
    assert evaluate(path, path, PROTOCOL) == (target.floor(0), None)


def test_bad_predictions_score_worst_and_bad_truths_are_not_scored(folders):
    pred, gt = folders
    good = gt / "a" / "good.obj"
    for bad in ("a/unreadable.glb", "is_not_there.obj"):
        scores, fault = evaluate(pred / bad, good, PROTOCOL)
        assert scores == worst()
        assert re.match("scored worst: .*cannot be read as a mesh", fault)
    trimesh.PointCloud(np.eye(3)).export(gt / "points.ply")
    for bad, reason in (
        ("bad_truth.obj", "the file holds no face, it is a point cloud"),
        ("points.ply", "is a point cloud: it has 3 points and no face"),
    ):
        scores, fault = evaluate(good, gt / bad, PROTOCOL)
        assert scores == {}
        assert re.match(f"not scored: .*{reason}", fault)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_ground_truth_is_scored_or_listed(folders, workers):
    result = evaluate_folder(*folders, PROTOCOL, workers=workers)
    table = result.scores.pivot(index="name", columns="metric", values="value")
    assert list(table.index) == ["a/good", "a/unreadable", "b/flat", "b/missing"]
    for name in table.index[1:]:
        assert table.loc[name].to_dict() == worst()
    assert table.loc["a/good", "f_0.001"] > 50
    faults = result.faults.set_index("name").fault
    assert list(faults.index) == ["a/unreadable", "b/flat", "b/missing", "bad_truth"]
    assert faults["b/missing"] == "scored worst: there is no prediction"
    assert "its area is 0" in faults["b/flat"]
    assert "cannot be read as a mesh" in faults["a/unreadable"]
    assert faults["bad_truth"].startswith("not scored")
    assert result.extra == ["extra"]


def test_an_obj_is_read_strictly(tmp_path):
    """Relative indices mean what the format says, and a file that was cut short is no mesh."""
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    F = trimesh.creation.box(bounds=[(0, 0, 0), (1, 1, 1)]).faces
    V = trimesh.creation.box(bounds=[(0, 0, 0), (1, 1, 1)]).vertices
    assert {tuple(v) for v in V} == set(corners)
    vertices = "".join("v {} {} {}\n".format(*v) for v in V)
    texts = {
        name: vertices + "".join("f {} {} {}\n".format(*f) for f in F + shift)
        for name, shift in (("absolute", 1), ("relative", -8))
    }
    for name, text in (texts | {"cut": texts["absolute"][:-12] + "\nf 1 2"}).items():
        (tmp_path / f"{name}.obj").write_text(text)
    for name in ("absolute", "relative"):
        W, G = read_surface(tmp_path / f"{name}.obj")
        np.testing.assert_array_equal(W[G], V[F])
    with pytest.raises(ValueError, match=r"cannot be read as a mesh: .*line"):
        read_surface(tmp_path / "cut.obj")


def test_names_that_never_match_are_an_error_that_shows_one_of_each_side(folders, tmp_path):
    (tmp_path / "other").mkdir()
    trimesh.creation.box().export(tmp_path / "other" / "chair-1.obj")
    with pytest.raises(ValueError, match=r"no prediction has the name of .* holds 'chair-1', .* 'a/good'"):
        evaluate_folder(tmp_path / "other", folders[1], PROTOCOL, workers=1)


def test_hidden_files_are_passed_over(folders):
    (folders[0] / "a" / "._good.obj").write_bytes(b"\0\5\x16\7")
    assert "a/._good" not in meshes_in(folders[0])


def test_a_vertex_that_no_face_names_is_no_part_of_a_mesh(tmp_path):
    box = trimesh.creation.box((1, 2, 1))
    box.export(tmp_path / "good.obj")
    (tmp_path / "spare.obj").write_text((tmp_path / "good.obj").read_text() + "\nv nan nan nan\n")
    expected = evaluate(tmp_path / "good.obj", tmp_path / "good.obj", PROTOCOL)
    assert evaluate(tmp_path / "spare.obj", tmp_path / "good.obj", PROTOCOL) == expected
    assert evaluate(tmp_path / "good.obj", tmp_path / "spare.obj", PROTOCOL) == expected


@pytest.mark.parametrize(("scale", "warned"), [(1.0, False), (5.0, False), (1000.0, True), (0.001, True)])
def test_a_mesh_in_another_unit_is_told(tmp_path, scale, warned):
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    box.export(tmp_path / "truth.ply")
    box.apply_scale(scale).export(tmp_path / "mesh.ply")
    for pair in (("mesh", "truth"), ("mesh", "mesh")):  # one side, or both in a protocol that takes units as given
        _, fault = evaluate(*(tmp_path / f"{name}.ply" for name in pair), PROTOCOLS["what3d"])
        assert bool(fault) == warned
        assert not warned or "mesh.ply has a bounding box of diagonal" in fault


def test_nodes_of_a_scene_stand_where_their_transforms_put_them(tmp_path):
    scene = trimesh.Scene()
    for x in (-1.0, 2.0):
        scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    scene.export(tmp_path / "two.glb")
    V, F = read_surface(tmp_path / "two.glb")
    assert (V.min(), V[:, 0].max(), len(F)) == (-1.5, 2.5, 24)


def test_scoring_needs_no_torch():
    command = "import sys, i2m_lib.scoring.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_a_folder_must_hold_meshes_of_different_names(folders, tmp_path):
    pred, _ = folders
    with pytest.raises(ValueError, match="is no folder"):
        meshes_in(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no mesh"):
        meshes_in(tmp_path / "none")
    trimesh.creation.box().export(pred / "a" / "good.obj")
    with pytest.raises(ValueError, match="have one name"):
        meshes_in(pred)


def test_refused_values_are_counted():
    scores = pd.DataFrame({"metric": ["iou", "iou", "f_1"], "value": [0.5, np.nan, 3.0]})
    assert means(scores).loc["iou"].tolist() == [0.5, 1, 1]


def test_the_command_writes_scores_and_lists_faults(folders, tmp_path, capsys):
    pred, gt = map(str, folders)
    out = tmp_path / "scores.parquet"
    arguments = ["--pred", pred, "--gt", gt, "--protocol", PROTOCOL.name, "-o", str(out), "--workers", "1"]
    assert main(arguments) == 0
    table = pd.read_parquet(out)
    assert list(table.columns) == ["name", "protocol", "metric", "value"]
    assert table.name.nunique() == 4
    captured = capsys.readouterr()
    assert "4 faults:\n  a/unreadable: scored worst" in captured.err
    assert "1 predictions without a ground truth, not scored:\n  extra" in captured.err
    assert "unit ball" in captured.out
    assert main(["--pred", "nowhere", "--gt", gt, "-o", str(out)]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err
    other, nothing = tmp_path / "other", tmp_path / "nothing.parquet"
    trimesh.creation.box().export(Path(gt) / "a" / "box.obj")
    (Path(gt) / "a").rename(other)
    assert main(["--pred", str(other), "--gt", gt, "-o", str(nothing)]) == 1
    assert "no prediction has the name of a ground truth" in capsys.readouterr().err
    assert not nothing.exists()

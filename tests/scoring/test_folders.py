from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trimesh

from i2m_lib.scoring.__main__ import main
from i2m_lib.scoring.folders import evaluate, evaluate_folder, means, meshes_in
from i2m_lib.scoring.protocols import PROTOCOLS

PROTOCOL = "atlasnet"  # the smallest samples


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
    return PROTOCOLS[PROTOCOL].prepare(box.vertices, box.faces, 0).worst()


def test_a_mesh_may_come_in_any_form(folders):
    path = folders[1] / "a" / "good.obj"
    mesh = trimesh.load_mesh(path, process=False)
    forms = path, str(path), mesh, (np.array(mesh.vertices), np.array(mesh.faces))
    scores = [evaluate(form, mesh, protocol=PROTOCOL) for form in forms]
    assert all(s == scores[0] for s in scores)
    assert scores[0] == PROTOCOLS[PROTOCOL].prepare(mesh.vertices, mesh.faces, 0).floor(0)


def test_bad_predictions_score_worst_and_bad_truths_are_refused(folders):
    pred, gt = folders
    good = gt / "a" / "good.obj"
    assert evaluate(pred / "a" / "unreadable.glb", good, protocol=PROTOCOL) == worst()
    assert evaluate(pred / "is_not_there.obj", good, protocol=PROTOCOL) == worst()
    with pytest.raises(ValueError, match="cannot be scored against: it is empty"):
        evaluate(good, gt / "bad_truth.obj", protocol=PROTOCOL)
    with pytest.raises(ValueError, match="there is no protocol 'mine': use one of canonical, occnet"):
        evaluate(good, good, protocol="mine")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_ground_truth_is_scored_or_listed(folders, workers):
    result = evaluate_folder(*folders, protocol=PROTOCOL, workers=workers)
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
    arguments = ["--pred", pred, "--gt", gt, "--protocol", PROTOCOL, "-o", str(out), "--workers", "1"]
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

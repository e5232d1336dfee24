import numpy as np
import pandas as pd
import pytest
import trimesh

from i2m_lib.dataset import near_duplicates
from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.near_duplicates import THRESHOLD, descriptor, find_near_duplicates, near_duplicate_of
from i2m_lib.geometry.surfaces import normalise, sample_surface


def shape(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five random boxes in the canonical frame."""
    rng = np.random.default_rng(seed)
    boxes = [trimesh.creation.box(extents=rng.uniform(0.1, 1, 3)) for _ in range(5)]
    for box in boxes:
        box.apply_translation(rng.uniform(-1, 1, 3))
    solid = trimesh.util.concatenate(boxes)
    return normalise(np.array(solid.vertices))[0], np.array(solid.faces)


def finer(V: np.ndarray, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solid = trimesh.Trimesh(V, F, process=False).subdivide()
    return np.array(solid.vertices), np.array(solid.faces)[::-1]


def audit(shapes: dict[str, tuple], splits: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    descriptors = np.array(
        [descriptor(sample_surface(*mesh, near_duplicates.N_SAMPLES, rng)[0]) for mesh in shapes.values()]
    )
    return find_near_duplicates(list(shapes), splits, descriptors, shapes.__getitem__)


def test_copies_across_splits_are_found_and_nothing_else():
    shapes = {f"train{i}": shape(i) for i in range(8)}
    V, F = shape(3)
    shapes |= {"val0": shape(20), "val1": finer(*shape(5)), "test0": shape(21), "test1": finer(V, F)}
    shapes |= {"test2": (V + 2e-3 * np.sin(9 * V[:, [1, 2, 0]]), F), "test3": finer(*shape(20))}
    splits = [name.rstrip("0123456789") for name in shapes]
    table = audit(shapes, splits)
    assert near_duplicate_of(table) == {"val1": "train5", "test1": "train3", "test2": "train3", "test3": "val0"}
    assert not (table.split == "train").any()
    assert (table.near_duplicate == (table.ratio <= THRESHOLD)).all()
    assert table.ratio.equals(table.distance / table.floor)
    assert (table[~table.near_duplicate].ratio > 1.5).all()
    pd.testing.assert_frame_equal(audit(shapes, splits), table)


@pytest.mark.parametrize(("n_samples", "deviation"), [(4096, 0.015), (300, 0.06)])
def test_resampling_one_surface_stays_far_below_the_threshold(monkeypatch, n_samples, deviation):
    monkeypatch.setattr(near_duplicates, "N_SAMPLES", n_samples)
    monkeypatch.setattr(near_duplicates, "N_CANDIDATES", 1)
    shapes = {f"{split}{i}": shape(i) for split in ("train", "test") for i in range(12)}
    table = audit(shapes, ["train"] * 12 + ["test"] * 12)
    assert (table.model_id.str[4:] == table.other.str[5:]).all()
    assert table.ratio.mean() == pytest.approx(1, abs=deviation)
    assert table.ratio.std() < deviation
    assert table.near_duplicate.all()


def test_train_wins_over_val_and_then_the_nearest():
    columns = list(near_duplicates.COLUMNS)
    rows = [
        ("a", "test", "v", "val", 1.0, 1.0, 1.00, True),
        ("a", "test", "t", "train", 1.2, 1.0, 1.20, True),
        ("a", "test", "s", "train", 1.1, 1.0, 1.10, True),
        ("b", "test", "t", "train", 2.0, 1.0, 2.00, False),
    ]
    assert near_duplicate_of(pd.DataFrame(rows, columns=columns)) == {"a": "s"}


def test_descriptors_move_no_further_than_the_shape():
    V, F = shape(1)
    S, _ = sample_surface(V, F, 3000, np.random.default_rng(0))
    moved = S + np.random.default_rng(1).normal(size=S.shape) * 0.01
    assert np.abs(descriptor(S) - descriptor(moved)).max() <= np.linalg.norm(moved - S, axis=1).max()
    plain = np.linalg.norm(near_duplicates.PROBES[:, None] - S, axis=2).min(1)
    assert np.allclose(descriptor(S), plain, atol=1e-6)


def test_one_split_alone_has_no_pairs():
    table = audit({"a": shape(0), "b": shape(0)}, ["train", "train"])
    assert table.empty
    assert near_duplicate_of(table) == {}


def test_a_build_marks_and_drops(tmp_path):
    """Two chairs that differ in the names of their folders and the order of their faces."""
    lines = [f"v {x} {y} {z}" for x in (0, 1) for y in (0, 2) for z in (0, 3)]
    faces = ["f 1 2 4 3", "f 5 7 8 6", "f 1 5 6 2", "f 3 4 8 7", "f 1 3 7 5"]
    shapes = {"a": faces, "b": faces[::-1], "c": faces[:3]}
    for name, listed in shapes.items():
        path = tmp_path / "corpus" / "03001627" / name / "model.obj"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines + listed))
    (tmp_path / "corpus" / "all.csv").write_text("modelId,split\na,train\nb,test\nc,test\n")
    sizes = {"n_views": 2, "image_size": 16, "n_surface": 300, "seed": 0, "workers": 1, "progress": False}
    marked = build_dataset(tmp_path / "corpus", tmp_path / "marked", **sizes)
    assert marked.models.near_duplicate_of.fillna("").tolist() == ["", "a", ""]
    assert len(marked.views) == 6
    table = pd.read_parquet(tmp_path / "marked" / "near_duplicates.parquet")
    assert table.sort_values("ratio").other.tolist() == ["a", "a"]

    dropped = build_dataset(tmp_path / "corpus", tmp_path / "dropped", **sizes, drop_near_duplicates=True)
    assert dropped.manifest.status.tolist() == ["ok", "dropped", "ok"]
    assert dropped.manifest.reason[1] == "a near-duplicate of a in train"
    assert dropped.manifest.split[1] == "test"
    assert dropped.select("test").model_id.tolist() == ["c"]
    assert dropped.views.model_id.tolist() == ["a", "a", "c", "c"]
    same = [dropped.images[i].tobytes() for i in range(4)] == [marked.images[i].tobytes() for i in (0, 1, 4, 5)]
    assert same

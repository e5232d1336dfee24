import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from i2m_lib.artefacts import StaleError, key_of
from i2m_lib.dataset import build, parallel
from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.dataset import STRETCH, Dataset, overlay
from i2m_lib.dataset.source import CorpusError
from i2m_lib.geometry.cameras import Camera

SMALL = {"n_views": 4, "image_size": 48, "n_surface": 500, "seed": 0, "progress": False}


def files(dataset: Dataset) -> dict[str, bytes]:
    """All bytes but those of cost.parquet and key.json, which hold seconds; of the key its digest."""
    paths = (p for p in sorted(dataset.path.rglob("*")) if p.is_file() and p.name not in ("cost.parquet", "key.json"))
    found = {p.relative_to(dataset.path).as_posix(): p.read_bytes() for p in paths}
    return found | {"digest": dataset.digest}


def interrupt(*_):
    raise KeyboardInterrupt


def interrupt_after(n: int, monkeypatch) -> None:
    plain, calls = build._build_model, []

    def build_model(source, *rest):
        if len(calls) == n:
            raise KeyboardInterrupt
        calls.append(source.model_id)
        plain(source, *rest)

    monkeypatch.setattr(build, "_build_model", build_model)


def test_tables(dataset):
    models, views = dataset.manifest, dataset.views
    assert list(models) == list(build.MODEL_COLUMNS)
    assert models.model_id.is_unique
    assert (models.status == "ok").all()
    assert models.reason.isna().all()
    assert models.near_duplicate_of.isna().all()
    assert models.split.tolist() == ["train", "train", "val", "test"] * 2
    assert models.category.tolist() == ["chair"] * 4 + ["table"] * 4
    assert models.source[0] == "03001627/03001627model0/models/model_normalized.obj"
    assert models.source[4].startswith("04379243.zip/04379243/04379243model0/")
    assert models.n_faces.tolist() == [12 * 6] * 4 + [12 * 5] * 4
    assert views.columns.tolist() == [
        "synset",
        "model_id",
        "view",
        "azimuth",
        "elevation",
        "distance",
        "focal",
        "right",
        "down",
        "stretch_x",
        "stretch_y",
        "stretch_z",
        "index",
    ]
    assert views["index"].tolist() == list(range(32))
    assert views.view.tolist() == [0, 1, 2, 3] * 8
    assert dataset.images.shape == (32, 48, 48, 4)
    names = {p.name for p in dataset.path.iterdir()}
    tables = {f"{name}.parquet" for name in ("views", "models", "cost", "near_duplicates", "sources")}
    assert names == {"key.json", "meshes", "views.npy"} | tables


def test_meshes_are_canonical_and_go_back_to_their_file(dataset):
    for row in dataset.models.itertuples():
        mesh = dataset.mesh(row.model_id)
        assert np.allclose(mesh.V.min(0), -mesh.V.max(0), atol=1e-6)
        assert np.linalg.norm(np.ptp(mesh.V, axis=0)) == pytest.approx(1, abs=1e-6)
        size = 0.4 + 0.2 * int(row.model_id[-1])
        back = mesh.V * row.scale + row.centre
        assert np.allclose(back.min(0), [-size / 2, 0, -0.25], atol=1e-6)
        assert np.allclose(np.linalg.norm(mesh.N, axis=1), 1)
        assert mesh.S.shape == mesh.N.shape == (500, 3)
        assert {tuple(c) for c in mesh.C} == {(51, 76, 204), (153, 102, 51)}


def test_recorded_cameras_put_the_samples_into_the_masks(dataset):
    for row in dataset.views.itertuples():
        mask = dataset.image(row.index)[..., 3] > 0
        camera = Camera.of(row)
        column, line = np.floor(camera.project(dataset.mesh(row.model_id).S) * 48).astype(int).T
        near = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1), (3, 3)).any((2, 3))
        assert near[line, column].all()
        assert 0.35 < np.abs(np.argwhere(mask) - 23.5).max() / 48 < 0.48
        assert (dataset.image(row.index)[~mask] == 0).all()


def test_any_number_of_workers_gives_the_same_bytes(dataset, corpus_root, tmp_path):
    two = build_dataset(corpus_root, tmp_path / "two", **SMALL, workers=2)
    assert files(two) == files(dataset)


def test_more_views_begin_with_the_same_views(dataset, corpus_root, tmp_path):
    arguments = SMALL | {"n_views": 5, "categories": ["table"], "max_models": 2}
    more = build_dataset(corpus_root, tmp_path / "more", **arguments, workers=1)
    assert len(more.models) == 2
    for row in more.views[more.views.view < 4].itertuples():
        same = dataset.views[(dataset.views.model_id == row.model_id) & (dataset.views.view == row.view)]
        assert np.array_equal(dataset.image(same["index"].item()), more.image(row.index))


def test_training_models_are_shown_in_other_proportions_too(dataset, corpus_root, tmp_path):
    varied = build_dataset(corpus_root, tmp_path / "varied", **SMALL, n_varied=3, variety=0.4, workers=2)
    pd.testing.assert_frame_equal(
        varied.true_views.drop(columns="index").reset_index(drop=True), dataset.views.drop(columns="index")
    )
    for a, b in zip(varied.true_views["index"], dataset.views["index"], strict=True):
        assert np.array_equal(varied.image(a), dataset.image(b))
    others = varied.views.drop(varied.true_views.index)
    assert others.groupby("model_id").size().to_dict() == dict.fromkeys(dataset.select("train").model_id, 3)
    factors = others[STRETCH].to_numpy()
    assert len(np.unique(factors.round(6), axis=0)) == len(others)
    assert np.ptp(np.log(factors), axis=1).max() <= 0.8
    extents = np.array([np.ptp(dataset.mesh(m).V, axis=0) for m in others.model_id])
    np.testing.assert_allclose(np.linalg.norm(extents * factors, axis=1), 1, atol=1e-5)
    assert overlay(varied, others).min() > 0.95


def test_an_interrupted_build_resumes(dataset, corpus_root, tmp_path, monkeypatch):
    out = tmp_path / "resumed"
    for n_done in (3, 4):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(n_done, patch)
            build_dataset(corpus_root, out, **SMALL, workers=1)
        with pytest.raises(FileNotFoundError, match="no finished dataset"):
            Dataset.open(out)
    assert len(list(out.glob("parts/*/*.json"))) == 7
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert files(build_dataset(corpus_root, out, **SMALL, workers=1)) == files(dataset)


def test_a_build_killed_while_packing_resumes(dataset, corpus_root, tmp_path, monkeypatch):
    out = tmp_path / "packing"
    save = build.save_parquet
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            build, "save_parquet", lambda path, table: (interrupt if path.stem == "cost" else save)(path, table)
        )
        build_dataset(corpus_root, out, **SMALL, workers=1)
    (out / ".123.views.npy").write_bytes(b"half")
    with monkeypatch.context() as patch:
        interrupt_after(0, patch)
        assert files(build_dataset(corpus_root, out, **SMALL, workers=1)) == files(dataset)


def test_a_finished_dataset_is_opened_at_once(dataset, corpus_root, monkeypatch):
    monkeypatch.setattr(build, "run_chunks", interrupt)
    again = build_dataset(corpus_root, dataset.path, **SMALL)
    pd.testing.assert_frame_equal(again.manifest, dataset.manifest)


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"seed": 1}, "seed is 0, not 1"),
        ({"n_views": 5}, "n_views is 4, not 5"),
        ({"max_models": 3}, "max_models is None, not 3"),
        ({"categories": ["chair"]}, r"categories is \['chair', 'table'\], not \['chair'\]"),
        ({"elevation": (0, 10)}, r"elevation is \[-5.0, 40.0\], not \[0, 10\]"),
    ],
)
def test_another_recipe_needs_another_folder(dataset, corpus_root, change, clause):
    before = files(dataset)
    with pytest.raises(StaleError, match=f"{clause}.*choose another folder, or delete this one"):
        build_dataset(corpus_root, dataset.path, **SMALL | change)
    assert files(dataset) == before


def test_a_folder_of_an_earlier_version_is_refused(corpus_root, tmp_path):
    (tmp_path / "build.json").write_text("{}")
    (tmp_path / "models.parquet").touch()
    with pytest.raises(StaleError, match="holds files without a key: choose another folder, or delete this one"):
        build_dataset(corpus_root, tmp_path, **SMALL)
    with pytest.raises(FileNotFoundError, match="no finished dataset"):
        Dataset.open(tmp_path)


def test_bad_models_are_quarantined_and_the_run_goes_on(corpus_root, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus_root, root)
    (root / "all.csv").unlink()
    bad = {
        "empty": b"",
        "garbage": bytes(range(256)),
        "line": b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
        "nan": b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "point": b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n",
        "slivers": b"v 0 0 0\nv 1 1 1\nv 2 2 2\nv 0 1 0\nf 1 2 3\nf 1 4 4\n",
        "04379243model0": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    }
    for model_id, data in bad.items():
        path = root / "03001627" / model_id / "model.obj"
        path.parent.mkdir()
        path.write_bytes(data)
    table = root / "04256520" / "04379243model0" / "model.obj"
    table.parent.mkdir(parents=True)
    table.write_bytes(bad["04379243model0"])
    built = build_dataset(root, tmp_path / "out", **SMALL | {"n_views": 1}, workers=1)
    status = built.manifest.set_index(["synset", "model_id"])
    assert (status.status == "ok").sum() == len(built.models) == len(built.views) == 9
    assert built.images.shape[0] == 9
    reasons = {model_id: status.reason["03001627", model_id] for model_id in bad}
    assert status.status["03001627", "04379243model0"] == "ok"
    assert status.status["04379243", "04379243-04379243model0"] == "ok"  # another model of the same id
    assert "is used under synset 03001627" in status.reason["04256520", "04379243model0"]
    assert reasons["empty"].startswith(("empty", "unreadable"))
    assert reasons["garbage"].startswith(("empty", "unreadable"))
    assert reasons["line"].startswith("flat")
    assert reasons["nan"].startswith("NaN")
    assert reasons["point"].startswith("all vertices are equal")
    assert "without area" in reasons["slivers"]
    assert status.n_faces.isna().sum() == 7
    with pytest.raises(KeyError, match="no usable model line"):
        built.mesh("line")


def test_a_corpus_without_any_usable_model(tmp_path):
    path = tmp_path / "corpus" / "03001627" / "a" / "model.obj"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(CorpusError, match="no usable model; the first: "):
        build_dataset(tmp_path / "corpus", tmp_path / "out", **SMALL, workers=1)


def test_progress_is_a_line_per_tenth(corpus_root, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr("i2m_lib.dataset.build.CHUNK", 3)
    arguments = SMALL | {"n_views": 1, "progress": True}
    build_dataset(corpus_root, tmp_path / "out", **arguments, workers=1)
    lines = ["3 of 8 models", "6 of 8 models", "8 of 8 models"]
    assert capsys.readouterr().out.splitlines() == lines


def test_the_cost_of_each_model_is_kept(dataset):
    assert dataset.cost.model_id.tolist() == dataset.manifest.model_id.tolist()
    assert (dataset.cost[["mesh_seconds", "view_seconds"]] > 0).all(axis=None)


def test_the_key_names_the_recipe(dataset):
    assert dataset.parameters["n_views"] == 4
    assert dataset.parameters["n_models"] == 8
    assert dataset.parameters["categories"] == ["chair", "table"]
    assert dataset.digest == key_of(dataset.path)


# Scale


def test_a_dask_cluster_gives_the_same_bytes(dataset, corpus_root, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None)
    with cluster, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CHUNK", 1)
        built = build_dataset(corpus_root, tmp_path / "out", **SMALL, scheduler=cluster.scheduler_address)
        with distributed.Client(cluster) as client:
            done = client.run(lambda dask_worker: len(dask_worker.state.log))
    assert len(done) == 2
    assert min(done.values()) > 0
    assert files(built) == files(dataset)


def test_a_scheduler_that_does_not_answer(corpus_root, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    monkeypatch.setattr(parallel, "TIMEOUT", "1s")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(CorpusError, match=f"No Dask scheduler answers at {address}"):
            build_dataset(corpus_root, tmp_path / "out", **SMALL, scheduler=address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CorpusError, match="pip install"):
        build_dataset(corpus_root, tmp_path / "out", **SMALL, scheduler="tcp://127.0.0.1:9")


KILLED = """
import sys, time
from i2m_lib.dataset import build, pack

pack.BATCH = 2
pack.os.fsync = lambda _: time.sleep(0.2)  # packing lasts long enough to be hit
build.CHUNK = 2
build.build_dataset(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_again_and_again_ends_with_the_same_bytes(dataset, corpus_root, tmp_path, workers):
    out, kept = tmp_path / "out", {}
    delays = np.random.default_rng(workers)
    milestones = ["meshes/04379243/*1.npz", ".views.npy"] if workers == 1 else ["parts/*/*.json"]
    for milestone in milestones:
        arguments = [corpus_root, out, str(SMALL | {"workers": workers})]
        run = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], start_new_session=True)
        while run.poll() is None and not list(out.glob(milestone)):
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.1))
        run.kill()  # its workers live on for a moment
        assert run.wait() == -signal.SIGKILL
        finished = {
            path.stem: out / "meshes" / path.parent.name / f"{path.stem}.npz" for path in out.glob("parts/*/*.json")
        }
        assert {i: finished[i].stat().st_mtime_ns for i in kept} == kept  # no finished model was made again
        kept = {i: path.stat().st_mtime_ns for i, path in finished.items()}
        assert kept
    assert files(build_dataset(corpus_root, out, **SMALL, workers=1)) == files(dataset)
    assert {i: finished[i].stat().st_mtime_ns for i in kept} == kept


def test_what_a_killed_writer_left_is_removed(dataset, corpus_root, tmp_path):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(1, patch)
        build_dataset(corpus_root, out, **SMALL, workers=1)
    for name in ("meshes/03001627/.77.x.npz", ".77.models.parquet", "parts/03001627/.77.x.rgba"):
        (out / name).write_bytes(b"half")
    assert files(build_dataset(corpus_root, out, **SMALL, workers=1)) == files(dataset)


def test_a_lost_part_is_no_black_view(corpus_root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "pack_views", interrupt)
        build_dataset(corpus_root, tmp_path / "out", **SMALL, workers=1)
    next(tmp_path.glob("out/parts/*/*.rgba")).unlink()
    with pytest.raises(CorpusError, match="is gone: delete"):
        build_dataset(corpus_root, tmp_path / "out", **SMALL, workers=1)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_no_fault_of_the_models(dataset, corpus_root, small_disk, monkeypatch, workers):
    out = small_disk / "out"
    with pytest.raises(CorpusError, match=r"has 0.0 GB left, but the views need"):
        build_dataset(corpus_root, out, **SMALL | {"n_views": 40}, workers=1)
    shutil.rmtree(out)
    monkeypatch.setattr(build, "check_space", lambda *_: None)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(750_000))
    with pytest.raises(CorpusError, match=r"cannot be written .*No space left on device.*run again"):
        build_dataset(corpus_root, out, **SMALL, workers=workers)
    rows = [json.loads(path.read_text()) for path in out.glob("parts/*/*.json")]
    assert all(row["status"] == "ok" for row in rows)
    assert {p.stat().st_size for p in out.glob("parts/*/*.rgba")} <= {4 * 48 * 48 * 4}
    with pytest.raises(FileNotFoundError):
        Dataset.open(out)
    ballast.unlink()
    assert files(build_dataset(corpus_root, out, **SMALL, workers=1)) == files(dataset)


def test_a_folder_that_cannot_be_written(corpus_root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match=r"file/out cannot be written \(Not a directory\).*choose another folder"):
        build_dataset(corpus_root, tmp_path / "file" / "out", **SMALL)


def test_a_killed_worker_is_told(corpus_root, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_build_chunk", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(CorpusError, match="A worker was killed"):
        build_dataset(corpus_root, tmp_path / "out", **SMALL, workers=2)


def splits_file(path, **of_table: str):
    """A list with the chairs' own splits and others for the tables."""
    rows = [f"03001627model{i},{split}" for i, split in enumerate(("train", "train", "val", "test"))]
    rows += [f"04379243model{i},{of_table.get(f'm{i}', 'test')}" for i in range(4)]
    path.write_text("modelId,split\n" + "\n".join(rows) + "\n")
    return path


def test_a_study_leaves_out_a_category_without_training_models_and_says_so(corpus_root, tmp_path, capsys):
    options = SMALL | {"n_views": 1, "splits": splits_file(tmp_path / "list.csv"), "workers": 1}
    built = build_dataset(corpus_root, tmp_path / "out", **options, for_study=True)
    assert capsys.readouterr().out == "Left out, as none of their models is for training: table.\n"
    assert set(built.manifest.category) == {"chair"}
    every = build_dataset(corpus_root, tmp_path / "every", **options)  # for another purpose
    assert set(every.models.category) == {"chair", "table"}


def test_a_study_that_lacks_a_split_is_refused_before_anything_is_made(corpus_root, tmp_path):
    for n, found in ((1, "2 train, 0 val, 0 test"), (2, "2 train, 2 val, 0 test")):
        with pytest.raises(CorpusError, match=found):
            build_dataset(corpus_root, tmp_path / "out", **SMALL, max_models=n, for_study=True)
    assert not (tmp_path / "out").exists()  # so that the cure, another number, is not refused


def test_a_study_whose_training_models_are_unusable_is_refused(corpus_root, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus_root, root)
    for i in range(2):
        (root / f"03001627/03001627model{i}/models/model_normalized.obj").write_text("")
    with pytest.raises(CorpusError, match="has no usable training model of chair: mend"):
        build_dataset(root, tmp_path / "out", **SMALL | {"n_views": 1}, workers=1, for_study=True)

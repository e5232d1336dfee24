"""A file that was mended or changed is noticed; one that was only touched, moved, copied or unpacked is the same."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset import build, fingerprints
from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.dataset.fingerprints import changed, read_fingerprints, save_fingerprints
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import CorpusError

TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
BUILD = {"n_views": 1, "image_size": 16, "n_surface": 50, "seed": 0, "workers": 1, "progress": False}
OBJ, MTL = "models/model_normalized.obj", "models/m.mtl"


def put(root: Path, model_id: str, text: str, name: str = OBJ) -> Path:
    path = root / "03001627" / model_id / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five models, of which one is broken."""
    for model_id in "abcd":
        put(tmp_path / "corpus", model_id, f"mtllib m.mtl\n{TETRAHEDRON}")
        put(tmp_path / "corpus", model_id, "newmtl m\nKd 1 0 0\n", MTL)
    put(tmp_path / "corpus", "broken", "")
    return tmp_path / "corpus"


def zipped(root: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root))


def found(root: Path, recorded: fingerprints.Fingerprints | None = None) -> fingerprints.Fingerprints:
    return fingerprints.fingerprints(Corpus.open(root, split_seed=0).models, "", recorded or {})


def refused(root: Path, out: Path, models: str) -> None:
    cure = "its corpus is another.*choose another folder, or delete this one to make it anew"
    with pytest.raises(StaleError, match=rf"{cure}\. Changed: {models}\.$"):
        build_dataset(root, out, **BUILD)


def test_a_model_that_was_mended_after_it_was_quarantined_is_named(root, tmp_path):
    out = tmp_path / "out"
    assert build_dataset(root, out, **BUILD).manifest.status.value_counts().to_dict() == {"ok": 4, "quarantined": 1}
    put(root, "broken", TETRAHEDRON)
    refused(root, out, "03001627/broken")
    shutil.rmtree(out)
    assert len(build_dataset(root, out, **BUILD).models) == 5


@pytest.mark.parametrize("name", [OBJ, MTL])
def test_a_file_changed_in_place_is_noticed_though_its_size_is_the_same(root, tmp_path, name):
    build_dataset(root, tmp_path / "out", **BUILD)
    path = root / "03001627" / "b" / name
    before = path.read_text()
    path.write_text(before.replace("1 0 0", "2 0 0") if name == OBJ else before.replace("1 0 0", "0 0 1"))
    refused(root, tmp_path / "out", "03001627/b")
    path.write_text(before)
    build_dataset(root, tmp_path / "out", **BUILD)


def test_many_changes_are_told_in_short_and_so_is_another_model(root, tmp_path):
    build_dataset(root, tmp_path / "out", **BUILD)
    for model_id in "abcd":
        put(root, model_id, TETRAHEDRON)
    refused(root, tmp_path / "out", "03001627/a, 03001627/b, 03001627/c and 1 more")
    put(root, "e", TETRAHEDRON)
    with pytest.raises(StaleError, match="n_models is 5, not 6"):
        build_dataset(root, tmp_path / "out", **BUILD)


def test_what_is_touched_copied_or_unpacked_is_the_same_and_read_once(root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    digest = build_dataset(root, out, **BUILD).digest
    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "_crc", None)  # nothing is read
        build_dataset(root, out, **BUILD)
    for path in root.rglob("*.obj"):
        os.utime(path, ns=(0, time.time_ns() - 10**9))
    for copy in (root, shutil.copytree(root, tmp_path / "elsewhere")):
        assert build_dataset(copy, out, **BUILD).digest == digest
        with monkeypatch.context() as patch:
            patch.setattr(fingerprints, "_crc", None)
            build_dataset(copy, out, **BUILD)
    (tmp_path / "zips").mkdir()
    zipped(root, tmp_path / "zips" / "03001627.zip")
    assert build_dataset(tmp_path / "zips", out, **BUILD).digest == digest


def test_files_that_no_view_shows_do_not_count(root):
    before = found(root)
    put(root, "a", "x", "models/.DS_Store")
    put(root, "a", "x", "models/._model_normalized.obj")
    put(root, "a", "x", "models/model_normalized.solid.binvox")
    assert changed(before, found(root)) == []
    put(root, "a", "x", "images/new.PNG")
    put(root, "e", TETRAHEDRON)
    assert changed(before, found(root)) == changed(found(root), before) == ["03001627/a", "03001627/e"]


def test_a_zip_is_known_by_its_directory_and_read_anew_when_it_changes(root, tmp_path):
    path = tmp_path / "zips" / "03001627.zip"
    path.parent.mkdir()
    zipped(root, path)
    before = found(path.parent)
    assert changed(found(root), before) == []
    put(root, "broken", TETRAHEDRON)
    zipped(root, path)
    assert changed(before, found(path.parent)) == ["03001627/broken"]


def test_a_file_that_cannot_be_read_is_tried_each_time(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fingerprints.ModelSource, "read", lambda *_: (_ for _ in ()).throw(PermissionError()))
        save_fingerprints(tmp_path / "sources.parquet", found(root))
    recorded = read_fingerprints(tmp_path / "sources.parquet")
    assert {stamp for stamp, _ in recorded.values()} == {""}
    assert len(changed(recorded, found(root, recorded))) == 5
    assert read_fingerprints(tmp_path / "none.parquet") == {}


@pytest.mark.parametrize("packed", [False, True])
def test_an_interrupted_build_makes_changed_models_again(root, tmp_path, monkeypatch, packed):
    def interrupt(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "remove_leftovers" if packed else "pack_views", interrupt)
        if packed:
            patch.setattr(build, "check_space", lambda *_: patch.setattr(build, "remove_leftovers", interrupt))
            patch.setattr(build, "remove_leftovers", lambda *_: None)
        build_dataset(root, out, **BUILD)
    assert (out / "views.npy").is_file() == packed
    put(root, "b", TETRAHEDRON.replace("v 1", "v 2"))
    put(root, "broken", TETRAHEDRON)
    put(root, "c", "")
    times = {i: (out / f"meshes/03001627/{i}.npz").stat().st_mtime_ns for i in "abd"}
    again = build_dataset(root, out, **BUILD)
    kept = {i for i in times if (out / f"meshes/03001627/{i}.npz").stat().st_mtime_ns == times[i]}
    assert kept == (set() if packed else {"a", "d"})
    fresh = build_dataset(root, tmp_path / "fresh", **BUILD)
    assert again.digest == fresh.digest
    for name in ("models.parquet", "views.parquet", "views.npy", "near_duplicates.parquet"):
        assert (out / name).read_bytes() == (fresh.path / name).read_bytes()
    assert {p.name for p in out.glob("meshes/*/*")} == {p.name for p in fresh.path.glob("meshes/*/*")}


def test_a_file_that_changes_during_the_build_is_told(root, tmp_path, monkeypatch):
    plain = build._build_model

    def mended(source, *rest):
        put(root, "broken", TETRAHEDRON)
        plain(source, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build, "_build_model", mended)
        with pytest.raises(CorpusError, match="03001627/broken changed during the build: run again"):
            build_dataset(root, tmp_path / "out", **BUILD)
    assert len(build_dataset(root, tmp_path / "out", **BUILD).models) == 5


def test_a_changed_rendering_is_noticed(root, tmp_path):
    drawn = tmp_path / "drawn"
    path = put(drawn, "a", "00.png", "rendering/renderings.txt")
    sources = Corpus.open(root, split_seed=0).models
    before = fingerprints.fingerprints(sources, drawn, {})
    path.write_text("01.png")
    assert changed(before, fingerprints.fingerprints(sources, drawn, before)) == ["03001627/a"]
    assert changed(before, fingerprints.fingerprints(sources, "", before)) == ["03001627/a"]


TWO = """
import sys, time
from pathlib import Path
from i2m_lib.dataset import build
plain = build._build_model
def slow(*arguments):
    for _ in range(600):
        if not Path(sys.argv[4]).exists():
            time.sleep(0.1)
    plain(*arguments)
build._build_model = slow
print(len(build.build_dataset(sys.argv[1], sys.argv[2], **eval(sys.argv[3])).models), flush=True)
"""


def test_of_two_builds_at_once_the_second_waits(root, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", TWO, root, out, str(BUILD), tmp_path / "go"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while first.poll() is None and not (out / "key.json").is_file():
        time.sleep(0.01)
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline() == f"Another process is making {out}: waiting for it to end.\n"
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=120)[0] for process in (first, second)] == ["4\n", "4\n"]
    built = Dataset.open(out)
    assert np.array_equal(built.images, build_dataset(root, tmp_path / "alone", **BUILD).images)

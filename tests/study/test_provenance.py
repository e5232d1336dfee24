import subprocess

import pytest

from i2m_lib.artefacts import Key, keep, key_file, sha256
from i2m_lib.paths import project_root
from i2m_lib.study.provenance import file_entries, notebook_key, read_provenance, save_provenance, written

NOTEBOOK = {"parameters": {"n": 3, "workers": 2}, "finished": "2026-05-01T12:00:00+00:00", "seconds": 9.0}
NOTEBOOK |= {"commit": "abc", "dirty": True, "device": "A chip", "started": "2026-05-01T11:59:51+00:00", "unmet": ""}
REFERENCE = project_root() / "results" / "reference"


def entries(folder, before, known):
    return file_entries(folder, before, known, "02_second", NOTEBOOK)


def test_a_key_of_a_notebook_leaves_out_what_changes_no_result():
    key = notebook_key("01_first", {"n": 3, "workers": 2})
    assert key.digest == notebook_key("01_first", {"n": 3, "workers": 8}).digest
    assert key.digest != notebook_key("01_first", {"n": 4, "workers": 2}).digest
    assert key.digest != notebook_key("02_second", {"n": 3, "workers": 2}).digest
    assert notebook_key("01_first", {"n": 3, "run": "a"}, ["run"]) == key


def test_what_was_written_leaves_out_what_a_later_step_replaces(tmp_path):
    kept = ["01_first.ipynb", "figures/a.png", "graph/key.json", "product.parquet", "product.parquet.key.json"]
    left = ["provenance.json", "01_first.failed.ipynb", "training/checkpoint.json", "training/checkpoint-3.safetensors"]
    left += ["training/best_2.safetensors", "parts/a/b.npz", ".graph.lock", "meshes/.123.a.glb"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(written(tmp_path)) == kept


def test_a_notebook_is_told_of_what_it_wrote_and_of_nothing_else(tmp_path):
    for name in ("same", "again", "edited", "foreign"):
        (tmp_path / name).write_text(name)
    old = {
        name: {"sha256": sha256(tmp_path / name), "commit": "old"} for name in ("same", "again", "edited", "gone")[:3]
    }
    (tmp_path / "edited").write_text("by hand, before the notebook began")
    before = written(tmp_path)
    before["again"] -= 1  # as if it had been written a nanosecond earlier
    (tmp_path / "new").write_text("new")
    found = entries(tmp_path, before, old | {"gone": {"sha256": "0", "commit": "old"}})
    assert found.keys() == {"same", "again", "new"}
    assert found["same"] == old["same"]
    ours = {"commit": "abc", "dirty": True, "device": "A chip", "seconds": 9.0, "time": NOTEBOOK["finished"]}
    ours["key"] = notebook_key("02_second", NOTEBOOK["parameters"]).digest
    assert found["new"] == ours | {"sha256": sha256(tmp_path / "new")}
    assert found["again"] == ours | {"sha256": old["again"]["sha256"]}


@pytest.mark.parametrize("name", ["graph", "scores.parquet", "paper/chair"])
def test_a_file_of_an_artefact_has_its_key_and_maker(tmp_path, name):
    path, key = tmp_path / name, Key("graph", 1)
    inside = path if path.suffix else path / "deep" / "file"

    def make():
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text("made")
        halves = entries(tmp_path, {}, {})
        assert halves[inside.relative_to(tmp_path).as_posix()]["commit"] == "abc"  # its key is unfinished

    keep(path, key, make)
    (tmp_path / "table").write_text("")
    found = entries(tmp_path, {}, {})
    covered = {inside.relative_to(tmp_path).as_posix(), key_file(path).relative_to(tmp_path).as_posix()}
    assert found.keys() == {*covered, "table"}
    for file in covered:
        assert found[file]["key"] == key.digest
        assert found[file]["commit"] != "abc"
    # Later notebooks change nothing in that, even if provenance.json was lost.
    assert entries(tmp_path, written(tmp_path), {}) == {file: found[file] for file in covered}


def test_provenance_names_all_commits(tmp_path):
    folder = tmp_path / "results" / "tiny"
    assert read_provenance(folder) == {"notebooks": {}, "files": {}}
    save_provenance(folder, {"01_first": NOTEBOOK}, {"a": {"commit": "0aa", "dirty": False}}, tmp_path)
    content = read_provenance(folder)
    assert (content["run"], content["commits"], content["dirty"]) == ("tiny", ["0aa", "abc"], True)
    assert content["dataset"] is None
    assert content["notebooks"] == {"01_first": NOTEBOOK}


def test_every_committed_file_of_the_reference_is_as_recorded():
    command = ["git", "-C", project_root(), "ls-files", "-z", "--", REFERENCE]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("results/reference is not under git here")
    committed = {project_root() / name for name in listed.stdout.split("\0") if name}
    recorded = {}
    for path in committed:
        if path.name == "provenance.json":
            files = read_provenance(path.parent)["files"]
            recorded |= {path.parent / name: entry["sha256"] for name, entry in files.items()}
    content = {path: sha256(path) for path in committed if path.name != "provenance.json"}
    assert {p: d for p, d in recorded.items() if content.get(p) != d} == {}
    assert content.keys() - recorded.keys() == set()

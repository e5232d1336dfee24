import json
import logging
import multiprocessing
import os
import signal
import time

import pytest

from i2m_lib.artefacts import (
    Key,
    StaleError,
    git_state,
    keep,
    key_file,
    key_of,
    made_by,
    read_key,
    record,
    require,
    sha256,
)

KEY = Key("graph", 1, {"n": 12, "range": (0, 360)}, {"dataset": "a"})
OTHERS = {
    "n is 12, not 30": Key("graph", 1, {"n": 30, "range": (0, 360)}, {"dataset": "a"}),
    "version is 1, not 2": Key("graph", 2, {"n": 12, "range": (0, 360)}, {"dataset": "a"}),
    "its dataset is another": Key("graph", 1, {"n": 12, "range": (0, 360)}, {"dataset": "b"}),
    "it is of stage graph, not fits": Key("fits", 1, {"n": 12, "range": (0, 360)}, {"dataset": "a"}),
    "choice is None, not 'random'": Key("graph", 1, {"n": 12, "range": (0, 360), "choice": "random"}, {"dataset": "a"}),
}


def write(folder, text="made"):
    """What makes an artefact: a folder with one file, whose text grows if it is made twice."""

    def make() -> None:
        folder.mkdir(exist_ok=True)
        with (folder / "file").open("a") as file:
            file.write(text)

    return make


def test_equal_keys_have_equal_digests_and_tuples_are_lists():
    same = Key("graph", 1, {"range": [0, 360], "n": 12}, {"dataset": "a"})
    assert same == KEY
    assert same.digest == KEY.digest
    assert len({KEY.digest, *(other.digest for other in OTHERS.values())}) == len(OTHERS) + 1
    assert KEY.differences(same) == []


@pytest.mark.parametrize(("clause", "other"), OTHERS.items())
def test_another_key_is_made_anew_and_its_difference_named(tmp_path, caplog, clause, other):
    folder = tmp_path / "graph"
    assert keep(folder, KEY, write(folder))
    assert not keep(folder, KEY, write(folder))
    assert (folder / "file").read_text() == "made"
    (folder / "old").mkdir()
    with pytest.raises(StaleError, match=clause.replace("(", r"\(")):
        keep(folder, other, write(folder), refuse=True)
    assert (folder / "old").exists()
    with caplog.at_level(logging.INFO):
        assert keep(folder, other, write(folder, "anew"))
    assert clause in caplog.text
    assert {p.name: p.read_text() for p in folder.iterdir() if p.name != "key.json"} == {"file": "anew"}
    assert read_key(folder) == other


def test_a_half_made_artefact_is_continued_and_never_used(tmp_path):
    folder = tmp_path / "graph"

    def fail() -> None:
        write(folder, "half ")()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        keep(folder, KEY, fail)
    assert read_key(folder) is None
    assert read_key(folder, finished=False) == KEY
    with pytest.raises(StaleError, match="missing or unfinished"):
        key_of(folder)
    assert keep(folder, KEY, write(folder, "whole"))
    assert (folder / "file").read_text() == "half whole"
    assert key_of(folder) == KEY.digest


def test_files_that_no_stage_made_are_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(StaleError, match="holds files without a key: choose another folder"):
        keep(tmp_path / "photos", KEY, write(tmp_path / "photos"))
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.png"]


def test_an_artefact_that_was_deleted_is_made_again(tmp_path):
    path = tmp_path / "scores.parquet"
    assert key_file(path).name == "scores.parquet.key.json"
    assert key_file(tmp_path / "ShapeNetCore.v2") == tmp_path / "ShapeNetCore.v2" / "key.json"
    assert keep(path, KEY, path.touch)
    path.unlink()
    assert keep(path, KEY, path.touch)
    assert path.exists()


def test_a_required_artefact_must_be_of_its_key(tmp_path):
    path = tmp_path / "memory.npz"
    with pytest.raises(StaleError, match="missing or unfinished: run 04 again"):
        require(path, KEY, "run 04 again")
    path.touch()
    record(path, KEY, seconds=2.5)
    require(path, KEY, "run 04 again")
    with pytest.raises(StaleError, match=r"made of something else \(its dataset is another\): run 04 again"):
        require(path, OTHERS["its dataset is another"], "run 04 again")


def test_the_key_file_tells_what_made_it(tmp_path):
    folder = tmp_path / "graph"
    keep(folder, KEY, write(folder))
    content = json.loads((folder / "key.json").read_text())
    assert content["digest"] == KEY.digest
    assert content["finished"] is True
    assert content["seconds"] >= 0
    assert {"commit", "dirty", "device", "time"} <= content.keys()
    assert made_by()["device"]


def test_outside_git_no_commit_is_claimed(tmp_path):
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def slow(folder, seconds: float) -> None:
    """A process that takes its time to make an artefact."""

    def make() -> None:
        write(folder)()
        time.sleep(seconds)

    keep(folder, KEY, make)


def test_a_second_process_waits_and_finds_it_made(tmp_path, capfd):
    folder, context = tmp_path / "graph", multiprocessing.get_context("spawn")
    first = context.Process(target=slow, args=(folder, 1.0))
    first.start()
    while not (folder / "file").exists():
        time.sleep(0.02)
    second = context.Process(target=slow, args=(folder, 0.0))
    second.start()
    first.join(), second.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert (folder / "file").read_text() == "made"
    assert f"Another process is making {folder}: waiting" in capfd.readouterr().out


def test_a_killed_process_leaves_no_lock(tmp_path):
    folder = tmp_path / "graph"
    first = multiprocessing.get_context("spawn").Process(target=slow, args=(folder, 60.0))
    first.start()
    while not (folder / "file").exists():
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert keep(folder, KEY, write(folder, " again"))
    assert (folder / "file").read_text() == "made again"


def test_a_half_made_artefact_may_be_continued_with_another_input(tmp_path):
    folder, other = tmp_path / "graph", OTHERS["its dataset is another"]
    keep(folder, KEY, write(folder))
    with pytest.raises(StaleError, match="its dataset is another"):
        keep(folder, other, write(folder), refuse=True, continues=("dataset",))
    (folder / "key.json").write_text((folder / "key.json").read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(StaleError, match="its dataset is another"):
        keep(folder, other, write(folder), refuse=True)
    assert keep(folder, other, write(folder), refuse=True, continues=("dataset",))
    assert (folder / "file").read_text() == "mademade"
    assert read_key(folder) == other

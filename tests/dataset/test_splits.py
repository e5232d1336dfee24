import csv
import json
from pathlib import Path

import pytest

from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import CorpusError
from i2m_lib.dataset.splits import (
    SPLITS,
    hashed_split,
    listed_split,
    read_splits,
    read_template_ids,
    trained_categories,
)

LISTS = Path(__file__).parents[3] / "shared" / "splits"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared lists are not here")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def r2n2(**ids: list[str]) -> str:
    return json.dumps([{"taxonomy_id": "03001627", "taxonomy_name": "chair"} | {s: ids.get(s, []) for s in SPLITS}])


def test_a_plain_csv_and_shapenets_say_the_same(tmp_path):
    plain = read_splits(write(tmp_path / "plain.csv", "modelId,split\na,train\nb,test\n"))
    rows = "id,synsetId,subSynsetId,modelId,split\n0,03001627,1,a,train\n1,03001627,1,b,test\n"
    full = read_splits(write(tmp_path / "all.csv", rows))
    for splits in (plain, full):
        assert [listed_split(splits, "03001627", i) for i in "abc"] == ["train", "test", None]
        assert listed_split(splits, "04256520", "a") == "train"


def test_an_id_with_a_split_for_each_synset_is_known_by_both_only(tmp_path):
    rows = "synsetId,modelId,split\n03001627,a,train\n04256520,a,test\n"
    splits = read_splits(write(tmp_path / "all.csv", rows))
    assert [listed_split(splits, s, "a") for s in ("03001627", "04256520", "04379243")] == ["train", "test", None]


def test_lists_are_chosen_by_parameter_and_unknown_ids_are_counted(tmp_path):
    for model_id in "abcd":
        path = tmp_path / "corpus" / "03001627" / model_id / "model.obj"
        path.parent.mkdir(parents=True)
        path.touch()
    seeded = Corpus.open(tmp_path / "corpus", split_seed=3)
    assert (seeded.split_list, seeded.n_unlisted, seeded.n_absent) == ("seeded", 0, 0)
    write(tmp_path / "corpus" / "all.csv", "modelId,split\na,val\nx,val\n")
    beside = Corpus.open(tmp_path / "corpus", split_seed=3)
    assert (beside.split_list, beside.n_unlisted, beside.n_absent) == ("all.csv", 3, 1)
    assert beside.splits == {"a": "val"} | {i: hashed_split(i, 3) for i in "bcd"}
    path = write(tmp_path / "list.json", r2n2(train=["a", "b"], test=["c", "y", "z"]))
    given = Corpus.open(tmp_path / "corpus", split_seed=3, splits=path)
    assert (given.split_list, given.n_unlisted, given.n_absent) == ("list.json", 1, 2)
    assert given.splits == {"a": "train", "b": "train", "c": "test", "d": hashed_split("d", 3)}


@pytest.mark.parametrize("listed", ["A", "03001627/a", "a.obj", "airplane-a"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_list_of_none_of_the_models_is_an_error_that_shows_both_ways_to_write_ids(tmp_path, listed, beside):
    path = tmp_path / "corpus" / "03001627" / "a" / "model.obj"
    path.parent.mkdir(parents=True)
    path.touch()
    path = write(tmp_path / ("corpus/all.csv" if beside else "mine.csv"), f"modelId,split\n{listed},test\n")
    with pytest.raises(
        CorpusError, match=f"{path.name} lists no model of .*ids are like '{listed}', .* names like 'a';"
    ):
        Corpus.open(tmp_path / "corpus", split_seed=0, splits="" if beside else path)


def test_marks_before_a_list_and_zeros_that_spreadsheets_drop_change_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("synsetId,modelId,split\n2818832,a,val\n3001627,a,test\n", encoding="utf-8-sig")
    splits = read_splits(tmp_path / "a.csv")
    assert [listed_split(splits, synset, "a") for synset in ("02818832", "03001627", "04379243")] == [
        "val",
        "test",
        None,
    ]
    (tmp_path / "a.json").write_text(r2n2(train=["a"]), encoding="utf-8-sig")
    assert listed_split(read_splits(tmp_path / "a.json"), "03001627", "a") == "train"
    (tmp_path / "ids.txt").write_text("03001627 (chair)\na\n", encoding="utf-8-sig")
    assert read_template_ids(tmp_path / "ids.txt") == {"03001627": ["a"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"model,split\na,val\n", "needs the columns modelId and split"),
        ("a.csv", b"", "needs the columns modelId and split"),
        ("a.csv", b"modelId,split\na,validation\n", "model a has the split 'validation'; write train"),
        ("a.csv", b"modelId,split\na\n", "model a has the split None"),
        ("a.csv", b"modelId,split\na,val\na,test\n", "model a has two splits"),
        ("a.csv", b"modelId,split\n\xff\xfe,val\n", "cannot be read as a list of splits"),
        ("a.json", b"[{]", "cannot be read as a list of splits"),
        ("a.json", b'[{"train": []}]', "is not 3D-R2N2's list"),
        ("a.json", b"7", "is not 3D-R2N2's list"),
        ("absent.csv", None, "cannot be read as a list of splits"),
    ],
)
def test_broken_lists_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=rf"{name}.*{message}"):
        read_splits(tmp_path / name)


@needs_lists
def test_the_official_lists():
    shapenet = read_splits(LISTS / "shapenet_all.csv")
    with (LISTS / "shapenet_all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 51_190
    assert all(shapenet[row["synsetId"], row["modelId"]] == row["split"] for row in rows)
    splits = read_splits(LISTS / "r2n2_shapenet13.json")
    by_synset = {key for key in splits if key[0]}
    assert len(by_synset) == 43_784
    assert len({i for _, i in by_synset}) == 43_518
    assert len(by_synset) - len([key for key in splits if not key[0]]) == 266 + 117
    assert list(map([splits[key] for key in by_synset].count, SPLITS)) == [30_643, 4_371, 8_770]


def test_template_ids_by_category(tmp_path):
    path = write(tmp_path / "ids.txt", "\n03001627 (chair)\nb\na\n\n04256520\nc\n")
    assert read_template_ids(path) == {"03001627": ["b", "a"], "04256520": ["c"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n03001627 (chair)\n", "'a' comes before any synset"),
        ("03001627 (chair)\na\na\n", "template a is listed twice"),
        ("03001627 (chair)\n04256520 (sofa)\na\n", "no template for 03001627"),
    ],
)
def test_broken_lists_of_templates(tmp_path, text, message):
    with pytest.raises(CorpusError, match=message):
        read_template_ids(write(tmp_path / "ids.txt", text))
    with pytest.raises(CorpusError, match="cannot be read"):
        read_template_ids(tmp_path / "absent.txt")


@needs_lists
def test_the_papers_own_templates():
    ids = read_template_ids(LISTS / "image2mesh_template_ids.txt")
    assert {synset: len(listed) for synset, listed in ids.items()} == {
        **dict.fromkeys(("02691156", "02924116", "02958343", "03001627", "04256520", "04379243"), 30),
        "02834778": 21,
        "03790512": 27,
    }


def test_a_study_is_of_categories_with_training_models():
    models = [
        ("chair", "train"),
        ("chair", "val"),
        ("sofa", "val"),
        ("sofa", "test"),
        ("lamp", "test"),
        ("lamp", "train"),
    ]
    assert trained_categories(models) == {"chair", "lamp"}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], r"none for train and val and test \(0 train, 0 val, 0 test\)"),
        ([("chair", "train"), ("chair", "test")], r"none for val \(1 train, 0 val, 1 test\)"),
        ([("chair", "train"), ("chair", "val"), ("sofa", "test")], r"none for test \(1 train, 1 val, 0 test\)"),
    ],
)
def test_a_study_that_lacks_a_split_is_refused_with_the_cure(models, message):
    with pytest.raises(CorpusError, match=message + ".*max_models.*file of splits"):
        trained_categories(models)

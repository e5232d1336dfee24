import json
import os
import zipfile
from pathlib import Path

import pytest

from i2m_lib.dataset.shapenet import OBJ_OF_LAYOUT, Corpus
from i2m_lib.dataset.source import CorpusError, ModelSource
from i2m_lib.dataset.splits import hashed_split

SHARED = Path(__file__).parents[3] / "shared" / "corpus"
OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(OBJ)
    return root


def test_folders_and_zips_are_one_corpus(corpus_root):
    corpus = Corpus.open(corpus_root, split_seed=0)
    assert corpus.categories == {"03001627": "chair", "04379243": "table"}
    assert [(s.synset, s.model_id) for s in corpus.models] == sorted((s.synset, s.model_id) for s in corpus.models)
    assert {s.container.name for s in corpus.models} == {"03001627", "04379243.zip"}
    assert all(s.read("model_normalized.obj").startswith(b"mtllib") for s in corpus.models)
    assert [corpus.splits[s.model_id] for s in corpus.models[:4]] == [
        "train",
        "train",
        "val",
        "test",
    ]


def test_a_folder_wins_over_its_zip_and_v2_over_v1(tmp_path):
    put(tmp_path, "03001627/a/model.obj", "03001627/a/models/model_normalized.obj")
    put(tmp_path, "03001627/b/model.obj")
    with zipfile.ZipFile(tmp_path / "03001627.zip", "w") as archive:
        for model_id in "ac":
            archive.writestr(f"03001627/{model_id}/models/model_normalized.obj", OBJ)
    models = Corpus.open(tmp_path, split_seed=0).models
    assert [(s.model_id, s.layout, s.container.name) for s in models] == [
        ("a", "v2", "03001627"),
        ("b", "v1", "03001627"),
        ("c", "v2", "03001627.zip"),
    ]
    assert all(s.read(Path(s.entry).name) == OBJ.encode() for s in models)


def test_a_model_of_two_synsets_is_used_once(tmp_path):
    put(tmp_path, "03001627/a/model.obj", "04256520/a/model.obj", "04256520/b/model.obj")
    corpus = Corpus.open(tmp_path, split_seed=0)
    assert [(s.synset, s.model_id) for s in corpus.models] == [("03001627", "a"), ("04256520", "b")]
    assert [s.synset for s in corpus.repeated] == ["04256520"]


def test_models_that_are_numbered_in_each_category_are_all_used(tmp_path):
    for i, synset in enumerate(("02818832", "03001627", "04256520", "04379243")):
        put(tmp_path, f"{synset}/0/models/model_normalized.obj", f"{synset}/1/models/model_normalized.obj")
        if i < 3:  # the last repeats the first
            (tmp_path / synset / "1/models/model_normalized.obj").write_text(OBJ.replace("1 0 0", f"{i} 0 1"))
        (tmp_path / synset / "0/models/model_normalized.obj").write_text(OBJ.replace("1 0 0", f"2 {i} 0"))
    (tmp_path / "04379243/1/models/model_normalized.obj").write_text(OBJ.replace("1 0 0", "0 0 1"))
    rows = ["02818832,0,train", "03001627,0,val", "04256520,0,test", "02818832,1,test", "03001627,1,train"]
    (tmp_path / "all.csv").write_text("\n".join(["synsetId,modelId,split", *rows]))
    corpus = Corpus.open(tmp_path, split_seed=0)
    ids = ["0", "1", "03001627-0", "03001627-1", "04256520-0", "04256520-1", "04379243-0"]
    assert [s.model_id for s in corpus.models] == ids
    assert [(s.synset, s.model_id) for s in corpus.repeated] == [("04379243", "1")]
    assert [corpus.splits[i] for i in ids[:5]] == ["train", "test", "val", "train", "test"]
    assert (corpus.n_unlisted, corpus.n_absent) == (2, 0)
    assert {s.original_id for s in corpus.models} == {"0", "1"}
    assert len({s.read("model_normalized.obj") for s in corpus.models}) == len({s.name for s in corpus.models}) == 7


@pytest.mark.parametrize(
    ("names", "expected"),
    [("display,video display", "display"), ("remote control,remote", "remote"), ("a b", "a_b")],
)
def test_category_is_the_first_single_word(tmp_path, names, expected):
    put(tmp_path, "03001627/a/model.obj")
    (tmp_path / "taxonomy.json").write_text(json.dumps([{"synsetId": "03001627", "name": names}]))
    assert Corpus.open(tmp_path, split_seed=0).categories == {"03001627": expected}


def test_two_synsets_of_one_name_are_two_categories(tmp_path):
    put(tmp_path, "02992529/a/model.obj", "04401088/b/model.obj", "03001627/c/model.obj")
    nodes = [
        {"synsetId": s, "name": n} for s, n in (("02992529", "phone"), ("04401088", "phone,x"), ("03001627", "chair"))
    ]
    # as editors of Windows save it
    (tmp_path / "taxonomy.json").write_text(json.dumps(nodes), encoding="utf-8-sig")
    corpus = Corpus.open(tmp_path, split_seed=0)
    assert corpus.categories == {"02992529": "phone_02992529", "03001627": "chair", "04401088": "phone_04401088"}
    assert [s.model_id for s in corpus.choose(["phone_04401088"], None, seed=0)] == ["b"]
    with pytest.raises(CorpusError, match=r"no category 'phone', only .*phone_02992529"):
        corpus.choose(["phone"], None, seed=0)


def test_without_lists_the_synset_is_the_name_and_the_split_is_hashed(tmp_path):
    put(tmp_path, *(f"03001627/{i:03}/model.obj" for i in range(300)))
    corpus = Corpus.open(tmp_path, split_seed=7)
    assert corpus.categories == {"03001627": "03001627"}
    assert corpus.splits == {f"{i:03}": hashed_split(f"{i:03}", 7) for i in range(300)}
    assert corpus.splits != Corpus.open(tmp_path, split_seed=8).splits


def test_hashed_split_has_its_shares():
    drawn = [hashed_split(str(i), 0) for i in range(20_000)]
    for split, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert drawn.count(split) / len(drawn) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("limit", [1, 3, 10, 30, 99])
def test_limited_choice_keeps_the_shares_of_the_splits(tmp_path, limit):
    put(tmp_path, *(f"03001627/{i:02}/model.obj" for i in range(60)))
    corpus = Corpus.open(tmp_path, split_seed=1)
    chosen = corpus.choose(None, limit, seed=3)
    assert chosen == sorted(chosen, key=lambda s: s.model_id)
    assert len({s.model_id for s in chosen}) == min(limit, 60)
    assert set(corpus.choose(None, limit // 2, seed=3)) <= set(chosen)
    for split in ("train", "val", "test"):
        n_all = list(corpus.splits.values()).count(split)
        n = [corpus.splits[s.model_id] for s in chosen].count(split)
        assert abs(n - n_all * len(chosen) / 60) <= 1
        assert n >= 1 or limit < 3


def test_choice_by_name_or_synset(corpus_root):
    corpus = Corpus.open(corpus_root, split_seed=0)
    by_name, by_synset = (corpus.choose([c], None, seed=0) for c in ("table", "04379243"))
    assert by_name == by_synset
    assert len(by_name) == 4
    with pytest.raises(CorpusError, match=r"no category 'stool', only .*chair"):
        corpus.choose(["stool"], None, seed=0)


@pytest.mark.parametrize("layout", ["v1", "v2"])
@pytest.mark.parametrize(
    ("name", "top"),
    [("03001627.zip", ""), ("03001627.zip", "ShapeNetCore/"), ("ShapeNetCore.v2.zip", "ShapeNetCore.v2/")],
)
def test_zips_are_read_in_place_with_or_without_a_folder_on_top(tmp_path, layout, name, top):
    # The second id looks like a synset.
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for model_id in ("a", "12345678"):
            archive.writestr(f"{top}03001627/{model_id}/{OBJ_OF_LAYOUT[layout]}", OBJ)
        archive.writestr(f"{top}03001627/a/images/t.png", "t")
        archive.writestr(f"__MACOSX/{top}03001627/a/._{Path(OBJ_OF_LAYOUT[layout]).name}", "x")
    models = Corpus.open(tmp_path, split_seed=0).models
    assert [(s.synset, s.model_id, s.layout) for s in models] == [("03001627", i, layout) for i in ("12345678", "a")]
    assert all(s.read(Path(s.entry).name) == OBJ.encode() for s in models)
    assert models[1].read("../images/t.png" if layout == "v2" else "images/t.png") == b"t"


@pytest.mark.parametrize("layout", ["v1", "v2"])
@pytest.mark.parametrize(("start", "joint"), [("", "\\"), ("./", "/"), (".\\", "\\")])
def test_zips_with_names_as_some_programs_write_them(tmp_path, layout, start, joint):
    with zipfile.ZipFile(tmp_path / "03001627.zip", "w") as archive:
        for name, text in ((OBJ_OF_LAYOUT[layout], OBJ), ("images/t.png", "t")):
            archive.writestr(start + f"03001627/a/{name}".replace("/", joint), text)
    (source,) = Corpus.open(tmp_path, split_seed=0).models
    assert (source.name, source.layout) == ("03001627/a", layout)
    assert source.read(Path(source.entry).name) == OBJ.encode()
    assert source.find("images/t.png" if layout == "v1" else "..\\images\\T.png") == b"t"
    assert len(list(source.files())) == 2


def test_models_without_an_obj_are_listed_and_cannot_be_read(tmp_path):
    (tmp_path / "03001627" / "a" / "models").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "04256520.zip", "w") as archive:
        archive.writestr("04256520/b/models/model_normalized.mtl", "")
    models = Corpus.open(tmp_path, split_seed=0).models
    assert [s.model_id for s in models] == ["a", "b"]
    for source in models:
        with pytest.raises(FileNotFoundError, match=r"model_normalized\.obj"):
            source.read("model_normalized.obj")


@pytest.mark.parametrize(
    "name",
    ["03001627/../../a/model.obj", "03001627/../model.obj", "/03001627/a/model.obj", "03001627\\..\\model.obj"],
)
def test_zips_with_entries_that_leave_them_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "03001627.zip", "w") as archive:
        archive.writestr(name, OBJ)
    with pytest.raises(CorpusError, match=r"03001627\.zip has the entry .*, which leaves its folder"):
        Corpus.open(tmp_path, split_seed=0)


@pytest.mark.parametrize(("names", "message"), [([], "is empty"), (["02.zip", "x"], "begins with 02.zip: expected")])
def test_zips_without_models_are_named(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "03001627.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "")
    with pytest.raises(CorpusError, match=f"holds no model but {message}"):
        Corpus.open(tmp_path, split_seed=0)


@pytest.mark.parametrize("folder", ["", "03001627model0", "03001627model0/models"])
def test_roots_inside_a_synset_say_what_to_give(corpus_root, folder):
    with pytest.raises(CorpusError, match=rf"too low: give .*{corpus_root.name}\."):
        Corpus.open(corpus_root / "03001627" / folder, split_seed=0)


def test_wrong_roots_say_what_to_give(corpus_root, tmp_path):
    with pytest.raises(CorpusError, match="not a folder"):
        Corpus.open(tmp_path / "absent", split_seed=0)
    with pytest.raises(CorpusError, match="holds no model: expected <synset>"):
        Corpus.open(tmp_path, split_seed=0)
    with pytest.raises(CorpusError, match=r"one level too high: give .*ShapeNetCore\.v\d+\."):
        Corpus.open(corpus_root.parent, split_seed=0)


def test_a_model_whose_name_is_not_utf_8_is_named(tmp_path):
    put(tmp_path, "03001627/a/model.obj")
    (tmp_path / "03001627" / os.fsdecode(b"\xba\xec")).mkdir()
    with pytest.raises(CorpusError, match=r"holds a folder '\\udcba\\udcec', which is no name in UTF-8: rename it"):
        Corpus.open(tmp_path, split_seed=0)


def test_broken_lists_are_named(tmp_path):
    put(tmp_path, "03001627/a/model.obj")
    (tmp_path / "all.csv").write_text("modelId,split\na,validation\n")
    with pytest.raises(CorpusError, match=r"all\.csv: model a has the split 'validation'"):
        Corpus.open(tmp_path, split_seed=0)
    (tmp_path / "all.csv").write_text("model,split\na,val\n")
    with pytest.raises(CorpusError, match="needs the columns modelId and split"):
        Corpus.open(tmp_path, split_seed=0)
    (tmp_path / "all.csv").unlink()
    (tmp_path / "taxonomy.json").write_text("{}[")
    with pytest.raises(CorpusError, match=r"taxonomy\.json is not ShapeNet's"):
        Corpus.open(tmp_path, split_seed=0)


def test_broken_zip_is_named(tmp_path):
    (tmp_path / "03001627.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CorpusError, match=r"03001627\.zip is no readable zip"):
        Corpus.open(tmp_path, split_seed=0)


@pytest.mark.parametrize("layout", ["v1", "v2"])
@pytest.mark.parametrize("name", ["/etc/passwd", "../../../b/model.obj", "..\\..\\..\\x", "../../b"])
def test_nothing_outside_the_model_is_read(tmp_path, layout, name):
    entry = "a/model.obj" if layout == "v1" else "a/models/model_normalized.obj"
    put(tmp_path, entry, "b/model.obj")
    with pytest.raises(CorpusError, match="leaves the folder"):
        ModelSource("03001627", "a", layout, tmp_path, entry).read(name)


def test_v2_textures_lie_beside_models(tmp_path):
    put(tmp_path, "a/models/model_normalized.obj", "a/images/t.jpg")
    source = ModelSource("03001627", "a", "v2", tmp_path, "a/models/model_normalized.obj")
    assert source.read("../images/t.jpg") == source.read("..\\images\\t.jpg") == OBJ.encode()
    with pytest.raises(FileNotFoundError):
        source.read("../images/none.jpg")


def test_links_out_of_the_model_are_refused_but_not_a_linked_synset(tmp_path):
    put(tmp_path, "there/a/model.obj", "there/secret")
    (tmp_path / "there" / "a" / "link.mtl").symlink_to(tmp_path / "there" / "secret")
    (tmp_path / "03001627").symlink_to(tmp_path / "there")
    (tmp_path / "04256520").mkdir()
    (tmp_path / "04256520" / "b").symlink_to(tmp_path / "there" / "a")
    a, b = Corpus.open(tmp_path, split_seed=0).models
    assert a.read("model.obj") == OBJ.encode()
    for source, name in ((a, "link.mtl"), (b, "model.obj")):
        with pytest.raises(CorpusError, match="a link that leaves"):
            source.read(name)


@pytest.mark.parametrize("change", [lambda data: data[40:], lambda data: data.replace(b"v 1 0 0", b"v 2 0 0")])
def test_a_damaged_zip_is_to_be_downloaded_again(tmp_path, change):
    path = tmp_path / "03001627.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("03001627/a/model.obj", OBJ)
    path.write_bytes(change(path.read_bytes()))
    (source,) = Corpus.open(tmp_path, split_seed=0).models
    with pytest.raises(CorpusError, match=r"model\.obj cannot be unpacked .*: download the zip again"):
        source.read("model.obj")


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "03001627.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("03001627/a/model.obj", b"#" * 2**20)
    source = ModelSource("03001627", "a", "v1", path, "03001627/a/model.obj")
    with pytest.raises(CorpusError, match="expands more than 200 times"):
        source.read("model.obj")
    monkeypatch.setattr("i2m_lib.dataset.source.MAX_FILE_BYTES", 10)
    with pytest.raises(CorpusError, match="MB, more than"):
        source.read("model.obj")
    put(tmp_path, "b/model.obj")
    with pytest.raises(CorpusError, match="MB, more than"):
        ModelSource("03001627", "b", "v1", tmp_path, "b/model.obj").read("model.obj")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared corpus is not here")
def test_the_shared_corpus(tmp_path):
    corpus = Corpus.open(SHARED / "ShapeNetCore.v2", split_seed=0)
    assert len(corpus.models) == 522
    assert corpus.categories["04256520"] == "sofa"
    with pytest.raises(CorpusError, match=r"give .*ShapeNetCore\.v2"):
        Corpus.open(SHARED, split_seed=0)
    assert (corpus.split_list, corpus.n_unlisted, corpus.n_absent) == ("all.csv", 0, 0)

    (tmp_path / "02691156.zip").symlink_to(SHARED / "02691156.zip")
    zipped = Corpus.open(tmp_path, split_seed=0).models
    folders = corpus.choose(["airplane"], None, seed=0)
    assert [s.model_id for s in zipped] == [s.model_id for s in folders]
    obj = "model_normalized.obj"
    assert all(a.read(obj) == b.read(obj) for a, b in zip(zipped, folders, strict=True))

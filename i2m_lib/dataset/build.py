"""From a corpus to a dataset on disk: parallel, resumable, the same for any number of workers.

<out>/key.json                          what it was built of: recipe, choice of models, contents of their files
<out>/sources.parquet                   the fingerprint of each model's files
<out>/meshes/<synset>/<model_id>.npz    V, F, C, surface samples S and their normals N
<out>/parts/<synset>/<model_id>.*       views and, written last, row of a finished model, until all are finished
<out>/views.npy, views.parquet          all images; a row for each
<out>/cost.parquet                      seconds for each model
<out>/near_duplicates.parquet           pairs across splits and how near they are
<out>/models.parquet                    a row for each model; written last

Meshes, views and tables but cost.parquet are the same byte for byte in each build of one key.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from i2m_lib.artefacts import Key, StaleError, keep
from i2m_lib.files import save_json, save_npz, save_parquet, whole

from .dataset import Dataset
from .fingerprints import Fingerprints, changed, fingerprints, read_fingerprints, save_fingerprints
from .model import VIEW_COLUMNS, Recipe, prepare, take_views
from .near_duplicates import find_near_duplicates, near_duplicate_of
from .pack import check_space, pack_views, remove_leftovers, writing
from .parallel import orphaned, run_chunks
from .render import Renderer
from .shapenet import Corpus
from .source import CorpusError, ModelSource
from .splits import trained_categories

VERSION = 2  # Raise it when results change.
CHUNK = 8  # models that share one renderer
_ONE_AT_A_TIME = threading.Lock()  # VTK is not thread-safe; Dask workers are multi-threaded
# Words first, then numbers, which quarantined models lack.
WORDS = "synset category model_id split source layout status reason near_duplicate_of sha256"
COUNTS = (
    "vertices faces source_faces nan_vertices nan_faces merged_vertices unreferenced_vertices degenerate_faces "
    "duplicate_faces simplified_faces flat_axes missing_materials missing_textures broken_textures"
)
MODEL_COLUMNS = dict.fromkeys(WORDS.split(), "string") | {f"n_{name}": "Int64" for name in COUNTS.split()}
MODEL_COLUMNS |= {"watertight": "boolean", "scale": "Float64", "centre": "object"}


def build_dataset(
    corpus_root: str | Path,
    out: str | Path,
    *,
    categories: list[str] | None = None,
    max_models: int | None = None,
    splits: str | Path = "",
    for_study: bool = False,
    workers: int = 2,
    scheduler: str = "",
    progress: bool = True,
    **recipe: object,
) -> Dataset:
    """Cleans, samples and renders the corpus into the folder `out`, and opens it. `categories` are names or synsets
    (None for all), `max_models` is a limit for each, `splits` is a file for `splits.read_splits` ("" for the corpus's
    all.csv, if any), `recipe` are the fields of `Recipe`. `for_study` leaves out, and prints, categories without
    training models, and refuses what lacks a split. It works on `workers` processes, or on all those of the Dask
    `scheduler` at the given address, which must see corpus and `out` under the same paths. Models that cannot be used
    are listed with a reason. Call again to continue an interrupted build; a finished one is opened at once. Raises
    StaleError if `out` was built in another way or of files that have changed since, CorpusError if the corpus cannot
    be read or `out` cannot be written."""
    recipe, out = Recipe(**recipe), Path(out).absolute()
    corpus = Corpus.open(Path(corpus_root).absolute(), split_seed=recipe.seed, splits=splits)
    sources = corpus.choose(categories, max_models, seed=recipe.seed)
    sources = _of_trained(corpus, sources) if for_study else sources
    recorded = read_fingerprints(out / "sources.parquet")
    found = fingerprints(sources, recipe.renderings, recorded)
    key = _key(corpus, sources, found, recipe, max_models)
    run = partial(run_chunks, workers=workers, scheduler=scheduler, progress=progress)
    make = partial(_make, corpus, sources, found, out, recipe, run)
    with writing(out):
        try:
            if not keep(out, key, make, refuse=True, continues=("corpus",)) and found != recorded:  # touched or moved
                save_fingerprints(out / "sources.parquet", found)
        except StaleError as error:
            models = changed(recorded, found) if recorded else []
            raise StaleError(f"{error} Changed: {_listed(models)}." if models else str(error)) from None
    dataset = Dataset.open(out)
    if for_study:
        usable = trained_categories(dataset.models[["category", "split"]].itertuples(index=False))
        if bare := sorted({corpus.categories[source.synset] for source in sources} - usable):
            cure = "mend those that models.parquet there gives a reason for, or choose other categories"
            raise CorpusError(f"{out} has no usable training model of {', '.join(bare)}: {cure}.")
    return dataset


def _of_trained(corpus: Corpus, sources: list[ModelSource]) -> list[ModelSource]:
    """The sources of categories that have training models."""
    named = [(corpus.categories[source.synset], source) for source in sources]
    trained = trained_categories((category, corpus.splits[source.model_id]) for category, source in named)
    if bare := sorted({category for category, _ in named} - trained):
        print(f"Left out, as none of their models is for training: {', '.join(bare)}.")
    return [source for category, source in named if category in trained]


def _listed(models: list[str]) -> str:
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")


def _key(
    corpus: Corpus, sources: list[ModelSource], found: Fingerprints, recipe: Recipe, max_models: int | None
) -> Key:
    """Does not depend on where the corpus lies."""
    names, chosen = corpus.categories, {source.model_id for source in sources}
    models = [(s.name, names[s.synset], s.layout, corpus.splits[s.model_id], found[s.name][1]) for s in sources]
    models += [(s.name, "repeated") for s in corpus.repeated if s.model_id in chosen]
    parameters = asdict(recipe) | {"renderings": bool(recipe.renderings), "max_models": max_models}
    parameters |= {"categories": sorted({names[s.synset] for s in sources}), "n_models": len(sources)}
    parameters |= {name: getattr(corpus, name) for name in ("split_list", "n_unlisted", "n_absent")}
    return Key("dataset", VERSION, parameters, {"corpus": Key("corpus", VERSION, {"models": models}).digest})


def _make(
    corpus: Corpus, sources: list[ModelSource], found: Fingerprints, out: Path, recipe: Recipe, run: Callable
) -> None:
    """Builds what `out` lacks of a dataset, or holds of files that have changed since."""
    if models := changed(read_fingerprints(out / "sources.parquet"), found):
        _forget(out, models, found)
    save_fingerprints(out / "sources.parquet", found)
    if not (out / "models.parquet").is_file():
        remove_leftovers(out)
        todo = [source for source in sources if not (out / f"parts/{source.name}.json").is_file()]
        # Training models alone get varied views.
        tasks = [(source, recipe.n_varied * (corpus.splits[source.model_id] == "train")) for source in todo]
        check_space(out, sum(recipe.n_views + n_varied for _, n_varied in tasks) * 4 * recipe.image_size**2)
        run(partial(_build_chunk, out=out, recipe=recipe), [tasks[i : i + CHUNK] for i in range(0, len(tasks), CHUNK)])
        if models := changed(found, fingerprints(sources, recipe.renderings, found)):
            raise CorpusError(f"{_listed(models)} changed during the build: run again, which makes these models anew.")
        _pack(corpus, sources, out, recipe)
    shutil.rmtree(out / "parts", ignore_errors=True)


def _forget(out: Path, models: list[str], found: Fingerprints) -> None:
    """Removes what was made of `models`, and of those whose views are packed already: packing begins again."""
    for name in ("models.parquet", "views.npy", ".views.npy"):
        (out / name).unlink(missing_ok=True)
    packed = [name for name in found if not (out / f"parts/{name}.rgba").is_file()]
    for name in [*models, *packed]:
        (out / f"parts/{name}.json").unlink(missing_ok=True)
        (out / f"meshes/{name}.npz").unlink(missing_ok=True)


def _build_chunk(tasks: list[tuple[ModelSource, int]], owner: int | None, *, out: Path, recipe: Recipe) -> int:
    with _ONE_AT_A_TIME, nullcontext() if recipe.renderings else Renderer(recipe.image_size) as renderer:
        for source, n_varied in tasks:
            if not orphaned(owner):
                _build_model(source, n_varied, out, recipe, renderer)
    return len(tasks)


def _build_model(source: ModelSource, n_varied: int, out: Path, recipe: Recipe, renderer: Renderer | None) -> None:
    """Writes the model's npz, its views and, last, its row."""
    row, start = _row(source, "ok"), time.perf_counter()
    try:
        facts, arrays, skin = prepare(source, recipe)
        middle = time.perf_counter()
        views, images = take_views(source, facts, arrays, skin, recipe, n_varied, renderer)
    except Exception as error:  # whatever one model breaks, the run goes on
        reason = " ".join(str(error).split())[:200]
        told = isinstance(error, ValueError) and reason
        row = _row(source, "quarantined", reason if told else f"{type(error).__name__}: {reason}")
    else:
        save_npz(out / f"meshes/{source.name}.npz", **arrays)
        with whole(out / f"parts/{source.name}.rgba") as temporary:
            temporary.write_bytes(images.data)
        seconds = {"mesh_seconds": middle - start, "view_seconds": time.perf_counter() - middle}
        row |= facts | seconds | {"views": views}
    save_json(out / f"parts/{source.name}.json", row)


def _row(source: ModelSource, status: str, reason: str | None = None) -> dict:
    where = {"layout": source.layout, "source": f"{source.container.name}/{source.entry}"}
    return {"synset": source.synset, "model_id": source.model_id, "status": status, "reason": reason, **where}


def _pack(corpus: Corpus, sources: list[ModelSource], out: Path, recipe: Recipe) -> None:
    """Joins the finished models into views.npy, views.parquet and, last, models.parquet."""
    rows = [json.loads((out / f"parts/{source.name}.json").read_text()) for source in sources]
    synsets = {source.model_id: source.synset for source in sources}
    for source in corpus.repeated:
        if synset := synsets.get(source.model_id):
            rows.append(_row(source, "quarantined", f"the same model is used under synset {synset}"))
    table = pd.DataFrame(rows)
    table = table.assign(category=table.synset.map(corpus.categories), split=table.model_id.map(corpus.splits))
    ok = table[table.status == "ok"]
    if ok.empty:
        raise CorpusError(f"{corpus.root} has no usable model; the first: {table.reason[0]}")
    table["near_duplicate_of"] = others = ok.model_id.map(_near_duplicates(ok, out)).astype("string")
    if recipe.drop_near_duplicates:
        dropped = others[(ok.split == "test") & others.notna()]
        table.loc[dropped.index, "status"] = "dropped"
        table.loc[dropped.index, "reason"] = "a near-duplicate of " + dropped + " in " + dropped.map(corpus.splits)
    shown = table[table.status == "ok"]
    counts = shown.views.map(len).to_numpy()
    parts = [out / f"parts/{row.synset}/{row.model_id}.rgba" for row in shown.itertuples()]
    pack_views(out / "views.npy", parts, counts, recipe.image_size)
    views = shown.loc[shown.index.repeat(counts), ["synset", "model_id"]].reset_index(drop=True)
    views["view"] = views.groupby("model_id").cumcount()
    views[VIEW_COLUMNS] = np.concatenate(list(shown.views))
    save_parquet(out / "views.parquet", views.assign(index=range(len(views))))
    seconds = ["mesh_seconds", "view_seconds"]
    save_parquet(out / "cost.parquet", table[["synset", "model_id", *seconds]].head(len(sources)))
    remove_leftovers(out)
    save_parquet(out / "models.parquet", table[list(MODEL_COLUMNS)].astype(MODEL_COLUMNS))


def _near_duplicates(models: pd.DataFrame, out: Path) -> dict[str, str]:
    """Writes near_duplicates.parquet; returns what `near_duplicate_of` says."""
    synsets = models.set_index("model_id").synset

    def mesh_of(model_id: str) -> tuple[np.ndarray, np.ndarray]:
        with np.load(out / f"meshes/{synsets[model_id]}/{model_id}.npz", allow_pickle=False) as arrays:
            return arrays["V"].astype(np.float64), arrays["F"]

    descriptors = np.stack(list(models.descriptor)).astype(np.float32)
    table = find_near_duplicates(models.model_id.tolist(), models.split.tolist(), descriptors, mesh_of)
    save_parquet(out / "near_duplicates.parquet", table)
    return near_duplicate_of(table)

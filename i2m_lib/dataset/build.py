"""From a corpus to a dataset on disk: parallel, resumable, the same for any number of workers.

<out>/build.json                          what it was built with
<out>/meshes/<synset>/<model_id>.npz      V, F, C, surface samples S and their normals N
<out>/parts/<synset>/<model_id>.*         views and row of a finished model, until all are
<out>/views.npy, views.parquet            all images; a row for each
<out>/cost.parquet                        seconds for each model: no part of the dataset, whose other
                                          files are the same byte for byte in each build
<out>/near_duplicates.parquet             pairs across splits and how near they are
<out>/models.parquet                      a row for each model; written last
"""

import hashlib
import json
import shutil
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from i2m_lib.files import save_json, save_npz, save_parquet
from i2m_lib.geometry.cameras import check_ranges

from . import near_duplicates
from .dataset import Dataset
from .model import VIEW_COLUMNS, Recipe, prepare, take_views
from .pack import check_space, pack_views, remove_leftovers, save_part, writing
from .parallel import orphaned, run_chunks
from .render import Renderer
from .shapenet import Corpus
from .source import CorpusError, ModelSource

CHUNK = 8  # models that share one renderer
_ONE_AT_A_TIME = threading.Lock()  # a worker of Dask has threads, which VTK does not bear
WORDS = "synset category model_id split source layout status reason near_duplicate_of sha256"
COUNTS = (
    "vertices faces source_faces nan_vertices nan_faces merged_vertices unreferenced_vertices degenerate_faces "
    "duplicate_faces simplified_faces flat_axes missing_materials missing_textures broken_textures"
)
# Words first, then numbers, which quarantined models lack.
MODEL_COLUMNS = dict.fromkeys(WORDS.split(), "string")
MODEL_COLUMNS |= {f"n_{name}": "Int64" for name in COUNTS.split()}
MODEL_COLUMNS |= {"watertight": "boolean", "scale": "Float64", "centre": "object"}


def build_dataset(
    corpus_root: str | Path,
    out: str | Path,
    *,
    n_views: int,
    image_size: int,
    n_surface: int,
    seed: int,
    n_varied: int = 0,
    variety: float = 0.3,
    categories: list[str] | None = None,
    max_models: int | None = None,
    splits: str | Path = "",
    max_faces: int = 200_000,
    oversized: str = "simplify",
    drop_near_duplicates: bool = False,
    azimuth: tuple[float, float] = (0.0, 360.0),
    elevation: tuple[float, float] = (-5.0, 40.0),
    distance: tuple[float, float] = (1.6, 2.4),
    fill: tuple[float, float] = (0.75, 0.95),
    focal: tuple[float, float] | None = None,
    renderings: str | Path = "",
    workers: int = 2,
    scheduler: str = "",
    progress: bool = True,
) -> Dataset:
    """Cleans, samples and renders the corpus into the folder `out`, and opens it. `categories`
    are names or synsets (None for all), `max_models` is a limit for each, `splits` is a file that
    `splits.read_splits` knows ("" for the corpus's all.csv, if any). A model of more than
    `max_faces` is simplified (its samples S are still those of the whole surface) or, if
    `oversized` is 'refuse', quarantined. Near-duplicates across splits (`leakage`) are listed; with
    `drop_near_duplicates`, those in test get the status 'dropped' and no views. Training models get `n_varied`
    further views in other proportions, see `Recipe`. Camera ranges are those of
    `cameras.sample_cameras`. `renderings`, a folder in the form of `r2n2`, gives the views in place of
    our own: then no camera is drawn. It works on `workers` processes, or on all those
    of the Dask `scheduler` at the given address, which must see corpus and `out` under the same
    paths. Models that cannot be used are listed with a reason. Call again to resume an interrupted
    build; a finished one is opened at once. Raises CorpusError if `out` was built in another way
    or cannot be written."""
    out = Path(out).absolute()
    if oversized not in ("simplify", "refuse"):
        raise CorpusError(f"oversized is {oversized!r}: write 'simplify' or 'refuse'.")
    check_ranges(azimuth, elevation, distance, fill, focal)
    drawn = Path(renderings).absolute() if renderings else None
    if drawn and not drawn.is_dir():
        raise CorpusError(f"{drawn} is no folder: give the one that holds the synsets' renderings.")
    if drawn and n_varied:
        raise CorpusError(f"renderings show models as they are: n_varied must be 0, not {n_varied}.")
    ranges = (tuple(azimuth), tuple(elevation), tuple(distance), tuple(fill), focal and tuple(focal))
    sizes = (n_views, n_varied, variety, image_size, n_surface)
    recipe = Recipe(*sizes, seed, max_faces, *ranges, drawn, oversized, drop_near_duplicates)
    corpus = Corpus.open(Path(corpus_root).absolute(), split_seed=seed, splits=splits)
    sources = corpus.choose(categories, max_models, seed=seed)
    with writing(out):
        _claim(out, asdict(recipe) | {"renderings": bool(drawn)} | _fingerprint(corpus, sources))
        if not (out / "models.parquet").is_file():
            remove_leftovers(out)
            todo = [source for source in sources if not _row_path(out, source).is_file()]
            tasks = [(source, replace(recipe, n_varied=_n_varied(recipe, corpus, source))) for source in todo]
            check_space(out, sum(r.n_views + r.n_varied for _, r in tasks) * 4 * image_size**2)
            chunks = [tasks[i : i + CHUNK] for i in range(0, len(tasks), CHUNK)]
            work = partial(_build_chunk, out=out)
            run_chunks(work, chunks, workers=workers, scheduler=scheduler, progress=progress)
            _pack(corpus, sources, out, recipe)
        shutil.rmtree(out / "parts", ignore_errors=True)
    return Dataset.open(out)


def _fingerprint(corpus: Corpus, sources: list[ModelSource]) -> dict:
    """Knows the input by its list of models, so that a corpus may be moved."""
    lines = [f"{s.synset} {s.model_id} {s.layout} {corpus.splits[s.model_id]}" for s in sources]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    counts = {name: getattr(corpus, name) for name in ("split_list", "n_unlisted", "n_absent")}
    return {"n_models": len(sources), "models_sha256": digest, **counts}


def _claim(out: Path, parameters: dict) -> None:
    """Writes build.json into a new `out`, and compares it with that of an old one."""
    path = out / "build.json"
    if not path.is_file():
        save_json(path, parameters)
        return
    before = json.loads(path.read_text())
    for key, value in json.loads(json.dumps(parameters)).items():
        if before.get(key) != value:
            raise CorpusError(
                f"{out} was built with {key} = {before.get(key)}, not {value}: choose another "
                "folder or delete this one."
            )


def _row_path(out: Path, source: ModelSource) -> Path:
    """Written last: where it stands, the model is finished."""
    return out / "parts" / source.synset / f"{source.model_id}.json"


def _n_varied(recipe: Recipe, corpus: Corpus, source: ModelSource) -> int:
    """How many varied views a model gets."""
    return recipe.n_varied if corpus.splits[source.model_id] == "train" else 0


def _build_chunk(tasks: list[tuple[ModelSource, Recipe]], owner: int | None, *, out: Path) -> None:
    first = tasks[0][1]
    with _ONE_AT_A_TIME, nullcontext() if first.renderings else Renderer(first.image_size) as renderer:
        for source, recipe in tasks:
            if not orphaned(owner):
                _build_model(source, out, recipe, renderer)


def _build_model(source: ModelSource, out: Path, recipe: Recipe, renderer: Renderer | None) -> None:
    """Writes the model's npz, its views and, last, its row."""
    row_path = _row_path(out, source)
    times = [time.perf_counter()]
    try:
        row, arrays, skin = prepare(source, recipe)
        times.append(time.perf_counter())
        views, images = take_views(source, row, arrays, skin, recipe, renderer)
    except Exception as error:  # whatever one model breaks, the run goes on
        save_json(row_path, {"status": "quarantined", "reason": _reason(error)})
        return
    save_npz(out / "meshes" / source.synset / f"{source.model_id}.npz", **arrays)
    save_part(row_path.with_suffix(".rgba"), images)
    times.append(time.perf_counter())
    seconds = np.diff(times).round(4).tolist()
    save_json(row_path, {"status": "ok", **row, "views": views, "seconds": seconds})


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _pack(corpus: Corpus, sources: list[ModelSource], out: Path, recipe: Recipe) -> None:
    """Joins the finished models into views.npy, views.parquet and, last, models.parquet."""
    rows, views, seconds, descriptors = [], [], [], []
    for source in sources:
        row = json.loads(_row_path(out, source).read_text())
        views.append(np.array(row.pop("views", [])))  # a tenth of the memory of its lists
        seconds.append(row.pop("seconds", [None, None]))
        descriptors.append(np.array(row.pop("descriptor", []), np.float32))
        rows.append(row)
    usable = [i for i, row in enumerate(rows) if row["status"] == "ok"]
    if not usable:
        raise CorpusError(f"{corpus.root} has no usable model; the first: {rows[0]['reason']}")
    ok = [(sources[i], rows[i], descriptors[i]) for i in usable]
    near_duplicates.mark_near_duplicates(*zip(*ok, strict=True), corpus.splits, out, drop=recipe.drop_near_duplicates)
    usable = [i for i in usable if rows[i]["status"] == "ok"]
    parts = [_row_path(out, sources[i]).with_suffix(".rgba") for i in usable]
    counts = [len(views[i]) for i in usable]
    pack_views(out / "views.npy", parts, counts, recipe.image_size)
    keys = {name: np.repeat([getattr(sources[i], name) for i in usable], counts) for name in ("synset", "model_id")}
    table = pd.DataFrame(keys | {"view": np.concatenate([np.arange(n) for n in counts])})
    table[VIEW_COLUMNS] = np.concatenate([views[i] for i in usable])
    save_parquet(out / "views.parquet", table.assign(index=range(len(table))))
    table = _models_table(corpus, sources, rows)
    cost = pd.DataFrame(seconds, columns=["mesh_seconds", "view_seconds"], dtype=float)
    save_parquet(out / "cost.parquet", table[["synset", "model_id"]].head(len(cost)).join(cost))
    remove_leftovers(out)
    save_parquet(out / "models.parquet", table)


def _models_table(corpus: Corpus, sources: list[ModelSource], rows: list[dict]) -> pd.DataFrame:
    """`rows` with what the corpus knows of their `sources`, and a row for each repeated model."""
    synset_of = {source.model_id: source.synset for source in sources}
    for source in corpus.repeated:
        if source.model_id in synset_of:
            reason = f"the same model is used under synset {synset_of[source.model_id]}"
            sources, rows = [*sources, source], [*rows, {"status": "quarantined", "reason": reason}]
    table = pd.DataFrame(
        [
            {
                "synset": source.synset,
                "category": corpus.categories[source.synset],
                "model_id": source.model_id,
                "split": corpus.splits[source.model_id],
                "source": f"{source.container.name}/{source.entry}",
                "layout": source.layout,
                **row,
            }
            for source, row in zip(sources, rows, strict=True)
        ],
        columns=list(MODEL_COLUMNS),
    )
    return table.astype(MODEL_COLUMNS)

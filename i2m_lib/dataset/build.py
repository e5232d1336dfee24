"""From a corpus to a dataset on disk: parallel, resumable, the same for any number of workers.

<out>/build.json                          what it was built with
<out>/meshes/<synset>/<model_id>.npz      V, F, C, surface samples S and their normals N
<out>/parts/<synset>/<model_id>.*         views and row of a finished model, until all are
<out>/views.npy, views.parquet            all images; a row for each
<out>/models.parquet                      a row for each model; written last
"""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from i2m_lib.files import save_json, save_npz, save_parquet, whole

from . import meshes
from .render import Camera, Renderer, sample_cameras
from .shapenet import Corpus
from .source import CorpusError, ModelSource
from .splits import hashed
from .views import Dataset

CHUNK = 8  # models that share one renderer
WORDS = "synset category model_id split source layout status reason near_duplicate_of sha256"
COUNTS = (
    "vertices faces source_faces nan_vertices nan_faces merged_vertices unreferenced_vertices degenerate_faces "
    "duplicate_faces simplified_faces missing_materials missing_textures broken_textures"
)
# Words first, then numbers, which quarantined models lack.
MODEL_COLUMNS = dict.fromkeys(WORDS.split(), "string")
MODEL_COLUMNS |= {f"n_{name}": "Int64" for name in COUNTS.split()}
MODEL_COLUMNS |= {"watertight": "boolean", "scale": "Float64", "centre": "object"}


@dataclass(frozen=True)
class Recipe:
    """What is made of one model. Camera ranges are those of `render.sample_cameras`."""

    n_views: int
    image_size: int
    n_surface: int
    seed: int
    max_faces: int
    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    distance: tuple[float, float]
    fill: tuple[float, float]


def build_dataset(
    corpus_root: str | Path,
    out: str | Path,
    *,
    n_views: int,
    image_size: int,
    n_surface: int,
    seed: int,
    categories: list[str] | None = None,
    max_models: int | None = None,
    splits: str | Path | None = None,
    max_faces: int = 200_000,
    azimuth: tuple[float, float] = (0.0, 360.0),
    elevation: tuple[float, float] = (-5.0, 40.0),
    distance: tuple[float, float] = (1.6, 2.4),
    fill: tuple[float, float] = (0.75, 0.95),
    workers: int = 2,
    progress: bool = True,
) -> Dataset:
    """Cleans, samples and renders the corpus into the folder `out`, and opens it. `categories`
    are names or synsets (None for all), `max_models` is a limit for each, `splits` is a file that
    `splits.read_splits` knows (None for the corpus's all.csv, if any), angles are in degrees.
    Models that cannot be used are listed with a reason. Call again to resume an interrupted build;
    a finished one is opened at once. Raises CorpusError if `out` was built in another way."""
    out = Path(out)
    recipe = Recipe(n_views, image_size, n_surface, seed, max_faces, azimuth, elevation, distance, fill)
    corpus = Corpus.open(corpus_root, split_seed=seed, splits=splits)
    sources = corpus.choose(categories, max_models, seed=seed)
    _claim(out, asdict(recipe) | _fingerprint(corpus, sources))
    if not (out / "models.parquet").is_file():
        todo = [source for source in sources if not _row_path(out, source).is_file()]
        _run(todo, out, recipe, workers, progress)
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


def _run(todo: list[ModelSource], out: Path, recipe: Recipe, workers: int, progress: bool) -> None:
    """A bar where someone watches; in a log, a line per 10 %."""
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    jobs = (joblib.delayed(_build_chunk)(chunk, out, recipe) for chunk in chunks)
    # A Jupyter server sets this name; papermill, where a bar would freeze, does not.
    watched = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    done, total = 0, len(todo)
    with tqdm(total=total, unit="model", disable=not (progress and watched)) as bar:
        for n in joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
            bar.update(n)
            done += n
            if progress and not watched and done * 10 // total > (done - n) * 10 // total:
                print(f"{done} of {total} models", flush=True)


def _build_chunk(sources: list[ModelSource], out: Path, recipe: Recipe) -> int:
    with Renderer(recipe.image_size) as renderer:
        for source in sources:
            _build_model(source, out, recipe, renderer)
    return len(sources)


def _build_model(source: ModelSource, out: Path, recipe: Recipe, renderer: Renderer) -> None:
    """Writes the model's npz, its views and, last, its row."""
    row_path = _row_path(out, source)
    try:
        row, arrays = _prepare(source, recipe)
        cameras, images = _shoot(source.model_id, arrays, recipe, renderer)
    except Exception as error:  # whatever one model breaks, the run goes on
        save_json(row_path, {"status": "quarantined", "reason": _reason(error)})
        return
    save_npz(out / "meshes" / source.synset / f"{source.model_id}.npz", **arrays)
    with whole(row_path.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, images, allow_pickle=False)
    save_json(row_path, {"status": "ok", **row, "cameras": [astuple(c) for c in cameras]})


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _prepare(source: ModelSource, recipe: Recipe) -> tuple[dict, dict[str, np.ndarray]]:
    """The model's row, and its arrays in the canonical frame."""
    mesh = meshes.clean(meshes.load_mesh(source, max_faces=recipe.max_faces))
    V, centre, scale = meshes.normalise(mesh.V)
    rng = np.random.default_rng([recipe.seed, hashed(source.model_id)])
    S, face = meshes.sample_surface(V, mesh.F, recipe.n_surface, rng)
    N = meshes.cross_products(V, mesh.F)[face]
    N /= np.linalg.norm(N, axis=1, keepdims=True)
    row = {
        "sha256": hashlib.sha256(source.read(Path(source.entry).name)).hexdigest(),
        "n_vertices": len(V),
        "n_faces": len(mesh.F),
        "watertight": meshes.is_watertight(mesh.F),
        "centre": centre.tolist(),
        "scale": scale,
        **mesh.counts,
    }
    arrays = {"V": V.astype(np.float32), "F": mesh.F.astype(np.int32), "C": mesh.C}
    return row, arrays | {"S": S.astype(np.float32), "N": N.astype(np.float32)}


def _shoot(
    model_id: str, arrays: dict[str, np.ndarray], recipe: Recipe, renderer: Renderer
) -> tuple[list[Camera], np.ndarray]:
    """The cameras of a model and its images (n_views,size,size,4). Each view has a generator of
    its own, so that view k is the same whatever n_views is."""
    V = arrays["V"].astype(np.float64)
    renderer.load(V, arrays["F"], arrays["C"])
    ranges = {name: getattr(recipe, name) for name in ("azimuth", "elevation", "distance", "fill")}
    cameras, images = [], []
    for view in range(recipe.n_views):
        rng = np.random.default_rng([recipe.seed, hashed(model_id), 1 + view])
        cameras += sample_cameras(1, rng, V=V, **ranges)
        images.append(renderer.shoot(cameras[-1], rng))
        if not images[-1].any():
            raise meshes.MeshError(f"view {view} is empty: nothing was drawn")
    return cameras, np.stack(images)


def _pack(corpus: Corpus, sources: list[ModelSource], out: Path, recipe: Recipe) -> None:
    """Joins the finished models into views.npy, views.parquet and, last, models.parquet."""
    rows = [json.loads(_row_path(out, source).read_text()) for source in sources]
    usable = [source for source, row in zip(sources, rows, strict=True) if row["status"] == "ok"]
    if not usable:
        raise CorpusError(f"{corpus.root} has no usable model; the first: {rows[0]['reason']}")
    for left_by_a_kill in out.glob(".*.views.npy"):
        left_by_a_kill.unlink()
    n, size = recipe.n_views, recipe.image_size
    shape = (len(usable) * n, size, size, 4)
    with whole(out / "views.npy") as temporary:
        packed = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for i, source in enumerate(usable):
            part = _row_path(out, source).with_suffix(".npy")
            packed[i * n : (i + 1) * n] = np.load(part, allow_pickle=False)
        packed.flush()
    views = pd.DataFrame(
        [
            (source.synset, source.model_id, view, *camera)
            for source, row in zip(sources, rows, strict=True)
            for view, camera in enumerate(row.pop("cameras", []))
        ],
        columns=["synset", "model_id", "view", *(field.name for field in fields(Camera))],
    )
    save_parquet(out / "views.parquet", views.assign(index=range(len(views))))
    save_parquet(out / "models.parquet", _models_table(corpus, sources, rows))


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

"""Anyone's meshes: one predicted file against one ground truth, and a folder of them against another.

python -m i2m_lib.scoring --pred predictions --gt truth --protocol canonical -o scores.parquet
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import trimesh
from joblib import Parallel, delayed

from i2m_lib.dataset.obj import MeshError, read_obj
from i2m_lib.geometry.surfaces import Surface, used, why_broken

from .protocols import Protocol

READ_BY_TRIMESH = {"ply", "off", "stl", "glb", "gltf", "3mf", "dae"} & set(trimesh.available_formats())
UNLIKELY = 10  # times as large or small as a mesh should be: another unit
FORMATS = {".obj"} | {f".{name}" for name in READ_BY_TRIMESH}


@dataclass(frozen=True)
class FolderScores:
    """scores: name, protocol, metric, value, a row for each ground truth and metric; faults: name, fault, a row for
    each prediction that scored worst, each bad ground truth, which is not scored, and each mesh of unlikely size;
    extra: predictions without a ground truth."""

    scores: pd.DataFrame
    faults: pd.DataFrame
    extra: list[str]


def evaluate(
    prediction: Path | None, ground_truth: Path, protocol: Protocol, seed: int = 0
) -> tuple[dict[str, float], str | None]:
    """Scores of one predicted mesh, {metric: value} as the protocol's `card` says, and what is wrong, or None. A
    prediction that is missing, empty, broken or unreadable gets the worst scores, and a bad ground truth none."""
    try:
        target = protocol.prepare(*read_surface(ground_truth), seed)
    except ValueError as error:
        return {}, f"not scored: {error}"
    if prediction is None:
        return target.worst(), "scored worst: there is no prediction"
    try:
        V, F = read_surface(prediction)
    except ValueError as error:
        return target.worst(), f"scored worst: {error}"
    fault = None
    if protocol.scale.startswith("units as given"):
        fault = _unlikely_size(ground_truth, target.V, 1.0, f"{protocol.name} takes units as given, for diagonals near")
    if not fault and protocol.alignment == "none":
        fault = _unlikely_size(prediction, V, _diagonal(target.V), "its ground truth has one of")
    return target.score(V, F, seed), fault


def _unlikely_size(path: Path, V: np.ndarray, expected: float, why: str) -> str | None:
    if expected / UNLIKELY < _diagonal(V) < expected * UNLIKELY:
        return None
    what = f"{path} has a bounding box of diagonal {_diagonal(V):.4g}, but {why} {expected:.4g}"
    return f"scored as it is: {what}: bring both meshes to one unit"


def _diagonal(V: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(V, axis=0)))


def read_surface(path: Path) -> Surface:
    """V (n, 3) float64, F (m, 3) int64 of a mesh file, with the vertices that faces name; all nodes of a scene, each
    where its transform puts it. Raises ValueError if it is unreadable or no surface."""
    try:
        if path.suffix.lower() == ".obj":  # trimesh takes relative indices for absolute ones
            mesh = read_obj(path.read_bytes())
            V, F = mesh.V, mesh.F
        else:
            mesh = trimesh.load_mesh(path, process=False)
            V, F = (np.asarray(getattr(mesh, name, np.zeros((0, 3)))) for name in ("vertices", "faces"))
            if not len(F):  # as a mesh, trimesh leaves the points of a cloud out
                parts = trimesh.load_scene(path, process=False).geometry.values()
                V = np.concatenate([np.zeros((0, 3)), *(part.vertices for part in parts)])
    except MeshError as error:
        raise ValueError(f"{path} cannot be read as a mesh: {error}") from error
    except Exception as error:  # trimesh raises whatever its parsers run into
        raise ValueError(f"{path} cannot be read as a mesh: {type(error).__name__}: {error}") from error
    if len(V) and not len(F):
        raise ValueError(f"{path} is a point cloud: it has {len(V)} points and no face")
    if len(F) and F.min() >= 0 and F.max() < len(V):
        V, F = used(V, F)
    if reason := why_broken(V, F):
        raise ValueError(f"{path} is no surface: {reason}")
    return np.asarray(V, np.float64), np.asarray(F, np.int64)


def meshes_in(folder: Path) -> dict[str, Path]:
    """{relative path without suffix: file} of all meshes below a folder, sorted, but for hidden files, such as macOS
    leaves. Raises ValueError if there is no such folder, it holds no mesh, or two of its files have one name."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one with a mesh for each shape")
    found = {}
    for path in sorted(p for p in folder.rglob("[!.]*") if p.suffix.lower() in FORMATS):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path} and {found[name]} have one name: keep one of them")
        found[name] = path
    if not found:
        raise ValueError(f"{folder} holds no mesh: it needs files in one of {', '.join(sorted(FORMATS))}")
    return found


def evaluate_folder(
    predictions: Path,
    ground_truth: Path,
    protocol: Protocol,
    *,
    seed: int = 0,
    workers: int = -1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> FolderScores:
    """Scores every ground truth of a folder, matched by relative path and name without suffix. Bad and missing
    predictions score worst, bad ground truths are left out; both are listed.

    `progress` wraps the results as they come, `functools.partial(tqdm, total=...)` for a bar. Raises ValueError as
    `meshes_in` does, or if no prediction has the name of a ground truth or no ground truth can be used.
    """
    truths, answers = meshes_in(ground_truth), meshes_in(predictions)
    if not truths.keys() & answers.keys():
        what = f"no prediction has the name of a ground truth: {predictions} holds {next(iter(answers))!r}"
        raise ValueError(f"{what}, {ground_truth} {next(iter(truths))!r}: give them the same relative paths")
    tasks = (delayed(evaluate)(answers.get(name), path, protocol, seed) for name, path in truths.items())
    results = list(progress(Parallel(n_jobs=workers, return_as="generator")(tasks)))
    pairs = list(zip(truths, results, strict=True))
    faults = pd.DataFrame([(name, fault) for name, (_, fault) in pairs if fault], columns=["name", "fault"])
    rows = [(name, protocol.name, metric, value) for name, (found, _) in pairs for metric, value in found.items()]
    if not rows:
        raise ValueError(f"no ground truth in {ground_truth} can be used; the first: {faults.fault.iloc[0]}")
    scores = pd.DataFrame(rows, columns=["name", "protocol", "metric", "value"])
    return FolderScores(scores, faults, sorted(set(answers) - set(truths)))


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """mean, n and refused (no value, as for the IoU of what is no solid) of each metric, in the protocol's order."""
    values = scores.groupby("metric", sort=False)["value"]
    return pd.DataFrame({"mean": values.mean(), "n": values.count(), "refused": values.size() - values.count()})

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

from i2m_lib.dataset.obj import read_obj
from i2m_lib.geometry.surfaces import Surface, why_broken

from .protocols import Protocol

READ_BY_TRIMESH = {"ply", "off", "stl", "glb", "gltf", "3mf", "dae"} & set(trimesh.available_formats())
FORMATS = {".obj"} | {f".{name}" for name in READ_BY_TRIMESH}


@dataclass(frozen=True)
class FolderScores:
    """scores: name, protocol, metric, value, a row for each ground truth and metric; faults: name, fault, a row for
    each prediction that scored worst and each bad ground truth, which is not scored; extra: predictions without one."""

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
        return {}, f"not scored: {ground_truth}: {error}"
    if prediction is None:
        return target.worst(), "scored worst: there is no prediction"
    try:
        V, F = read_surface(prediction)
    except ValueError as error:
        return target.worst(), f"scored worst: {error}"
    fault = why_broken(V, F)
    return target.score(V, F, seed), fault and f"scored worst: {prediction}: {fault}"


def read_surface(path: Path) -> Surface:
    """V (n, 3) float64, F (m, 3) int64 of a mesh file; all nodes of a scene, each where its transform puts it. Raises
    ValueError if it is unreadable."""
    try:
        if path.suffix.lower() == ".obj":  # trimesh takes relative indices for absolute ones
            obj = read_obj(path.read_bytes())
            return obj.V, obj.F
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:  # trimesh raises whatever its parsers run into
        raise ValueError(f"{path} cannot be read as a mesh: {type(error).__name__}: {error}") from error
    if not len(getattr(mesh, "faces", ())):
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def meshes_in(folder: Path) -> dict[str, Path]:
    """{relative path without suffix: file} of all meshes below a folder, sorted. Raises ValueError if there is no such
    folder, it holds no mesh, or two of its files have one name."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one with a mesh for each shape")
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in FORMATS):
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
    `meshes_in` does, or if no ground truth can be used.
    """
    truths, answers = meshes_in(ground_truth), meshes_in(predictions)
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

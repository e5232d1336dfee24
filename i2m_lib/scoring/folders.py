"""Anyone's meshes: one prediction against one ground truth, and a folder of them against another.

python -m i2m_lib.scoring --pred predictions --gt truth --protocol canonical -o scores.parquet
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import trimesh
from joblib import Parallel, delayed

from i2m_lib.geometry.surfaces import Surface, why_broken

from .protocols import PROTOCOLS, Protocol

Mesh = str | Path | trimesh.Trimesh | Surface
MESH_SUFFIXES = {f".{name}" for name in trimesh.available_formats()} & {
    *(".obj", ".ply", ".off", ".stl", ".glb", ".gltf", ".3mf", ".dae")
}


@dataclass(frozen=True)
class FolderScores:
    """scores: name, protocol, metric, value, a row a ground truth and metric; faults: name, fault, a row each that
    scored worst (bad or missing prediction) or was not scored (bad ground truth); extra: predictions without a ground
    truth."""

    scores: pd.DataFrame
    faults: pd.DataFrame
    extra: list[str]


def evaluate(
    prediction: Mesh, ground_truth: Mesh, *, protocol: str | Protocol = "canonical", seed: int = 0
) -> dict[str, float]:
    """Scores of one predicted mesh: {metric: value}, as the protocol's `card` says.

    Meshes are paths that trimesh reads, trimesh.Trimesh, or (V (n, 3), F (m, 3)), in the protocol's frame. A prediction
    that is empty, broken or unreadable gets the worst score.

    Raises:
        ValueError: the ground truth is unreadable or broken, or no protocol has that name.
    """
    target = named(protocol).prepare(*as_surface(ground_truth), seed)
    try:
        surface = as_surface(prediction)
    except ValueError:
        return target.worst()
    return target.score(*surface, seed)


def named(protocol: str | Protocol) -> Protocol:
    """The protocol of that name. Raises ValueError if there is none."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


def as_surface(mesh: Mesh) -> Surface:
    """V (n, 3) float64, F (m, 3) int64 of a mesh in any of its forms. Raises ValueError if a file is unreadable."""
    if isinstance(mesh, tuple):
        return np.asarray(mesh[0]), np.asarray(mesh[1])
    if not isinstance(mesh, trimesh.Trimesh):
        try:
            mesh = trimesh.load_mesh(mesh, process=False)
        except Exception as error:  # trimesh raises whatever its parsers run into
            raise ValueError(f"{mesh} cannot be read as a mesh: {type(error).__name__}: {error}") from error
    if not len(getattr(mesh, "faces", ())):
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def meshes_in(folder: str | Path) -> dict[str, Path]:
    """{relative path without suffix: file} of all meshes below a folder, sorted.

    Raises:
        ValueError: there is no such folder, it holds no mesh, or two of its files have one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one with a mesh for each shape")
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in MESH_SUFFIXES):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path} and {found[name]} have one name: keep one of them")
        found[name] = path
    if not found:
        raise ValueError(f"{folder} holds no mesh: it needs files in one of {', '.join(sorted(MESH_SUFFIXES))}")
    return found


def evaluate_folder(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    protocol: str | Protocol = "canonical",
    seed: int = 0,
    workers: int = -1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> FolderScores:
    """Scores every ground truth of a folder, matched by relative path and name, suffixes aside.

    `progress` wraps the results as they come, `functools.partial(tqdm, total=...)` for a bar. Bad and missing
    predictions score worst; bad ground truths are left out; both are listed.

    Raises:
        ValueError: see `meshes_in`; or no ground truth could be used.
    """
    protocol = named(protocol)
    truths, answers = meshes_in(ground_truth), meshes_in(predictions)
    tasks = (delayed(_score_file)(name, answers.get(name), path, protocol, seed) for name, path in truths.items())
    results = list(progress(Parallel(n_jobs=workers, return_as="generator")(tasks)))
    faults = pd.DataFrame([(name, fault) for name, _, fault in results if fault], columns=["name", "fault"])
    rows = [(name, protocol.name, metric, value) for name, scores, _ in results for metric, value in scores.items()]
    if not rows:
        raise ValueError(f"no ground truth in {ground_truth} can be used; the first: {faults.fault.iloc[0]}")
    scores = pd.DataFrame(rows, columns=["name", "protocol", "metric", "value"])
    return FolderScores(scores, faults, sorted(set(answers) - set(truths)))


def _score_file(name: str, answer: Path | None, truth: Path, protocol: Protocol, seed: int):
    """Name, scores ({} where the ground truth is bad) and what was wrong, or None."""
    try:
        target = protocol.prepare(*as_surface(truth), seed)
    except ValueError as error:
        return name, {}, f"not scored: {truth}: {error}"
    if answer is None:
        return name, target.worst(), "scored worst: there is no prediction"
    try:
        surface = as_surface(answer)
    except ValueError as error:
        return name, target.worst(), f"scored worst: {error}"
    if reason := why_broken(*surface):
        return name, target.worst(), f"scored worst: {answer}: {reason}"
    return name, target.score(*surface, seed), None


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """mean, n and refused (no value, as for the IoU of what is no solid) of each metric, in the protocol's order."""
    values = scores.groupby("metric", sort=False)["value"]
    return pd.DataFrame({"mean": values.mean(), "n": values.count(), "refused": values.size() - values.count()})

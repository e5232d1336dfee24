"""Registration of ordered pairs of chairs against trimesh's non-rigid ICP, on one core.

    python benchmarks/templates_registration.py [--quick]

Each method gets the two meshes and nothing else; its time includes everything it prepares. Non-rigid ICP gets no
landmarks either, and trimesh's default steps. CPU time; Chamfer-L1 at 20,000 samples; flipped: share of the faces
whose normal turned by more than 90 degrees.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch
import trimesh
from templates_corpora import corpus

from i2m_lib.geometry.batched_registration import fit_many
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import fit_ffd, flipped_faces, register
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source, sampling_matrix
from i2m_lib.geometry.surfaces import sample_surface

CHAIR, N_MEASURED = "03001627", 20000


def ours(a, b):
    rng = np.random.default_rng(0)
    target = Target.of(sampling_matrix(b.V, b.F, N_SAMPLES, rng) @ b.V)
    return register(Source.of(a.V, a.F, rng=rng), target).V


def amberg(a, b):
    return trimesh.registration.nricp_amberg(as_trimesh(a), as_trimesh(b))


def sumner(a, b):
    return trimesh.registration.nricp_sumner(as_trimesh(a), as_trimesh(b))


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.V, mesh.F, process=False)


def measure(method, a, b) -> tuple[float, float, float]:
    """Seconds, Chamfer-L1 and share of flipped faces; NaN for a method that cannot take the mesh."""
    start = time.process_time()
    try:
        V = np.asarray(method(a, b))
    except (np.linalg.LinAlgError, RuntimeError):  # singular: CAD has faces without area, and loose vertices
        return np.nan, np.nan, np.nan
    spent = time.process_time() - start
    samples = [sample_surface(X, F, N_MEASURED, np.random.default_rng(1))[0] for X, F in ((V, a.F), (b.V, b.F))]
    return spent, chamfer(samples[0], Target.of(samples[1])), flipped_faces(a.V, V, a.F)


def fits_per_second(meshes, n: int) -> float:
    sources = [Source.of(m.V, m.F, rng=np.random.default_rng(0)) for m in meshes[:10]]
    targets = [Target.of(m.S[:N_SAMPLES]) for m in meshes[:10]]
    pairs = [(s, t) for s in sources for t in targets][:n]
    start = time.process_time()
    for s, t in pairs:
        fit_ffd(s, t)
    return len(pairs) / (time.process_time() - start)


def batched_per_second(meshes, device: str) -> float:
    source = Source.of(meshes[0].V, meshes[0].F, rng=np.random.default_rng(0))
    points = np.stack([meshes[i % len(meshes)].S[:N_SAMPLES] for i in range(2048)])
    fit_many(source, points[:256], device=device)
    start = time.perf_counter()
    fit_many(source, points, device=device)
    return len(points) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    data = corpus("shared", categories=["chair"], max_models=30)
    ids = data.select("train", CHAIR).model_id.tolist()
    rng = np.random.default_rng(0)
    pairs = [rng.choice(ids, 2, replace=False) for _ in range(2 if quick else 20)]
    rows = []
    for i, (a, b) in enumerate(pairs):
        a, b = data.mesh(a), data.mesh(b)
        rows += [(i, m.__name__, *measure(m, a, b)) for m in (ours, amberg, *(() if quick else (sumner,)))]
    every = pd.DataFrame(rows, columns=["pair", "method", "seconds", "chamfer_l1", "flipped"])
    able = every.groupby("method").seconds.count()
    taken = every[every.method == "amberg"].dropna().pair
    table = every[every.pair.isin(taken)].drop(columns="pair").groupby("method").mean()
    print(table.assign(pairs_it_could_take=able).round(5).to_string())
    rate = fits_per_second([data.mesh(m) for m in ids[:10]], 20 if quick else 100)
    print(f"FFD alone, 1,024 + 1,024 points: {rate:.0f} fits a second on one core (target 40).")
    if torch.cuda.is_available():
        rate = batched_per_second([data.mesh(m) for m in ids[:10]], "cuda")
        print(f"On the GPU, in batches: {rate:.0f} fits a second (target 5,000).")
    else:
        print("No GPU is at hand: batches were not timed.")
    speed = table.seconds.amberg / table.seconds.ours
    print(
        f"{len(taken)} of {len(pairs)} pairs, those amberg takes: {speed:.0f} times as fast as amberg (target 40), "
        f"Chamfer-L1 {table.chamfer_l1.ours:.4f} against {table.chamfer_l1.amberg:.4f}, "
        f"flipped faces {table.flipped.ours:.2%} (target 1 %) against {table.flipped.amberg:.2%}."
    )


if __name__ == "__main__":
    main()

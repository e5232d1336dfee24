"""Open3D's side of `metrics.py`, run by the Python of an environment of its own.

Reads names of routines, one a line, and answers each with a line of json: value, wall and CPU seconds.
"""

import json
import sys
import time

import numpy as np


def timed(routine) -> tuple[float, float, float]:
    """What a routine returns, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = routine()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def routines(arrays: dict[str, np.ndarray], threads: int) -> dict:
    """{name: routine}, each from bare arrays to a number."""
    import open3d as o3d

    def chamfer(n: int) -> float:
        X, Y = (o3d.geometry.PointCloud(o3d.utility.Vector3dVector(arrays[name][:n])) for name in "XY")
        return float(np.mean(X.compute_point_cloud_distance(Y)) + np.mean(Y.compute_point_cloud_distance(X))) / 2

    def scene():
        V, F = o3d.core.Tensor(arrays["V"].astype(np.float32)), o3d.core.Tensor(arrays["F"].astype(np.uint32))
        made = o3d.t.geometry.RaycastingScene(nthreads=threads)
        made.add_triangles(V, F)
        return made

    def tensor(name: str, n: int):
        return o3d.core.Tensor(arrays[name][:n].astype(np.float32))

    def inside(n_rays: int) -> float:
        occupied = scene().compute_occupancy(tensor("Q", 100_000), nthreads=threads, nsamples=n_rays)
        return float(occupied.numpy().mean())

    return {
        "chamfer at 10k": lambda: chamfer(10_000),
        "chamfer at 100k": lambda: chamfer(100_000),
        "point to surface at 10k": lambda: float(
            scene().compute_distance(tensor("X", 10_000), nthreads=threads).numpy().mean()
        ),
        "inside at 100k": lambda: inside(1),
        "inside at 100k, 3 rays": lambda: inside(3),
    }


def main() -> None:
    with np.load(sys.argv[1]) as file:
        known = routines(dict(file), int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(timed(known[line.strip()])), flush=True)


if __name__ == "__main__":
    main()

"""The metrics against Open3D: Chamfer, point to surface and inside tests, in turns, on as many cores.

    python benchmarks/metrics.py [--quick] [--threads 2] [--peer data/benchmark-open3d]

Open3D is installed into an environment of its own, at the first run. Both sides start from bare arrays, so that trees
and scenes are built within the time, and are first shown to agree. The shape is a chair of six boxes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import trimesh
from metrics_open3d import timed

from i2m_lib.geometry.nearest import chamfer_l1
from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.geometry.winding import winding
from i2m_lib.paths import resolve
from i2m_lib.scoring.metrics import OrientedPoints, between, point_to_surface

PEER = "open3d==0.20.0"
# Our name, Open3D's, and by how much ours may be slower. One ray is its fastest test, three its robust one.
PAIRS = (
    ("chamfer at 10k", "chamfer at 10k", 1.3),
    ("chamfer at 100k", "chamfer at 100k", 1.3),
    ("point to surface at 10k", "point to surface at 10k", 2.0),
    ("inside at 100k", "inside at 100k", 2.0),
    ("inside at 100k", "inside at 100k, 3 rays", 2.0),
)


def chair() -> tuple[np.ndarray, np.ndarray]:
    """A seat, a back and four legs, which do not touch: parity of crossings, Open3D's test, is right for them."""
    boxes = [((0.5, 0.05, 0.5), (0, 0, 0)), ((0.5, 0.5, 0.04), (0, 0.3, 0.23))]
    boxes += [((0.05, 0.4, 0.05), (x, -0.24, z)) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    parts = [trimesh.creation.box(e).apply_translation(t) for e, t in boxes]
    mesh = trimesh.util.concatenate(parts).subdivide().subdivide().subdivide()
    return np.array(mesh.vertices), np.array(mesh.faces)


def inputs() -> dict[str, np.ndarray]:
    """The chair V, F, samples Y of it and X of a wider and lower one with their normals, and points Q in its box."""
    rng = np.random.default_rng(0)
    V, F = chair()
    arrays = {"V": V, "F": F, "Q": rng.uniform(V.min(0), V.max(0), (100_000, 3))}
    for name, W in {"X": V * [1.1, 0.9, 1.0], "Y": V}.items():
        arrays[name], face = sample_surface(W, F, 100_000, rng)
        arrays[f"normals {name}"] = trimesh.Trimesh(W, F, process=False).face_normals[face]
    return arrays


def ours(arrays: dict[str, np.ndarray]) -> dict:
    V, F, Q = (arrays[name] for name in "VFQ")

    def chamfer(n: int) -> float:
        X, Y = (OrientedPoints.of(arrays[name][:n], arrays[f"normals {name}"][:n]) for name in "XY")
        return chamfer_l1(*between(X, Y)[0])

    return {
        "chamfer at 10k": lambda: chamfer(10_000),
        "chamfer at 100k": lambda: chamfer(100_000),
        "point to surface at 10k": lambda: point_to_surface(arrays["X"][:10_000], V, F).mean(),
        "inside at 100k": lambda: (winding(V, F, Q) != 0).mean(),
    }


def python_with_peer(folder: Path) -> Path:
    """The Python of an environment that has Open3D, made if it is not there."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (folder / "ready").is_file():
        print(f"{PEER} is installed into {folder}, once ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
        (folder / "ready").touch()
    return python


def ask(peer: subprocess.Popen, name: str) -> list[float]:
    """Value, wall and CPU seconds of Open3D's routine of that name."""
    print(name, file=peer.stdin, flush=True)
    if not (line := peer.stdout.readline()):
        sys.exit("Open3D ended, for the reason above; a missing libusb-1.0.so.0 is in Debian's package libusb-1.0-0.")
    return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 25")
    parser.add_argument("--threads", type=int, default=2, help="of both; 2 by default")
    parser.add_argument("--peer", type=Path, default=resolve("data/benchmark-open3d"), help="Open3D's environment")
    arguments = parser.parse_args()
    n = str(arguments.threads)
    if os.environ.get("OMP_NUM_THREADS") != n:  # read when libraries are loaded, so all start anew
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": n})
    if hasattr(os, "sched_setaffinity"):  # not every library reads the number, but none can leave its cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    python, arrays = python_with_peer(arguments.peer.resolve()), inputs()
    known, rounds = ours(arrays), []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "inputs.npz", **arrays)
        command = [python, Path(__file__).with_name("metrics_open3d.py"), Path(folder) / "inputs.npz", n]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            for _ in range(6 if arguments.quick else 26):
                rounds.append([(*timed(known[a]), *ask(peer, b)) for a, b, _ in PAIRS])
            peer.stdin.close()
    values, table = np.array(rounds)[0], 1000 * np.array(rounds)[1:].min(0)  # the first round warms up
    np.testing.assert_allclose(values[:, 0], values[:, 3], rtol=1e-3)
    print(f"{len(arrays['F'])} faces; the best of {len(rounds) - 1} rounds; ms of wall (CPU) time")
    for (_, name, limit), (_, wall, cpu, _, peer_wall, peer_cpu) in zip(PAIRS, table, strict=True):
        verdict = f"{wall / peer_wall:5.2f} of its time (target: at most {limit:g})"
        print(f"  {name:<24}ours{wall:8.1f} ({cpu:.1f})  Open3D{peer_wall:8.1f} ({peer_cpu:.1f})  {verdict}")
    ratios = ", ".join(f"{name} {row[1] / row[4]:.2f}" for (_, name, _), row in zip(PAIRS, table, strict=True))
    print(f"Our time in terms of Open3D's, {n} threads each: {ratios}")


if __name__ == "__main__":
    main()

"""Free-form deformation against a per-point triple loop and against PyGeM's algorithm.

    python benchmarks/templates_ffd.py [--quick]

The published package (PyGeM, `FFD.__call__`) maps points into the unit box, computes one Bernstein vector an axis by
`comb` and powers, and sums over the control points in three nested loops, vectorised over points; that is derived
anew here from its description. All three are first shown to agree.
"""

import argparse
import itertools
import time

import numpy as np
import templates_corpora  # noqa: F401  (one thread)
from scipy.special import comb

from i2m_lib.geometry.ffd import Lattice

SHAPE = (4, 4, 4)  # control points along each axis


def triple_loop(V, lattice, P):
    """The definition, a point and a control point at a time."""
    nx, ny, nz = (n - 1 for n in SHAPE)
    moved = np.zeros_like(V)
    for row, (s, t, u) in enumerate((V - lattice.origin) / lattice.extent):
        for k, (i, j, m) in enumerate(itertools.product(range(nx + 1), range(ny + 1), range(nz + 1))):
            b = comb(nx, i) * (1 - s) ** (nx - i) * s**i
            b *= comb(ny, j) * (1 - t) ** (ny - j) * t**j
            b *= comb(nz, m) * (1 - u) ** (nz - m) * u**m
            moved[row] += b * P[k]
    return moved


def loops_over_control_points(V, lattice, P):
    """Vectorised over points, loops over the lattice: the published package's way."""
    t = (V - lattice.origin) / lattice.extent
    axes = [
        [comb(n - 1, i) * (1 - t[:, a]) ** (n - 1 - i) * t[:, a] ** i for i in range(n)] for a, n in enumerate(SHAPE)
    ]
    mu = (P - lattice.points).reshape(*SHAPE, 3)
    shift = np.zeros_like(V)
    for i, j, k in np.ndindex(SHAPE):
        shift += (axes[0][i] * axes[1][j] * axes[2][k])[:, None] * mu[i, j, k]
    return V + shift


def ours(V, lattice, P):
    return lattice.basis(V) @ P


def seconds(function, *args, repeat: int) -> float:
    start = time.process_time()
    for _ in range(repeat):
        function(*args)
    return (time.process_time() - start) / repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rng = np.random.default_rng(0)
    n, few = (2000, 50) if quick else (20000, 500)
    V = rng.uniform(-0.5, 0.5, (n, 3))
    lattice = Lattice.around(V)
    P = lattice.points + 0.1 * rng.normal(size=lattice.points.shape)
    B = lattice.basis(V)
    for other in (triple_loop(V[:few], lattice, P), loops_over_control_points(V[:few], lattice, P)):
        np.testing.assert_allclose(ours(V[:few], lattice, P), other, atol=1e-12)
    slow = seconds(triple_loop, V[:few], lattice, P, repeat=1) * n / few
    package = seconds(loops_over_control_points, V, lattice, P, repeat=5)
    fast, apply = seconds(ours, V, lattice, P, repeat=20), seconds(lambda: B @ P, repeat=100)
    print(f"{n} points, 64 control points, one core, CPU time")
    for name, value in {
        "triple loop (extrapolated)": slow,
        "PyGeM's algorithm": package,
        "basis and application": fast,
        "application of a kept basis": apply,
    }.items():
        print(f"  {name:<30}{1e3 * value:10.3f} ms")
    print(
        f"Basis and application: {slow / fast:,.0f} times as fast as the triple loop, {package / fast:.1f} times as "
        f"fast as PyGeM's algorithm; with the basis kept, {package / apply:.0f} times."
    )


if __name__ == "__main__":
    main()

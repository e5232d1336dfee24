"""A class graph: chairs as templates, all ordered pairs registered with residual, scored and connected.

    python benchmarks/templates_graph.py [--quick]

The chairs are all shapes of their dataset, so the fits are those of the pairs and of the weights of their best
templates. Wall time on two processes, with CPU time beside it; memory of the largest process; size and loading time of
the file.
"""

import argparse
import dataclasses
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from templates_corpora import corpus, peak_memory

from i2m_lib.geometry.source_mesh import N_SAMPLES
from i2m_lib.graph.build_graph import build_graph
from i2m_lib.graph.template_choice import descriptor, spread
from i2m_lib.graph.template_graph import TemplateGraph

CHAIR = "03001627"


def cpu_seconds() -> float:
    """Of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    n = 8 if parser.parse_args().quick else 30
    data = corpus("shared", categories=["chair"], max_models=30 if n < 30 else None)
    ids = data.select("train", CHAIR).model_id.tolist()
    features = np.stack([descriptor(data.mesh(m).S[:N_SAMPLES]) for m in ids])
    chairs = data.manifest[data.manifest.model_id.isin([ids[i] for i in spread(features, n)])]
    Parallel(n_jobs=2)(delayed(abs)(i) for i in range(2))  # processes start before the clock
    before, start = cpu_seconds(), time.perf_counter()
    graph, _ = build_graph(dataclasses.replace(data, manifest=chairs), n_templates=n, seed=0, workers=2)
    edges, seconds = graph.edges, time.perf_counter() - start
    get_reusable_executor().shutdown()  # the system knows what workers used once they have ended
    with tempfile.TemporaryDirectory() as folder:
        graph.save(folder)
        size = sum(p.stat().st_size for p in Path(folder).iterdir()) / 2**20
        start = time.perf_counter()
        TemplateGraph.load(folder)
        loaded = time.perf_counter() - start
    print(edges.drop(columns="selected").describe().loc[["mean", "50%", "max"]].round(4).to_string())
    print(f"{edges.selected.sum()} edges in {graph.components(CHAIR).max() + 1} component(s)")
    print(
        f"{len(edges)} ordered pairs of {n} chairs: {seconds:.1f} s on 2 processes (target 60 for 870; "
        f"{cpu_seconds() - before:.0f} s of CPU), "
        f"{peak_memory():.2f} GB in the largest (target 1), {size:.1f} MB on disk (target 50), loaded in "
        f"{1e3 * loaded:.0f} ms."
    )


if __name__ == "__main__":
    main()

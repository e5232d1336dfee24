"""How fast models become views: each is read, cleaned, sampled, drawn and saved, as in a build.

    python benchmarks/rendering.py [--quick] [--corpus FOLDER] [--size 224] [--workers 2]

Prints what each step costs, and views a second over all of them. What bounds it is the drawing:
Mesa rasterises on the same cores, at twice the size in each direction for clean borders.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from i2m_lib.dataset import build, model, render
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.paths import resolve

TARGET = 80  # views a second on 2 cores
N_VIEWS = 24


def default_corpus() -> Path:
    """The larger corpus beside the project if it is there, else the embedded one."""
    beside = resolve("../shared/corpus/ShapeNetCore.v2")
    return beside if beside.is_dir() else resolve("data/corpus")


def steps(corpus: Path, size: int, n_models: int) -> dict[str, float]:
    """CPU milliseconds a view, by step, of one process. The clock of `draw` includes the reading
    back of pixels; Mesa's threads are in it."""
    spent = defaultdict(float)

    def timed(owner: object, name: str, step: str) -> None:
        plain = getattr(owner, name)

        def run(*arguments: object, **options: object) -> object:
            start = time.process_time()
            try:
                return plain(*arguments, **options)
            finally:
                spent[step] += time.process_time() - start

        setattr(owner, name, run)

    for owner, name, step in (
        (model, "load_mesh", "read the obj"),
        (model, "clean", "clean"),
        (model, "sample_surface", "sample"),
        (render.Renderer, "load", "load into VTK"),
        (render.Renderer, "shoot", "draw"),
        (render, "_reduce", "of that, halve the pixels"),
        (build, "save_npz", "save the mesh"),
    ):
        timed(owner, name, step)
    sources = Corpus.open(corpus, split_seed=0).choose(None, None, seed=0)
    recipe = model.Recipe(n_views=N_VIEWS, image_size=size, n_surface=10_000, seed=0)
    with tempfile.TemporaryDirectory() as out, render.Renderer(size) as renderer:
        build._build_model(sources[0], 0, Path(out) / "first", recipe, renderer)
        spent.clear()
        start = time.process_time()
        for source in sources[:: max(1, len(sources) // n_models)][:n_models]:
            build._build_model(source, 0, Path(out), recipe, renderer)
        spent["all"] = time.process_time() - start
    return {step: 1e3 * seconds / (n_models * N_VIEWS) for step, seconds in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 models of each category")
    parser.add_argument("--corpus", type=Path, default=default_corpus())
    parser.add_argument("--size", type=int, default=224, help="pixels along each side")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        options = {"n_views": N_VIEWS, "image_size": arguments.size, "n_surface": 10_000, "seed": 0}
        options |= {"workers": arguments.workers, "progress": False}
        # The workers start and import VTK here, which a build of thousands of models does not feel.
        build.CHUNK = 2
        build.build_dataset(arguments.corpus, Path(out) / "warm", max_models=1, **options)
        start = time.perf_counter()
        n_models = 4 if arguments.quick else 40
        dataset = build.build_dataset(arguments.corpus, Path(out) / "timed", max_models=n_models, **options)
        seconds, n_views = time.perf_counter() - start, len(dataset.views)
    for step, cost in steps(arguments.corpus, arguments.size, 6 if arguments.quick else 40).items():
        print(f"{cost:8.2f} ms of CPU a view: {step}")
    print(
        f"{n_views / seconds:.0f} views/s at {arguments.size} px, load and save included, {n_views} views "
        f"with {arguments.workers} workers; target {TARGET}"
    )


if __name__ == "__main__":
    main()

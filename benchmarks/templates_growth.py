"""How the time to choose, connect and fit templates grows with the number of shapes.

    python benchmarks/templates_growth.py [--quick]

All shapes of both corpora count as training shapes of one category. CPU time of all processes.
"""

import argparse
import dataclasses
import time

import numpy as np
import pandas as pd
from templates_corpora import corpus

from i2m_lib.graph.build_graph import build_graph


class Pooled:
    """What build_graph asks of a dataset: the first n shapes of several, as one category."""

    def __init__(self, datasets, n: int):
        rows = pd.concat([d.models.assign(of=i) for i, d in enumerate(datasets)]).drop_duplicates("model_id")
        self.models = rows.sample(n, random_state=0).assign(synset="00000000", split="train").reset_index(drop=True)
        self.datasets, self.path = datasets, "pooled"

    def select(self, split=None, synset=None):
        return self.models[self.models.split == split] if split else self.models

    def mesh(self, model_id):
        mesh = self.datasets[self.models.set_index("model_id").of[model_id]].mesh(model_id)
        return dataclasses.replace(mesh, S=mesh.S[:1024])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sizes, n_templates = ((10, 20, 40), 3) if quick else ((100, 200, 400, 800), 30)
    datasets = [corpus("embedded", max_models=12)] if quick else [corpus("embedded"), corpus("shared")]
    seconds = []
    for n in sizes:
        start = time.process_time()
        build_graph(Pooled(datasets, n), n_templates=n_templates, seed=0, workers=1)
        seconds.append(time.process_time() - start)
        print(f"{n:5d} shapes: {seconds[-1]:8.1f} s of CPU, {1e3 * seconds[-1] / n:.0f} ms a shape", flush=True)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(f"With {n_templates} templates the time grows with the number of shapes to the power {exponent:.2f}.")


if __name__ == "__main__":
    main()

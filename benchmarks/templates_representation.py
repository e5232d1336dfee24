"""How much of the way from the best template to the floor a fitted template goes, on held-out shapes.

    python benchmarks/templates_representation.py [--quick] [--split val]

30 templates a category, chosen by coverage among the training shapes; Chamfer-L1 at 100,000 samples, category means.
The test split is looked at with the final method alone; choices were made on `--split val`.
"""

import argparse

import pandas as pd
from templates_corpora import corpus

from i2m_lib.graph.build_graph import build_graph
from i2m_lib.graph.oracles import representation_ladder


def measure(name: str, split: str, quick: bool, categories: list[str] | None) -> pd.DataFrame:
    data = corpus(name, max_models=12 if quick else None, categories=categories)
    graph, _ = build_graph(data, n_templates=4 if quick else 30, seed=0, workers=2)
    ladder = representation_ladder(data, graph, split=split, seed=0, n_samples=100_000, workers=2)
    table = ladder.groupby(["category", "method"]).value.mean().unstack()
    table.loc["category mean"] = table.mean()
    table["n"] = ladder[ladder.method == "floor"].groupby("category").size()
    for method in ("oracle_lattice", "oracle_ffd", "oracle_residual"):
        way = table.oracle_template - table.floor
        table[f"{method.removeprefix('oracle_')}_closes"] = (table.oracle_template - table[method]) / way
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--corpus", choices=["embedded", "shared"])
    parser.add_argument("--categories", nargs="+")
    given = parser.parse_args()
    if given.quick:
        given.corpus, given.categories = "embedded", ["chair"]
    lines = []
    for name in (given.corpus,) if given.corpus else ("embedded", "shared"):
        table = measure(name, given.split, given.quick, given.categories)
        print(f"{name} corpus, {given.split} split\n{table.round(4).to_string()}\n", flush=True)
        closed = table.ffd_closes
        lines.append(f"{name}: {closed['category mean']:.0%} (least {closed.idxmin()} {closed.min():.0%})")
    print(f"oracle_ffd closes, of the way from the best template to the floor (target 80 %): {'; '.join(lines)}.")


if __name__ == "__main__":
    main()

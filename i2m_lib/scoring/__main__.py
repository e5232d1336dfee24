"""python -m i2m_lib.scoring --pred DIR --gt DIR --protocol NAME -o scores.parquet"""

import argparse
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from i2m_lib.files import save_parquet

from .folders import evaluate_folder, means, meshes_in
from .protocols import PROTOCOLS

MOST_LISTED = 20


def main(arguments: list[str] | None = None) -> int:
    """Scores a folder of meshes; returns 0, or 1 where nothing could be scored."""
    description = "Scores predicted meshes against ground-truth meshes of the same relative path and name."
    parser = argparse.ArgumentParser(prog="python -m i2m_lib.scoring", description=description)
    parser.add_argument("--pred", required=True, type=Path, help="folder of predicted meshes")
    parser.add_argument("--gt", required=True, type=Path, help="folder of ground-truth meshes")
    parser.add_argument("--protocol", default="canonical", choices=PROTOCOLS, help="default: canonical")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the scores, a parquet file")
    parser.add_argument("--seed", default=0, type=int, help="of the samples; default: 0")
    parser.add_argument("--workers", default=-1, type=int, help="processes; default: all cores")
    given = parser.parse_args(arguments)
    protocol, options = PROTOCOLS[given.protocol], {"seed": given.seed, "workers": given.workers}
    try:
        bar = partial(tqdm, total=len(meshes_in(given.gt)), unit="mesh")
        result = evaluate_folder(given.pred, given.gt, protocol, progress=bar, **options)
    except ValueError as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 1
    save_parquet(given.output, result.scores)
    faults = [f"{row.name}: {row.fault}" for row in result.faults.itertuples(index=False)]
    for title, lines in {"faults": faults, "predictions without a ground truth, not scored": result.extra}.items():
        if lines:
            more = [f"and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
            print(f"{len(lines)} {title}:", *lines[:MOST_LISTED], *more, sep="\n  ", file=sys.stderr)
    print(protocol.card)
    print(means(result.scores).to_string(float_format="{:.6g}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())

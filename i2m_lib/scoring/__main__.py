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
    parser = argparse.ArgumentParser(
        prog="python -m i2m_lib.scoring",
        description="Scores predicted meshes against ground-truth meshes of the same relative path and name.",
    )
    parser.add_argument("--pred", required=True, type=Path, help="folder of predicted meshes")
    parser.add_argument("--gt", required=True, type=Path, help="folder of ground-truth meshes")
    parser.add_argument("--protocol", default="canonical", choices=PROTOCOLS, help="default: canonical")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the scores, a parquet file")
    parser.add_argument("--seed", default=0, type=int, help="of the samples; default: 0")
    parser.add_argument("--workers", default=-1, type=int, help="processes; default: all cores")
    given = parser.parse_args(arguments)
    try:
        bar = partial(tqdm, total=len(meshes_in(given.gt)), unit="mesh")
        result = evaluate_folder(
            given.pred, given.gt, protocol=given.protocol, seed=given.seed, workers=given.workers, progress=bar
        )
    except ValueError as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    save_parquet(given.output, result.scores)
    _list("faults", [f"{row.name}: {row.fault}" for row in result.faults.itertuples(index=False)])
    _list("predictions without a ground truth, not scored", result.extra)
    print(PROTOCOLS[given.protocol].card)
    print(means(result.scores).to_string(float_format="{:.6g}".format))
    return 0


def _list(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{len(lines)} {title}:", *lines[:MOST_LISTED], sep="\n  ", file=sys.stderr)
        if len(lines) > MOST_LISTED:
            print(f"  and {len(lines) - MOST_LISTED} more", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""Make the embedded corpus: `python generate.py --out DIR [--jobs 2]`. A second call resumes."""

import argparse
from multiprocessing import get_context
from pathlib import Path

from pack import FILES, pack, write
from recipes import Recipe, recipes

BUILD = Path(__file__).parent / "build"


def grow(recipe: Recipe) -> str:
    """Build the models of one recipe that are not there yet and say how it went."""
    # Blender lives in the workers only, and is started once in each.
    from model import make_model

    made = skipped = 0
    for seed in recipe.seeds():
        folder = BUILD / recipe.folder(seed)
        reason = folder / "skipped.txt"
        if made == recipe.count:
            break
        if not (folder / FILES[-1]).exists() and not reason.exists():
            try:
                texts = make_model(recipe.factory, seed)
            except Exception as error:  # whatever a factory trips over, the next seed may do
                write(reason, f"{error!r}\n".encode())
            else:
                for name, text in zip(FILES, texts, strict=True):
                    write(folder / name, text.encode())
        made, skipped = made + (not reason.exists()), skipped + reason.exists()
    return f"{recipe.factory}: {made} models, {skipped} seeds skipped"


def main() -> None:
    """Build every recipe and pack the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the ShapeNetCore.v2 root to write")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with its own Blender")
    args = parser.parse_args()
    work = sorted(recipes(), key=lambda r: -r.count)
    with get_context("spawn").Pool(args.jobs) as pool:
        for line in pool.imap_unordered(grow, work):
            print(line, flush=True)
    pack(BUILD, args.out)


if __name__ == "__main__":
    main()

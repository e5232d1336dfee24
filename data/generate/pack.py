"""Pack built models into a ShapeNetCore.v2 root: zips, taxonomy.json, all.csv, provenance.csv."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from recipes import CATEGORIES, recipes

SPLIT_SEED = 0
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold
FILES = ("model_normalized.mtl", "model_normalized.obj")


def write(path: Path, content: bytes) -> None:
    """Write a file so that a killed run never leaves half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def pack(build: Path, out: Path) -> None:
    """Write the corpus root `out` from the models below `build`, the same bytes every time."""
    rows = provenance(build)
    for synset in CATEGORIES:
        write(out / f"{synset}.zip", zipped(build, [r for r in rows if r["synsetId"] == synset]))
    write(out / "provenance.csv", table(rows))
    write(out / "all.csv", table(split_rows(rows)))
    taxonomy = [
        {
            "synsetId": synset,
            "name": name,
            "children": [],
            "numInstances": sum(r["synsetId"] == synset for r in rows),
        }
        for synset, name in CATEGORIES.items()
    ]
    write(out / "taxonomy.json", (json.dumps(taxonomy, indent=2) + "\n").encode())


def provenance(build: Path) -> list[dict]:
    """Return one row a model, ordered by category and model id."""
    rows = []
    for recipe in recipes():
        for seed in recipe.seeds():
            path = build / recipe.folder(seed) / "model_normalized.obj"
            if not path.exists():
                continue
            obj = path.read_bytes()
            row = {
                "synsetId": recipe.synset,
                "modelId": recipe.model_id(seed),
                "category": CATEGORIES[recipe.synset].split(",")[0],
                "factory": recipe.factory,
                "seed": seed,
                "n_faces": obj.count(b"\nf "),
                "sha256": sha256(obj).hexdigest(),
            }
            rows.append(row)
    return sorted(rows, key=lambda r: (r["synsetId"], r["modelId"]))


def split_rows(rows: list[dict]) -> list[dict]:
    """Return ShapeNet's split table: 70 % train, 10 % val, 20 % test of each category."""
    splits = {}
    for synset in CATEGORIES:
        ids = [r["modelId"] for r in rows if r["synsetId"] == synset]
        ids.sort(key=lambda i: sha256(f"{SPLIT_SEED}:{i}".encode()).digest())
        n, n_test, n_val = len(ids), round(0.2 * len(ids)), round(0.1 * len(ids))
        names = ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_test - n_val)
        splits |= dict(zip(ids, names, strict=True))
    return [
        {
            "id": f"{k:06d}",
            "synsetId": r["synsetId"],
            "subSynsetId": r["synsetId"],
            "modelId": r["modelId"],
            "split": splits[r["modelId"]],
        }
        for k, r in enumerate(rows)
    ]


def zipped(build: Path, rows: list[dict]) -> bytes:
    """Return the zip of one category's models, entries in order of name and without a date."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for row in rows:
            folder = f"{row['synsetId']}/{row['modelId']}/models"
            for name in FILES:
                entry = ZipInfo(f"{folder}/{name}", EPOCH)
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, (build / folder / name).read_bytes(), compresslevel=9)
    return buffer.getvalue()


def table(rows: list[dict]) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

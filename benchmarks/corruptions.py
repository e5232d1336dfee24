"""200 random corruptions (bytes flipped, cut, repeated) of each of OBJ, MTL, texture, zip and image files.

    python benchmarks/corruptions.py [--quick] [--first 0]

Models are read as 01 reads them, images as `reconstruct` does, with random weights. Each must end with a mesh or with
one clear error. Another exception, 10 s or 2 GB fail the benchmark, and their seeds are printed.
"""

import argparse
import faulthandler
import io
import resource
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reconstruct import untrained

from i2m_lib.dataset.model import Recipe, prepare
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.reconstruction import Reconstructor

SECONDS, MEGABYTES = 10.0, 2048.0
KINDS = "obj", "mtl", "texture", "zip", "image"
FORMATS = "png", "jpeg", "gif", "tiff", "webp"
ENTRY = "m/models/model_normalized.obj"


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes, of which some are flipped, a part is left out or a part is repeated."""
    x = np.frombuffer(data, np.uint8).copy()
    a, b = np.sort(rng.integers(0, len(x), 2))
    how = ("flipped", "cut", "repeated")[rng.integers(3)]
    if how == "flipped":
        at = rng.integers(0, len(x), rng.integers(1, 30))
        x[at] ^= rng.integers(1, 256, len(at)).astype(np.uint8)
        return x.tobytes()
    return data[:a] + data[b:] if how == "cut" else data[:b] + data[a:]


def model_files() -> dict[str, bytes]:
    """A textured model with two materials: 300 random boxes."""
    rng = np.random.default_rng(0)
    lines = ["mtllib model_normalized.mtl", "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    quads = np.array([[1, 4, 3, 2], [5, 6, 7, 8], [1, 2, 6, 5], [2, 3, 7, 6], [3, 4, 8, 7], [4, 1, 5, 8]])
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    for i in range(300):
        lines += ["v {} {} {}".format(*v) for v in (rng.uniform(-1, 1, 3) + 0.3 * rng.random(3) * corners).round(5)]
        lines.append(f"usemtl {('checked', 'red')[i % 2]}")
        lines += ["f " + " ".join(f"{v + 8 * i}/{t + 1}" for t, v in enumerate(quad)) for quad in quads]
    png = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(png, "png")
    mtl = "newmtl checked\nKd 1 1 1\nmap_Kd ../images/checked.png\nnewmtl red\nKd 0.8 0.1 0.1\nd 1\nillum 2\n"
    return {
        ENTRY: "\n".join(lines).encode(),
        "m/models/model_normalized.mtl": mtl.encode(),
        "m/images/checked.png": png.getvalue(),
    }


def picture(kind: str) -> bytes:
    """An object on white as an image file of 160 x 160 pixels."""
    x = np.full((160, 160, 3), 255, np.uint8)
    x[30:130, 40:60], x[80:95, 40:120], x[80:130, 105:120] = (120, 90, 60), (60, 40, 90), (30, 90, 60)
    file = io.BytesIO()
    Image.fromarray(x).save(file, kind)
    return file.getvalue()


def read_model(folder: Path, files: dict[str, bytes], kind: str, rng: np.random.Generator) -> str:
    """What comes of a corpus of one model, a file of which (kind obj, mtl or texture) or whose zip is corrupted."""
    synset = folder / "03001627"
    if kind == "zip":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in files.items():
                out.writestr(f"03001627/{name}", data)
        synset.with_suffix(".zip").write_bytes(corrupted(archive.getvalue(), rng))
    else:
        spoiled = list(files)[KINDS.index(kind)]
        for name, data in files.items():
            (synset / name).parent.mkdir(parents=True, exist_ok=True)
            (synset / name).write_bytes(corrupted(data, rng) if name == spoiled else data)
    models = Corpus.open(folder, split_seed=0).models
    for source in models:
        _, arrays, _ = prepare(source, Recipe(n_views=1, image_size=32, n_surface=500, seed=0))
        assert all(np.isfinite(x).all() for x in arrays.values()), "a prepared model is not finite"
    return "a mesh" if models else "no model"


def read_picture(reconstructor: Reconstructor, data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = reconstructor.reconstruct(data)
    assert np.isfinite(answer.V).all(), "an answer is not finite"
    return "a mesh, with a warning" if answer.warnings else "a mesh"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 of each kind instead of 200")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reconstructor, files, failures, slowest = untrained(size=96), model_files(), [], {}
    pictures = {kind: picture(kind) for kind in FORMATS}
    seeds = range(arguments.first, arguments.first + (20 if arguments.quick else 200))
    for kind in KINDS:
        outcomes = Counter()
        for seed in seeds:
            rng = np.random.default_rng([seed, KINDS.index(kind)])
            faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # a hang, in whatever code
            start = time.perf_counter()
            try:
                if kind == "image":
                    outcome = read_picture(reconstructor, corrupted(pictures[FORMATS[seed % len(FORMATS)]], rng))
                else:
                    with tempfile.TemporaryDirectory() as folder:
                        outcome = read_model(Path(folder), files, kind, rng)
            except ValueError as error:
                outcome = f"refused by a {type(error).__name__}"
                if "\n" in str(error) or not str(error):
                    failures.append(f"{kind} {seed}: no sentence: {error!r}")
            except Exception as error:
                outcome = type(error).__name__
                failures.append(f"{kind} {seed}: {''.join(traceback.format_exception(error, limit=-2))}")
            seconds = time.perf_counter() - start
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the largest so far
            if seconds > SECONDS or megabytes > MEGABYTES:
                failures.append(f"{kind} {seed}: {seconds:.1f} s, {megabytes:.0f} MB")
            slowest[f"{kind} {seed}"] = seconds
            outcomes[outcome] += 1
        print(f"{kind:8s} seeds {seeds[0]} to {seeds[-1]}: " + ", ".join(f"{n} {o}" for o, n in outcomes.most_common()))
    faulthandler.cancel_dump_traceback_later()
    name = max(slowest, key=slowest.get)
    print(f"slowest: {name}, {slowest[name]:.2f} s; largest memory of the process: {megabytes:.0f} MB")
    print("\n".join(failures) or "every corruption ended with a mesh or a clear error")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())

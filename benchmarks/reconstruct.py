"""How long an image takes to become a mesh of 3,000 faces, on one CPU core, and where the time goes.

    python benchmarks/reconstruct.py [--quick] [--run results/demo]

Without a run, templates are boxes of 3,000 faces and the network is untrained: the work is the same.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import trimesh
from PIL import Image

from i2m_lib.geometry.source_mesh import N_KERNELS
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.networks import Image2Mesh
from i2m_lib.learning.settings import Settings
from i2m_lib.reconstruction.reading import read_image
from i2m_lib.reconstruction.reconstructor import Reconstructor

TARGET = 0.030  # seconds, median
N_TEMPLATES, N_EDGES = 84, 6


def box_template(i: int) -> Template:
    """A box of 3,072 faces with neighbours, as a graph holds them."""
    mesh = trimesh.creation.box(extents=[0.6, 0.5 + 0.001 * i, 0.5])
    for _ in range(4):
        mesh = mesh.subdivide()
    V, F = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    rng = np.random.default_rng(i)
    centres = V[rng.choice(len(V), N_KERNELS, replace=False)]
    neighbours = tuple(f"box{(i + j) % N_TEMPLATES}" for j in range(1, N_EDGES + 1))
    d, c = rng.normal(0, 0.02, (N_EDGES, 32, 3)), rng.normal(0, 0.01, (N_EDGES, N_KERNELS, 3))
    colours = np.full((len(F), 3), 180, np.uint8)
    return Template("00000000", f"box{i}", V, F, colours, centres, neighbours, d, c)


def untrained(size: int) -> Reconstructor:
    """The demo's network with random weights, over boxes."""
    torch.manual_seed(0)
    settings = Settings(1, 1, 1e-3, backbone="resnet18", node="layer3")
    model = Image2Mesh(settings, N_TEMPLATES, N_EDGES).eval()
    graph = TemplateGraph([box_template(i) for i in range(N_TEMPLATES)], pd.DataFrame())
    return Reconstructor(model, graph, size, {"00000000": "box"})


def parts(reconstructor: Reconstructor, path: Path) -> dict[str, float]:
    """Seconds of each part for one image."""
    times, marks = {}, [time.perf_counter()]

    def mark(name: str) -> None:
        marks.append(time.perf_counter())
        times[name] = marks[-1] - marks[-2]

    rgba = torch.from_numpy(read_image(path)[0]).permute(2, 0, 1)[None]
    mark("read and mask the file")
    with torch.no_grad():
        image = compose(crop_to_mask(rgba.float() / 255, reconstructor.size))
        mark("crop")
        reconstructor.model.average(image)
    mark("network, on the image and its mirror image")
    answer = reconstructor.reconstruct(path)
    marks.append(time.perf_counter())
    _ = answer.V
    mark("decode")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 images instead of 100")
    parser.add_argument("--run", help="a run with graph and model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reconstructor = Reconstructor.load(arguments.run) if arguments.run else untrained(size=96)
    n = 10 if arguments.quick else 100
    y, x = np.mgrid[:256, :256]
    picture = np.full((256, 256, 3), 255, np.uint8)
    picture[(abs(x - 128) < 90) & (abs(y - 128) < 60)] = [120, 90, 60]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.fromarray(picture).save(path)
        start = time.perf_counter()
        n_faces = len(reconstructor.reconstruct(path).mesh.faces)  # computes the template's basis
        first, whole = time.perf_counter() - start, []
        for _ in range(n):
            start, cpu = time.perf_counter(), time.process_time()
            _ = reconstructor.reconstruct(path).V
            whole.append((time.perf_counter() - start, time.process_time() - cpu))
        table = pd.DataFrame([parts(reconstructor, path) for _ in range(n)]).median()
    batch = torch.from_numpy(np.dstack([picture, np.full((256, 256), 255, np.uint8)])).permute(2, 0, 1)
    batch = batch[None].repeat(32 if arguments.quick else 128, 1, 1, 1)
    start = time.perf_counter()
    _ = [answer.V for answer in reconstructor.predict(batch)]
    rate = len(batch) / (time.perf_counter() - start)
    for name, seconds in table.sort_values(ascending=False).items():
        print(f"{1000 * seconds:7.1f} ms  {name}")
    median, cpu = np.median(whole, 0)
    print(f"the first image of a template: {1000 * first:.0f} ms; in batches: {rate:.0f} images/s on one core")
    print(
        f"image to mesh of {n_faces} faces: median {1000 * median:.1f} ms ({1000 * cpu:.1f} ms of CPU time); largest "
        f"part: {table.idxmax()}; target {1000 * TARGET:.0f} ms"
    )


if __name__ == "__main__":
    main()

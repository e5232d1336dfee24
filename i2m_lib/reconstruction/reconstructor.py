"""From one image of an object to a mesh: the network, its answers, and their export."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor
from trimesh.exchange.obj import export_obj

from i2m_lib.artefacts import sha256
from i2m_lib.graph.originals import dress
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.azimuth import mode
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.networks import Image2Mesh
from i2m_lib.learning.train import categories_of, load_model
from i2m_lib.paths import resolve

from .reading import ImageLike, read_image
from .search import Search, used_weights

PRETRAINED = "results/reference/pretrained"  # in the project
BATCH = 256  # images in one pass of the network


@dataclass(frozen=True)
class Reconstruction:
    """The answer to one image: a template with lattice displacements d (32, 3) and weights (E,) of its neighbours;
    probabilities (T,) of all templates of the graph and {name: p} of categories; camera angles in degrees; code z;
    `warnings`, each a sentence that tells why the image is unlikely to be answered well."""

    template: Template
    d: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray
    category: str
    category_probabilities: dict[str, float]
    azimuth: float
    elevation: float
    z: np.ndarray
    warnings: tuple[str, ...] = ()

    @cached_property
    def V(self) -> np.ndarray:
        """Vertices (n, 3) in the canonical frame."""
        return self.template.decode(self.d, self.weights)

    @property
    def F(self) -> np.ndarray:
        """Faces (m, 3), those of the template."""
        return self.template.F

    @property
    def mesh(self) -> trimesh.Trimesh:
        """The mesh with the template's face colours."""
        return trimesh.Trimesh(self.V, self.F, face_colors=self.template.C, process=False)

    def save(self, path: str | Path) -> Path:
        """Writes the mesh as .glb, .obj, .ply or another format that trimesh knows, with textures where the template's
        original was kept; files beside it (chair.mtl, chair.png) bear its name; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = (self.template.original and dress(self.template, self.d, self.weights)) or self.mesh
        if path.suffix.lower() == ".obj":
            _save_obj(scene, path)
        else:
            scene.export(path, **({"embed_buffers": True} if path.suffix.lower() == ".gltf" else {}))
        return path


def _save_obj(scene: trimesh.Scene | trimesh.Trimesh, path: Path) -> None:
    """An OBJ file whose materials and textures are named after it; trimesh names them after the materials."""
    stem = re.sub(r"\s", "_", path.stem)  # many readers end a name at a space
    text, files = export_obj(scene, return_texture=True, mtl_name=f"{stem}.mtl")
    materials = files.pop(f"{stem}.mtl", b"")
    for i, (name, pixels) in enumerate(files.items()):
        new = f"{stem}{f'_{i}' if i else ''}{Path(name).suffix}"
        materials = materials.replace(f"\nmap_Kd {name}".encode(), f"\nmap_Kd {new}".encode())
        path.with_name(new).write_bytes(pixels)
    if materials:
        path.with_name(f"{stem}.mtl").write_bytes(materials)
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Reconstructor:
    """A trained network with its template graph; `size`: side of its input in pixels; `categories`: {synset: name};
    `digest`: sha256 of the weights. With a `search`, several templates are tried and refined; without, the most
    probable template is decoded as predicted."""

    model: Image2Mesh
    graph: TemplateGraph
    size: int
    categories: dict[str, str]
    search: Search | None = None
    digest: str = ""

    @classmethod
    def load(
        cls, run: str | Path | None = None, device: str = "cpu", *, top_k: int = 1, refinement: int = 0
    ) -> "Reconstructor":
        """Loads graph and model of a run, by default PRETRAINED. The `top_k` most probable templates are tried, and
        each is refined by `refinement` steps against the mask. Raises FileNotFoundError, naming the notebook to run,
        without a model."""
        run = resolve(PRETRAINED) if run is None else Path(run)
        graph = TemplateGraph.load(run / "graph")
        model, settings = load_model(run, graph)
        search = Search(model, graph, top_k, refinement) if top_k > 1 or refinement else None
        digest = sha256(run / "model.safetensors")
        return cls(model.to(device), graph, settings.size, categories_of(run), search, digest)

    def reconstruct(self, image: ImageLike) -> Reconstruction:
        """One image of one object on a transparent or plain ground: a path, the bytes of a file, an open file, a PIL
        image or an array (h, w) or (h, w, 3 or 4) of 8 or 16 bits or of floats in 0..1. What is unlikely to be
        answered well is in `warnings`, and warned of. Raises ValueError if it cannot be read or shows nothing."""
        rgba, doubts = read_image(image)
        return replace(self.predict(torch.from_numpy(rgba).permute(2, 0, 1)[None])[0], warnings=doubts)

    def predict(self, rgba: Tensor) -> list[Reconstruction]:
        """The answers to images (b, 4, h, w) uint8 with true masks."""
        return [r for part in rgba.split(BATCH) for r in self.predict_crops(self._crop(part))]

    @torch.no_grad()
    def predict_crops(self, crop: Tensor) -> list[Reconstruction]:
        """The answers to crops (b, 4, size, size), made by `crop_to_mask`, on the network's device."""
        out = self.model.average(compose(crop))
        p = out["logits"].softmax(1)
        best = p.argmax(1)
        rows = torch.arange(len(best), device=crop.device)
        y, a = out["y"][rows, best], out["weights"][rows, best]
        camera = torch.stack([mode(out["azimuth"]), out["elevation"]], 1)
        if self.search is not None:
            best, y, a, camera = (x.to(crop.device) for x in self.search(crop[:, 3], p, out))
        answers = p, best, self.model.lattice(y, best), a, camera.rad2deg(), out["z"]
        return [self._unpack(*one) for one in zip(*(x.double().cpu().numpy() for x in answers), strict=True)]

    @torch.no_grad()
    def outputs(self, rgba: Tensor) -> dict[str, Tensor]:
        """The network's outputs (`Image2Mesh.forward`) for images (b, 4, h, w) uint8, on the CPU."""
        return {name: x.float().cpu() for name, x in self.model.average(compose(self._crop(rgba))).items()}

    def _crop(self, rgba: Tensor) -> Tensor:
        return crop_to_mask(rgba.to(self.model.means.device).float() / 255, self.size)

    @cached_property
    def _synsets(self) -> np.ndarray:
        return np.array([t.synset for t in self.graph.templates])

    def _unpack(self, p, best, d, a, camera, z) -> Reconstruction:
        template = self.graph.templates[int(best)]
        by_category = {self.categories[s]: float(p[self._synsets == s].sum()) for s in self.graph.synsets}
        weights, category = used_weights(template, a), self.categories[template.synset]
        angles = float(camera[0] % 360), float(camera[1])
        return Reconstruction(template, d, weights, p, category, by_category, *angles, z)

"""From one image of an object to a mesh.

reconstructor = Reconstructor.load("results/demo")
chair = reconstructor.reconstruct("chair.png")
chair.category, chair.category_probabilities
chair.save("chair.glb")
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from i2m_lib.graph.originals import dress
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.azimuth import mirrored, mode
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.networks import Image2Mesh
from i2m_lib.learning.train import categories_of, load_model
from i2m_lib.paths import project_root

from .search import Search, used_weights

PRETRAINED = project_root() / "results" / "reference" / "pretrained"
# An image without transparency shows its object on white; scans and JPEG are not quite white.
NEARLY_WHITE = 245
WORKING_SIZE = 256


@dataclass(frozen=True)
class Reconstruction:
    """What one image says: a template, how to deform it, and how sure the network is.

    d (32, 3) lattice displacements, weights (E,) of the template's neighbours, probabilities (T,) of all templates
    of the graph, category_probabilities {name: p}; azimuth and elevation of the camera in degrees; z the image code.
    """

    template: Template
    d: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray
    category: str
    category_probabilities: dict[str, float]
    azimuth: float
    elevation: float
    z: np.ndarray

    @cached_property
    def V(self) -> np.ndarray:
        """Vertices (n, 3) in the canonical frame; faces and colours are the template's."""
        return self.template.decode(self.d, self.weights)

    @property
    def F(self) -> np.ndarray:
        return self.template.F

    @property
    def mesh(self) -> trimesh.Trimesh:
        """The mesh with the template's face colours."""
        return trimesh.Trimesh(self.V, self.F, face_colors=self.template.C, process=False)

    def save(self, path: str | Path) -> Path:
        """Writes the mesh as .glb, .obj, .ply or whatever else trimesh knows, with the template's textures where its
        original was kept; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = self.template.original and dress(self.template, self.d, self.weights)
        (scene or self.mesh).export(path)
        return path


@dataclass(frozen=True)
class Reconstructor:
    """A trained network with its graph of templates; `size` is the side of its input in pixels.

    The most probable template is decoded as predicted, unless there is a `search` among several and for a better
    deformation.
    """

    model: Image2Mesh
    graph: TemplateGraph
    size: int
    categories: dict[str, str]
    search: Search | None = None

    @classmethod
    def load(
        cls, run: str | Path = PRETRAINED, device: str = "cpu", *, top_k: int = 1, refinement: int = 0
    ) -> "Reconstructor":
        """Loads a run's graph and model, by default the pretrained ones. With them the `top_k` most probable templates
        are tried and each is refined by `refinement` steps against the mask; by default neither. Raises
        FileNotFoundError, with the notebook to run, if there is no model."""
        graph = TemplateGraph.load(Path(run) / "graph")
        model, settings = load_model(run, graph)
        search = Search(model, graph, top_k, refinement) if top_k > 1 or refinement else None
        return cls(model.to(device), graph, settings.size, categories_of(run), search)

    def reconstruct(self, image: str | Path | Image.Image | np.ndarray) -> Reconstruction:
        """One image of one object, transparent or white around it: a path, a PIL image or an array (h, w, 3 or 4)
        uint8. Raises ValueError if it cannot be read or shows nothing."""
        rgba = torch.from_numpy(read_image(image)).permute(2, 0, 1)[None]
        return self.predict(rgba)[0]

    def predict(self, rgba: Tensor, batch_size: int = 256) -> list[Reconstruction]:
        """Images (b, 4, h, w) uint8 with true masks -> their reconstructions."""
        device, found = self.model.means.device, []
        for chunk in rgba.split(batch_size):
            found += self.predict_crops(crop_to_mask(chunk.to(device).float() / 255, self.size))
        return found

    @torch.no_grad()
    def predict_crops(self, crop: Tensor) -> list[Reconstruction]:
        """Crops (b, 4, size, size) as `crop_to_mask` makes them, on the network's device -> their reconstructions."""
        out = self._answer(compose(crop))
        p = out["logits"].softmax(1)
        best = p.argmax(1)
        rows = torch.arange(len(best), device=crop.device)
        y, a = out["y"][rows, best], out["weights"][rows, best]
        camera = torch.stack([mode(out["azimuth"]), out["elevation"]], 1)
        if self.search is not None:
            best, y, a, camera = (x.to(crop.device) for x in self.search(crop[:, 3], p, out))
        return self._unpack(p, best, self.model.lattice(y, best), a, camera.rad2deg(), out["z"])

    @torch.no_grad()
    def outputs(self, rgba: Tensor) -> dict[str, Tensor]:
        """What the network says of images (b, 4, h, w) uint8, on the CPU: see `Image2Mesh.forward`."""
        crop = crop_to_mask(rgba.to(self.model.means.device).float() / 255, self.size)
        return {name: x.float().cpu() for name, x in self._answer(compose(crop)).items()}

    def _answer(self, image: Tensor) -> dict[str, Tensor]:
        """The network's outputs for images (b, 3, s, s), averaged with those for their mirror images: a symmetric
        lattice deforms both alike, and only the azimuth turns round."""
        outputs = self.model(torch.cat([image, image.flip(3)]))
        outputs["azimuth"][len(image) :] = mirrored(outputs["azimuth"][len(image) :])
        return {name: (x[: len(image)] + x[len(image) :]) / 2 for name, x in outputs.items()}

    @torch.inference_mode()
    def codes(self, rgba: Tensor, batch_size: int = 256) -> Tensor:
        """Image codes z (b, n_code) of length 1, so that products are cosines; images as for `predict`."""
        device = self.model.means.device
        crops = (crop_to_mask(c.to(device).float() / 255, self.size) for c in rgba.split(batch_size))
        return normalize(torch.cat([self._answer(compose(c))["z"] for c in crops]), dim=1).cpu()

    def _unpack(self, *tensors: Tensor) -> list[Reconstruction]:
        reconstructions = []
        for p, best, d, a, camera, z in zip(*(t.double().cpu().numpy() for t in tensors), strict=True):
            template = self.graph.templates[int(best)]
            by_category = {self.categories[s]: float(p[self._slots(s)].sum()) for s in self.graph.synsets}
            a = used_weights(template, a)
            reconstructions.append(
                Reconstruction(
                    template,
                    d,
                    a,
                    p,
                    self.categories[template.synset],
                    by_category,
                    float(camera[0] % 360),
                    float(camera[1]),
                    z,
                )
            )
        return reconstructions

    def _slots(self, synset: str) -> list[int]:
        return [i for i, t in enumerate(self.graph.templates) if t.synset == synset]


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """RGBA (s, s, 4) uint8 of the object alone, centred, at most WORKING_SIZE wide.

    Raises:
        ValueError: the file is missing, is no image or is absurdly large, or it shows nothing but background.
    """
    picture = _open(image)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        mask = rgba.getchannel("A").point(lambda a: 255 if a > 127 else 0)
    else:
        rgba = picture.convert("RGB").convert("RGBA")
        darkest = np.asarray(rgba)[..., :3].min(-1)
        mask = Image.fromarray(np.where(darkest < NEARLY_WHITE, 255, 0).astype(np.uint8))
    box = mask.getbbox()
    if box is None:
        raise ValueError(f"{_name(image)} shows nothing: give one object on white or on transparent ground.")
    rgba.putalpha(mask)
    side = int(np.ceil(max(box[2] - box[0], box[3] - box[1]) * 1.2)) + 2
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    square = rgba.crop((left, top, left + side, top + side))
    small = square.convert("RGBa").resize((min(side, WORKING_SIZE),) * 2, Image.Resampling.LANCZOS)
    return np.array(small.convert("RGBA"))


def _open(image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise ValueError(f"an image array must be (h, w, 3 or 4) uint8, not {image.shape} {image.dtype}.")
        return Image.fromarray(image)
    try:
        picture = Image.open(image)
        picture.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image} cannot be read as an image ({error}): give a PNG or JPEG.") from error
    return picture


def _name(image) -> str:
    return str(image) if isinstance(image, str | Path) else "the image"

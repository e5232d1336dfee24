"""The network: one image to template probabilities, a deformation and weights of each template, and the camera."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from .azimuth import N_BINS
from .settings import Settings

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def trunk(backbone: str, node: str = "", weights: str | None = None) -> nn.Module:
    """A torchvision model up to `node`: images (b, 3, h, w) -> {"map": (b, c, h', w')}; without a node, up to the last
    feature map before pooling. Raises ValueError if there is no such model, node or weights, or they cannot be
    fetched."""
    try:
        chosen = get_model_weights(backbone)[weights] if weights else None
        model = get_model(backbone, weights=chosen)
    except KeyError as error:
        known = ", ".join(get_model_weights(backbone).__members__)
        raise ValueError(f"{backbone} has no weights {error}: give one of {known}, or none.") from error
    except OSError as error:
        name, folder = Path(chosen.url).name, Path(torch.hub.get_dir()) / "checkpoints"
        cure = f"place {name} in {folder}, or start from scratch with weights = ''."
        raise ValueError(f"the weights {weights} of {backbone} could not be fetched ({error}): {cure}") from error
    return create_feature_extractor(model, {node or last_map(model): "map"})


def last_map(model: nn.Module) -> str:
    """The name of a torchvision model's last node whose output is a map of more than one cell."""
    names = get_graph_node_names(model)[1]
    with torch.no_grad():
        outputs = create_feature_extractor(model.eval(), names)(torch.zeros(1, 3, 224, 224))
    maps = [name for name, x in outputs.items() if torch.is_tensor(x) and x.ndim == 4 and x.shape[-1] * x.shape[-2] > 1]
    return maps[-1]


class Encoder(nn.Module):
    """A torchvision backbone up to `node`; its map is pooled to 4 x 4 cells, since pose and proportions depend on
    positions. Images (b, 3, h, w) in [0, 1] -> code z (b, n_code)."""

    def __init__(self, settings: Settings):
        super().__init__()
        n_code = settings.n_code
        self.trunk = trunk(settings.backbone, settings.node, settings.weights)
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            channels = self.trunk.eval()(torch.zeros(1, 3, 64, 64))["map"].shape[1]
        reduced = (nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(*reduced, nn.Flatten(), nn.Linear(64 * 16, n_code), nn.LayerNorm(n_code))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk((image - self.mean) / self.std)["map"])


class Image2Mesh(nn.Module):
    """Linear heads on the code: METHOD's Classifier and, once for each template, its Regressor; and the camera.

    n_templates, n_edges: T and E of the targets. The deformation spaces of the targets, `means` (T, 32, 3) and `axes`
    (T, k, 32, 3), are saved with the weights.
    """

    def __init__(self, settings: Settings, n_templates: int, n_edges: int):
        super().__init__()
        n_code, n_axes = settings.n_code, settings.n_axes
        self.sizes = (n_templates, n_axes, n_edges)
        self.encoder = Encoder(settings)
        self.template = nn.Linear(n_code, n_templates)
        self.hidden = nn.Sequential(nn.Linear(n_code, n_code), nn.ReLU())
        self.deformation = nn.Linear(n_code, n_templates * n_axes)
        self.weights = nn.Linear(n_code, n_templates * n_edges)
        self.azimuth = nn.Linear(n_code, N_BINS)
        self.elevation = nn.Linear(n_code, 1)
        for head in (self.weights, self.elevation):  # zeros are a better first answer than random numbers
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("means", torch.zeros(n_templates, 32, 3))
        self.register_buffer("axes", torch.zeros(n_templates, n_axes, 32, 3))
        self.register_buffer("y_scale", torch.ones(()))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Images (b, 3, h, w) in [0, 1] -> z (b, n_code), logits (b, T), y (b, T, k), weights (b, T, E), azimuth
        (b, N_BINS) logits (see `azimuth`), elevation (b,) in radians."""
        z, (T, k, E) = self.encoder(image), self.sizes
        h = self.hidden(z)
        return {
            "z": z,
            "logits": self.template(z),
            "y": self.deformation(h).view(-1, T, k) * self.y_scale,
            "weights": self.weights(h).view(-1, T, E),
            "azimuth": self.azimuth(z),
            "elevation": self.elevation(z)[:, 0],
        }

    def lattice(self, y: Tensor, templates: Tensor) -> Tensor:
        """Coordinates y (b, k) of templates (b,) -> lattice displacements d (b, 32, 3)."""
        return self.means[templates] + torch.einsum("bk,bkna->bna", y, self.axes[templates])

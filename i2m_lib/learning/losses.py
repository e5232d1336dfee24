"""The loss. Each term is divided by its value for an uninformed answer, so that all start near 1."""

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from .azimuth import divergence
from .targets import Targets

# With weight 1 the gradient of the elevation, an angle in radians, dominated all others in the encoder.
IMPORTANCE = {"template": 1.0, "deformation": 1.0, "weights": 1.0, "azimuth": 1.0, "elevation": 0.1}
TERMS = tuple(IMPORTANCE)
ELEVATION_VARIANCE = 0.05  # square radians: of angles spread evenly over 45 degrees


def image2mesh_loss(
    out: dict[str, Tensor], batch: dict[str, Tensor], targets: Targets, importance: dict[str, float] = IMPORTANCE
) -> dict[str, Tensor]:
    """`TERMS` of the loss, times their importance, of the network's outputs for a batch of views: model (b,) counts the
    targets; stretch (b, 3); azimuth and elevation (b,), radians.

    template: cross-entropy to the soft labels, in units of log T, 0 for one template; deformation: mean squared
    displacement error on the templates' surfaces, divided by its variance; weights: the same of the combined residuals;
    azimuth: `azimuth.divergence`; elevation: mean squared error, divided by its variance.
    """
    model = batch["model"]
    slots, q = targets.slots[model], targets.q[model]  # (b, W)
    valid = (q > 0).float()
    rows = torch.arange(len(model), device=model.device)[:, None]

    log_p = log_softmax(out["logits"].float(), dim=1)
    template = -(q * log_p[rows, slots]).sum(1).mean() / math.log(max(log_p.shape[1], 2))

    # Half of the weight follows the labels and half is uniform, because a template with a small label may still be
    # selected at inference.
    attention = (q + valid / valid.sum(1, keepdim=True).clamp(min=1)) / 2
    error = (out["y"].float()[rows, slots] - targets.stretched(model, batch["stretch"])).square().sum(2)
    deformation = (attention * error).sum(1).mean() / targets.y_variance

    off = out["weights"].float()[rows, slots] - targets.weights[model]  # (b, W, E)
    energy = torch.einsum("bwe,bwef,bwf->bw", off, targets.gram[slots], off)
    known = q * targets.weighted[model]
    weights = (known * energy).sum(1).mean() / targets.residual_variance

    azimuth = divergence(out["azimuth"], batch["azimuth"])
    elevation = (out["elevation"].float() - batch["elevation"]).square().mean() / ELEVATION_VARIANCE
    terms = zip(TERMS, (template, deformation, weights, azimuth, elevation), strict=True)
    return {name: importance[name] * term for name, term in terms}

"""Dense correspondence without landmarks: V_ij, template i's vertices and faces in the shape of template j.

The official code finds V_ij by landmarks on every template and non-rigid ICP. Here `geometry.registration` fits i's
lattice to samples of j's surface, then a smooth residual: V_ij = V_i + M d_ij + K c_ij.
"""

from functools import lru_cache

import numpy as np

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import Registration, register
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source

from .template_graph import Template


def correspondences(source: Source, targets: list[Target], d: np.ndarray) -> list[Registration]:
    """V_ij of template i, the `source`, for each target j; d (T, 32, 3) are its lattices, fitted already."""
    return [register(source, target, x) for target, x in zip(targets, d, strict=True)]


def source_of(shape: Mesh | Template, seed: int, n_samples: int = N_SAMPLES) -> Source:
    """A shape ready for registration; a template with the kernels that the residuals c of its edges refer to."""
    centres = getattr(shape, "centres", None)
    return Source.of(shape.V, shape.F, rng=np.random.default_rng(seed), n_samples=n_samples, centres=centres)


def prepare(templates: list[Template], seed: int) -> list[Source]:
    """`source_of` each template; those last used are remembered."""
    return [_remembered(template, seed) for template in templates]


_remembered = lru_cache(maxsize=64)(source_of)

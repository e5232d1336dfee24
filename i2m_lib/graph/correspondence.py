"""Dense correspondence without landmarks: V_ij, template i's vertices and faces in the shape of template j.

The official code finds V_ij from landmarks on every template and non-rigid ICP. Here `geometry.registration` fits i's
lattice to samples of j's surface, then a smooth residual: V_ij = V_i + M d_ij + K c_ij.
"""

from functools import lru_cache

import numpy as np

from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import Registration, register
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source

from .template_graph import Template


def correspondences(source: Source, targets: list[Target], d: np.ndarray) -> list[Registration]:
    """V_ij of template i, the `source`, for each target j; d (T, 32, 3) are the lattices, fitted already."""
    return [register(source, target, x) for target, x in zip(targets, d, strict=True)]


def source_of(template: Template, rng: np.random.Generator, n_samples: int = N_SAMPLES) -> Source:
    """The template ready for registration, with the kernels that the residuals c of its edges refer to."""
    return Source.of(template.V, template.F, rng=rng, n_samples=n_samples, centres=template.centres)


def prepare(templates: list[Template], seed: int) -> list[Source]:
    """`source_of` each template; those last used are remembered."""
    return [_prepared(template, seed) for template in templates]


@lru_cache(maxsize=64)
def _prepared(template: Template, seed: int) -> Source:
    return source_of(template, np.random.default_rng(seed))

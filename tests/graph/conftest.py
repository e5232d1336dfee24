import pytest

from i2m_lib.graph.build_graph import build_graph


@pytest.fixture(scope="session")
def built(dataset):
    """Graph and fits of the small corpus, with all of its training shapes as templates."""
    return build_graph(dataset, n_templates=3, seed=0, workers=1)

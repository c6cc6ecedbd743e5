"""Rows that count as one observation."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fracnet.metrics.clusters import components


def test_components_are_numbered_as_by_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 40))
        links = rng.integers(0, n, (int(rng.integers(0, 60)), 2))
        graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
        expected = connected_components(graph, directed=False)[1]
        assert components(n, links).tolist() == expected.tolist()


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(20_000)
    assert not components(len(order), np.column_stack([order[:-1], order[1:]])).any()
    assert components(3, []).tolist() == [0, 1, 2]

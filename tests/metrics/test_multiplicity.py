import numpy as np
import pytest

from fracnet.metrics.hypothesis_tests import holm


def test_a_worked_example() -> None:
    # Four hypotheses: 0.005 * 4, 0.01 * 3, then 0.03 * 2 and 0.04 * 1 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_it_accepts_what_stepping_down_by_hand_accepts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(size=rng.integers(1, 9)) ** 3
        accepted, left = set(), len(p)
        for k in np.argsort(p):
            if p[k] > 0.05 / left:
                break
            accepted.add(int(k))
            left -= 1
        assert {k for k, value in enumerate(holm(list(p))) if value <= 0.05} == accepted


def test_one_none_and_equal_ones() -> None:
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.5, 0.5, 1.0]) == [1.0, 1.0, 1.0]

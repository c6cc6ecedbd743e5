"""Learning curves of data: the fit, and what a doubling of the data would buy."""

import numpy as np
import pytest

from fracnet.evaluation.sweep_statistics import DataCurve, fit_data_curve

FRACTIONS = np.array([0.1, 0.25, 0.5, 1.0])


def runs(
    floor: float, scale: float, exponent: float, *, noise: float, seeds: int, seed: int = 0
) -> DataCurve:
    n = 800 * np.tile(FRACTIONS, seeds)
    errors = floor + scale * n**-exponent
    errors += np.random.default_rng(seed).normal(0, noise, len(n))
    curve = fit_data_curve(list(n), list(errors), list(np.tile(FRACTIONS, seeds)))
    assert curve is not None
    return curve


def gain(scale: float, exponent: float) -> float:
    return float(scale * (800**-exponent - 1600**-exponent))


@pytest.mark.parametrize("known", [(0.05, 1.2, 0.5), (0.1, 30, 1.2), (0, 0.9, 0.3), (0.1, -1, 0.5)])
def test_a_known_curve_is_found(known: tuple[float, float, float]) -> None:
    curve = runs(*known, noise=1e-9, seeds=3)
    assert (curve.floor, curve.exponent) == pytest.approx((known[0], known[2]), abs=0.01)
    assert curve.gain == pytest.approx(gain(*known[1:]), rel=0.02)
    assert curve.images == 800
    assert curve.error([800, 1600]) == pytest.approx(
        [known[0] + known[1] * n ** -known[2] for n in (800, 1600)], abs=1e-3
    )


def test_the_interval_covers_the_true_gain_in_about_95_percent() -> None:
    true = gain(1.2, 0.5)
    curves = [runs(0.05, 1.2, 0.5, noise=0.02, seeds=3, seed=seed) for seed in range(60)]
    covered = [c.low is not None and c.high is not None and c.low <= true <= c.high for c in curves]
    assert np.mean(covered) >= 0.88
    assert not all(c.is_precise for c in curves), "60 times three noisy seeds"


def test_a_gain_is_precise_where_it_is_clear_or_surely_small() -> None:
    assert runs(0.05, 3.0, 0.4, noise=0.003, seeds=5).is_precise
    flat = runs(0.1, 0.0, 0.5, noise=0.002, seeds=5)
    assert flat.is_precise
    assert flat.low is not None
    assert flat.low < 0
    assert not runs(0.1, 0.5, 0.5, noise=0.1, seeds=3).is_precise


def test_two_seeds_give_no_interval_and_two_sizes_no_curve() -> None:
    two = runs(0.05, 1.2, 0.5, noise=0.01, seeds=2)
    assert (two.low, two.high, two.is_precise) == (None, None, False)
    assert fit_data_curve([400, 800] * 3, [0.3, 0.2] * 3, [0.5, 1.0] * 3) is None

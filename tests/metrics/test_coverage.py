"""Do 95 % intervals cover the population metric in about 95 % of simulated datasets?"""

from collections import defaultdict

import numpy as np
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, draw_scores
from scipy.special import softmax

from fracnet.evaluation.summary import primary_intervals
from fracnet.metrics import classification
from fracnet.metrics.calibration import calibration_error
from fracnet.metrics.clusters import Clusters

STUDIES = 400


def allowed(name: str, fixed: bool) -> tuple[float, float]:
    """Lowest and highest coverage: 400 simulations estimate one of 0.95 to about 0.022.

    Metrics of one class move in steps of a few rows, which no interval can follow; and where the
    number of cases is fixed, predictive values vary less than in a sample, so are covered too well.
    So is the calibration error where a handful of wrong answers is spread over fifteen bins.
    """
    if name == "calibration_error":
        return 0.925, 1.0
    if " of " not in name:
        return 0.925, 0.98
    return 0.9, 1.0 if fixed and name.startswith(("precision", "npv")) else 0.99


def rows(n: int, views: int = 1) -> Clusters:
    return Clusters(np.arange(n) // views, n // views, "patient")


def population(counts: tuple[int, ...], separation: float) -> dict[str, float]:
    """Every metric in a sample so large that its own error is negligible."""
    target = np.repeat(np.arange(len(counts)), np.array(counts) * (300_000 // sum(counts)))
    scores = draw_scores(np.random.default_rng(99), target, len(counts), separation)
    prob = softmax(scores, axis=1)
    predicted = classification.predict(prob)
    by_class = classification.by_class(target, prob, predicted)
    metrics = classification.overall(target, prob, predicted, by_class)
    metrics["calibration_error"] = np.asarray(calibration_error(target, prob, rows(len(target))))
    for name, values in by_class.items():
        metrics |= {f"{name} of the first": values[0], f"{name} of the last": values[-1]}
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "separation", "views"),
    [
        (UPPER_LIMB_COUNTS, 1.5, 1),
        (UPPER_LIMB_COUNTS, 3.0, 1),
        # 200 patients with three views each; scores correlate by one half; cases at random.
        ((420, 180), 1.5, 3),
    ],
)
def test_intervals_cover_the_truth(counts: tuple[int, ...], separation: float, views: int) -> None:
    right = population(counts, separation)
    target = np.repeat(np.arange(len(counts)), counts)
    clusters, share = rows(len(target), views), np.array(counts) / sum(counts)
    rng = np.random.default_rng(0)
    covered: dict[str, list[bool]] = defaultdict(list)
    for study in range(STUDIES):
        if views > 1:
            target = rng.choice(len(counts), clusters.count, p=share).repeat(views)
        correlation = 0.5 if views > 1 else 0.0
        scores = draw_scores(rng, target, len(counts), separation, clusters.ids, correlation)
        prob = softmax(scores, axis=1)
        overall, by_class = primary_intervals(
            target, prob, classification.predict(prob), clusters, resamples=400, seed=study
        )
        for name, limits in by_class.items():
            overall |= {f"{name} of the first": limits[0], f"{name} of the last": limits[-1]}
        for name, interval in overall.items():
            # A metric without an interval prints none, so it does not count here.
            if interval.low is not None and interval.high is not None:
                covered[name].append(interval.low <= right[name] <= interval.high)
    assert set(covered) == set(right)
    for name, hits in covered.items():
        low, high = allowed(name, fixed=views == 1)
        assert low <= np.mean(hits) <= high, (name, np.mean(hits), len(hits))

"""Two models' predictions for the same rows, with a known true difference."""

import numpy as np
from helpers.predictions import draw_scores
from scipy.special import softmax

from fracnet.evaluation.metric_selection import Sample
from fracnet.metrics.clusters import Clusters


def draw_pair(
    rng: np.random.Generator,
    target: np.ndarray,
    group: np.ndarray,
    n_classes: int,
    separation: tuple[float, float],
    correlation: float = 0.5,
) -> tuple[Sample, Sample]:
    """Both models share half of the variance of their scores, and so do the rows of a group."""
    shared = draw_scores(rng, target, n_classes, 0.0, group, correlation)
    samples = []
    for distance in separation:
        own_scores = draw_scores(rng, target, n_classes, 0.0, group, correlation)
        scores = np.sqrt(0.5) * shared + np.sqrt(0.5) * own_scores
        scores[np.arange(len(target)), target] += distance
        prob = softmax(scores, axis=1)
        samples.append(Sample(target, prob, prob.argmax(axis=1), prob))
    return samples[0], samples[1]


def rows_of(group: np.ndarray, unit: str = "patient") -> Clusters:
    """Clusters of rows with equal group, numbered from 0."""
    return Clusters(group, int(group.max()) + 1, unit)


def patients(rng: np.random.Generator, count: int = 200, views: int = 3) -> tuple[np.ndarray, ...]:
    """Target and group of `count` patients, of two classes, with `views` rows each."""
    group = np.repeat(np.arange(count), views)
    return rng.integers(2, size=count)[group], group

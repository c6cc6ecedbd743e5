"""Do 95 % intervals cover the truth in about 95 % of simulated studies?"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, draw_scores

from fracnet.evaluation import metrics
from fracnet.evaluation.areas import auc_intervals
from fracnet.evaluation.intervals import Interval, mean_of_proportions, proportion
from fracnet.evaluation.predictions import Clusters

Named = Iterable[tuple[str, Interval]]


def judge(target: np.ndarray, scores: np.ndarray, clusters: Clusters) -> Named:
    n_classes = scores.shape[1]
    predicted = metrics.predict(scores)
    case, named = (
        target[:, None] == np.arange(n_classes),
        predicted[:, None] == np.arange(n_classes),
    )
    yield "accuracy", proportion(predicted == target, np.ones(len(target), dtype=bool), clusters)
    yield "macro sensitivity", mean_of_proportions(named, case, clusters)
    yield "macro specificity", mean_of_proportions(~named, ~case, clusters)
    areas = auc_intervals(target, scores, clusters)
    yield "AUC of the first class", areas[0]
    yield "AUC of the last class", areas[-2]
    yield "macro AUC", areas[-1]


def truth(counts: tuple[int, ...], separation: float) -> dict[str, float]:
    share = np.array(counts) / sum(counts)
    target = np.repeat(np.arange(len(counts)), (share * 300_000).astype(int))
    scores = draw_scores(np.random.default_rng(99), target, len(counts), separation)
    matrix = metrics.confusion(target, metrics.predict(scores), len(counts))
    areas = metrics.auc(target, scores)
    return {
        "accuracy": float(metrics.accuracy(matrix)),
        "macro sensitivity": float(metrics.macro(metrics.sensitivity(matrix))),
        "macro specificity": float(metrics.macro(metrics.specificity(matrix))),
        "AUC of the first class": float(areas[0]),
        "AUC of the last class": float(areas[-1]),
        "macro AUC": float(areas.mean()),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "separation", "views", "studies"),
    [
        (UPPER_LIMB_COUNTS, 1.5, 1, 400),
        (UPPER_LIMB_COUNTS, 3.0, 1, 400),
        # 200 patients with three views each, whose scores correlate by one half.
        ((420, 180), 1.5, 3, 400),
    ],
)
def test_intervals_cover_the_truth(
    counts: tuple[int, ...], separation: float, views: int, studies: int
) -> None:
    right = truth(counts, separation)
    target = np.repeat(np.arange(len(counts)), counts)
    group = np.arange(len(target)) // views
    clusters = Clusters(group, int(group.max()) + 1, "patient")
    rng = np.random.default_rng(0)
    covered: dict[str, list[bool]] = defaultdict(list)
    for _ in range(studies):
        scores = draw_scores(rng, target, len(counts), separation, group, 0.5 if views > 1 else 0.0)
        for name, interval in judge(target, scores, clusters):
            # A perfect AUC has no interval: it is not printed, so it is not judged.
            if interval.low is not None and interval.high is not None:
                covered[name].append(interval.low <= right[name] <= interval.high)
    # 400 studies know a coverage of 0.95 to about 0.022. An AUC near 1 may be covered too often,
    # as a few rows decide there, but not too seldom.
    for name, hits in covered.items():
        ceiling = 0.995 if "AUC" in name else 0.98
        assert 0.925 <= np.mean(hits) <= ceiling, (name, np.mean(hits))

"""Operating points: by hand, against every possible threshold, ties and what is not available."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from fracnet.evaluation.decisions import DEFAULT_THRESHOLD, choose_threshold, decide_positive

RULES: list[dict[str, Any]] = [
    {"youden": True},
    {"sensitivity": 0.9},
    {"specificity": 0.8},
    {"cost_ratio": 5.0},
]


def rates(score: np.ndarray, case: np.ndarray, threshold: float) -> tuple[float, float]:
    positive = decide_positive(score, threshold).astype(bool)
    return float(positive[case].mean()), float((~positive[~case]).mean())


def loss(rule: dict[str, Any], sensitivity: float, specificity: float, case: np.ndarray) -> float:
    """What a rule wants little of; infinite where it is not met."""
    ((name, required),) = rule.items()
    if name == "youden":
        return -sensitivity - specificity
    if name == "sensitivity":
        return -specificity if sensitivity >= required - 1e-12 else np.inf
    if name == "specificity":
        return -sensitivity if specificity >= required - 1e-12 else np.inf
    return required * (1 - sensitivity) * case.sum() + (1 - specificity) * (~case).sum()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_does_better(rule: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = rng.random(60) < 0.4
    score = np.round(1 / (1 + np.exp(-rng.normal(size=60) - case)), 2 if seed % 2 else 12)
    point = choose_threshold(score, case, rule)
    achieved = rates(score, case, point.threshold)
    assert (point.sensitivity, point.specificity) == pytest.approx(achieved)
    everything = np.concatenate([[-1.0, 2.0], score, score - 1e-9, score + 1e-9])
    best = min(loss(rule, *rates(score, case, t), case) for t in everything)
    assert loss(rule, *achieved, case) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_youdens_point_is_where_scikit_learns_curve_has_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = rng.random(80) < 0.5
    score = rng.random(80) * 0.6 + 0.3 * case
    false, true, _ = roc_curve(case, score, drop_intermediate=False)
    point = choose_threshold(score, case, {"youden": True})
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert point.sensitivity + point.specificity - 1 == pytest.approx((true - false).max())


def test_by_hand_with_thresholds_halfway() -> None:
    score = np.array([0.1, 0.2, 0.4, 0.6, 0.8])
    case = np.array([False, False, True, False, True])
    assert choose_threshold(score, case, {"youden": True}).threshold == pytest.approx(0.3)
    assert choose_threshold(score, case, {"specificity": 1.0}).threshold == pytest.approx(0.7)
    assert choose_threshold(score, case, {"cost_ratio": 0.1}).threshold == pytest.approx(0.7)
    assert choose_threshold(score, case, {"cost_ratio": 10.0}).threshold == pytest.approx(0.3)


def test_a_score_equal_to_the_threshold_is_negative() -> None:
    assert decide_positive(np.array([0.5, np.nextafter(0.5, 1)]), 0.5).tolist() == [0, 1]


def test_among_equals_the_most_sensitive_point_is_taken() -> None:
    # Both 0.15 and 0.35 give sensitivity + specificity = 1.5.
    score, case = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    point = choose_threshold(score, case, {"youden": True})
    assert (point.sensitivity, point.specificity) == (1.0, 0.5)
    assert point.threshold == pytest.approx(0.15)


def test_a_wanted_share_of_whole_rows_is_not_missed_by_rounding() -> None:
    case = np.array([True] * 10 + [False] * 10)
    score = np.concatenate([np.linspace(0.1, 1.0, 10), np.linspace(0.05, 0.5, 10)])
    assert choose_threshold(score, case, {"sensitivity": 0.7}).sensitivity == 0.7
    assert choose_threshold(score, case, {"sensitivity": 0.9}).sensitivity == 0.9


def test_what_only_a_trivial_rule_reaches_is_noted() -> None:
    score, case = np.array([0.1, 0.9, 0.8, 0.7]), np.array([True, True, False, False])
    everything = choose_threshold(score, case, {"sensitivity": 1.0})
    assert (everything.sensitivity, everything.specificity) == (1.0, 0.0)
    assert "predicting positive for every case" in everything.note
    assert rates(score, case, everything.threshold) == (1.0, 0.0)
    backwards = choose_threshold(np.array([0.1, 0.2, 0.8, 1.0]), case, {"specificity": 1.0})
    assert "predicting negative for every case" in backwards.note
    assert backwards.specificity == 1.0


def test_scores_of_zero_and_one_and_neighboring_doubles_are_distinguished() -> None:
    case = np.array([True, False])
    low = choose_threshold(np.array([0.0, 1.0]), case, {"sensitivity": 1.0})
    assert rates(np.array([0.0, 1.0]), case, low.threshold) == (1.0, 0.0)
    near = np.array([np.nextafter(0.3, 1), 0.3])
    assert rates(near, case, choose_threshold(near, case, {"youden": True}).threshold) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("case", "missing"), [([True, True], "negative"), ([False] * 2, "positive")]
)
def test_with_one_class_nothing_is_chosen(case: list[bool], missing: str) -> None:
    point = choose_threshold(np.array([0.2, 0.7]), np.array(case), {"youden": True})
    assert point.threshold == DEFAULT_THRESHOLD
    assert point.sensitivity is None
    assert f"no {missing} case" in point.note


def test_few_cases_are_noted() -> None:
    score, case = np.linspace(0, 1, 40), np.arange(40) > 33
    assert (
        "6 positive and 34 negative cases: too few" in choose_threshold(score, case, RULES[0]).note
    )
    assert choose_threshold(score, np.arange(40) > 20, RULES[0]).note == ""

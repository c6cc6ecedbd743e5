"""The limits of "uncertain" promise what they keep, and follow from validation alone."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import two_class_table
from scipy.special import logit, softmax

from fracnet.config.schema import Evaluation
from fracnet.evaluation.conformal import (
    NEVER,
    Limits,
    fit_limits,
    is_uncertain,
    limit_evidence,
    limits_by_level,
    short_reason,
    uncertainty_reasons,
)
from fracnet.evaluation.decisions import decide, decide_classes
from fracnet.evaluation.predictions import Predictions


def draw(rng: np.random.Generator, n: int, shares: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, C] of a model with some skill, and labels of classes so common."""
    target = rng.choice(len(shares), n, p=shares)
    scores = rng.normal(size=(n, len(shares)))
    scores[np.arange(n), target] += 1.5
    return softmax(scores, axis=1), target


NAMES = ("a", "b", "c")


def of_classes(
    rng: np.random.Generator, counts: list[int], skill: float, bias: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The same with the given number of images per class; bias float [C]: added to the logits."""
    target = np.repeat(np.arange(len(counts)), counts)
    scores = rng.normal(size=(len(target), len(counts))) + bias
    scores[np.arange(len(target)), target] += skill
    return softmax(scores, axis=1), target


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_confident_errors_of_each_class_stay_below_the_limit(
    error: float,
) -> None:
    rng = np.random.default_rng(0)
    shares = [0.7, 0.2, 0.1]
    wrong = []
    for _ in range(200):
        limits = fit_limits(*draw(rng, 600, shares), error, NAMES)
        assert not limits.note
        prob, target = draw(rng, 400, [0.1, 0.1, 0.8])  # classes may be common or rare
        choice = decide_classes(prob, None)
        confident_error = ~is_uncertain(prob, choice, limits) & (choice != target)
        wrong.append([confident_error[target == c].mean() for c in range(3)])
    mean, deviation = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(len(wrong))
    assert (mean <= error + 3 * deviation).all()


def test_more_errors_allowed_give_more_confident_predictions() -> None:
    rng = np.random.default_rng(1)
    val, (prob, _) = draw(rng, 500, [0.5, 0.5]), draw(rng, 500, [0.5, 0.5])
    choice = decide_classes(prob, 0.0)
    shares = [
        is_uncertain(prob, choice, fit_limits(*val, error, NAMES[:2])).mean()
        for error in (0.02, 0.05, 0.1)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2]


def test_a_limit_is_the_kth_smallest_probability_of_its_class() -> None:
    scores = np.arange(1, 20) / 20  # 19 images: k = floor(0.1 * 20) = 2
    prob = np.concatenate(
        [np.column_stack([scores, 1 - scores]), np.column_stack([1 - scores, scores])]
    )
    target = np.repeat([0, 1], 19)
    assert fit_limits(prob, target, 0.1, NAMES[:2]).values == (0.1, 0.1)
    assert fit_limits(prob, target, 0.05, NAMES[:2]).values == (0.05, 0.05)


@pytest.mark.parametrize("skill", [1.0, 2.5])
@pytest.mark.parametrize("n", [10, 17])
def test_a_class_with_few_images_gets_the_limit_that_they_allow(n: int, skill: float) -> None:
    """The model has learnt that the class is rare, and gives its images low probabilities."""
    rng, wrong = np.random.default_rng(4), []
    rare = np.log([0.7, 0.25, 0.05])
    for _ in range(300):
        prob, target = of_classes(rng, [150, 60, n], skill, rare)
        limits = fit_limits(prob, target, 0.05, NAMES)
        assert limits.promised == (0.05, 0.05, 1 / (n + 1))
        assert f"c has {n}, so its limit is {100 / (n + 1):.1f} %" in limits.note
        prob, target = of_classes(rng, [100, 100, 100], skill, rare)
        choice = decide_classes(prob, None)
        confident_error = ~is_uncertain(prob, choice, limits) & (choice != target)
        wrong.append([confident_error[target == c].mean() for c in range(3)])
    mean, deviation = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(len(wrong))
    assert (mean <= np.array(limits.promised) + 3 * deviation).all()


def test_a_class_with_too_few_images_is_never_ruled_out_and_the_note_says_so() -> None:
    rng = np.random.default_rng(2)
    val = of_classes(rng, [60, 60, 3], 2.0)
    limits = fit_limits(*val, 0.05, NAMES)
    full = fit_limits(*of_classes(rng, [60, 60, 60], 2.0), 0.05, NAMES)
    assert limits.values[2] == NEVER
    assert limits.values[0] > 0
    assert limits.promised == (0.05, 0.05, 0.0)
    assert limits.note == (
        "Validation has too few images of c (3) to rule it out, so only decisions for c can "
        "be confident; each class needs 9, or run fracnet.predict with confident_errors=0.125."
    )
    assert NEVER not in fit_limits(*val, 0.125, NAMES).values
    prob, _ = of_classes(rng, [100, 100, 100], 2.0)
    choice = decide_classes(prob, None)
    doubt = is_uncertain(prob, choice, limits)
    assert doubt[choice != 2].all()
    assert not doubt[choice == 2].all()
    assert not is_uncertain(prob, choice, full)[choice != 2].all()
    low = np.asarray(limits.values[:2]) / 2
    rows = np.array([[0.99, 0.005, 0.005], [0.4, 0.4, 0.2], [low[0], low[1], 1 - low.sum()]])
    rows[0, 1] = low[1]
    decided = np.array([0, 0, 0])
    few = "validation has too few of c to rule it out"
    assert uncertainty_reasons(rows, decided, np.ones(3, dtype=bool), limits) == [
        few, "more than one class fits", f"no class fits; {few}",
    ]  # fmt: skip


def test_a_class_absent_from_validation_is_never_ruled_out() -> None:
    limits = fit_limits(*of_classes(np.random.default_rng(5), [60, 60, 0], 2.0), 0.5, NAMES)
    assert limits.values[2] == NEVER
    assert limits.note.endswith("only decisions for c can be confident; each class needs 1.")


def test_a_prediction_against_the_likelier_class_is_uncertain() -> None:
    rng = np.random.default_rng(3)
    limits = fit_limits(*draw(rng, 400, [0.5, 0.5]), 0.05, NAMES[:2])
    low, high = limits.values[1] / 4, limits.values[1] / 2
    prob = np.array([[1 - high, high]])
    assert not is_uncertain(prob, decide_classes(prob, 0.0), limits)[0]
    sensitive = decide_classes(
        prob, logit(low)
    )  # a threshold so low that the image is called positive
    assert sensitive[0] == 1
    assert is_uncertain(prob, sensitive, limits)[0]
    assert uncertainty_reasons(prob, sensitive, np.array([True]), limits) == [
        "another class fits better"
    ]


def test_test_rows_choose_no_limit_and_are_reported_by_level() -> None:
    table = two_class_table(val=60, test=60)
    decisions = decide(Predictions(table[table["split"] == "val"]), Evaluation())
    limits = limits_by_level(Predictions(table), decisions, 0.05)
    assert set(limits) == {"image", "study"}
    changed = table.copy()
    rows = changed["split"] == "test"
    names = ["prob_normal", "prob_abnormal"]
    changed.loc[rows, names] = changed.loc[rows, names[::-1]].to_numpy()
    logits = ["logit_normal", "logit_abnormal"]
    changed.loc[rows, logits] = changed.loc[rows, logits[::-1]].to_numpy()
    shuffled = limits_by_level(Predictions(changed), decisions, 0.05)
    for level in limits:
        assert shuffled[level]["limits"] == limits[level]["limits"]
        assert shuffled[level]["threshold"] == decisions["operating_point"][level]["threshold"]
    outcome, worse = limits["image"]["test"], shuffled["image"]["test"]
    assert outcome["n"] == rows.sum()
    assert worse["wrong_of_confident"]["value"] > outcome["wrong_of_confident"]["value"]
    low, high = outcome["confident"]["low"], outcome["confident"]["high"]
    assert low < outcome["confident"]["value"] < high


def test_without_test_rows_there_is_no_outcome() -> None:
    table: pd.DataFrame = two_class_table(val=60, test=1)
    val = table[table["split"] == "val"]
    limits = limits_by_level(Predictions(val), decide(Predictions(val), Evaluation()), 0.05)
    assert limits["image"]["test"] is None


def test_a_too_small_validation_split_is_given_as_the_reason() -> None:
    limits = fit_limits(
        np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), 0.05, NAMES[:2], "study"
    )
    assert set(limits.values) == {NEVER}
    assert limits.note.startswith("Validation has too few studies of a (1) and b (1) to rule them")
    assert "so no decision on a study can be confident; each class needs 9" in limits.note
    prob = np.array([[1.0, 0.0]])
    doubt = is_uncertain(prob, np.array([0]), limits)
    assert uncertainty_reasons(prob, np.array([0]), doubt, limits) == [
        "validation is too small for any confident decision"
    ]


@pytest.mark.parametrize(
    ("prob", "choice", "evidence"),
    [
        (
            (0.9, 0.06, 0.04),
            0,
            "every other class is below its limit, e.g. b 0.060 is below its limit 0.100",
        ),
        ((0.8, 0.15, 0.05), 0, "b 0.150 is not below its limit 0.100"),
        ((0.03, 0.92, 0.05), 0, "a 0.030 is below its limit 0.050; b 0.920 is not below its"),
        (
            (0.1, 0.5, 0.4),
            1,
            "c 0.400 is not below its limit 0.200, a 0.100 is not below its limit 0.050",
        ),
    ],
)
def test_the_evidence_of_a_decision_names_the_limits_that_decide(
    prob: tuple[float, ...], choice: int, evidence: str
) -> None:
    limits = Limits(NAMES, 0.05, (0.05, 0.1, 0.2), (0.05,) * 3, (60,) * 3)
    text = limit_evidence(np.array(prob), choice, limits)
    assert text.startswith(evidence)
    uncertain = is_uncertain(np.array([prob]), np.array([choice]), limits)[0]
    assert uncertain == ("not below" in text or text.startswith("a 0.030 is below"))


def test_the_evidence_names_classes_without_a_limit() -> None:
    limits = Limits(NAMES, 0.05, (0.05, NEVER, 0.2), (0.05, 0.0, 0.05), (60, 3, 60))
    text = limit_evidence(np.array([0.95, 0.03, 0.02]), 0, limits)
    assert text == "validation has too few of b for a limit"
    names = tuple("abcdefghij")
    many = Limits(names, 0.05, (NEVER,) * 10, (0.0,) * 10, (3,) * 10)
    text = limit_evidence(np.full(10, 0.1), 0, many)
    assert text == "validation has too few of b, c, d, e, f, g and 3 more for a limit"
    few = Limits(names, 0.05, (0.01, *(NEVER,) * 9), (0.0,) * 10, (3,) * 10)
    (reason,) = uncertainty_reasons(np.full((1, 10), 0.1), np.array([0]), np.array([True]), few)
    assert reason == "validation has too few of b, c, d, e, f, g, h, i and j to rule them out"
    assert short_reason(f"{reason}; out of distribution") == f"{reason}; out of distribution"
    long = short_reason(f"{'classes, ' * 40}; out of distribution")
    assert long.endswith("classes,…; out of distribution")
    assert len(long) < 150
    two = Limits(NAMES[:2], 0.05, (0.2, 0.1), (0.05,) * 2, (60,) * 2)
    assert limit_evidence(np.array([0.93, 0.07]), 0, two) == "b 0.070 is below its limit 0.100"

"""The limits of "uncertain" promise what they keep, and follow from validation alone."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import two_class_table
from scipy.special import softmax

from fracnet.config.schema import Evaluation
from fracnet.evaluation.conformal import NEVER, by_level, decided, limits, reasons, uncertain
from fracnet.evaluation.decisions import decide


def drawn(rng: np.random.Generator, n: int, shares: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, C] of a model with some skill, and labels of classes so common."""
    target = rng.choice(len(shares), n, p=shares)
    scores = rng.normal(size=(n, len(shares)))
    scores[np.arange(n), target] += 1.5
    return softmax(scores, axis=1), target


NAMES = ("a", "b", "c")


def of_classes(
    rng: np.random.Generator, counts: list[int], skill: float, bias: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Likewise of so many images of each class; bias float [C]: added to the logits."""
    target = np.repeat(np.arange(len(counts)), counts)
    scores = rng.normal(size=(len(target), len(counts))) + bias
    scores[np.arange(len(target)), target] += skill
    return softmax(scores, axis=1), target


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_of_each_class_no_more_than_promised_is_surely_taken_for_another(error: float) -> None:
    rng = np.random.default_rng(0)
    shares = [0.7, 0.2, 0.1]
    wrong = []
    for _ in range(200):
        found = limits(*drawn(rng, 600, shares), error, NAMES)
        assert not found.note
        prob, target = drawn(rng, 400, [0.1, 0.1, 0.8])  # classes may be common or rare
        choice = decided(prob, None)
        surely = ~uncertain(prob, choice, found) & (choice != target)
        wrong.append([surely[target == c].mean() for c in range(3)])
    mean, deviation = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(len(wrong))
    assert (mean <= error + 3 * deviation).all()


def test_more_is_sure_where_more_error_is_allowed() -> None:
    rng = np.random.default_rng(1)
    val, (prob, _) = drawn(rng, 500, [0.5, 0.5]), drawn(rng, 500, [0.5, 0.5])
    choice = decided(prob, 0.5)
    shares = [
        uncertain(prob, choice, limits(*val, error, NAMES[:2])).mean()
        for error in (0.02, 0.05, 0.1)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2]


def test_a_limit_is_the_kth_smallest_probability_of_its_class() -> None:
    own = np.arange(1, 20) / 20  # 19 images: k = floor(0.1 * 20) = 2
    prob = np.concatenate([np.column_stack([own, 1 - own]), np.column_stack([1 - own, own])])
    target = np.repeat([0, 1], 19)
    assert limits(prob, target, 0.1, NAMES[:2]).values == (0.1, 0.1)
    assert limits(prob, target, 0.05, NAMES[:2]).values == (0.05, 0.05)


@pytest.mark.parametrize("skill", [1.0, 2.5])
@pytest.mark.parametrize("n", [10, 17])
def test_a_class_with_few_images_has_the_promise_that_they_allow(n: int, skill: float) -> None:
    """The model has learnt that the class is rare, and gives its images low probabilities."""
    rng, wrong = np.random.default_rng(4), []
    rare = np.log([0.7, 0.25, 0.05])
    for _ in range(300):
        prob, target = of_classes(rng, [150, 60, n], skill, rare)
        found = limits(prob, target, 0.05, NAMES)
        assert found.promised == (0.05, 0.05, 1 / (n + 1))
        assert f"c has {n}: there the limits promise {100 / (n + 1):.1f} %" in found.note
        prob, target = of_classes(rng, [100, 100, 100], skill, rare)
        choice = decided(prob, None)
        surely = ~uncertain(prob, choice, found) & (choice != target)
        wrong.append([surely[target == c].mean() for c in range(3)])
    mean, deviation = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(len(wrong))
    assert (mean <= np.array(found.promised) + 3 * deviation).all()


def test_a_class_with_hardly_an_image_is_never_ruled_out_and_that_is_the_reason() -> None:
    rng = np.random.default_rng(2)
    val = of_classes(rng, [60, 60, 3], 2.0)
    found = limits(*val, 0.05, NAMES)
    full = limits(*of_classes(rng, [60, 60, 60], 2.0), 0.05, NAMES)
    assert found.values[2] == NEVER
    assert found.values[0] > 0
    assert found.promised == (0.05, 0.05, 0.0)
    assert found.note == (
        "Validation has too few images of c (3) to rule it out, so no image is surely anything "
        "but c; it takes 9 of each class, or fracnet.predict with uncertain=0.125."
    )
    assert NEVER not in limits(*val, 0.125, NAMES).values
    prob, _ = of_classes(rng, [100, 100, 100], 2.0)
    choice = decided(prob, None)
    doubt = uncertain(prob, choice, found)
    assert doubt[choice != 2].all()
    assert not doubt[choice == 2].all()
    assert not uncertain(prob, choice, full)[choice != 2].all()
    low = np.asarray(found.values[:2]) / 2
    rows = np.array([[0.99, 0.005, 0.005], [0.4, 0.4, 0.2], [low[0], low[1], 1 - low.sum()]])
    rows[0, 1] = low[1]
    named = np.array([0, 0, 0])
    few = "validation has too few of c to rule it out"
    assert reasons(rows, named, np.ones(3, dtype=bool), found) == [
        few, "more than one class fits", f"no class fits; {few}",
    ]  # fmt: skip


def test_a_class_that_validation_lacks_cannot_be_ruled_out_at_any_price() -> None:
    found = limits(*of_classes(np.random.default_rng(5), [60, 60, 0], 2.0), 0.5, NAMES)
    assert found.values[2] == NEVER
    assert found.note.endswith("anything but c; it takes 1 of each class.")


def test_a_threshold_that_decides_against_the_likely_class_is_unsure_there() -> None:
    rng = np.random.default_rng(3)
    found = limits(*drawn(rng, 400, [0.5, 0.5]), 0.05, NAMES[:2])
    low, high = found.values[1] / 4, found.values[1] / 2
    prob = np.array([[1 - high, high]])
    assert not uncertain(prob, decided(prob, 0.5), found)[0]
    sensitive = decided(prob, low)  # a threshold so low that the image is called positive
    assert sensitive[0] == 1
    assert uncertain(prob, sensitive, found)[0]
    assert reasons(prob, sensitive, np.array([True]), found) == ["another class fits better"]


def test_test_rows_choose_no_limit_and_are_reported_by_level() -> None:
    table = two_class_table(val=60, test=60)
    decisions = decide(table[table["split"] == "val"], Evaluation())
    found = by_level(table, decisions, 0.05)
    assert set(found) == {"image", "study"}
    changed = table.copy()
    rows = changed["split"] == "test"
    names = ["prob_normal", "prob_abnormal"]
    changed.loc[rows, names] = changed.loc[rows, names[::-1]].to_numpy()
    logits = ["logit_normal", "logit_abnormal"]
    changed.loc[rows, logits] = changed.loc[rows, logits[::-1]].to_numpy()
    again = by_level(changed, decisions, 0.05)
    for level in found:
        assert again[level]["limits"] == found[level]["limits"]
        assert again[level]["threshold"] == decisions["operating_point"][level]["threshold"]
    told, worse = found["image"]["test"], again["image"]["test"]
    assert told["n"] == rows.sum()
    assert worse["wrong_of_confident"]["value"] > told["wrong_of_confident"]["value"]
    low, high = told["confident"]["low"], told["confident"]["high"]
    assert low < told["confident"]["value"] < high


def test_without_test_rows_nothing_is_told_of_them() -> None:
    table: pd.DataFrame = two_class_table(val=60, test=1)
    val = table[table["split"] == "val"]
    found = by_level(val, decide(val, Evaluation()), 0.05)
    assert found["image"]["test"] is None


def test_where_validation_is_too_small_that_is_the_reason() -> None:
    found = limits(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), 0.05, NAMES[:2], "study")
    assert set(found.values) == {NEVER}
    assert found.note.startswith("Validation has too few studies of a (1) and b (1) to rule them")
    assert "so no decision on a study can be confident; it takes 9 of each class" in found.note
    prob = np.array([[1.0, 0.0]])
    doubt = uncertain(prob, np.array([0]), found)
    assert reasons(prob, np.array([0]), doubt, found) == [
        "validation is too small to be sure of any"
    ]

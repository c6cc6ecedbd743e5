import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, make_table

from fracnet.errors import UserError
from fracnet.evaluation import metrics
from fracnet.evaluation.intervals import wilson
from fracnet.evaluation.predictions import probabilities, targets
from fracnet.evaluation.summary import Estimate, Summary, summarise

OVERALL = [
    "accuracy",
    "balanced_accuracy",
    "macro_sensitivity",
    "macro_specificity",
    "macro_auc",
]


def every_estimate(summary: Summary) -> list[Estimate]:
    return [
        *summary.metrics.values(),
        *(e for row in summary.per_class for e in (row.sensitivity, row.specificity, row.auc)),
    ]


@pytest.mark.parametrize("counts", [UPPER_LIMB_COUNTS, (40, 30)])
@pytest.mark.parametrize("views", [None, 3])
def test_values_are_those_of_metrics_inside_their_limits(
    counts: tuple[int, ...], views: int | None
) -> None:
    table = make_table(counts, 1.5, views=views)
    summary = summarise(table)
    target, prob = targets(table), probabilities(table)
    matrix = metrics.confusion(target, metrics.predict(prob), len(counts))
    assert list(summary.metrics) == OVERALL
    assert np.array(summary.confusion).tolist() == matrix.tolist()
    assert summary.metrics["accuracy"].value == metrics.accuracy(matrix)
    assert summary.metrics["macro_auc"].value == metrics.macro(metrics.auc(target, prob))
    for c, row in enumerate(summary.per_class):
        assert row.n == counts[c]
        assert row.sensitivity.value == metrics.sensitivity(matrix)[c]
        assert row.specificity.value == metrics.specificity(matrix)[c]
    for estimate in every_estimate(summary):
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high
    assert summary.unit == ("image" if views is None else "patient")
    assert summary.clusters == (len(target) if views is None else -(-len(target) // 3))


def test_without_clusters_accuracy_has_the_wilson_interval() -> None:
    accuracy = summarise(make_table(UPPER_LIMB_COUNTS)).metrics["accuracy"]
    assert accuracy.method == "Wilson"
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(accuracy.value * 83, 83))


def test_views_of_one_patient_widen_the_interval() -> None:
    table = make_table((100, 100), 1.0)
    copies = table.loc[table.index.repeat(3)].reset_index(drop=True)
    copies["patient"], copies["path"] = copies["path"], [f"{i}" for i in range(600)]
    one, three = summarise(table), summarise(copies)
    for name in OVERALL:
        before, after = one.metrics[name], three.metrics[name]
        assert after.value == pytest.approx(before.value)
        assert before.low is not None
        assert after.low is not None
        assert after.low <= before.low + 1e-3


def test_the_order_of_rows_changes_nothing() -> None:
    table = make_table(UPPER_LIMB_COUNTS, views=2)
    shuffled = table.sample(frac=1, random_state=1)
    for one, two in zip(
        every_estimate(summarise(table)), every_estimate(summarise(shuffled)), strict=True
    ):
        assert (one.value, one.low) == (pytest.approx(two.value), pytest.approx(two.low))


def test_renaming_and_reordering_classes_changes_nothing() -> None:
    table = make_table(UPPER_LIMB_COUNTS)
    prob = [name for name in table if name.startswith("prob_")]
    rest = [name for name in table if not name.startswith("prob_")]
    one, two = summarise(table), summarise(table[rest + prob[::-1]])
    assert two.classes == one.classes[::-1]
    for name in OVERALL:
        assert two.metrics[name].value == pytest.approx(one.metrics[name].value)
        assert two.metrics[name].low == pytest.approx(one.metrics[name].low)


def test_an_absent_class_is_undefined_and_said_to_be_so() -> None:
    table = make_table((12, 0, 12), 1.0)
    summary = summarise(table)
    absent = summary.per_class[1]
    assert np.isnan(absent.sensitivity.value)
    assert absent.sensitivity.note == absent.auc.note == "undefined: no cases"
    assert not np.isnan(absent.specificity.value)
    macro = summary.metrics["macro_sensitivity"]
    assert (macro.scored, macro.note) == (2, "2 of 3 classes scored")
    assert summary.metrics["macro_specificity"].scored == 3


def test_few_cases_are_flagged_where_they_decide() -> None:
    first, second = summarise(make_table((9, 10), 0.5)).per_class
    assert "too few" in second.auc.note
    assert "too few" in first.sensitivity.note
    assert "too few" not in first.specificity.note
    assert "too few" in first.auc.note
    assert "too few" in second.specificity.note
    assert "too few" not in second.sensitivity.note


def test_perfect_scores_are_never_given_as_an_interval_of_no_width() -> None:
    summary = summarise(make_table(UPPER_LIMB_COUNTS, 60.0))
    for estimate in every_estimate(summary):
        assert estimate.value == 1
        if estimate.low is None:
            assert "degenerate" in estimate.note
        else:
            assert estimate.low < 1


@pytest.mark.parametrize("counts", [(1, 0), (1, 1), (5, 0, 0)])
def test_tiny_tables_are_scored_without_a_fault(counts: tuple[int, ...]) -> None:
    summary = summarise(make_table(counts))
    assert summary.n == sum(counts)
    json.dumps(summary.to_dict(), allow_nan=False)


def test_the_dictionary_is_json_with_null_for_undefined() -> None:
    summary = summarise(make_table((12, 0, 12)))
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert plain["per_class"][1]["class"] == "fingers"
    assert plain["per_class"][1]["sensitivity"]["value"] is None
    assert plain["metrics"]["accuracy"]["n"] == 24
    assert {"value", "low", "high", "method", "n", "note"} <= set(plain["metrics"]["macro_auc"])
    assert plain["confusion"][0][0] == summary.confusion[0][0]


def test_two_splits_at_once_are_refused() -> None:
    table = make_table((5, 5))
    table.loc[0, "split"] = "val"
    with pytest.raises(UserError, match="'split' holds test, val"):
        summarise(table)


def test_a_table_saved_as_csv_gives_the_same_figures_to_the_last_digit(tmp_path: Path) -> None:
    table = make_table(UPPER_LIMB_COUNTS, views=2)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    again = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    numbers = [name for name in again if name.startswith(("prob_", "logit_"))]
    again[numbers] = again[numbers].astype(float)
    assert summarise(again).to_dict() == summarise(table).to_dict()

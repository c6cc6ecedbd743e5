import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, make_table

from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import Estimate, Summary, summarize
from fracnet.metrics import classification
from fracnet.metrics.classification import LOSSES, OVERALL, PER_CLASS
from fracnet.metrics.intervals import wilson
from fracnet.utils.errors import UserError


def every_estimate(summary: Summary) -> list[Estimate]:
    per_class = (getattr(row, name) for row in summary.per_class for name in PER_CLASS)
    return [*summary.metrics.values(), *per_class]


@pytest.mark.parametrize("counts", [UPPER_LIMB_COUNTS, (80, 70)])
@pytest.mark.parametrize("views", [None, 3])
def test_values_are_those_of_metrics_inside_their_limits(
    counts: tuple[int, ...], views: int | None
) -> None:
    table = make_table(counts, 1.5, views=views)
    summary = summarize(Predictions(table))
    target, prob = Predictions(table).targets, Predictions(table).probabilities
    matrix = classification.confusion(target, classification.predict(prob), len(counts))
    assert tuple(summary.metrics) == OVERALL
    assert np.array(summary.confusion).tolist() == matrix.tolist()
    assert summary.metrics["accuracy"].value == classification.accuracy(matrix)
    assert summary.metrics["macro_auc"].value == classification.macro(
        classification.auc(target, prob)
    )
    assert summary.metrics["kappa"].value == classification.kappa(matrix)
    assert summary.metrics["log_loss"].value == pytest.approx(
        -np.log(prob[np.arange(len(target)), target]).mean()
    )
    for c, row in enumerate(summary.per_class):
        assert row.n == counts[c]
        for name in ("sensitivity", "specificity", "precision", "npv", "f1"):
            assert getattr(row, name).value == getattr(classification, name)(matrix)[c]
        assert row.average_precision.value == classification.average_precision(target, prob)[c]
        assert row.precision.n == matrix[:, c].sum()
        assert row.npv.n == len(target) - matrix[:, c].sum()
    for estimate in every_estimate(summary):
        assert estimate.low is not None, estimate
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high
        assert estimate.high <= 1 or estimate == summary.metrics["log_loss"]
    assert summary.unit == ("image" if views is None else "patient")
    assert summary.clusters == (len(target) if views is None else -(-len(target) // 3))


def test_without_clusters_accuracy_has_the_wilson_interval() -> None:
    accuracy = summarize(Predictions(make_table(UPPER_LIMB_COUNTS))).metrics["accuracy"]
    assert accuracy.method == "Wilson"
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(accuracy.value * 83, 83))


def test_views_of_one_patient_widen_the_interval() -> None:
    table = make_table((100, 100), 1.0)
    copies = table.loc[table.index.repeat(3)].reset_index(drop=True)
    copies["patient"], copies["path"] = copies["path"], [f"{i}" for i in range(600)]
    one, three = summarize(Predictions(table)), summarize(Predictions(copies))
    for name in OVERALL:
        before, after = one.metrics[name], three.metrics[name]
        assert after.value == pytest.approx(before.value)
        assert before.low is not None
        assert before.high is not None
        assert after.low is not None
        assert after.high is not None
        assert after.high - after.low >= 0.97 * (before.high - before.low), name


def test_the_order_of_rows_changes_nothing() -> None:
    table = make_table(UPPER_LIMB_COUNTS, views=2)
    shuffled = table.sample(frac=1, random_state=1)
    assert summarize(Predictions(shuffled)) == summarize(Predictions(table))
    decided = (Predictions(table).targets + 1) % 6
    order = shuffled.index.to_numpy()
    assert summarize(Predictions(shuffled), decided[order]) == summarize(
        Predictions(table), decided
    )


def test_renaming_and_reordering_classes_changes_nothing() -> None:
    table = make_table(UPPER_LIMB_COUNTS)
    prob = [name for name in map(str, table) if name.startswith("prob_")]
    rest = [name for name in map(str, table) if not name.startswith("prob_")]
    one, two = summarize(Predictions(table)), summarize(Predictions(table[rest + prob[::-1]]))
    assert two.classes == one.classes[::-1]
    for name in OVERALL:
        assert two.metrics[name].value == pytest.approx(one.metrics[name].value)
        assert two.metrics[name].low == pytest.approx(one.metrics[name].low)


def test_an_absent_class_is_undefined_and_noted() -> None:
    table = make_table((12, 0, 12), 1.0)
    summary = summarize(Predictions(table))
    absent = summary.per_class[1]
    assert np.isnan(absent.sensitivity.value)
    assert absent.sensitivity.note == absent.auc.note == "undefined: no cases"
    assert not np.isnan(absent.specificity.value)
    macro = summary.metrics["macro_sensitivity"]
    assert (macro.scored, macro.note) == (2, "2 of 3 classes scored")
    assert summary.metrics["macro_specificity"].scored == 3


def test_few_cases_are_flagged_where_they_decide() -> None:
    first, second = summarize(Predictions(make_table((9, 10), 0.5))).per_class
    assert "too few" in second.auc.note
    assert "too few" in first.sensitivity.note
    assert "too few" not in first.specificity.note
    assert "too few" in first.auc.note
    assert "too few" in second.specificity.note
    assert "too few" not in second.sensitivity.note


def test_perfect_scores_are_never_given_as_an_interval_of_no_width() -> None:
    summary = summarize(Predictions(make_table(UPPER_LIMB_COUNTS, 60.0)))
    for estimate in every_estimate(summary):
        if estimate.low is None:
            assert "degenerate" in estimate.note or "too few for an interval" in estimate.note
        else:
            assert estimate.low < 1
    scores = [e for name, e in summary.metrics.items() if name not in LOSSES]
    assert {estimate.value for estimate in scores} == {1.0}
    assert summary.metrics["kappa"].note == "degenerate: the value is 1"
    assert summary.metrics["calibration_error"].value == pytest.approx(0)


@pytest.mark.parametrize("counts", [(1, 0), (1, 1), (5, 0, 0)])
def test_tiny_tables_are_scored_without_a_fault(counts: tuple[int, ...]) -> None:
    summary = summarize(Predictions(make_table(counts)))
    assert summary.n == sum(counts)
    json.dumps(summary.to_dict(), allow_nan=False)


def test_the_dictionary_is_json_with_null_for_undefined() -> None:
    summary = summarize(Predictions(make_table((12, 0, 12))))
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert plain["per_class"][1]["class"] == "fingers"
    assert plain["per_class"][1]["sensitivity"]["value"] is None
    assert plain["metrics"]["accuracy"]["n"] == 24
    assert {"value", "low", "high", "method", "n", "note"} <= set(plain["metrics"]["macro_auc"])
    assert plain["confusion"][0][0] == summary.confusion[0][0]


def test_two_splits_at_once_are_rejected() -> None:
    table = make_table((5, 5))
    table.loc[0, "split"] = "val"
    with pytest.raises(UserError, match="'split' holds test, val"):
        summarize(Predictions(table))


def test_a_table_saved_as_csv_gives_the_same_metrics_to_the_last_digit(tmp_path: Path) -> None:
    table = make_table(UPPER_LIMB_COUNTS, views=2)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    again = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    numbers = [name for name in map(str, again) if name.startswith(("prob_", "logit_"))]
    again[numbers] = again[numbers].astype(float)
    assert summarize(Predictions(again)).to_dict() == summarize(Predictions(table)).to_dict()


def test_an_operating_point_decides_in_place_of_the_likeliest_class() -> None:
    table = make_table((60, 40), 1.0)
    prob, target = Predictions(table).probabilities, Predictions(table).targets
    decided = (prob[:, 1] > 0.2).astype(np.int64)
    usual, moved = summarize(Predictions(table)), summarize(Predictions(table), decided)
    matrix = classification.confusion(target, decided, 2)
    assert moved.per_class[1].sensitivity.value == classification.sensitivity(matrix)[1]
    assert moved.per_class[1].sensitivity.value > usual.per_class[1].sensitivity.value
    assert moved.metrics["mcc"].value == classification.mcc(matrix)
    # What rests on probabilities alone stays as it is.
    for name in ("macro_auc", "brier", "log_loss", "calibration_error"):
        assert moved.metrics[name] == usual.metrics[name]
    assert moved.per_class[1].average_precision == usual.per_class[1].average_precision


def test_a_class_never_predicted_has_no_precision() -> None:
    table = make_table((30, 30), 1.0)
    summary = summarize(Predictions(table), np.zeros(60, dtype=np.int64))
    second = summary.per_class[1]
    assert np.isnan(second.precision.value)
    assert (second.precision.low, second.precision.note) == (None, "undefined: no predictions")
    assert second.npv.value == 0.5
    assert summary.per_class[0].npv.note == "undefined: no other predictions"
    assert second.f1.value == 0
    assert second.f1.low == 0
    assert np.isnan(summary.metrics["mcc"].value)
    assert summary.metrics["mcc"].low is None


def test_true_classes_with_a_probability_near_0_are_counted() -> None:
    table = make_table((30, 30), 1.0)
    table.loc[[0, 1], ["prob_elbow", "prob_fingers"]] = [0.0, 1.0]
    loss = summarize(Predictions(table)).metrics["log_loss"]
    assert np.isfinite(loss.value)
    assert loss.note == "in 2 rows the true class has a probability near 0"


def test_what_a_name_leaves_open_is_defined() -> None:
    binary, many = (
        summarize(Predictions(make_table((9, 9)))),
        summarize(Predictions(make_table((9, 9, 9)))),
    )
    assert "0 (best) to 1" in binary.definitions["brier"]
    assert "0 (best) to 2" in many.definitions["brier"]
    assert "15 equal-mass bins, debiased" in many.definitions["calibration_error"]
    assert many.metrics["calibration_error"].note.endswith("13 bins")

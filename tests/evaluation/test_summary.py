"""The metrics of one split and their intervals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, draw_scores, make_table
from scipy.special import softmax

from fracnet.evaluation.metric_selection import Sample as ModelSample
from fracnet.evaluation.metric_selection import find_metric, selection_value
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.evaluation.summary import (
    NOT_FROM_0,
    Estimate,
    Summary,
    primary_intervals,
    summarize,
)
from fracnet.metrics import classification
from fracnet.metrics.calibration import calibration_error
from fracnet.metrics.classification import LOSSES, OVERALL, PER_CLASS
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import Interval, wilson
from fracnet.report.tables import estimate_cell
from fracnet.utils.errors import UserError


def every_estimate(summary: Summary) -> list[Estimate]:
    per_class = (getattr(row, name) for row in summary.per_class for name in PER_CLASS)
    return [*summary.metrics.values(), *per_class]


ADDED = """
import json, sys
from pathlib import Path

from fracnet.config import fields

fields.OVERALL_METRICS += ("informedness",)

from fracnet.evaluation import summary
from fracnet.metrics import classification
from fracnet.report import run_tables

classification.OF_MATRIX["informedness"] = (
    lambda matrix: 2 * classification.balanced_accuracy(matrix) - 1
)
summary.BOOTSTRAPPED["informedness"] = -1.0
run_tables.FURTHER_METRICS["informedness"] = "Youden's J"

from helpers.reports import two_class_content

run = two_class_content(Path(sys.argv[1]))
table = run_tables.overall_table(run, run_tables.METRICS | run_tables.FURTHER_METRICS)
row = next(map(str, row) for row in table.rows if row[0] == "Youden's J")
known, added = (run.summary.metrics[n] for n in ("balanced_accuracy", "informedness"))
print(json.dumps([list(row), [known.value, known.low], [added.value, added.low]]))
"""


def test_a_metric_is_added_as_the_text_for_contributors_says(tmp_path: Path) -> None:
    """In a process of its own, because other modules read the names while they are imported."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-c", ADDED, str(tmp_path / "run")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr
    row, known, added = json.loads(done.stdout.splitlines()[-1])
    assert added[0] == pytest.approx(2 * known[0] - 1)
    assert added[1] == pytest.approx(2 * known[1] - 1, abs=0.05)
    assert row[1].startswith(f"{added[0]:.3f} ({added[1]:.3f}")
    assert len(row) > 2, "next to those of the baselines"


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
    left, three = summarize(Predictions(table)), summarize(Predictions(copies))
    for name in OVERALL:
        before, after = left.metrics[name], three.metrics[name]
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
    left, right = summarize(Predictions(table)), summarize(Predictions(table[rest + prob[::-1]]))
    assert right.classes == left.classes[::-1]
    for name in OVERALL:
        assert right.metrics[name].value == pytest.approx(left.metrics[name].value)
        assert right.metrics[name].low == pytest.approx(left.metrics[name].low)


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
    assert summary.metrics["macro_auc"].low is not None
    scores = [e for name, e in summary.metrics.items() if name not in LOSSES]
    assert {estimate.value for estimate in scores} == {1.0}
    assert summary.metrics["kappa"].note == "degenerate: the value is 1"
    assert summary.metrics["calibration_error"].value == pytest.approx(0)


@pytest.mark.parametrize("counts", [(1, 0), (1, 1), (5, 0, 0)])
def test_tiny_tables_are_evaluated_without_errors(counts: tuple[int, ...]) -> None:
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


def test_a_table_saved_as_csv_gives_identical_metrics(tmp_path: Path) -> None:
    table = make_table(UPPER_LIMB_COUNTS, views=2)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    table_from_csv = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    numbers = [name for name in map(str, table_from_csv) if name.startswith(("prob_", "logit_"))]
    table_from_csv[numbers] = table_from_csv[numbers].astype(float)
    assert (
        summarize(Predictions(table_from_csv)).to_dict() == summarize(Predictions(table)).to_dict()
    )


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
    table = make_table((30, 30), 1.0).drop(columns=["logit_elbow", "logit_fingers"])
    table.loc[[0, 1], ["prob_elbow", "prob_fingers"]] = [0.0, 1.0]
    loss = summarize(Predictions(table)).metrics["log_loss"]
    assert np.isfinite(loss.value)
    assert loss.note == "in 2 rows the true class has a probability near 0"


def test_ambiguous_metric_names_are_defined() -> None:
    binary, many = (
        summarize(Predictions(make_table((9, 9)))),
        summarize(Predictions(make_table((9, 9, 9)))),
    )
    assert "0 (best) to 1" in binary.definitions["brier"]
    assert "0 (best) to 2" in many.definitions["brier"]
    assert "15 equal-mass bins, debiased" in many.definitions["calibration_error"]
    assert many.metrics["calibration_error"].note.endswith("13 bins")


Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(patients: int, n_classes: int, separation: float = 1.2, seed: int = 0) -> Sample:
    """Target, probabilities and patient of two views each."""
    patient = np.arange(2 * patients) // 2
    target = patient % n_classes
    rng = np.random.default_rng(seed)
    scores = draw_scores(rng, target, n_classes, separation, patient, 0.5)
    return target, softmax(scores, axis=1), patient


def intervals(sample: Sample, predicted: np.ndarray | None = None) -> dict[str, Interval]:
    target, prob, patient = sample
    names, ids = np.unique(patient, return_inverse=True)
    clusters = Clusters(ids, len(names), "patient")
    if predicted is None:
        predicted = classification.predict(prob)
    overall, by_class = primary_intervals(target, prob, predicted, clusters, resamples=2000, seed=0)
    assert set(overall) == set(classification.OVERALL)
    assert tuple(by_class) == classification.PER_CLASS
    for name, limits in by_class.items():
        overall |= {f"{name} {c}": limit for c, limit in enumerate(limits)}
    return overall


def width(interval: Interval) -> float:
    assert interval.low is not None, interval
    assert interval.high is not None, interval
    return interval.high - interval.low


@pytest.mark.parametrize("n_classes", [2, 6])
def test_rows_doubled_within_their_patients_change_nothing(n_classes: int) -> None:
    target, prob, patient = scene(90, n_classes)
    once = intervals((target, prob, patient))
    twice = intervals((target.repeat(2), prob.repeat(2, axis=0), patient.repeat(2)))
    for name, interval in once.items():
        # An effective n is never above n: what that withholds by chance, the copies give back.
        error = 5e-3 if "effective n" in interval.method else 1e-9
        assert twice[name].low == pytest.approx(interval.low, abs=error), name
        assert twice[name].high == pytest.approx(interval.high, abs=error), name


@pytest.mark.parametrize("n_classes", [2, 6])
def test_doubling_the_patients_narrows_by_the_square_root_of_two(n_classes: int) -> None:
    target, prob, patient = scene(240, n_classes)
    once = intervals((target, prob, patient))
    twice = intervals(
        (np.tile(target, 2), np.tile(prob, (2, 1)), np.concatenate([patient, patient + 240]))
    )
    for name, interval in once.items():
        # The calibration error has no such rate: near 0 it is a mean of squares.
        if name == "calibration_error":
            assert width(twice[name]) < width(interval)
        else:
            ratio = width(interval) / width(twice[name])
            assert ratio == pytest.approx(np.sqrt(2), rel=0.08), name


def test_names_of_classes_and_of_patients_do_not_matter() -> None:
    target, prob, patient = scene(60, 3)
    swap = np.array([2, 0, 1])
    left = intervals((target, prob, patient))
    other = intervals((np.argsort(swap)[target], prob[:, swap], patient))
    for name in classification.OVERALL:
        assert other[name].low == pytest.approx(left[name].low), name
    for name in classification.PER_CLASS:
        for c in range(3):
            assert other[f"{name} {c}"].low == pytest.approx(left[f"{name} {swap[c]}"].low), name
    renamed = intervals((target, prob, 1000 + 7 * patient))
    assert renamed == left


@pytest.mark.parametrize("case", ["one row", "one class", "ties", "constant", "one patient"])
def test_degenerate_samples_give_notes(case: str) -> None:
    target, prob, patient = scene(12, 3)
    if case == "one row":
        target, prob, patient = target[:1], prob[:1], patient[:1]
    elif case == "one class":
        target = np.zeros_like(target)
    elif case == "ties":
        prob = np.round(prob, 1) + 0.1
        prob /= prob.sum(axis=1, keepdims=True)
    elif case == "constant":
        prob = np.full_like(prob, 1 / 3)
    else:
        patient = np.zeros_like(patient)
    result = intervals((target, prob, patient))
    for name, interval in result.items():
        if interval.low is None or interval.high is None:
            assert interval.low is interval.high
            assert interval.note, name
        else:
            assert -1 <= interval.low < interval.high, name
            assert np.isfinite(interval.high)
    if case == "one patient":
        assert all(interval.low is None for interval in result.values())
    if case in ("ties", "constant"):
        # Equal scores say nothing about the order of rows, but the accuracy is what it is.
        assert result["accuracy"].low is not None
        assert result["macro_f1"].low is not None


@pytest.mark.parametrize("seed", range(4))
def test_limits_enclose_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 7))
    target, prob, patient = scene(80, n_classes, float(rng.uniform(0.2, 2)), seed)
    # An operating point that is not the likeliest class.
    predicted = classification.predict(prob * rng.uniform(0.5, 2, n_classes))
    result = intervals((target, prob, patient), predicted)
    by_class = classification.by_class(target, prob, predicted)
    values = classification.overall(target, prob, predicted, by_class)
    clusters = Clusters(patient, 80, "patient")
    values["calibration_error"] = np.asarray(calibration_error(target, prob, clusters))
    for name, rates in by_class.items():
        values |= {f"{name} {c}": rate for c, rate in enumerate(rates)}
    for name, interval in result.items():
        if interval.low is not None and interval.high is not None:
            assert interval.low <= values[name] <= interval.high, name


def test_a_class_that_is_never_predicted_has_precision_0_in_the_average() -> None:
    table = make_table((20, 20, 20), 1.0)
    decided = np.minimum(Predictions(table.sort_values("path")).targets, 1)
    summary = summarize(Predictions(table), decided)
    macro, third = summary.metrics["macro_precision"], summary.per_class[2].precision
    assert (third.note, macro.scored) == ("undefined: no predictions", 3)
    assert macro.note == "1 class that is never predicted: precision 0"
    assert macro.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert macro.low is not None
    assert macro.high is not None
    assert macro.low < macro.value < macro.high <= 2 / 3
    rows = Predictions(table).by_path()
    sample = ModelSample(rows.targets, rows.probabilities, decided, rows.scores)
    compared = find_metric("macro_precision", rows.classes)
    assert compared.value(sample) == pytest.approx(macro.value)


def test_a_saturated_network_has_one_auc_at_every_level() -> None:
    table = make_table((60, 60), 0.3)
    logits = Predictions(table).logits
    rows = table.drop(columns=[c for c in table if str(c).startswith(("prob_", "logit_"))])
    results = []
    for factor in (1.0, 600.0):
        scaled = Predictions(assemble(rows, Predictions(table).classes, factor * logits))
        summary = summarize(scaled)
        first, second = (c.auc.value for c in summary.per_class)
        assert first == second == summary.metrics["macro_auc"].value
        assert summary.per_class[0].auc.low == pytest.approx(summary.per_class[1].auc.low)
        assert selection_value(scaled, "macro_auc") == first
        results.append((first, summary.per_class[1].average_precision.value))
    assert results[0] == results[1]


def test_a_calibration_error_cut_off_at_0_is_not_called_perfect() -> None:
    notes = []
    for seed in range(12):
        error = summarize(Predictions(make_table((60, 60), 1.0, seed=seed))).metrics[
            "calibration_error"
        ]
        assert (error.value == 0) == (NOT_FROM_0 in error.note.split("; "))
        if error.value == 0:
            assert str(estimate_cell(error)).startswith("not distinguishable from 0 (0.000-0.")
        notes.append(error.value == 0)
    assert any(notes)
    assert not all(notes)

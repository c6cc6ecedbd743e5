"""Comparisons: ranking, verdicts, intervals of differences and the permutation test."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from helpers.predictions import UPPER_LIMB_COUNTS
from helpers.run_folders import table_of
from scipy import stats

from fracnet.evaluation.comparison import (
    Candidate,
    Comparison,
    Difference,
    Member,
    ScoredRuns,
    compare,
    with_verdicts,
)
from fracnet.evaluation.metric_selection import (
    Metric,
    Sample,
    area_interval,
    difference_interval,
    permutation_test,
    stretch,
)
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import plain, summarize
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import area_difference, area_test, clusters_needed, detectable
from fracnet.utils.errors import UserError


def candidate(name: str, skill: float, seeds: range, count: int = 60) -> Candidate:
    members = (Member(f"{name}{seed}", Predictions(table_of(skill, seed, count))) for seed in seeds)
    return Candidate(name, tuple(members))


def of_models(*skills: float, **options: object) -> Comparison:
    candidates = [candidate(f"m{i}_", skill, range(i, i + 1)) for i, skill in enumerate(skills)]
    return compare(candidates, "accuracy", resamples=300, **options)  # type: ignore[arg-type]


def test_standing_is_by_validation_and_its_metrics_are_those_of_an_evaluation() -> None:
    for metric in ("accuracy", "macro_auc", "log_loss"):
        candidates = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
        result = compare(candidates, metric, resamples=2000)
        assert [row.name for row in result.standings] == ["b", "a"]
        for row, run in zip(result.standings, candidates[::-1], strict=True):
            predictions = run.members[0].predictions
            test = summarize(predictions.split("test")).metrics[metric]
            assert (row.value, row.low, row.high) == (test.value, test.low, test.high)
            val = summarize(predictions.split("val")).metrics[metric]
            assert row.validation == pytest.approx(val.value)


def test_a_clear_difference_is_better_and_a_loss_turns_the_sign() -> None:
    result = of_models(2.5, 0.3)
    (row,) = result.models
    assert (row.name, row.reference) == ("m1_", "m0_")
    assert row.value < 0
    assert row.verdict == "worse"
    assert row.p is not None
    assert row.p < 0.01
    assert row.holm == row.p
    assert not result.configurations
    candidates = [candidate("a", 2.5, range(1)), candidate("b", 0.3, range(1, 2))]
    (loss,) = compare(candidates, "log_loss", resamples=300).models
    assert loss.value > 0
    assert loss.verdict == "worse"


def test_an_undecided_difference_comes_with_the_number_of_patients() -> None:
    (row,) = of_models(1.0, 1.0, margin=0.02).models
    assert row.verdict == "undecided"
    assert row.needed is not None
    assert row.needed > 60
    assert row.detectable is not None
    assert row.detectable > 0.02
    (wide,) = of_models(1.0, 1.0, margin=0.9).models
    assert wide.within


def test_identical_predictions_are_noted() -> None:
    table = table_of(1.0)
    candidates = [Candidate(name, (Member(name, Predictions(table)),)) for name in "ab"]
    (row,) = compare(candidates, "macro_auc", resamples=200).models
    assert (row.verdict, row.p, row.low, row.value) == ("identical", 1, None, 0)
    json.dumps(plain(row), allow_nan=False)


def test_one_patient_gives_no_test() -> None:
    candidates = []
    for seed in range(2):
        table = table_of(1.0, seed)
        table["patient"] = "one of " + table["split"]
        candidates.append(Candidate(str(seed), (Member(str(seed), Predictions(table)),)))
    (row,) = compare(candidates, "accuracy", resamples=200, margin=0.1).models
    assert (row.p, row.low, row.verdict, row.needed) == (None, None, None, None)
    assert row.note == "all rows are one patient"


def test_all_pairs_are_corrected_together_and_any_run_can_be_the_reference() -> None:
    result = of_models(1.0, 1.2, 1.4, pairs="all")
    assert len(result.models) == 3
    smallest = min(result.models, key=lambda row: row.p or 1)
    assert smallest.p is not None
    assert smallest.holm == pytest.approx(3 * smallest.p)
    chosen = of_models(1.0, 1.2, 1.4, reference="m1_1")
    assert [row.reference for row in chosen.models] == ["m1_", "m1_"]
    with pytest.raises(UserError, match="reference=m9 is not one of the runs"):
        of_models(1.0, 1.2, reference="m9")


def test_configurations_need_five_seeds_to_be_compared() -> None:
    candidates = [candidate("a", 1.8, range(5)), candidate("b", 0.6, range(5, 10))]
    result = compare(candidates, "accuracy", resamples=300)
    (row,) = result.configurations
    assert (row.name, row.reference, row.runs, row.verdict) == ("b", "a", (5, 5), "worse")
    (model,) = result.models
    best = max(
        candidates[0].members,
        key=lambda m: summarize(m.predictions.split("val")).metrics["accuracy"].value,
    )
    assert model.runs[1] == best.name  # chosen by validation, not by the test
    test = [summarize(m.predictions.split("test")) for m in candidates[0].members]
    mean = np.mean([summary.metrics["accuracy"].value for summary in test])
    assert result.standings[0].value == pytest.approx(mean)
    four = compare([candidate("a", 1.8, range(4)), candidates[1]], "accuracy", resamples=300)
    assert not four.configurations
    assert len(four.models) == 1


def test_the_order_of_rows_and_runs_changes_nothing() -> None:
    candidates = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
    mixed = [
        Candidate(
            c.name,
            tuple(
                Member(m.name, Predictions(m.predictions.table.sample(frac=1))) for m in c.members
            ),
        )
        for c in candidates[::-1]
    ]
    for metric in ("macro_auc", "kappa"):
        left, right = (compare(m, metric, resamples=300).to_dict() for m in (candidates, mixed))
        assert left == right


ROWS = rows_of(np.arange(100))
ROW = Difference(
    name="a",
    reference="b",
    kind="model",
    runs=("a", "b"),
    value=-0.03,
    low=-0.06,
    high=-0.01,
    method="bootstrap by patient",
    p=0.01,
    test="permutation by patient",
    note="",
    error=0.015,
)


def of_seed(metric: str, views: int, seed: int, **options: object) -> Comparison:
    tables = {"a": table_of(1.6, seed, 40, views), "b": table_of(0.8, seed + 100, 40, views)}
    candidates = [
        Candidate(name, (Member(name, Predictions(table)),)) for name, table in tables.items()
    ]
    return compare(candidates, metric, resamples=200, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict", "agree"),
    [
        (-0.06, -0.01, 0.01, "worse", True),
        (-0.063, 0.003, 0.044, "undecided", False),
        (-0.06, 0.0, 0.044, "undecided", False),
        (-0.06, -0.01, 0.07, "undecided", False),
        (-0.06, 0.01, 0.07, "undecided", True),
        (None, None, 0.01, "undecided", None),
        (-0.06, 0.01, None, None, None),
        # An interval on the other side of 0 than the value is not one of this difference.
        (0.001, 0.06, 0.01, "undecided", False),
    ],
)
def test_a_run_is_better_only_if_test_and_interval_agree(
    low: float | None, high: float | None, p: float | None, verdict: str | None, agree: bool | None
) -> None:
    (row,) = with_verdicts([replace(ROW, low=low, high=high, p=p)], ROWS, True, None)
    assert (row.verdict, row.agree) == (verdict, agree)


def test_a_difference_that_the_correction_removes_is_no_disagreement() -> None:
    rows = [replace(ROW, p=p) for p in (0.03, 0.2, 0.001)]
    first, _, last = with_verdicts(rows, ROWS, False, None)
    assert (first.holm, first.verdict, first.agree) == (pytest.approx(0.06), "undecided", True)
    assert last.verdict == "better"


def test_interval_and_p_of_an_area_come_from_one_error() -> None:
    """They agree about 0 in every draw, because the interval is not a bootstrap interval."""
    rng = np.random.default_rng(0)
    metric, counts = Metric("auc", 2, 1), {True: 0, False: 0}
    for _ in range(60):
        target, group = patients(rng, 80, 3)
        left, right = draw_pair(rng, target, group, 2, (1.0, 1.25))
        rows = rows_of(group)
        row = of_areas(metric, left, right, group)
        areas = area_difference(target, left.prob, right.prob, rows, 1)
        assert row.error == areas.error
        assert row.method == row.test == "Obuchowski, paired"
        assert row.low is not None
        assert row.high is not None
        assert (row.low + row.high) / 2 == pytest.approx(row.value)
        assert row.p is not None
        assert row.p == area_test(areas, rows).p
        assert (row.p < 0.05) == row.leaves_out_0
        counts[row.leaves_out_0] += 1
    assert min(counts.values()) > 5


def of_areas(metric: Metric, left: Sample, right: Sample, group: np.ndarray) -> Difference:
    """With resamples that would give another interval, were they looked at."""
    noise = np.random.default_rng(1).normal(0.5, 0.1, (2, 100))
    samples, resampled = {"a": left, "b": right}, {"a": noise[0], "b": noise[1] - 1}
    return ScoredRuns(metric, rows_of(group), samples, resampled).models(("a", "b"), ("a", "b"))


def test_an_area_without_variance_has_neither_interval_nor_verdict() -> None:
    target = np.array([0, 0, 1, 1] * 5)
    score = np.linspace(0.1, 0.4, 20) + 0.5 * target
    probs = [np.stack([1 - s, s], axis=1) for s in (score, score**2)]
    left, right = (Sample(target, prob, target, prob) for prob in probs)
    row = of_areas(Metric("auc", 2, 1), left, right, np.arange(20))
    assert (row.value, row.p, row.low, row.note) == (0, 1, None, "the same order of scores")
    upside = Sample(target, left.prob[:, ::-1], 1 - target, left.prob[:, ::-1])
    (row,) = with_verdicts(
        [of_areas(Metric("auc", 2, 1), left, upside, np.arange(20))], ROWS, True, None
    )
    assert (row.value, row.low, row.verdict) == (1, None, None)
    assert row.note == "degenerate: no variance"


@pytest.mark.parametrize(
    ("metric", "views", "seed", "p_below"),
    [("log_loss", 2, 11, True), ("balanced_accuracy", 1, 6, False)],
)
def test_a_disagreement_of_test_and_interval_is_recorded(
    metric: str, views: int, seed: int, p_below: bool
) -> None:
    (row,) = of_seed(metric, views, seed).models
    assert row.p is not None
    assert (row.p < 0.05, row.leaves_out_0) == (p_below, not p_below)
    assert (row.verdict, row.agree) == ("undecided", False)


def test_the_basis_of_the_needed_number_of_patients_is_stored() -> None:
    result = of_models(1.0, 1.0, margin=0.01)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    planning, (row,) = content["planning"], content["models"]
    assert planning["power"] == 0.8
    assert planning["alpha"] == row["alpha"] == 0.05
    needed = clusters_needed(row["error"], 60, 0.01, alpha=row["alpha"])
    assert row["needed"] == needed
    three = with_verdicts([ROW, replace(ROW, p=0.2), replace(ROW, p=0.3)], ROWS, True, 0.01)
    for row in three:
        assert row.alpha is not None
        assert row.alpha == pytest.approx(0.05 / 3)
        assert row.detectable == detectable(row.error, row.alpha)


RESAMPLES = 300


def interval_of(metric: Metric, left: Sample, right: Sample, group: np.ndarray, seed: int) -> tuple:
    rows = rows_of(group)
    if metric.is_area:
        areas = area_difference(left.target, left.prob, right.prob, rows, metric.index)
        result = area_interval(areas, rows)
        return result.low, result.high
    resampled = [metric.resampled(sample, rows, RESAMPLES, seed) for sample in (left, right)]
    result = difference_interval(metric, left, right, resampled[0] - resampled[1], rows)
    return result.low, result.high


def test_coverage_with_patients_of_three_views() -> None:
    check_coverage("patients", ("sensitivity", "kappa", "f1", "brier"), 300)


def test_coverage_in_six_classes_of_few_images() -> None:
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    check_coverage("upper limb", names, 300)


@pytest.mark.parametrize("scene", ["patients", "upper limb"])
def test_coverage_of_areas(scene: str) -> None:
    check_coverage(scene, ("macro_auc",), 600)


def test_coverage_of_average_precision() -> None:
    check_coverage("patients", ("macro_average_precision",), 100)


def test_the_interval_of_an_area_difference_stays_within_its_range() -> None:
    target = np.repeat([0, 1], 6)
    good, bad = (np.r_[np.arange(6), np.arange(6) + shift] for shift in (5.5, -4.5))
    rows = rows_of(np.arange(12), "image")
    left, right = (np.stack([-score, score], axis=1) for score in (good, bad))
    result = area_interval(area_difference(target, left, right, rows, 1), rows)
    assert result.high == 1
    assert result.low is not None
    assert 0 < result.low < 0.99


def check_coverage(scene: str, names: tuple[str, ...], draws: int) -> None:
    """Of right models that are equally good, so that the true difference is 0."""
    rng = np.random.default_rng(0)
    classes = 2 if scene == "patients" else 6
    metrics = [
        Metric(name, classes, 1 if name in ("sensitivity", "f1", "auc") else None) for name in names
    ]
    held = dict.fromkeys(names, 0)
    for seed in range(draws):
        target = np.repeat(np.arange(6), UPPER_LIMB_COUNTS)
        group = np.arange(len(target))
        if scene == "patients":
            target, group = patients(rng)
        separation = (1.0, 1.0) if scene == "patients" else (2.0, 2.0)
        pair = draw_pair(rng, target, group, classes, separation)
        for metric in metrics:
            low, high = interval_of(metric, *pair, group, seed)
            held[metric.name] += low is not None and low <= 0 <= high
    for name, count in held.items():
        # 93 to 97 % of all draws; of so few, chance adds right standard errors.
        slack = 2 * np.sqrt(0.95 * 0.05 / draws)
        assert 0.93 - slack < count / draws < 0.97 + slack, (name, count / draws)


def test_a_class_of_six_cases_widens_the_interval_and_many_rows_do_not() -> None:
    rng = np.random.default_rng(1)
    metric = Metric("balanced_accuracy", 2)
    for counts, widened in (((200, 5), True), ((1000, 1000), False)):
        target = np.repeat([0, 1], counts)
        rows = rows_of(np.arange(len(target)), "image")
        left, right = draw_pair(rng, target, np.arange(len(target)), 2, (0.5, 0.5), 0.0)
        resampled = [metric.resampled(sample, rows, 4000) for sample in (left, right)]
        result = stretch(metric, left, right, resampled[0] - resampled[1], rows)
        # The bootstrap's own error is a per cent.
        assert (result > 1.05 * stats.norm.ppf(0.975)) == widened
        assert result > stats.norm.ppf(0.975)


@pytest.mark.parametrize(
    ("name", "cases"),
    [("macro_auc", 2), ("balanced_accuracy", 2), ("accuracy", 122), ("kappa", 122)],
)
def test_a_mean_over_classes_rests_on_the_rarest_of_those_that_occur(name: str, cases: int) -> None:
    target = np.repeat([0, 1, 3], (60, 60, 2))
    assert Metric(name, 4).cases(target) == cases


def test_both_models_are_scored_in_the_same_resamples() -> None:
    rng = np.random.default_rng(2)
    target, group = patients(rng, 60, 3)
    left, right = draw_pair(rng, target, group, 2, (1.0, 1.2))
    predicted = np.where(rng.random(180) < 0.03, 1, left.predicted)
    shifted = Sample(target, right.prob, predicted, right.prob)
    metric = Metric("accuracy", 2)
    low, high = interval_of(metric, left, shifted, group, 0)
    apart = metric.resampled(left, rows_of(group), RESAMPLES, 1)
    unpaired = np.ptp(np.quantile(apart - apart[::-1], [0.025, 0.975]))
    assert high - low < unpaired / 2


def sample(target: np.ndarray, predicted: np.ndarray) -> Sample:
    return Sample(target, np.eye(2)[predicted], predicted, np.eye(2)[predicted])


def test_on_single_rows_accuracy_gives_the_exact_binomial_test() -> None:
    target = np.zeros(40, dtype=int)
    first, second = np.zeros(40, dtype=int), np.zeros(40, dtype=int)
    first[:2], second[2:11] = 1, 1
    rows = rows_of(np.arange(40), "image")
    result = permutation_test(
        Metric("accuracy", 2), sample(target, first), sample(target, second), rows, swaps=40_000
    )
    assert result.p == pytest.approx(stats.binomtest(2, 11).pvalue, rel=0.03)


def test_few_clusters_use_all_permutations() -> None:
    rng = np.random.default_rng(3)
    target, group = patients(rng, 8, 4)
    first, second = draw_pair(rng, target, group, 2, (0.5, 2.0))
    metric = Metric("kappa", 2)
    result = permutation_test(metric, first, second, rows_of(group))
    # By hand, over all 256 ways.
    observed, as_far = metric.value(first) - metric.value(second), 0
    for assignment in range(256):
        swap = (assignment >> group & 1).astype(bool)
        left = np.where(swap, second.predicted, first.predicted)
        right = np.where(swap, first.predicted, second.predicted)
        moved = metric.value(sample(target, left)) - metric.value(sample(target, right))
        as_far += not abs(moved) < abs(observed) - 1e-12  # an undefined one counts
    assert result.p == as_far / 256


def test_an_area_of_few_clusters_uses_all_permutations_by_rank() -> None:
    rng = np.random.default_rng(5)
    target, group = patients(rng, 7, 3)
    first, second = draw_pair(rng, target, group, 2, (0.5, 2.0))
    metric = Metric("average_precision", 2, 1)
    result = permutation_test(metric, first, second, rows_of(group))
    # Scores on another scale, but in the same order, are the same model to it.
    bent = Sample(target, first.prob**3, first.predicted, first.prob**3)
    assert permutation_test(metric, bent, second, rows_of(group)).p == result.p
    ranks = [stats.rankdata(sample.prob[:, 1]) for sample in (first, second)]
    observed, as_far = metric.value(first) - metric.value(second), 0
    for assignment in range(128):
        swap = (assignment >> group & 1).astype(bool)
        moved = 0.0
        for sign, (positives, rest) in ((1, ranks), (-1, ranks[::-1])):
            score = np.where(swap, rest, positives)
            moved += sign * metric.area(target, np.stack([-score, score], 1)).item()
        as_far += not abs(moved) < abs(observed) - 1e-12
    assert result.p == as_far / 128


@pytest.mark.parametrize("name", ["accuracy", "sensitivity", "kappa", "f1", "log_loss"])
def test_equal_models_differ_significantly_in_five_percent_of_draws(name: str) -> None:
    rng = np.random.default_rng(1)
    metric = Metric(name, 2, None if name in ("accuracy", "kappa", "log_loss") else 1)
    rejected, draws = 0, 500
    for seed in range(draws):
        target, group = patients(rng, 100, 3)
        first, second = draw_pair(rng, target, group, 2, (1.0, 1.0))
        result = permutation_test(metric, first, second, rows_of(group), swaps=199, seed=seed)
        assert result.method == "permutation by patient"
        assert result.p is not None
        rejected += result.p <= 0.05
    assert abs(rejected / draws - 0.05) < 3 * np.sqrt(0.05 * 0.95 / draws)


def test_p_does_not_depend_on_the_order_of_rows_or_runs() -> None:
    rng = np.random.default_rng(2)
    target, group = patients(rng, 100, 3)
    first, second = draw_pair(rng, target, group, 2, (2.5, 0.5))
    metric = Metric("brier", 2)
    result = permutation_test(metric, first, second, rows_of(group), seed=7)
    assert result.p == 1 / 10_000
    assert permutation_test(metric, second, first, rows_of(group), seed=7).p == result.p
    order = rng.permutation(300)
    mixed = [
        Sample(target[order], s.prob[order], s.predicted[order], s.prob[order])
        for s in (first, second)
    ]
    reordered = permutation_test(metric, mixed[0], mixed[1], rows_of(group[order]), seed=7)
    assert reordered.p == result.p


def test_an_undefined_metric_has_no_p() -> None:
    target = np.zeros(6, dtype=int)
    same = sample(target, target)
    result = permutation_test(Metric("sensitivity", 2, 1), same, same, rows_of(np.arange(6)))
    assert (result.p, result.note) == (None, "undefined")


def test_few_patients_or_cases_give_no_detectable_difference() -> None:
    few = Clusters(np.arange(49), 49, "patient")
    enough = Clusters(np.arange(50), 50, "patient")
    for clusters, cases, reason in (
        (few, None, "with fewer than 50 patients, the smallest"),
        (enough, 9, "with fewer than 10 cases, the smallest"),
        (enough, 10, ""),
    ):
        (row,) = with_verdicts([ROW], clusters, True, 0.01, cases)
        assert (row.unplanned != "", row.detectable is None) == (reason != "", reason != "")
        assert row.unplanned.startswith(reason)
        assert reason == "" or row.needed is None

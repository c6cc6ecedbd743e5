"""Published metrics next to a run's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from helpers.predictions import UPPER_LIMB_COUNTS, make_table
from scipy.stats import binomtest

from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import Summary
from fracnet.evaluation.summary import summarize as summarize_predictions
from fracnet.report.published import compare_with_published, published_lines

METRIC = {"metric": "accuracy", "value": 0.89, "n": 83, "source": "a report", "remark": "one run"}


def summarize(table: pd.DataFrame) -> Summary:
    return summarize_predictions(Predictions(table))


def lines(cited: Sequence[Mapping[str, Any]], model: Summary, data: str) -> list[str]:
    """One line for each published metric, with ours."""
    return published_lines([("This run", compare_with_published(cited, model, data))])


def test_a_published_proportion_gets_a_wilson_interval_and_ours_next_to_it() -> None:
    summary = summarize(make_table(UPPER_LIMB_COUNTS))
    (line,) = lines([METRIC], summary, "upper_limb")
    limits = binomtest(74, 83).proportion_ci(method="wilson")
    ours = summary.metrics["accuracy"]
    for part in (
        "accuracy: 0.890",
        f"{limits.low:.3f}-{limits.high:.3f} by Wilson, n = 83",
        "a report; one run",
        f"This run, on upper_limb: {ours.value:.3f} ({ours.low:.3f}-{ours.high:.3f}, n = 83)",
    ):
        assert part in line


def test_a_metric_without_n_has_no_interval() -> None:
    (line,) = lines([METRIC | {"n": None}], summarize(make_table(UPPER_LIMB_COUNTS)), "mura")
    assert "no interval: n is not stated" in line


def test_a_published_metric_appears_once_for_all_jobs_that_cite_it() -> None:
    pairs = []
    for seed in (1, 2):
        summary = summarize(make_table(UPPER_LIMB_COUNTS, seed=seed))
        pairs.append((f"Job {seed}", compare_with_published([METRIC], summary, "upper_limb")))
    (line,) = published_lines(pairs)
    assert line.count("Published") == 1
    assert line.index("Job 1, on upper_limb: 0.") < line.index("Job 2, on upper_limb: 0.")


def test_a_limit_below_zero_is_joined_by_a_word() -> None:
    summary = summarize(make_table((20, 20, 20), separation=0.0, seed=3))
    kappa = summary.metrics["kappa"]
    assert kappa.low < 0
    (line,) = lines([METRIC | {"metric": "kappa"}], summary, "mura")
    assert f"({kappa.low:.3f} to {kappa.high:.3f}, n = 60)" in line


def test_only_a_share_of_all_images_has_an_interval_on_their_number() -> None:
    summary = summarize(make_table(UPPER_LIMB_COUNTS))
    for metric in ("macro_specificity", "balanced_accuracy", "macro_precision", "kappa"):
        (line,) = lines([METRIC | {"metric": metric}], summary, "upper_limb")
        assert "0.890 (no interval: not a proportion; n = 83;" in line
        ours = summary.metrics[metric]
        assert f"{ours.value:.3f} ({ours.low:.3f}-{ours.high:.3f}, n = 83)" in line
    (line,) = lines([METRIC | {"metric": "sensitivity"}], summary, "upper_limb")
    assert "no interval: the number of its cases is not stated" in line

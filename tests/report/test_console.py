"""What an evaluation prints: tables and sentences in plain ASCII within the width."""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB, UPPER_LIMB_COUNTS, make_table
from helpers.run_files import NOTE, two_class_table
from rich.console import Console

from fracnet.config.schema import Evaluation
from fracnet.evaluation.assessment import evaluate
from fracnet.evaluation.baselines import majority
from fracnet.evaluation.decisions import decide
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.report.console import RESEARCH_ONLY, print_assessment
from fracnet.report.run_content import Evaluated
from fracnet.report.run_tables import format_threshold
from fracnet.report.verdict import Verdict

TABLE = Predictions(two_class_table())
VAL, TEST = TABLE.split("val"), TABLE.split("test")
OPTIONS = Evaluation(resamples=100, by=["region", "view"])
PLAIN = Evaluation(resamples=100, by=[])
STRONG = make_table(UPPER_LIMB_COUNTS, 2.5)
WEAK = make_table(UPPER_LIMB_COUNTS, 0.5)
VERDICT = Verdict("hint", "The model works.", ("It has [evidence].", "It has limits."))
MODEL = summarize(Predictions(STRONG), resamples=PLAIN.resamples)


def printed(run: Evaluated, width: int = 80, notes: Sequence[str] = (NOTE,)) -> str:
    stream = io.StringIO()
    cited = [{"published": "Published accuracy: 0.890", "ours": "on mura_like: 0.5"}]
    console = Console(file=stream, width=width)
    print_assessment(console, run, VERDICT, notes=notes, cited=cited, data="mura_phantom")
    return stream.getvalue()


def evaluated(
    predictions: Predictions,
    options: Evaluation,
    val: Predictions | None,
    baselines: dict[str, Predictions] | None = None,
) -> Evaluated:
    """An evaluation; decisions are those that `val` makes."""
    decisions = None if val is None else decide(val, options)
    return Evaluated(evaluate(predictions, options, decisions, baselines), predictions)


def of_table(
    table: pd.DataFrame, width: int = 80, notes: Sequence[str] = (), **baselines: pd.DataFrame
) -> str:
    """What is printed for test rows alone."""
    table = table.assign(region=None)
    predictions = {name: Predictions(rows) for name, rows in baselines.items()}
    return printed(evaluated(Predictions(table), PLAIN, None, predictions), width, notes)


def line(text: str, start: str) -> list[str]:
    """Fields of the first line that starts with the given fields."""
    return next(row.split() for row in text.splitlines() if row.strip().startswith(start))


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def two_classes() -> str:
    return printed(evaluated(TABLE, OPTIONS, VAL, {"shortcut": TEST}))


def test_the_overall_table_shows_the_model_next_to_both_baselines() -> None:
    base = majority(np.array([0, 1, 1, 2, 3, 4, 5]), STRONG.iloc[:, :5], UPPER_LIMB)
    text = of_table(STRONG, shortcut=WEAK, majority=base)
    model, weak = MODEL.metrics["macro_auc"], summarize(Predictions(WEAK)).metrics["macro_auc"]
    assert line(text, "macro AUC")[2:8] == [
        f"{model.value:.3f}",
        f"{model.low:.3f}-{model.high:.3f}",
        f"{weak.value:.3f}",
        f"{weak.low:.3f}-{weak.high:.3f}",
        "0.500",
        "no",
    ]
    assert f"{22 / 83:.3f}" in line(text, "accuracy")[5:]
    for title in ("balanced accuracy", "macro sensitivity", "macro specificity"):
        assert title in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_is_plain_ascii_within_the_width(width: int) -> None:
    note = "The license is [not] clear :warning:."
    text = of_table(STRONG, width, [note], shortcut=WEAK)
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    assert f"Note: {note}" in text
    assert RESEARCH_ONLY in text


def test_two_classes_are_plain_ascii_within_80_columns(two_classes: str) -> None:
    assert two_classes.isascii()
    assert max(map(len, two_classes.splitlines())) <= 80


def test_each_class_has_its_count_and_too_few_is_below_its_metrics() -> None:
    text = of_table(STRONG)
    row = MODEL.per_class[5]
    assert line(text, "wrist")[1:4] == [
        "6",
        f"{row.sensitivity.value:.3f}",
        f"{row.sensitivity.low:.3f}-{row.sensitivity.high:.3f}",
    ]
    lines = text.splitlines()
    after = lines[next(i for i, row in enumerate(lines) if "wrist" in row) + 1]
    assert set(after.split()) == {"too", "few"}
    assert "too few: fewer than 10 cases" in text


def test_undefined_metrics_are_not_available_with_the_reason() -> None:
    text = of_table(make_table((12, 0, 12), 60.0))
    assert line(text, "fingers")[1:3] == ["0", "n/a"]
    assert "sensitivity of fingers, AUC of fingers: undefined: no cases." in text
    assert "no interval" in text
    assert "the AUC is 1: exact limit from" in text.replace("\n", " ")
    assert "2 of 3 classes scored." in text.replace("\n", " ")
    assert "nan" not in text


def test_the_explanation_names_n_the_unit_and_the_methods() -> None:
    text = flat(of_table(make_table((60, 60), 1.0, views=3)))
    assert "n = 120 images in 40 clusters (patient); 95 % intervals by patient" in text
    assert "Wilson with effective n" in text
    assert "Obuchowski" in text
    assert "n = 83 images; 95 % intervals by image" in flat(of_table(STRONG))


def test_further_metrics_have_a_table_of_their_own_and_their_methods() -> None:
    text = of_table(STRONG, shortcut=WEAK)
    assert "Further metrics\n" in text
    assert "Lower is better for Brier score (0 to 2), log loss" in flat(text)
    kappa = MODEL.metrics["kappa"]
    assert line(text, "Cohen's kappa")[2:4] == [
        f"{kappa.value:.3f}",
        f"{kappa.low:.3f}-{kappa.high:.3f}",
    ]
    for title in ("macro precision", "macro F1", "MCC", "macro AUC-PR", "log loss"):
        assert title in text
    assert "Calibration error: top-label, 15 equal-mass bins, debiased" in flat(text)
    assert f"MCC: {MODEL.metrics['mcc'].method.removesuffix(' by image')}" in flat(text)
    binary = of_table(make_table((30, 30), 1.0, classes=("normal", "abnormal")))
    assert "Brier score (0 to 1)" in flat(binary)
    assert "60 test images; abnormal above 0.5; uncalibrated; 95 % intervals" in binary


def test_the_verdict_is_printed_with_all_its_sentences(two_classes: str) -> None:
    lines = two_classes.splitlines()
    start = lines.index("Verdict (worth knowing): The model works.")
    assert lines[start + 1 : start + 3] == ["It has [evidence].", "It has limits."]


def test_long_names_and_large_counts_stay_whole() -> None:
    name = "supracondylar fracture of the humerus [displaced]"
    text = of_table(make_table((1600, 1597), 1.0, classes=("none", name)))
    joined = "".join(row[:16].strip() for row in text.splitlines())
    for word in ("supracondylar", "fracture", "humerus", "[displaced]"):
        assert word in joined
    assert "1597" in text
    assert max(map(len, text.splitlines())) <= 80


def test_one_image_is_singular() -> None:
    text = of_table(make_table((1, 0), classes=("normal", "abnormal")))
    assert "1 test image; abnormal above 0.5" in text
    assert "n = 1 image; 95 % intervals by image" in text
    assert "calibration error: undefined: there is only one row." in flat(text)
    assert "come from one image" not in text


def test_levels_have_their_frozen_thresholds_and_groups_follow(two_classes: str) -> None:
    points = decide(VAL, OPTIONS)["operating_point"]
    lines = [line.split() for line in two_classes.splitlines()]
    rule = "abnormal above a threshold chosen on validation (Youden's index); 95 % intervals"
    assert rule in flat(two_classes)
    for level in ("image", "study", "patient"):
        row = next(words for words in lines if words[:1] == [level])
        assert row[2] == f"{points[level]['threshold']:.3f}"
    study, image = (f"above {points[level]['threshold']:.3f}" for level in ("study", "image"))
    assert f"By region, study level; predicted abnormal: {study}" in two_classes
    assert f"By view, image level; predicted abnormal: {image}" in two_classes
    assert "By view: images only" in flat(two_classes)
    assert "as in MURA" in two_classes
    assert "fracture" not in two_classes


def test_calibration_is_shown_before_and_after(two_classes: str) -> None:
    assert "before scaling" in two_classes
    assert "Temperature scaling: " in two_classes, "why the probabilities stay as they are"
    sharp = TABLE.with_logits(5 * TABLE.logits)
    temperature = decide(sharp.split("val"), OPTIONS)["temperature"]
    assert temperature > 1
    text = printed(evaluated(sharp, OPTIONS, sharp.split("val")))
    assert f"Temperature {temperature:.3f}, fitted on {len(VAL)} validation images" in flat(text)
    assert f"are calibrated (temperature {temperature:.3f})" in flat(text)
    one_class = Predictions(VAL.table[VAL.table["label"] == "normal"])
    text = flat(printed(evaluated(TEST, OPTIONS, one_class)))
    assert "Temperature scaling: not fitted: " in text
    assert "No temperature was applied" in text
    assert "are calibrated" not in text
    assert "level): not chosen: validation has no positive case." in text


def test_the_order_ends_with_what_matters_most(two_classes: str) -> None:
    parts = ("chosen on validation", "as in MURA", "Temperature", "test images;")
    parts += ("against the rest", "Further metrics\n", "Verdict (", f"Note: {NOTE}")
    parts += ("Published accuracy",)
    places = [two_classes.index(part) for part in parts]
    assert places == sorted(places)


def test_a_missing_validation_or_test_split_is_stated() -> None:
    text = printed(evaluated(TEST, OPTIONS, None))
    assert "abnormal above 0.5, without validation to choose a threshold" in flat(text)
    assert "emperature" not in text
    text = flat(printed(evaluated(VAL, OPTIONS, VAL)))
    assert "There are no test rows" in text
    assert "so they are optimistic" in text


def test_six_classes_have_no_thresholds() -> None:
    table = make_table(UPPER_LIMB_COUNTS, 2.0, views=2).assign(region=np.nan)
    table["study"] = table["label"] + table["patient"]
    val = Predictions(make_table((9,) * 6, 2.0, split="val", seed=2))
    text = printed(evaluated(Predictions(table), Evaluation(resamples=100), val))
    assert "Most likely class by level; calibrated; 95 % intervals" in text
    assert "threshold" not in text
    assert "by region: it is not known for any image." in flat(text)
    assert max(map(len, text.splitlines())) <= 80


def test_the_two_macro_aucs_of_several_classes_are_told_apart() -> None:
    """Scaling changes the order of the rows of one class against the rest."""
    table = make_table(UPPER_LIMB_COUNTS, 2.0, views=2)
    table["region"] = np.where(np.arange(len(table)) % 3, "a", "b")
    val = Predictions(make_table((30,) * 6, 2.0, split="val", seed=2))
    parts = [rows.with_logits(5 * rows.logits) for rows in (Predictions(table), val)]
    text = flat(printed(evaluated(parts[0], Evaluation(resamples=100, by=["region"]), parts[1])))
    assert "By region, image level; most likely class; calibrated" in text
    assert "most likely class; uncalibrated" in text


def test_a_threshold_is_never_rounded_to_0_or_1() -> None:
    values = (0.4321, 0.00012, 0.9999, 0.0, 1.0)
    expected = ["0.432", "0.00012", ">0.999", "0", "1.000"]
    assert [format_threshold(value) for value in values] == expected


def test_a_long_name_of_a_group_breaks_no_number() -> None:
    name = "left wrist in a plaster cast, seen from the side by a portable device"
    rng = np.random.default_rng(0)
    view = np.where(rng.random(len(TEST)) < 0.5, name, "other")
    run = evaluated(Predictions(TEST.table.assign(view=view)), OPTIONS, None)
    text = printed(run)
    assert max(map(len, text.splitlines())) <= 80
    group = next(s for s in run.assessment.strata if s.value == name).summary.per_class[1]
    for estimate in (group.auc, group.sensitivity, group.specificity, group.precision):
        assert f"{estimate.low:.3f}-{estimate.high:.3f}" in text


def test_a_threshold_below_all_scores_is_described_in_words() -> None:
    constant = {"prob_abnormal": 0.0, "prob_normal": 1.0, "logit_abnormal": -99.0}
    val = Predictions(VAL.table.assign(**constant, logit_normal=0.0))
    rule = {"sensitivity": 1.0}
    options = Evaluation(resamples=100, calibrate=False, operating_point=rule, by=["view"])
    text = printed(evaluated(TEST, options, val))
    assert "By view, image level; predicted abnormal: everything" in text
    assert "e-3" not in text

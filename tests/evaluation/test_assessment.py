"""All metrics of a table by level and group, and the official ones, against scikit-learn."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, make_table
from helpers.run_files import two_class_table
from rich.console import Console
from sklearn.metrics import (
    cohen_kappa_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.assessment import Assessment, Stratum, evaluate, official_metrics
from fracnet.evaluation.decisions import calibrate, decide
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.evaluation.summary import plain, summarize
from fracnet.metrics import classification
from fracnet.report.run_tables import mura_kappa_table
from fracnet.report.tables import print_table
from fracnet.utils.errors import UserError

TABLE = two_class_table()
TEST, VAL = TABLE[TABLE["split"] == "test"], TABLE[TABLE["split"] == "val"]
OPTIONS = Evaluation(resamples=100, by=["region", "view"])
DECISIONS = decide(Predictions(VAL), OPTIONS)


@pytest.fixture(scope="module")
def assessment() -> Assessment:
    return evaluate(Predictions(TABLE), OPTIONS, DECISIONS, {"majority": Predictions(TEST)})


def stratum(assessment: Assessment, *key: str) -> Stratum:
    return next(s for s in assessment.strata if (s.level, s.by, s.value) == key)


def test_raw_metrics_use_the_likeliest_class(assessment: Assessment) -> None:
    assert assessment.val == summarize(Predictions(VAL), resamples=100)
    assert assessment.test == summarize(Predictions(TEST), resamples=100)
    assert assessment.baselines == {"majority": assessment.test}
    assert {(r.level, r.region) for r in assessment.official} >= {
        ("study", "overall"),
        ("image", "hand"),
    }


@pytest.mark.parametrize("level", ["image", "study", "patient"])
@pytest.mark.parametrize("region", ["overall", "hand"])
def test_strata_use_the_frozen_threshold(assessment: Assessment, level: str, region: str) -> None:
    rows = TEST if region == "overall" else TEST[TEST["region"] == region]
    units = to_level(calibrate(Predictions(rows), DECISIONS["temperature"]), level).table
    threshold = DECISIONS["operating_point"][level]["threshold"]
    truth, predicted = units["label"] == "abnormal", units["prob_abnormal"] > threshold
    row = stratum(assessment, level, "overall" if region == "overall" else "region", region)
    assert (row.threshold, row.positives, row.summary.n) == (threshold, truth.sum(), len(units))
    ours = row.summary.per_class[1]
    assert ours.sensitivity.value == pytest.approx(recall_score(truth, predicted))
    assert ours.specificity.value == pytest.approx(recall_score(~truth, ~predicted))
    assert ours.precision.value == pytest.approx(precision_score(truth, predicted))


def test_the_threshold_is_not_one_half_and_matters(assessment: Assessment) -> None:
    assert assessment.test is not None
    at_half = assessment.test.per_class[1].sensitivity.value
    row = stratum(assessment, "image", "overall", "overall")
    assert row.summary.per_class[1].sensitivity.value != at_half


def test_groups_by_a_column_that_varies_within_studies_are_of_images(
    assessment: Assessment,
) -> None:
    values = [(s.level, s.value) for s in assessment.strata if s.by == "view"]
    assert values == [("image", "AP"), ("image", "lateral"), ("image", "(unknown)")]
    assert "by view: images only, because a study has several values of it" in assessment.notes


def test_calibration_is_measured_before_and_after() -> None:
    table = two_class_table(confident=4.0)
    decisions = decide(Predictions(table[table["split"] == "val"]), OPTIONS)
    assessment = evaluate(Predictions(table), OPTIONS, decisions)
    test = table[table["split"] == "test"]
    calibrated = calibrate(Predictions(test), decisions["temperature"]).table
    for moment, rows in (("before", test), ("after", calibrated)):
        value = assessment.calibration["test"][moment]["log_loss"].value
        prob = rows[["prob_abnormal", "prob_normal"]].to_numpy()  # in scikit-learn's order
        assert value == pytest.approx(log_loss(rows["label"], prob))
    val = assessment.calibration["val"]
    assert val["after"]["log_loss"].value < val["before"]["log_loss"].value
    raw = evaluate(
        Predictions(TABLE), OPTIONS, decide(Predictions(VAL), Evaluation(calibrate=False))
    )
    assert set(raw.calibration["test"]) == {"before"}


def test_without_validation_the_threshold_is_one_half() -> None:
    assessment = evaluate(Predictions(TEST), OPTIONS, None)
    assert assessment.val is None
    assert {s.threshold for s in assessment.strata} == {0.5}
    assert "val" not in assessment.to_dict()
    assert assessment.to_dict()["decisions"] is None


def test_six_classes_are_decided_by_the_likeliest_one() -> None:
    table = make_table(UPPER_LIMB_COUNTS, 2.0)
    table["region"] = table["label"]
    val = make_table((9,) * 6, 2.0, split="val", seed=2)
    assessment = evaluate(
        Predictions(table), Evaluation(resamples=100), decide(Predictions(val), Evaluation())
    )
    assert [(s.level, s.by, s.threshold) for s in assessment.strata] == [("image", "overall", None)]
    assert assessment.test is not None
    only = assessment.strata[0].summary
    assert only.confusion == assessment.test.confusion
    assert only.metrics["log_loss"].value != assessment.test.metrics["log_loss"].value
    assert assessment.official == ()
    assert assessment.notes == ()  # the region is the class; patients do not matter here


def test_only_val_rows_can_be_scored_too() -> None:
    assessment = evaluate(Predictions(VAL), OPTIONS, DECISIONS)
    assert assessment.test is None
    assert assessment.strata == ()
    assert assessment.val == summarize(Predictions(VAL), resamples=100)


def test_levels_without_a_choice_on_validation_are_left_out() -> None:
    bare = decide(Predictions(VAL.assign(study=np.nan)), OPTIONS)
    assessment = evaluate(Predictions(TABLE), OPTIONS, bare)
    assert {s.level for s in assessment.strata} == {"image"}
    assert (
        "no metrics by study: validation has no study to choose a threshold on" in assessment.notes
    )
    bare_test = Predictions(TEST.assign(study=np.nan, patient=np.nan, region=np.nan))
    images = evaluate(bare_test, OPTIONS, None)
    assert images.notes[0] == "images only: the study and patient are not known for any image"
    assert "no metrics by region: it is not known for any image" in images.notes


def test_content_is_plain_json_with_the_known_keys(assessment: Assessment) -> None:
    content: dict[str, Any] = json.loads(json.dumps(assessment.to_dict(), allow_nan=False))
    assert list(content) == [
        *("val", "test", "baselines_on_test", "test_by_level_and_region"),
        *("evaluation", "decisions", "calibration", "test_strata", "notes"),
    ]
    assert content["test_strata"][1]["level"] == "study"
    assert content["test_strata"][1]["per_class"][1]["class"] == "abnormal"


def test_a_mistyped_column_gets_a_hint() -> None:
    with pytest.raises(UserError, match=r"by=veiw: .* Did you mean 'view'\?"):
        evaluate(Predictions(TABLE), Evaluation(by=["veiw"]), DECISIONS)


CLASSES = ("normal", "abnormal")


def mura_like(patients: int = 60, seed: int = 0) -> pd.DataFrame:
    """Patients with one study a region and one to four views, scores that follow the label."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for patient in range(patients):
        region = ("elbow", "wrist")[patient % 2]
        abnormal = rng.random() < 0.45
        shift = rng.normal()
        for view in range(rng.integers(1, 5)):
            study = f"{region}/{patient}/1"
            rows.append(
                {
                    "path": f"{study}/{view}.png",
                    "split": "test",
                    "label": CLASSES[abnormal],
                    "patient": f"{patient:05}",
                    "study": study,
                    "region": region,
                }
            )
            scores.append(1.5 * abnormal - 0.7 + shift + 0.5 * rng.normal())
    logits = np.column_stack([np.zeros(len(scores)), scores])
    return assemble(pd.DataFrame(rows), CLASSES, logits)


def test_metrics_agree_with_sklearn_at_both_levels_and_in_each_region() -> None:
    table = mura_like()
    studies = table.groupby("study").agg(
        label=("label", "first"),
        region=("region", "first"),
        prob_abnormal=("prob_abnormal", "mean"),
    )
    rows = {(row.level, row.region): row for row in official_metrics(Predictions(table))}
    assert set(rows) == {(a, b) for a in ("image", "study") for b in ("overall", "elbow", "wrist")}
    for (level, region), row in rows.items():
        part = table if level == "image" else studies
        part = part if region == "overall" else part[part["region"] == region]
        truth, predicted = part["label"] == "abnormal", part["prob_abnormal"] > 0.5
        assert (row.n, row.positives) == (len(part), truth.sum())
        assert row.auc.value == pytest.approx(roc_auc_score(truth, part["prob_abnormal"]))
        assert row.sensitivity.value == pytest.approx(recall_score(truth, predicted))
        assert row.specificity.value == pytest.approx(recall_score(~truth, ~predicted))
        assert row.kappa.value == pytest.approx(cohen_kappa_score(truth, predicted))
        for estimate in (row.auc, row.sensitivity, row.specificity, row.kappa):
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low < estimate.value < estimate.high


def test_row_order_changes_nothing() -> None:
    table = mura_like()
    shuffled = table.sample(frac=1, random_state=1)
    left, right = (official_metrics(Predictions(t)) for t in (table, shuffled))
    assert plain(left) == plain(right)


def test_a_study_is_the_mean_of_its_views() -> None:
    table = mura_like(patients=3)
    studies = to_level(Predictions(table), "study").table
    for row in studies.itertuples():
        views = table[table["study"] == row.study]
        assert row.prob_abnormal == pytest.approx(views["prob_abnormal"].mean(), rel=1e-12)
        assert row.views == len(views)


def test_a_mean_of_exactly_one_half_is_normal() -> None:
    table = mura_like(patients=1)[:1].drop(columns=["logit_normal", "logit_abnormal"])
    table["prob_normal"], table["prob_abnormal"] = 0.5, 0.5
    matrix = classification.confusion(
        np.array([0]), classification.predict(np.array([[0.5, 0.5]])), 2
    )
    assert matrix[0, 0] == 1
    assert to_level(Predictions(table), "study").table["prob_abnormal"].tolist() == [0.5]


def test_a_study_with_two_labels_leaves_only_the_image_level() -> None:
    table = mura_like(patients=20)
    views = table[table["study"].duplicated(keep=False)].index[:1]
    table.loc[views, "label"] = [c for c in CLASSES if c != table.loc[views[0], "label"]]
    assert {row.level for row in official_metrics(Predictions(table), 100)} == {"image"}


def test_a_study_of_two_regions_is_evaluated_as_a_whole() -> None:
    table = mura_like()
    views = table[table["study"].duplicated()].index[:1]
    table.loc[views, "region"] = "hand"
    rows = [(row.level, row.region) for row in official_metrics(Predictions(table), 100)]
    assert rows == [("image", r) for r in ("overall", "elbow", "hand", "wrist")] + [
        ("study", "overall")
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(console, mura_kappa_table(official_metrics(Predictions(table), 100), "abnormal"))
    (line,) = [row.split() for row in console.export_text().splitlines() if "elbow" in row]
    assert line[-2:] == ["-", "-"], "and not the metric of a part"


def test_other_data_without_regions_and_studies_have_no_table_of_one_kappa() -> None:
    rows = official_metrics(Predictions(mura_like()), 100)
    assert mura_kappa_table(rows[:1], "fracture", data="fracatlas") is None
    assert mura_kappa_table(rows[:1], "abnormal", data="mura") is not None


def test_kappa_has_the_same_interval_as_in_the_summary() -> None:
    table = mura_like()
    assert (
        official_metrics(Predictions(table), 100)[0].kappa
        == summarize(Predictions(table), resamples=100).metrics["kappa"]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 5])
def test_kappa_agrees_with_sklearn(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, n_classes, (2, 40))
    value = classification.kappa(classification.confusion(truth, predicted, n_classes))
    assert value == pytest.approx(cohen_kappa_score(truth, predicted))


def test_kappa_is_undefined_if_labels_and_predictions_have_one_class() -> None:
    same = np.zeros(5, dtype=int)
    assert np.isnan(classification.kappa(classification.confusion(same, same, 2)))


def test_regions_of_one_class_are_not_scored() -> None:
    table = mura_like()
    table.loc[table["region"] == "wrist", "label"] = "normal"
    row = next(
        r for r in official_metrics(Predictions(table)) if (r.level, r.region) == ("image", "wrist")
    )
    assert np.isnan(row.auc.value)
    assert row.auc.low is None
    assert np.isnan(row.sensitivity.value)
    assert plain(row)["auc"]["value"] is None


def test_printed_table_fits_eighty_columns_and_says_abnormal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    rows = official_metrics(Predictions(mura_like()))
    print_table(console, mura_kappa_table(rows, "abnormal"))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in (
        "abnormal if the mean raw probability is above 0.5",
        "kappa by study",
        "overall",
        "elbow",
    ):
        assert part in text
    overall = next(row for row in rows if (row.level, row.region) == ("study", "overall"))
    assert f"{overall.kappa.value:.3f} {overall.kappa.low:.3f}-{overall.kappa.high:.3f}" in text
    assert "fracture" not in text


def test_the_interval_of_kappa_uses_the_requested_number_of_resamples() -> None:
    few, many = (
        official_metrics(Predictions(mura_like()), resamples)[0].kappa for resamples in (100, 2000)
    )
    assert few.value == many.value
    assert few.low != many.low
    assert many == official_metrics(Predictions(mura_like()))[0].kappa

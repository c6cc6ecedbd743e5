"""All figures of a table: against scikit-learn, by level and group, with and without validation."""

import json
from typing import Any

import numpy as np
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, make_table
from helpers.run_files import two_class_table
from sklearn.metrics import log_loss, precision_score, recall_score

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.assessment import Assessment, Stratum, evaluate
from fracnet.evaluation.decisions import calibrate, decide
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
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


def test_raw_figures_are_those_of_the_likeliest_class(assessment: Assessment) -> None:
    assert assessment.val == summarize(Predictions(VAL), resamples=100)
    assert assessment.test == summarize(Predictions(TEST), resamples=100)
    assert assessment.baselines == {"majority": assessment.test}
    assert {(r.level, r.region) for r in assessment.official} >= {
        ("study", "overall"),
        ("image", "hand"),
    }


@pytest.mark.parametrize("level", ["image", "study", "patient"])
@pytest.mark.parametrize("region", ["overall", "hand"])
def test_strata_stand_at_the_frozen_threshold(
    assessment: Assessment, level: str, region: str
) -> None:
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


def test_calibration_is_measured_before_and_after(assessment: Assessment) -> None:
    calibrated = calibrate(Predictions(TEST), DECISIONS["temperature"]).table
    for moment, rows in (("before", TEST), ("after", calibrated)):
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
    assert assessment.notes == ()  # the region is the class, and nobody looks for patients here


def test_only_val_rows_can_be_scored_too() -> None:
    assessment = evaluate(Predictions(VAL), OPTIONS, DECISIONS)
    assert assessment.test is None
    assert assessment.strata == ()
    assert assessment.val == summarize(Predictions(VAL), resamples=100)


def test_levels_that_validation_could_not_choose_for_are_left_out() -> None:
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

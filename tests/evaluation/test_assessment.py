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
from fracnet.evaluation.assessment import Assessment, Stratum, assess
from fracnet.evaluation.decisions import calibrated, decide
from fracnet.evaluation.summary import summarize
from fracnet.utils.errors import UserError

TABLE = two_class_table()
TEST, VAL = TABLE[TABLE["split"] == "test"], TABLE[TABLE["split"] == "val"]
OPTIONS = Evaluation(resamples=100, by=["region", "view"])
DECISIONS = decide(VAL, OPTIONS)


@pytest.fixture(scope="module")
def found() -> Assessment:
    return assess(TABLE, OPTIONS, DECISIONS, {"majority": TEST})


def stratum(found: Assessment, *key: str) -> Stratum:
    return next(s for s in found.strata if (s.level, s.by, s.value) == key)


def test_raw_figures_are_those_of_the_likeliest_class(found: Assessment) -> None:
    assert found.val == summarize(VAL, resamples=100)
    assert found.test == summarize(TEST, resamples=100)
    assert found.baselines == {"majority": found.test}
    assert {(r.level, r.region) for r in found.official} >= {
        ("study", "overall"),
        ("image", "hand"),
    }


@pytest.mark.parametrize("level", ["image", "study", "patient"])
@pytest.mark.parametrize("region", ["overall", "hand"])
def test_strata_stand_at_the_frozen_threshold(found: Assessment, level: str, region: str) -> None:
    rows = TEST if region == "overall" else TEST[TEST["region"] == region]
    units = to_level(calibrated(rows, DECISIONS["temperature"]), level)
    threshold = DECISIONS["operating_point"][level]["threshold"]
    truth, named = units["label"] == "abnormal", units["prob_abnormal"] > threshold
    row = stratum(found, level, "overall" if region == "overall" else "region", region)
    assert (row.threshold, row.positives, row.summary.n) == (threshold, truth.sum(), len(units))
    ours = row.summary.per_class[1]
    assert ours.sensitivity.value == pytest.approx(recall_score(truth, named))
    assert ours.specificity.value == pytest.approx(recall_score(~truth, ~named))
    assert ours.precision.value == pytest.approx(precision_score(truth, named))


def test_the_threshold_is_not_one_half_and_matters(found: Assessment) -> None:
    assert found.test is not None
    at_half = found.test.per_class[1].sensitivity.value
    row = stratum(found, "image", "overall", "overall")
    assert row.summary.per_class[1].sensitivity.value != at_half


def test_groups_by_a_column_that_varies_within_studies_are_of_images(found: Assessment) -> None:
    values = [(s.level, s.value) for s in found.strata if s.by == "view"]
    assert values == [("image", "AP"), ("image", "lateral"), ("image", "(unknown)")]
    assert "by view: images only, since a study has several values of it" in found.notes


def test_calibration_is_measured_before_and_after(found: Assessment) -> None:
    warm = calibrated(TEST, DECISIONS["temperature"])
    for moment, rows in (("before", TEST), ("after", warm)):
        value = found.calibration["test"][moment]["log_loss"].value
        prob = rows[["prob_abnormal", "prob_normal"]].to_numpy()  # in scikit-learn's order
        assert value == pytest.approx(log_loss(rows["label"], prob))
    val = found.calibration["val"]
    assert val["after"]["log_loss"].value < val["before"]["log_loss"].value
    raw = assess(TABLE, OPTIONS, decide(VAL, Evaluation(calibrate=False)))
    assert set(raw.calibration["test"]) == {"before"}


def test_without_validation_the_threshold_is_one_half() -> None:
    found = assess(TEST, OPTIONS, None)
    assert found.val is None
    assert {s.threshold for s in found.strata} == {0.5}
    assert "val" not in found.to_dict()
    assert found.to_dict()["decisions"] is None


def test_six_classes_are_decided_by_the_likeliest_one() -> None:
    table = make_table(UPPER_LIMB_COUNTS, 2.0)
    table["region"] = table["label"]
    val = make_table((9,) * 6, 2.0, split="val", seed=2)
    found = assess(table, Evaluation(resamples=100), decide(val, Evaluation()))
    assert [(s.level, s.by, s.threshold) for s in found.strata] == [("image", "overall", None)]
    assert found.test is not None
    only = found.strata[0].summary
    assert only.confusion == found.test.confusion
    assert only.metrics["log_loss"].value != found.test.metrics["log_loss"].value
    assert found.official == ()
    assert found.notes == ()  # the region is the class, and nobody looks for patients here


def test_only_val_rows_can_be_scored_too() -> None:
    found = assess(VAL, OPTIONS, DECISIONS)
    assert found.test is None
    assert found.strata == ()
    assert found.val == summarize(VAL, resamples=100)


def test_levels_that_validation_could_not_choose_for_are_left_out() -> None:
    bare = decide(VAL.assign(study=np.nan), OPTIONS)
    found = assess(TABLE, OPTIONS, bare)
    assert {s.level for s in found.strata} == {"image"}
    assert "no figures by study: validation has none to choose a threshold by" in found.notes
    images = assess(TEST.assign(study=np.nan, patient=np.nan, region=np.nan), OPTIONS, None)
    assert images.notes[0] == "images only: the study and patient are not known for any image"


def test_content_is_plain_json_with_the_known_keys(found: Assessment) -> None:
    content: dict[str, Any] = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(content) == [
        *("val", "test", "baselines_on_test", "test_by_level_and_region"),
        *("evaluation", "decisions", "calibration", "test_strata", "notes"),
    ]
    assert content["test_strata"][1]["level"] == "study"
    assert content["test_strata"][1]["per_class"][1]["class"] == "abnormal"


def test_a_mistyped_column_is_told() -> None:
    with pytest.raises(UserError, match=r"by=veiw: .* Did you mean 'view'\?"):
        assess(TABLE, Evaluation(by=["veiw"]), DECISIONS)

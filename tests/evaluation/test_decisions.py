"""What validation decides is frozen, and nothing of the test can reach it."""

import json
from typing import Any

import numpy as np
import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.decisions import (
    calibrated,
    choose,
    decide,
    fingerprint,
    said,
    sealed,
    verify,
)
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = TABLE[TABLE["split"] == "val"]
OPTIONS = Evaluation()


def test_first_calibrate_then_average_then_choose() -> None:
    found = decide(VAL, OPTIONS)
    assert found["temperature"] > 1.2
    studies = to_level(calibrated(VAL, found["temperature"]), "study")
    score, case = studies["prob_abnormal"].to_numpy(), (studies["label"] == "abnormal").to_numpy()
    assert (
        found["operating_point"]["study"]["threshold"]
        == choose(score, case, {"youden": True}).threshold
    )
    raw = decide(VAL, Evaluation(calibrate=False))
    assert (raw["temperature"], raw["temperature_note"]) == (1.0, "not asked for")
    assert (
        raw["operating_point"]["study"]["threshold"]
        != found["operating_point"]["study"]["threshold"]
    )
    assert set(found["operating_point"]) == {"image", "study", "patient"}
    assert len({point["threshold"] for point in found["operating_point"].values()}) > 1


def test_the_rule_and_the_views_make_a_difference() -> None:
    youden = decide(VAL, OPTIONS)["operating_point"]
    for rule in ({"sensitivity": 0.95}, {"specificity": 0.95}, {"cost_ratio": 20}):
        asked = decide(VAL, Evaluation.model_validate({"operating_point": rule}))["operating_point"]
        assert asked["study"]["threshold"] != youden["study"]["threshold"]
    highest = decide(VAL, Evaluation(views="max"))["operating_point"]
    assert highest["image"] == youden["image"]
    assert highest["study"]["threshold"] > youden["study"]["threshold"]


def test_more_classes_have_no_threshold() -> None:
    found = decide(make_table((9, 9, 9), 1.0, split="val"), OPTIONS)
    assert found["operating_point"] is None
    assert found["temperature"] != 1
    with pytest.raises(UserError, match="views=max"):
        decide(make_table((9, 9, 9), split="val"), Evaluation(views="max"))


def test_it_is_repeatable_whatever_the_order_of_rows() -> None:
    again = decide(VAL.sample(frac=1, random_state=5), OPTIONS)
    assert json.dumps(again) == json.dumps(decide(VAL, OPTIONS))


def test_it_takes_no_test_row() -> None:
    with pytest.raises(AssertionError, match="validation decides"):
        decide(TABLE, OPTIONS)


def test_whole_decisions_pass() -> None:
    stored = json.loads(json.dumps(decide(VAL, OPTIONS)))
    verify(stored, VAL, OPTIONS, "decisions.json")
    verify(stored, VAL, Evaluation(by=["view"], resamples=100), "decisions.json")


def lowered(found: dict[str, Any]) -> dict[str, Any]:
    found["operating_point"]["study"]["threshold"] -= 0.01
    return found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lowered, "changed since it was written"),
        (lambda found: found | {"note": "mine"}, "changed since it was written"),
        (lambda found: {"temperature": 1.0}, "no decisions with their hash"),
        (lambda found: [], "no decisions with their hash"),
        (lambda found: sealed(found | {"views": "max"}), "made with views=max"),
        (lambda found: sealed(found | {"rule": {"sensitivity": 0.9}}), "rule={sensitivity: 0.9}"),
    ],
)
def test_changed_decisions_are_refused(change: Any, part: str) -> None:
    with pytest.raises(UserError, match=r"run/decisions\.json") as told:
        verify(change(decide(VAL, OPTIONS)), VAL, OPTIONS, "run/decisions.json")
    assert part in str(told.value)


@pytest.mark.parametrize("column", ["label", "prob_normal", "logit_abnormal", "study", "path"])
def test_decisions_of_other_rows_are_refused(column: str) -> None:
    other = VAL.copy()
    held = other[column].iloc[0]
    changed = np.nextafter(held, 2) if isinstance(held, float) else f"{held}x"
    other[column] = [changed, *other[column].iloc[1:]]
    with pytest.raises(UserError, match="other rows of validation"):
        verify(decide(VAL, OPTIONS), other, OPTIONS, "decisions.json")
    assert fingerprint(VAL.sample(frac=1, random_state=1)) == fingerprint(VAL)


def test_rules_are_said_as_they_are_typed() -> None:
    assert said({"youden": True}) == "youden"
    assert said({"sensitivity": 0.9}) == "{sensitivity: 0.9}"
    assert (said(True), said("mean")) == ("true", "mean")

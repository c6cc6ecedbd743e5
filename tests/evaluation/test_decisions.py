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
    as_option,
    calibrate,
    choose_threshold,
    decide,
    rows_digest,
    seal,
    verify_decisions,
)
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = TABLE[TABLE["split"] == "val"]
OPTIONS = Evaluation()


def test_first_calibrate_then_average_then_choose() -> None:
    decisions = decide(Predictions(VAL), OPTIONS)
    assert decisions["temperature"] > 1.2
    studies = to_level(calibrate(Predictions(VAL), decisions["temperature"]), "study").table
    score, case = studies["prob_abnormal"].to_numpy(), (studies["label"] == "abnormal").to_numpy()
    assert (
        decisions["operating_point"]["study"]["threshold"]
        == choose_threshold(score, case, {"youden": True}).threshold
    )
    raw = decide(Predictions(VAL), Evaluation(calibrate=False))
    assert (raw["temperature"], raw["temperature_note"]) == (1.0, "not requested")
    assert (
        raw["operating_point"]["study"]["threshold"]
        != decisions["operating_point"]["study"]["threshold"]
    )
    assert set(decisions["operating_point"]) == {"image", "study", "patient"}
    assert len({point["threshold"] for point in decisions["operating_point"].values()}) > 1


def test_the_rule_and_the_views_make_a_difference() -> None:
    youden = decide(Predictions(VAL), OPTIONS)["operating_point"]
    for rule in ({"sensitivity": 0.95}, {"specificity": 0.95}, {"cost_ratio": 20}):
        requested = decide(Predictions(VAL), Evaluation.model_validate({"operating_point": rule}))[
            "operating_point"
        ]
        assert requested["study"]["threshold"] != youden["study"]["threshold"]
    highest = decide(Predictions(VAL), Evaluation(views="max"))["operating_point"]
    assert highest["image"] == youden["image"]
    assert highest["study"]["threshold"] > youden["study"]["threshold"]


def test_more_classes_have_no_threshold() -> None:
    decisions = decide(Predictions(make_table((9, 9, 9), 1.0, split="val")), OPTIONS)
    assert decisions["operating_point"] is None
    assert decisions["temperature"] != 1
    with pytest.raises(UserError, match="views=max"):
        decide(Predictions(make_table((9, 9, 9), split="val")), Evaluation(views="max"))


def test_it_is_repeatable_whatever_the_order_of_rows() -> None:
    again = decide(Predictions(VAL.sample(frac=1, random_state=5)), OPTIONS)
    assert json.dumps(again) == json.dumps(decide(Predictions(VAL), OPTIONS))


def test_it_takes_no_test_row() -> None:
    with pytest.raises(AssertionError, match="only validation decides"):
        decide(Predictions(TABLE), OPTIONS)


def test_intact_decisions_pass() -> None:
    stored = json.loads(json.dumps(decide(Predictions(VAL), OPTIONS)))
    verify_decisions(stored, Predictions(VAL), OPTIONS, "decisions.json")
    verify_decisions(
        stored, Predictions(VAL), Evaluation(by=["view"], resamples=100), "decisions.json"
    )


def lowered(decisions: dict[str, Any]) -> dict[str, Any]:
    decisions["operating_point"]["study"]["threshold"] -= 0.01
    return decisions


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lowered, "changed after it was written"),
        (lambda decisions: decisions | {"note": "mine"}, "changed after it was written"),
        (lambda decisions: {"temperature": 1.0}, "no decisions with a hash"),
        (lambda decisions: [], "no decisions with a hash"),
        (lambda decisions: seal(decisions | {"views": "max"}), "made with views=max"),
        (
            lambda decisions: seal(decisions | {"rule": {"sensitivity": 0.9}}),
            "rule={sensitivity: 0.9}",
        ),
    ],
)
def test_changed_decisions_are_rejected(change: Any, part: str) -> None:
    with pytest.raises(UserError, match=r"run/decisions\.json") as error:
        verify_decisions(
            change(decide(Predictions(VAL), OPTIONS)),
            Predictions(VAL),
            OPTIONS,
            "run/decisions.json",
        )
    assert part in str(error.value)


@pytest.mark.parametrize("column", ["label", "prob_normal", "logit_abnormal", "study", "path"])
def test_decisions_of_other_rows_are_rejected(column: str) -> None:
    other = VAL.copy()
    held = other[column].iloc[0]
    changed = np.nextafter(held, 2) if isinstance(held, float) else f"{held}x"
    other[column] = [changed, *other[column].iloc[1:]]
    with pytest.raises(UserError, match="other validation rows"):
        verify_decisions(
            decide(Predictions(VAL), OPTIONS), Predictions.trusted(other), OPTIONS, "decisions.json"
        )
    assert rows_digest(Predictions(VAL.sample(frac=1, random_state=1))) == rows_digest(
        Predictions(VAL)
    )


def test_rules_are_written_as_they_are_typed() -> None:
    assert as_option({"youden": True}) == "youden"
    assert as_option({"sensitivity": 0.9}) == "{sensitivity: 0.9}"
    assert (as_option(True), as_option("mean")) == ("true", "mean")

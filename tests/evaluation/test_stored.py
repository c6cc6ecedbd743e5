"""metrics.json read back is the assessment that was written, undefined figures included."""

import json
from pathlib import Path

import pytest
from helpers.reports import six_classes, two_classes

from fracnet.evaluation.assessment import assessment_of
from fracnet.utils.errors import UserError


@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_what_is_read_is_what_was_written(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = make(tmp_path / "run")
    content = json.loads((folder / "metrics.json").read_text())
    again = assessment_of(content, "metrics.json").to_dict()
    assert again["test"] == content["test"]
    for key, value in again.items():
        assert json.loads(json.dumps(value)) == content[key], key
    assert set(content) - set(again) <= {"objective", "selected", "data", "cited"}


def test_undefined_figures_stay_undefined(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "run")
    content = json.loads((folder / "metrics.json").read_text())
    content["test"]["metrics"]["mcc"] |= {"value": None, "low": None, "high": None}
    found = assessment_of(content, "metrics.json").test
    assert found is not None
    assert found.metrics["mcc"].value != found.metrics["mcc"].value
    assert found.metrics["mcc"].low is None


def test_a_file_of_an_older_fracnet_is_told_apart() -> None:
    with pytest.raises(UserError, match=r"old/metrics.json lacks .*test_strata.* fracnet.evaluate"):
        assessment_of({"test": {}, "evaluation": {}}, "old/metrics.json")

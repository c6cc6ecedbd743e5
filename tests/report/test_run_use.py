"""Intended use and limitations of a run, from its files alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.reports import six_class_content, two_class_content
from helpers.run_files import two_class_table

from fracnet.report.run_content import RunContent
from fracnet.report.run_facts import limits_of_use

CHOSEN = "on validation for the share of abnormal there; another share calls for"


def limits(content: RunContent) -> str:
    return " ".join(limits_of_use(content).limits)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    return two_class_content(tmp_path_factory.mktemp("use") / "run")


def test_intended_uses_are_listed_and_exclude_decisions_about_patients(content: RunContent) -> None:
    use = limits_of_use(content)
    assert "Research on classifying radiographs as normal, abnormal" in use.intended[0]
    assert "Diagnosis, triage or any other decision about a patient" in use.not_intended[0]


@pytest.mark.parametrize(
    ("calibrate", "sentence"),
    [
        (True, f"The threshold and temperature were chosen {CHOSEN} others."),
        (False, f"The threshold was chosen {CHOSEN} another."),
    ],
)
def test_choices_on_validation_are_limited_to_its_class_share(
    calibrate: bool, sentence: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"resamples": 100, "by": [], "calibrate": calibrate}
    table = two_class_table(confident=4.0)  # validation shows a gain by a temperature
    assert sentence in limits(two_class_content(tmp_path / "run", table, evaluation=options))


def test_without_validation_no_threshold_is_chosen(tmp_path: Path) -> None:
    table = two_class_table()
    test = table[table["split"] == "test"].reset_index(drop=True)
    text = limits(two_class_content(tmp_path / "run", test))
    assert "The threshold is 0.5: validation has not chosen one for the share of abnormal." in text
    assert "was chosen" not in text


def test_limits_depend_on_the_data(content: RunContent, tmp_path: Path) -> None:
    text = limits(content)
    assert "not the same as fractured" in text
    assert "phantoms" not in text
    assert "The patient is not known" not in text
    phantom_text = limits(replace(content, data="mura_phantom"))
    assert "phantoms" in phantom_text
    assert "fractured" not in phantom_text, "there a fracture is drawn"
    nobody = limits(six_class_content(tmp_path / "run"))
    assert "Images whose patient is unknown count as independent" in nobody
    assert "fractured" not in nobody
    assert "threshold" not in nobody.lower()


def test_metrics_of_validation_only_are_labeled(content: RunContent) -> None:
    assessment = replace(content.assessment, test=None, strata=())
    sentence = "There is no test: all metrics come from the rows that chose the model."
    assert sentence in limits(replace(content, assessment=assessment))
    assert sentence not in limits(content)

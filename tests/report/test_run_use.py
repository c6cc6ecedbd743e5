"""What a run may be used for, and what its figures do not say, from its files alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.reports import content_of, six_classes, two_classes
from helpers.run_files import two_class_table

from fracnet.report.run_content import RunContent
from fracnet.report.run_facts import limits_of_use

CHOSEN = "on validation for the share of abnormal there; another share calls for"


def limits(content: RunContent) -> str:
    return " ".join(limits_of_use(content).limits)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    return content_of(two_classes(tmp_path_factory.mktemp("use") / "run"))


def test_uses_are_named_and_a_decision_on_a_patient_is_none(content: RunContent) -> None:
    use = limits_of_use(content)
    assert "Research on classifying radiographs as normal, abnormal" in use.intended[0]
    assert "Diagnosis, triage or any other decision about a patient" in use.not_intended[0]


@pytest.mark.parametrize(
    ("calibrate", "said"),
    [
        (True, f"Threshold and temperature were chosen {CHOSEN} others."),
        (False, f"Threshold was chosen {CHOSEN} another."),
    ],
)
def test_what_validation_chose_holds_for_its_share(
    calibrate: bool, said: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"resamples": 100, "by": [], "calibrate": calibrate}
    assert said in limits(content_of(two_classes(tmp_path / "run", evaluation=options)))


def test_without_validation_nothing_was_chosen(tmp_path: Path) -> None:
    table = two_class_table()
    test = table[table["split"] == "test"].reset_index(drop=True)
    found = limits(content_of(two_classes(tmp_path / "run", test)))
    assert "The threshold is 0.5: validation has not chosen one for the share of abnormal." in found
    assert "was chosen" not in found


def test_limits_are_those_of_the_data(content: RunContent, tmp_path: Path) -> None:
    found = limits(content)
    assert "not the same as fractured" in found
    assert "phantoms" not in found
    assert "The patient is not known" not in found
    drawn = limits(replace(content, data="mura_phantom"))
    assert "phantoms" in drawn
    assert "fractured" not in drawn, "there a fracture is drawn"
    nobody = limits(content_of(six_classes(tmp_path / "run")))
    assert "The patient is not known for every image" in nobody
    assert "fractured" not in nobody
    assert "threshold" not in nobody.lower()


def test_figures_of_validation_alone_are_called_so(content: RunContent) -> None:
    assessment = replace(content.assessment, test=None, strata=())
    said = "There is no test: all metrics come from the rows that chose the model."
    assert said in limits(replace(content, assessment=assessment))
    assert said not in limits(content)

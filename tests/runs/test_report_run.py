"""Reports of runs, evaluations and foreign tables; names they must not contain; the model card."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.command import evaluate_here, train_here
from helpers.reports import (
    Page,
    configured,
    content_of,
    explain,
    six_classes,
    tell_more,
    two_classes,
    write_report,
)
from helpers.run_files import two_class_table, write_foreign_csv
from helpers.tiny_words import tiny_words
from huggingface_hub import ModelCard

from fracnet.report.model_card import card_metadata
from fracnet.runs import report_run
from fracnet.runs.run_folder import RunFolder


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    by = {"resamples": 100, "by": ["patient"]}
    made = two_classes(tmp_path / "run", two_class_table(8, 10), evaluation=by)
    tell_more(made)
    explain(made)
    fit = json.loads(read(made / "fit.json"))
    name = str(pd.read_csv(made / "predictions.csv")["path"][0])
    fit["data"]["notes"] = [f"The file {name}, and a person (person-003), are odd."]
    (made / "fit.json").write_text(json.dumps(fit))
    return made


def names(folder: Path) -> set[str]:
    """Of people, studies and files."""
    table = pd.read_csv(folder / "predictions.csv")
    return set(table["path"]) | set(table["study"]) | set(table["patient"])


def test_without_images_nobody_is_shown_or_named(folder: Path) -> None:
    page, card = write_report(folder, images=False)
    html = read(page)
    assert "data:image" not in html
    assert "<img" not in html
    for text in (html.replace("<wbr>", ""), read(card)):
        assert [name for name in names(folder) if name in text] == []
        assert "/home/somebody" not in text
        assert "The file (left out), and a person ((left out)), are odd." in text
    assert "report.images=false" in html


def test_with_images_people_are_shown_and_named(folder: Path) -> None:
    page, card = write_report(folder)
    html = read(page)
    assert html.count("data:image/jpeg") == 4
    assert any(name in html for name in names(folder))
    assert "person-010" in html, "groups may be people"
    assert "/home/somebody/mura" in html
    assert "/home/somebody" not in read(card), "a card is meant to be published"
    assert "person-003" not in read(card)


def test_names_are_removed_in_any_context_and_numbers_are_not() -> None:
    numbers = pd.DataFrame({"patient": ["3", "12"]})
    sentences = ["AUC 0.3 of 3 images; patient 3, patient='12', patient 3.5."]
    expected = "AUC 0.3 of 3 images; patient (left out), patient='(left out)', patient 3.5."
    assert list(report_run.without_names(sentences, numbers)) == [expected]
    table = pd.DataFrame({"path": ["a b.png", "x/y.png"], "patient": ["p-001", "p-0011"]})
    sentences = ["'a b.png' [x/y.png] patient=p-0011 and p-001, p-00112."]
    expected = "'(left out)' [(left out)] patient=(left out) and (left out), p-00112."
    assert list(report_run.without_names(sentences, table)) == [expected]


@pytest.mark.parametrize(
    ("requested", "online", "expected"),
    [(None, False, True), (None, True, False), (True, True, True), (False, False, False)],
)
def test_images_are_left_out_where_wandb_uploads_the_run(
    requested: bool | None, online: bool, expected: bool
) -> None:
    config: Any = SimpleNamespace(
        report=SimpleNamespace(images=requested), logger=SimpleNamespace(online=online)
    )
    assert report_run.config_shows_images(config) is expected


def test_the_decision_of_training_holds_later(folder: Path) -> None:
    fit = json.loads(read(folder / "fit.json")) | {"report": {"images": False}}
    (folder / "fit.json").write_text(json.dumps(fit))
    assert "data:image" not in read(write_report(folder)[0])
    assert "data:image" in read(write_report(folder, images=True)[0])


def test_images_left_out_once_come_back_only_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, person = folder / "report/index.html", "person-010"
    for arguments, shown in (([], True), (["report.images=false"], False), ([], False)):
        result = evaluate_here([f"run={folder}", "figures=false", *arguments], capsys)
        assert result.code == 0, result.err
        assert ("data:image" in read(page), person in read(page)) == (shown, shown)
    further = [f"run={folder}", "figures=false", "by=[patient]", "name=further"]
    further_page = folder / "evaluations/further/report/index.html"
    for arguments, shown in (([], False), (["report.images=true"], True), ([], True)):
        assert evaluate_here([*further, *arguments], capsys).code == 0
        assert (person in read(further_page)) == shown
    assert "data:image" in read(write_report(folder)[0])
    assert json.loads(read(folder / "fit.json"))["data"]["notes"], "the rest stays"


def test_names_of_a_table_are_left_out_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_foreign_csv(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: person}"
    arguments = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", "figures=false"]
    arguments += ["labels={0: normal, 1: abnormal}"]
    page, name = tmp_path / "preds_evaluation/report/index.html", ".png"
    for more, shown in (([], True), (["report.images=false"], False), ([], False)):
        assert evaluate_here([*arguments, *more], capsys).code == 0
        assert (name in read(page)) == shown


def test_evaluate_writes_the_report_and_accepts_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate_here([f"run={folder}", "figures=false", "report.images=false"], capsys)
    assert result.code == 0, result.err
    assert f"Report  {folder / 'report/index.html'}" in result.out
    assert "data:image" not in read(folder / "report/index.html")
    result = evaluate_here([f"run={folder}", "figures=false", "report.image=false"], capsys)
    assert result.code == 1
    assert "allowed under 'report': images" in result.err


def test_a_further_evaluation_has_its_own_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        f"run={folder}",
        "figures=false",
        "operating_point={sensitivity: 0.95}",
        "name=careful",
    ]
    result = evaluate_here(arguments, capsys)
    assert result.code == 0, result.err
    own = folder / "evaluations/careful/report"
    assert [path.name for path in own.iterdir()] == ["index.html"]
    text = Page(read(own / "index.html")).text
    assert "Evaluation careful of run run" in text
    assert "a threshold chosen on validation (sensitivity 0.95)" in text
    assert "Wrong and confident" not in text, "wrong at another threshold"
    assert "The run's gallery is not shown" in text
    assert not (folder / "report").exists()


def test_a_foreign_table_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign_csv(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: person}"
    labels = "{0: normal, 1: abnormal}"
    arguments = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", f"labels={labels}"]
    result = evaluate_here([*arguments, "figures=false"], capsys)
    assert result.code == 0, result.err
    text = Page(read(tmp_path / "preds_evaluation/report/index.html")).text
    assert "preds.csv" in text
    assert "The training data of this model are unknown" in text
    assert "Provenance" not in text


@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_the_hub_can_read_the_card(make: Any, tmp_path: Path) -> None:
    made = make(tmp_path / "run")
    text = read(write_report(made)[1])
    card: Any = ModelCard(text)
    metrics = json.loads(read(made / "metrics.json"))["test"]["metrics"]
    results = {entry.metric_type: entry for entry in card.data.eval_results}
    assert results["roc_auc"].metric_value == pytest.approx(metrics["macro_auc"]["value"], abs=1e-6)
    assert card.data.library_name == "fracnet"
    assert "research-only" in card.data.tags
    assert f"{metrics['accuracy']['value']:.3f}" in card.text
    assert ("sensitivity" in results) == (make is two_classes)


def test_a_metric_of_some_classes_only_is_not_in_the_hub_metadata(tmp_path: Path) -> None:
    content = content_of(six_classes(tmp_path / "run"))

    def kinds() -> list[str]:
        (result,) = card_metadata(content)["model-index"][0]["results"]
        return [entry["type"] for entry in result["metrics"]]

    assert "precision" in kinds()
    held = content.summary.metrics
    held["macro_precision"] = replace(held["macro_precision"], scored=1)
    assert "precision" not in kinds()


def test_a_card_of_a_timm_model_says_so(tmp_path: Path) -> None:
    made = two_classes(tmp_path / "run")
    target = "fracnet.models.backbones.timm_backbone"
    configured(made, model={"_target_": target, "name": "resnet18"})
    head = yaml.safe_load(read(write_report(made)[1]).split("---")[1])
    assert head["library_name"] == "fracnet"
    assert "timm" in head["tags"]


def test_training_leaves_a_report(
    phantom_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    result = train_here(tiny_words(*phantom_words, f"hydra.run.dir={run.path}"), capsys)
    assert result.code == 0, result.err
    assert f"Report  {run.report}" in result.out
    text = " ".join(Page(read(run.report)).text.split())
    assert "TinyNet on upper_limb_phantom" in text
    assert "left out: 0" not in text
    assert "24 for test" in text
    assert "duration" in text
    assert "tests/user_conf" not in read(run.report.with_name("model_card.md"))
    fit = json.loads(read(run.fit))
    assert fit["model"]["parameters"] > 100
    assert fit["data"]["license"] == "MIT, as fracnet"

"""Reports of runs, of evaluations and of others' tables; what they must not tell; the card."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.command import evaluate_here, train_here
from helpers.reports import Page, configured, explain, six_classes, tell_more, two_classes
from helpers.run_files import scored, two_class_table
from helpers.tiny_words import tiny_words
from huggingface_hub import ModelCard

from fracnet.report.model_card import metadata
from fracnet.runs import report_run
from fracnet.runs.report_run import content_of
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
    metrics = json.loads(read(made / "metrics.json"))
    metrics["data"]["notes"] = fit["data"]["notes"]
    (made / "metrics.json").write_text(json.dumps(metrics))
    return made


def names(folder: Path) -> set[str]:
    """Of people, studies and files."""
    table = pd.read_csv(folder / "predictions.csv")
    return set(table["path"]) | set(table["study"]) | set(table["patient"])


def test_without_images_nobody_is_shown_or_named(folder: Path) -> None:
    page, card = report_run.write(folder, images=False)
    html = read(page)
    assert "data:image" not in html
    assert "<img" not in html
    for text in (html.replace("<wbr>", ""), read(card)):
        assert [name for name in names(folder) if name in text] == []
        assert "/home/somebody" not in text
        assert "The file (left out), and a person ((left out)), are odd." in text
    assert "report.images=false" in html


def test_with_images_they_are(folder: Path) -> None:
    page, card = report_run.write(folder)
    html = read(page)
    assert html.count("data:image/jpeg") == 4
    assert any(name in html for name in names(folder))
    assert "person-010" in html, "groups may be people"
    assert "/home/somebody/mura" in html
    assert "/home/somebody" not in read(card), "a card is made to be published"
    assert "person-003" not in read(card)


def test_names_are_found_in_any_setting_and_figures_are_left_alone() -> None:
    numbers = pd.DataFrame({"patient": ["3", "12"]})
    said = ["AUC 0.3 of 3 images; patient 3, patient='12', patient 3.5."]
    left = "AUC 0.3 of 3 images; patient (left out), patient='(left out)', patient 3.5."
    assert list(report_run.unnamed(said, numbers)) == [left]
    table = pd.DataFrame({"path": ["a b.png", "x/y.png"], "patient": ["p-001", "p-0011"]})
    said = ["'a b.png' [x/y.png] patient=p-0011 and p-001, p-00112."]
    left = "'(left out)' [(left out)] patient=(left out) and (left out), p-00112."
    assert list(report_run.unnamed(said, table)) == [left]


@pytest.mark.parametrize(
    ("asked", "mode", "shown"),
    [
        (None, "offline", True),
        (None, "online", False),
        (True, "online", True),
        (None, "disabled", True),
        (False, "offline", False),
    ],
)
def test_images_stay_out_where_wandb_gets_the_run(
    asked: bool | None, mode: str, shown: bool
) -> None:
    config: Any = SimpleNamespace(
        report=SimpleNamespace(images=asked), logger=SimpleNamespace(mode=mode)
    )
    assert report_run.shows_images(config) is shown


def test_what_training_decided_holds_later(folder: Path) -> None:
    fit = json.loads(read(folder / "fit.json")) | {"report": {"images": False}}
    (folder / "fit.json").write_text(json.dumps(fit))
    assert "data:image" not in read(report_run.write(folder)[0])
    assert "data:image" in read(report_run.write(folder, images=True)[0])


def test_what_was_left_out_once_comes_back_only_when_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, person = folder / "report/index.html", "person-010"
    for words, shown in (([], True), (["report.images=false"], False), ([], False)):
        told = evaluate_here([f"run={folder}", "figures=false", *words], capsys)
        assert told.code == 0, told.err
        assert ("data:image" in read(page), person in read(page)) == (shown, shown)
    further = [f"run={folder}", "figures=false", "by=[patient]", "name=further"]
    beside = folder / "evaluations/further/report/index.html"
    for words, shown in (([], False), (["report.images=true"], True), ([], True)):
        assert evaluate_here([*further, *words], capsys).code == 0
        assert (person in read(beside)) == shown
    assert "data:image" in read(report_run.write(folder)[0])
    assert json.loads(read(folder / "fit.json"))["data"]["notes"], "the rest of it stays"


def test_a_table_s_names_stay_out_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: who}"
    words = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", "figures=false"]
    words += ["labels={0: normal, 1: abnormal}"]
    page, name = tmp_path / "preds_evaluation/report/index.html", ".png"
    for more, shown in (([], True), (["report.images=false"], False), ([], False)):
        assert evaluate_here([*words, *more], capsys).code == 0
        assert (name in read(page)) == shown


def test_evaluate_writes_the_report_and_takes_the_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = evaluate_here([f"run={folder}", "figures=false", "report.images=false"], capsys)
    assert told.code == 0, told.err
    assert f"Report  {folder / 'report/index.html'}" in told.out
    assert "data:image" not in read(folder / "report/index.html")
    told = evaluate_here([f"run={folder}", "figures=false", "report.image=false"], capsys)
    assert told.code == 1
    assert "allowed under 'report': images" in told.err


def test_a_further_evaluation_has_a_report_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"run={folder}",
        "figures=false",
        "operating_point={sensitivity: 0.95}",
        "name=careful",
    ]
    told = evaluate_here(words, capsys)
    assert told.code == 0, told.err
    own = folder / "evaluations/careful/report"
    assert [path.name for path in own.iterdir()] == ["index.html"]
    text = Page(read(own / "index.html")).text
    assert "Evaluation careful of run run" in text
    assert "the threshold that validation chose (sensitivity 0.95)" in text
    assert "Wrong and confident" not in text, "wrong by another threshold"
    assert "The run's gallery is not shown" in text
    assert not (folder / "report").exists()


def test_a_table_of_anyone_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: who}"
    labels = "{0: normal, 1: abnormal}"
    words = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", f"labels={labels}"]
    told = evaluate_here([*words, "figures=false"], capsys)
    assert told.code == 0, told.err
    text = Page(read(tmp_path / "preds_evaluation/report/index.html")).text
    assert "preds.csv" in text
    assert "What the model was trained on is not known" in text
    assert "Provenance" not in text


@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_the_hub_can_read_the_card(make: Any, tmp_path: Path) -> None:
    made = make(tmp_path / "run")
    text = read(report_run.write(made)[1])
    card: Any = ModelCard(text)
    metrics = json.loads(read(made / "metrics.json"))["test"]["metrics"]
    results = {one.metric_type: one for one in card.data.eval_results}
    assert results["roc_auc"].metric_value == pytest.approx(metrics["macro_auc"]["value"], abs=1e-6)
    assert card.data.library_name == "fracnet"
    assert "research-only" in card.data.tags
    assert f"{metrics['accuracy']['value']:.3f}" in card.text
    assert ("sensitivity" in results) == (make is two_classes)


def test_a_figure_of_some_classes_only_is_not_told_to_the_hub(tmp_path: Path) -> None:
    content = content_of(six_classes(tmp_path / "run"))

    def kinds() -> list[str]:
        (result,) = metadata(content)["model-index"][0]["results"]
        return [one["type"] for one in result["metrics"]]

    assert "precision" in kinds()
    held = content.shown.metrics
    held["macro_precision"] = replace(held["macro_precision"], scored=1)
    assert "precision" not in kinds()


def test_a_card_of_a_timm_model_says_so(tmp_path: Path) -> None:
    made = two_classes(tmp_path / "run")
    target = "fracnet.models.backbones.timm_backbone"
    configured(made, model={"_target_": target, "name": "resnet18"})
    head = yaml.safe_load(read(report_run.write(made)[1]).split("---")[1])
    assert head["library_name"] == "fracnet"
    assert "timm" in head["tags"]


def test_training_leaves_a_report(
    phantom_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    told = train_here(tiny_words(*phantom_words, f"hydra.run.dir={run.path}"), capsys)
    assert told.code == 0, told.err
    assert f"Report  {run.report}" in told.out
    text = " ".join(Page(read(run.report)).text.split())
    assert "TinyNet on upper_limb_phantom" in text
    assert "left out: 0" not in text
    assert "24 for test" in text
    assert "took" in text
    assert "tests/user_conf" not in read(run.report.with_name("model_card.md"))
    fit = json.loads(read(run.fit))
    assert fit["model"]["parameters"] > 100
    assert fit["data"]["license"] == "MIT, as fracnet"

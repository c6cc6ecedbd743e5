"""Reports of runs, evaluations and foreign tables; names they must not contain; the model card."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.command import run_evaluate, run_train
from helpers.reports import (
    Page,
    six_class_content,
    six_classes,
    two_classes,
    update_config,
    write_explanation,
    write_report,
    write_run_metadata,
)
from helpers.run_files import two_class_table, write_foreign_csv
from helpers.tiny_overrides import tiny_overrides
from huggingface_hub import ModelCard

from fracnet.report.model_card import _escape, card_metadata
from fracnet.runs import report_run
from fracnet.runs.run_folder import RunFolder, predictions_hashes
from fracnet.utils.errors import UserError


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    by = {"resamples": 100, "by": ["patient"]}
    folder = tmp_path_factory.mktemp("evaluated")
    run = two_classes(folder / "run", two_class_table(8, 6), evaluation=by)
    write_run_metadata(run)
    write_explanation(run)
    fit = json.loads(read(run / "fit.json"))
    name = str(pd.read_csv(run / "predictions.csv")["path"][0])
    fit["data"]["notes"] = [f"The file {name}, and a person (person-003), are odd."]
    (run / "fit.json").write_text(json.dumps(fit))
    return run


@pytest.fixture
def folder(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def names(folder: Path) -> set[str]:
    """Names of patients, studies and files."""
    table = pd.read_csv(folder / "predictions.csv")
    return set(table["path"]) | set(table["study"]) | set(table["patient"])


def test_without_images_no_patient_is_shown_or_named(folder: Path) -> None:
    page, card = write_report(folder, images=False)
    html = read(page)
    assert "data:image" not in html
    assert "<img" not in html
    for text in (html.replace("<wbr>", ""), read(card)):
        assert [name for name in names(folder) if name in text] == []
        assert "/home/somebody" not in text
        assert "The file (left out), and a person ((left out)), are odd." in text
    assert "report.images=false" in html


def test_with_images_patients_are_shown_and_named(folder: Path) -> None:
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


@pytest.mark.usefixtures("blank_charts")
def test_the_image_setting_of_training_applies_later(folder: Path) -> None:
    fit = json.loads(read(folder / "fit.json")) | {"report": {"images": False}}
    (folder / "fit.json").write_text(json.dumps(fit))
    assert "data:image" not in read(write_report(folder)[0])
    assert "data:image" in read(write_report(folder, images=True)[0])


@pytest.mark.usefixtures("blank_charts")
def test_images_left_out_once_come_back_only_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, person = folder / "report/index.html", "person-010"
    for arguments, has_images in (([], True), (["report.images=false"], False), ([], False)):
        result = run_evaluate([f"run={folder}", "figures=false", *arguments], capsys)
        assert result.code == 0, result.err
        assert ("data:image" in read(page), person in read(page)) == (has_images, has_images)
    further = [f"run={folder}", "figures=false", "by=[patient]", "name=further"]
    further_page = folder / "evaluations/further/report/index.html"
    for arguments, has_images in (([], False), (["report.images=true"], True), ([], True)):
        assert run_evaluate([*further, *arguments], capsys).code == 0
        assert (person in read(further_page)) == has_images
    assert "data:image" in read(write_report(folder)[0])
    assert json.loads(read(folder / "fit.json"))["data"]["notes"], "the rest stays"


@pytest.mark.usefixtures("blank_charts")
def test_names_of_a_table_are_left_out_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_foreign_csv(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: person}"
    arguments = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", "figures=false"]
    arguments += ["labels={0: normal, 1: abnormal}"]
    page, name = tmp_path / "preds_evaluation/report/index.html", ".png"
    for more, has_images in (([], True), (["report.images=false"], False), ([], False)):
        assert run_evaluate([*arguments, *more], capsys).code == 0
        assert (name in read(page)) == has_images


@pytest.mark.usefixtures("blank_charts")
def test_evaluate_writes_the_report_and_accepts_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_evaluate([f"run={folder}", "figures=false", "report.images=false"], capsys)
    assert result.code == 0, result.err
    assert f"Report  {folder / 'report/index.html'}" in result.out
    assert "data:image" not in read(folder / "report/index.html")
    result = run_evaluate([f"run={folder}", "figures=false", "report.image=false"], capsys)
    assert result.code == 1
    assert "allowed under 'report': images" in result.err


@pytest.mark.usefixtures("blank_charts")
def test_a_further_evaluation_has_its_own_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        f"run={folder}",
        "figures=false",
        "operating_point={sensitivity: 0.95}",
        "name=careful",
    ]
    result = run_evaluate(arguments, capsys)
    assert result.code == 0, result.err
    report = folder / "evaluations/careful/report"
    assert [path.name for path in report.iterdir()] == ["index.html"]
    text = Page(read(report / "index.html")).text
    assert "Evaluation careful of run run" in text
    assert "a threshold chosen on validation (sensitivity 0.95)" in text
    assert "Wrong and confident" not in text, "wrong at another threshold"
    assert "The run's gallery is not shown" in text
    assert not (folder / "report").exists()


@pytest.mark.usefixtures("blank_charts")
def test_a_foreign_table_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign_csv(two_class_table(), tmp_path)
    columns = "{path: image, label: truth, prob_abnormal: score, patient: person}"
    labels = "{0: normal, 1: abnormal}"
    arguments = [f"table={tmp_path / 'preds.csv'}", f"columns={columns}", f"labels={labels}"]
    result = run_evaluate([*arguments, "figures=false"], capsys)
    assert result.code == 0, result.err
    text = Page(read(tmp_path / "preds_evaluation/report/index.html")).text
    assert "preds.csv" in text
    assert "The training data of this model are unknown" in text
    assert "Provenance" not in text


@pytest.mark.usefixtures("blank_charts")
@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_the_hub_can_read_the_card(make: Any, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    text = read(write_report(run)[1])
    card: Any = ModelCard(text)
    metrics = json.loads(read(run / "metrics.json"))["test"]["metrics"]
    results = {entry.metric_type: entry for entry in card.data.eval_results}
    assert results["roc_auc"].metric_value == pytest.approx(metrics["macro_auc"]["value"], abs=1e-6)
    assert card.data.library_name == "fracnet"
    assert "research-only" in card.data.tags
    assert f"{metrics['accuracy']['value']:.3f}" in card.text
    assert ("sensitivity" in results) == (make is two_classes)


def test_a_metric_of_some_classes_only_is_not_in_the_hub_metadata(tmp_path: Path) -> None:
    content = six_class_content(tmp_path / "run")

    def kinds() -> list[str]:
        (result,) = card_metadata(content)["model-index"][0]["results"]
        return [entry["type"] for entry in result["metrics"]]

    assert "precision" in kinds()
    held = content.summary.metrics
    held["macro_precision"] = replace(held["macro_precision"], scored=1)
    assert "precision" not in kinds()


@pytest.mark.usefixtures("blank_charts")
def test_a_card_of_a_timm_model_says_so(tmp_path: Path) -> None:
    run = two_classes(tmp_path / "run")
    target = "fracnet.models.backbones.timm_backbone"
    update_config(run, model={"_target_": target, "name": "resnet18"})
    head = yaml.safe_load(read(write_report(run)[1]).split("---")[1])
    assert head["library_name"] == "fracnet"
    assert "timm" in head["tags"]


@pytest.mark.usefixtures("blank_charts")
def test_training_leaves_a_report(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    result = run_train(tiny_overrides(*phantom_overrides, f"hydra.run.dir={run.path}"), capsys)
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
    hashes = json.loads(read(run.provenance))["sha256"]
    assert hashes == predictions_hashes(run)
    assert set(hashes) == {"predictions.csv", "baselines.csv"}


@pytest.mark.parametrize("way", ["absolute", "upwards", "link"])
def test_a_picture_outside_of_the_run_is_not_put_into_the_report(
    way: str, folder: Path, tmp_path: Path
) -> None:
    private = tmp_path / "private.png"
    private.write_bytes((folder / "explain/overlays/0_plain.png").read_bytes())
    name = {"absolute": str(private), "upwards": "../../private.png", "link": "link.png"}[way]
    (folder / "explain/link.png").symlink_to(private)
    path = folder / "explain/explain.json"
    content = json.loads(read(path))
    content["cases"][0]["plain"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"explain.json names {name}, which is not a picture in"):
        write_report(folder)
    assert not (folder / "report/index.html").exists()


def test_names_cannot_add_markup_to_the_model_card() -> None:
    name = "a|b <img src=x> [c](http://d) **e**\n# f \\`<i>` \x1b[2J"
    assert _escape(name) == (r"a\|b &lt;img src=x> \[c\](http://d) \*\*e\*\* # f \\`<i>` \\x1b\[2J")


def test_control_characters_of_names_stay_out_of_pages_and_figures(folder: Path) -> None:
    metadata = json.loads(read(folder / "fit.json"))
    metadata["data"] |= {"name": "\x1b]0;title\x07", "notes": ["\x9b31m and \u202e"]}
    (folder / "fit.json").write_text(json.dumps(metadata))
    write_report(folder)
    for name in ("index.html", "model_card.md"):
        text = read(folder / "report" / name)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "x1b" in text

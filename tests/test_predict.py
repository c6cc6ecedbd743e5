"""`python -m fracnet.predict` and `fracnet.load`: predict new images with a finished run."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.command import CommandResult, run_command
from helpers.dicom_files import dicom
from helpers.predicting import train_on_views, write_views
from helpers.reports import Page

import fracnet
from experiments.ood.photographs import photograph
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import read_table
from fracnet.evaluation.decisions import calibrate
from fracnet.evaluation.predictions import Predictions
from fracnet.predict import predict
from fracnet.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("set") / "views")


@pytest.fixture(scope="module")
def trained(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_views(views, tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def scans(views: Path, tmp_path: Path) -> Path:
    """Images, two DICOM files of one study, and unreadable files."""
    folder = tmp_path / "scans"
    folder.mkdir()
    images = sorted((views / "test").glob("*.png"))[:6]
    for n, path in enumerate(images):
        shutil.copy(path, folder / f"{n}.png")
    pixels = read_grey(images[0])
    for n in range(2):
        header = {"PatientID": "p7", "StudyInstanceUID": "1.2.3"}
        (folder / f"view{n}.dcm").write_bytes(dicom(pixels[:, ::-1] if n else pixels, **header))
    whole = images[0].read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no image")
    return folder


def predicted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    return run_command(predict, "predict", ["trust=true", *arguments], capsys)


def test_predicting_the_test_images_of_a_run_repeats_its_predictions(
    run: Path, views: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = predicted([f"run={run}", f"input={views}/test", "out=out"], capsys)
    assert result.code == 0, result.err
    decisions = json.loads((run / "decisions.json").read_text())
    test = Predictions(read_table(run / "predictions.csv")).split("test")
    original = calibrate(test, decisions["temperature"]).table.set_index("path")
    rows = pd.read_csv("out/predictions.csv")
    rows.index = pd.Index([Path(path).relative_to(views).as_posix() for path in rows["path"]])
    assert set(rows.index) == set(original.index)
    rows = rows.loc[original.index]
    np.testing.assert_allclose(rows["prob_abnormal"], original["prob_abnormal"], atol=1e-5)
    threshold = decisions["operating_point"]["image"]["threshold"]
    expected = np.where(original["prob_abnormal"] > threshold, "abnormal", "normal")
    assert list(rows["decision"]) == list(expected)


def test_names_that_are_not_utf8_lose_no_row(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [b"caf\xe9.png", b"\xff\xfe.png", b"a\rb.png", b"cut\xe9.png", b"\xe9.txt"]
    files = [Path(os.fsdecode(os.fsencode(scans) + b"/" + name)) for name in names]
    for file in files:
        shutil.copy(scans / ("cut.png" if "cut" in file.name else "0.png"), file)
    result = predicted([f"run={run}", f"input={scans}", "out=out", "overlays=true"], capsys)
    assert result.code == 0, result.err
    rows = pd.read_csv("out/predictions.csv")
    assert len(rows) == 14
    assert rows["decision"].notna().sum() == 11
    assert f"{scans}/caf\\xe9.png" in set(rows["path"])
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_bytes().splitlines()]
    assert [line["path"] for line in lines] == list(rows["path"])
    assert f"{scans}/cut\\xe9.png" in set(pd.read_csv("out/unreadable.csv")["path"])


def test_a_folder_gives_rows_studies_and_a_list_of_unreadable_files(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = predicted([f"run={run}", f"input={scans}"], capsys)
    assert result.code == 0, result.err
    (out,) = Path().glob("predictions_scans_*")
    rows = pd.read_csv(out / "predictions.csv")
    assert len(rows) == 10
    bad = rows[rows["error"].notna()]
    assert {Path(path).name for path in bad["path"]} == {"cut.png", "empty.jpg"}
    assert bad["prob_abnormal"].isna().all()
    assert bad["decision"].isna().all()
    assert list(pd.read_csv(out / "unreadable.csv")["path"]) == list(bad["path"])
    good = rows[rows["error"].isna()]
    np.testing.assert_allclose(good["prob_normal"] + good["prob_abnormal"], 1)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == list(rows["path"])
    assert [line["decision"] for line in lines if line["error"] is None] == list(good["decision"])
    (study,) = pd.read_csv(out / "studies.csv").to_dict("records")
    views = good[good["study"] == "1.2.3"]
    assert (study["views"], study["patient"]) == (2, "p7")
    assert study["prob_abnormal"] == pytest.approx(views["prob_abnormal"].mean())
    content = json.loads((out / "predictions.json").read_text())
    assert content["status"] == "finished"
    assert content["images"]["done"] == 10
    assert content["images"]["unreadable"] == 2
    assert "never a diagnosis" in content["caution"]
    # 16 validation images of each class, fewer than a 5 % limit needs
    assert "so their limits are 5.9 % and 5.9 %" in " ".join(content["notes"])
    assert "so their limits are 5.9 % and 5.9 %" in " ".join(result.out.split())
    assert content["levels"]["image"]["limits"]["promised"] == pytest.approx(
        {"normal": 1 / 17, "abnormal": 1 / 17}
    )
    assert "never a diagnosis" in " ".join(result.out.split())
    assert "notes.txt" in result.out
    assert max(map(len, result.out.splitlines())) <= 80 + len(str(scans))
    assert "name the same one" not in result.out, "two views are a usual study"


def test_each_image_has_a_picture(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = predicted([f"run={run}", f"input={scans}", "overlays=true", "out=out"], capsys)
    assert result.code == 0, result.err
    rows = pd.read_csv("out/predictions.csv")
    good = rows["error"].isna()
    assert rows.loc[~good, "overlay"].isna().all()
    assert rows.loc[good, "overlay"].is_unique
    for path, overlay in zip(rows.loc[good, "path"], rows.loc[good, "overlay"], strict=True):
        assert overlay == f"overlays/{Path(path).stem}.png"
        image, picture = read_grey(Path(path)), read_grey(Path("out") / overlay)
        plain = read_grey(Path(f"out/overlays/plain/{Path(path).stem}.png"))
        assert plain.shape == picture.shape, "a viewer can switch between them"
        times, rest = divmod(picture.shape[1], image.shape[1])
        assert rest == 0
        height = times * image.shape[0]  # the aspect of the file
        assert min(height, picture.shape[1]) >= 224
        assert plain[:height:times, ::times].shape == image.shape
        assert not np.array_equal(plain[:height], picture[:height])
        assert np.array_equal(plain[height:], picture[height:])
        below = picture[height:]  # the caption does not cover the image
        assert below.min() < 100
        assert (below > 200).mean() > 0.5


def test_a_page_shows_all_images_with_links_to_the_files(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "<b>&.png").write_bytes((scans / "0.png").read_bytes())
    result = predicted([f"run={run}", f"input={scans}", "overlays=true", "out=out"], capsys)
    assert result.code == 0, result.err
    page = Page(Path("out/index.html").read_text(encoding="utf-8"))
    rows = pd.read_csv("out/predictions.csv")
    cases = [tr for tr in page.all("tr") if tr.get("class") == "case"]
    assert [case["data-caption"].split(";")[0].split(":")[0] for case in cases] == [
        Path(path).name for path in rows["path"]
    ]
    good = rows[rows["error"].isna()]
    for _, row in good.iterrows():
        assert f"{row[f'prob_{row.decision}']:.3f}" in page.text
    assert [case["data-decision"] for case in cases if case["data-decision"]] == [*good["decision"]]
    uncertain = good["uncertain"].astype(str) == "True"
    flags = ["uncertain" if flag else "confident" for flag in uncertain]
    assert [case["data-confidence"] for case in cases if case["data-confidence"]] == flags
    assert sum(case["data-error"] == "unreadable" for case in cases) == 2
    assert "never a diagnosis" in page.text
    assert "1.2.3" in page.text, "the study"
    targets = {link["href"] for link in page.all("a") if not link["href"].startswith("#")}
    targets |= {image["src"] for image in page.all("img")}
    assert {"predictions.csv", "studies.csv", "unreadable.csv"} < targets
    assert all((Path("out") / unquote(target)).is_file() for target in targets)


def test_a_page_without_pictures_has_the_same_rows(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predicted([f"run={run}", f"input={scans}", "out=out"], capsys).code == 0
    page = Page(Path("out/index.html").read_text(encoding="utf-8"))
    assert len([tr for tr in page.all("tr") if tr.get("class") == "case"]) == 10
    assert page.all("img") == []


def test_out_of_distribution_images_are_flagged_and_uncertain(run: Path) -> None:
    output = fracnet.load(run, trust=True).predict(
        [photograph(1, 200), np.zeros((90, 80), np.uint8)]
    )
    assert list(output["ood"]) == [True, True]
    assert list(output["uncertain"]) == [True, True]
    assert (output["ood_score"] > 1).all()
    assert output["reason"].str.contains("out of distribution").all()


def test_a_study_with_an_ood_or_unreadable_view_is_uncertain(run: Path) -> None:
    model = fracnet.load(run, trust=True)
    table = pd.DataFrame({"patient": ["a", "a", "b", "b", None], "error": [""] * 5})
    table["study"] = ["1", "1", "2", "2", "3"]
    table[["prob_normal", "prob_abnormal"]] = [[1.0, 0.0]] * 5
    table["ood"] = pd.Series([True, False, False, None, False], dtype=object)
    table.loc[3, ["prob_normal", "prob_abnormal"]] = np.nan
    table.loc[3, "error"] = "the file is empty"
    output = model.studies(table).set_index("study")
    assert list(output["views"]) == [2, 1, 1]
    assert list(output["ood"]) == [1, 0, 0]
    assert list(output["unreadable"]) == [0, 1, 0]
    assert output.loc["1", "uncertain"]
    assert "out of distribution" in output.loc["1", "reason"]
    assert output.loc["2", "uncertain"]
    assert "a view cannot be read" in output.loc["2", "reason"]
    (run / "ood.npz").unlink()
    output = fracnet.load(run, trust=True).predict(photograph(1, 200))
    assert output["ood_score"].isna().all()
    assert output["ood"].isna().all()


def test_arrays_and_files_with_the_same_pixels_get_the_same_prediction(
    run: Path, scans: Path
) -> None:
    model = fracnet.load(run, trust=True)
    pixels = read_grey(scans / "0.png")
    deep = pixels.astype(np.uint16) * 100  # stretched to the full 8-bit range
    full = np.rint((pixels - pixels.min()) * (255 / np.ptp(pixels))).astype(np.uint8)
    table = model.predict([scans / "0.png", pixels, deep, full, full / 255])
    prob = table["prob_abnormal"].to_numpy()
    assert prob[0] == prob[1]
    np.testing.assert_allclose(prob[2], prob[3:], atol=1e-6)
    assert len(model.predict([])) == 0
    for wrong in (np.zeros((3, 8, 8), np.uint8), np.array([[np.nan, 1.0]]), np.zeros((0, 4))):
        with pytest.raises(UserError, match="image 0"):
            model.predict(wrong)


def test_a_class_of_another_package_is_not_built_without_trust(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"run={run}", f"input={scans}", "trust=false"]
    result = predicted(arguments, capsys)
    assert result.code == 1
    assert "helpers.models.TinyNet" in result.err
    with pytest.raises(UserError, match="trust=true"):
        fracnet.load(run)
    assert not list(Path().glob("predictions_*"))


def test_changed_decisions_are_refused(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((run / "decisions.json").read_text())
    content["operating_point"]["image"]["threshold"] = 0.01
    (run / "decisions.json").write_text(json.dumps(content))
    result = predicted([f"run={run}", f"input={scans}"], capsys)
    assert result.code == 1
    assert "decisions.json was changed" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["input=scans"], "run= is missing: name a run"),
        (["run=run"], "input= is missing: name images or folders"),
        (["scans"], "Did you mean input=scans?"),
        (["run", "scans"], "Did you mean run=run input=scans?"),
        (["run=rnu", "input=scans"], "Did you mean 'run'?"),
        (["run=run", "input=scan"], "Did you mean 'scans'?"),
        (["run=run", "input=scans", "out=run"], "nothing is overwritten"),
        (["run=run", "input=scans", "out=scans/0.png"], "is a file"),
        (["run=run", "input=scans", "confident_errors=2"], "confident_errors=2"),
        (["run=run", "input=scans", "overlay=true"], "overlays"),
    ],
)
def test_mistakes_are_reported_and_leave_nothing(
    run: Path, scans: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = predicted(arguments, capsys)
    assert result.code == 1
    assert expected in result.err
    assert sorted(path.name for path in Path().iterdir()) == ["run", "scans"]


def test_an_ensemble_is_refused(run: Path, scans: Path) -> None:
    plain = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(plain | {"ensemble": ["a"]}))
    with pytest.raises(UserError, match="is an ensemble"):
        fracnet.load(run, trust=True)


def test_a_classical_model_predicts_too(
    views: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_on_views(views, tmp_path / "hog", "model=hog_logistic", "model.cell=8")
    arguments = [f"run={run}", f"input={views}/test", "trust=false"]
    assert predicted([*arguments, f"out={tmp_path}/out"], capsys).code == 0
    original = read_table(run / "predictions.csv")
    assert (
        len(pd.read_csv(tmp_path / "out" / "predictions.csv"))
        == (original["split"] == "test").sum()
    )
    assert fracnet.load(run).predict(photograph(1, 200))["ood"].item()
    result = predicted([*arguments, "overlays=true"], capsys)
    assert result.code == 1
    assert "overlays=true: the model is not a network" in result.err

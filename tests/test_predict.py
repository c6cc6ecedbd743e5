"""`python -m fracnet.predict` and `fracnet.load`: a finished run looks at new images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.command import Told, here
from helpers.dicom_files import dicom
from helpers.photographs import photograph
from helpers.predicting import trained_on_views, write_views

import fracnet
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import read_table
from fracnet.evaluation.decisions import calibrated
from fracnet.predict import predict
from fracnet.utils.errors import UserError


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("set") / "views")


@pytest.fixture(scope="module")
def trained(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_on_views(views, tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def scans(views: Path, tmp_path: Path) -> Path:
    """Images, two DICOM files of one study, and what cannot be read."""
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


def predicted(words: list[str], capsys: pytest.CaptureFixture[str]) -> Told:
    return here(predict, "predict", ["trust=true", *words], capsys)


def test_the_run_s_own_images_get_its_own_predictions(
    run: Path, views: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = predicted([f"run={run}", f"input={views}/test", "out=out"], capsys)
    assert told.code == 0, told.err
    own = read_table(run / "predictions.csv")
    decisions = json.loads((run / "decisions.json").read_text())
    own = calibrated(own[own["split"] == "test"], decisions["temperature"]).set_index("path")
    rows = pd.read_csv("out/predictions.csv")
    rows.index = pd.Index([Path(path).relative_to(views).as_posix() for path in rows["path"]])
    assert set(rows.index) == set(own.index)
    rows = rows.loc[own.index]
    np.testing.assert_allclose(rows["prob_abnormal"], own["prob_abnormal"], atol=1e-5)
    threshold = decisions["operating_point"]["image"]["threshold"]
    expected = np.where(own["prob_abnormal"] > threshold, "abnormal", "normal")
    assert list(rows["decision"]) == list(expected)


def test_a_folder_gives_rows_studies_and_a_list_of_what_cannot_be_read(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = predicted([f"run={run}", f"input={scans}"], capsys)
    assert told.code == 0, told.err
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
    told_of = json.loads((out / "predictions.json").read_text())
    assert told_of["status"] == "finished"
    assert told_of["images"]["done"] == 10
    assert told_of["images"]["unreadable"] == 2
    assert "no diagnosis" in told_of["caution"]
    # 16 validation images of each class, which is less than 5 % takes
    assert "there the limits promise 5.9 % and 5.9 %" in " ".join(told_of["notes"])
    assert "there the limits promise 5.9 % and 5.9 %" in " ".join(told.out.split())
    assert told_of["levels"]["image"]["limits"]["promised"] == pytest.approx(
        {"normal": 1 / 17, "abnormal": 1 / 17}
    )
    assert "no diagnosis" in " ".join(told.out.split())
    assert "notes.txt" in told.out
    assert max(map(len, told.out.splitlines())) <= 80 + len(str(scans))


def test_a_picture_of_each_image_beside_its_row(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = predicted([f"run={run}", f"input={scans}", "overlays=true", "out=out"], capsys)
    assert told.code == 0, told.err
    rows = pd.read_csv("out/predictions.csv")
    good = rows["error"].isna()
    assert rows.loc[~good, "overlay"].isna().all()
    pictures = [read_grey(f"out/{path}") for path in rows.loc[good, "overlay"]]
    assert {picture.shape for picture in pictures} == {pictures[0].shape}
    side = (pictures[0].shape[1] - 8) // 2
    below = [picture[side:] for picture in pictures]  # a caution that lies over no image
    assert below[0].min() < 100
    assert (below[0] > 200).mean() > 0.5
    assert all(np.array_equal(line, below[0]) for line in below)
    assert rows.loc[good, "overlay"].is_unique


def test_images_unlike_the_training_are_flagged_and_never_sure(run: Path) -> None:
    found = fracnet.load(run, trust=True).predict(
        [photograph(1, 200), np.zeros((90, 80), np.uint8)]
    )
    assert list(found["unlike"]) == [True, True]
    assert list(found["uncertain"]) == [True, True]
    assert (found["novelty"] > 1).all()
    assert found["why"].str.contains("unlike the training images").all()


def test_a_study_with_a_strange_or_lost_view_is_never_sure(run: Path) -> None:
    model = fracnet.load(run, trust=True)
    table = pd.DataFrame({"patient": ["a", "a", "b", "b", None], "error": [""] * 5})
    table["study"] = ["1", "1", "2", "2", "3"]
    table[["prob_normal", "prob_abnormal"]] = [[1.0, 0.0]] * 5
    table["unlike"] = pd.Series([True, False, False, None, False], dtype=object)
    table.loc[3, ["prob_normal", "prob_abnormal"]] = np.nan
    table.loc[3, "error"] = "the file is empty"
    found = model.studies(table).set_index("study")
    assert list(found["views"]) == [2, 1, 1]
    assert list(found["unlike"]) == [1, 0, 0]
    assert list(found["unreadable"]) == [0, 1, 0]
    assert found.loc["1", "uncertain"]
    assert "unlike the training images" in found.loc["1", "why"]
    assert found.loc["2", "uncertain"]
    assert "a view cannot be read" in found.loc["2", "why"]
    (run / "novelty.npz").unlink()
    found = fracnet.load(run, trust=True).predict(photograph(1, 200))
    assert found["novelty"].isna().all()
    assert found["unlike"].isna().all()


def test_arrays_and_files_of_the_same_pixels_are_one(run: Path, scans: Path) -> None:
    model = fracnet.load(run, trust=True)
    pixels = read_grey(scans / "0.png")
    deep = pixels.astype(np.uint16) * 100  # stretched to what an 8-bit image of full range holds
    full = np.rint((pixels - pixels.min()) * (255 / np.ptp(pixels))).astype(np.uint8)
    table = model.predict([scans / "0.png", pixels, deep, full, full / 255])
    prob = table["prob_abnormal"].to_numpy()
    assert prob[0] == prob[1]
    np.testing.assert_allclose(prob[2], prob[3:], atol=1e-6)
    assert len(model.predict([])) == 0
    for wrong in (np.zeros((3, 8, 8), np.uint8), np.array([[np.nan, 1.0]]), np.zeros((0, 4))):
        with pytest.raises(UserError, match="image 0"):
            model.predict(wrong)


def test_no_class_of_another_package_is_built_unasked(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"run={run}", f"input={scans}", "trust=false"]
    told = predicted(words, capsys)
    assert told.code == 1
    assert "helpers.models.TinyNet" in told.err
    with pytest.raises(UserError, match="trust=true"):
        fracnet.load(run)
    assert not list(Path().glob("predictions_*"))


def test_decisions_that_were_changed_are_refused(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((run / "decisions.json").read_text())
    content["operating_point"]["image"]["threshold"] = 0.01
    (run / "decisions.json").write_text(json.dumps(content))
    told = predicted([f"run={run}", f"input={scans}"], capsys)
    assert told.code == 1
    assert "decisions.json has been changed" in told.err


@pytest.mark.parametrize(
    ("words", "told_of"),
    [
        (["input=scans"], "run= is needed"),
        (["run=run"], "input= is needed"),
        (["run=rnu", "input=scans"], "Did you mean 'run'?"),
        (["run=run", "input=scan"], "Did you mean 'scans'?"),
        (["run=run", "input=scans", "out=run"], "nothing is overwritten"),
        (["run=run", "input=scans", "out=scans/0.png"], "is a file"),
        (["run=run", "input=scans", "uncertain=2"], "uncertain=2"),
        (["run=run", "input=scans", "overlay=true"], "overlays"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    run: Path, scans: Path, words: list[str], told_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = predicted(words, capsys)
    assert told.code == 1
    assert told_of in told.err
    assert sorted(path.name for path in Path().iterdir()) == ["run", "scans"]


def test_a_run_s_config_is_asked_for(run: Path, scans: Path) -> None:
    plain = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(plain | {"ensemble": ["a"]}))
    with pytest.raises(UserError, match="is an ensemble"):
        fracnet.load(run, trust=True)


def test_a_model_that_was_fitted_in_one_go_predicts_too(
    views: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_on_views(views, tmp_path / "hog", "model=hog_logistic", "model.cell=8")
    words = [f"run={run}", f"input={views}/test", "trust=false"]
    assert predicted([*words, f"out={tmp_path}/out"], capsys).code == 0
    own = read_table(run / "predictions.csv")
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == (own["split"] == "test").sum()
    assert fracnet.load(run).predict(photograph(1, 200))["unlike"].item()
    told = predicted([*words, "overlays=true"], capsys)
    assert told.code == 1
    assert "overlays=true: this run's model is no network" in told.err

"""A run ends with heatmaps, and `python -m fracnet.explain` makes them at any time later."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.command import Told, here, train_here

from fracnet.data.manifest import read_table
from fracnet.explain import explain

USER_CONF = Path(__file__).parent / "user_conf"
MURA = "{train: 14, valid: 12}"


class Silent:
    def readouterr(self) -> tuple[str, str]:
        return "", ""


def words(root: Path, run: Path, *more: str) -> list[str]:
    return [
        "--config-dir", str(USER_CONF), "model=tiny", "data=mura_phantom",
        f"data.root={root}", f"data.patients={MURA}", "image_size=64", "data.batch_size=16",
        "data.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "evaluation.figures=false", "logger=csv", f"hydra.run.dir={run}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mura_phantom")


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "trained"
    more = ["explain.cases=2", "explain.sanity=12"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        told = train_here(words(root, run, *more), Silent())  # type: ignore[arg-type]
    assert told.code == 0, told.err
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def explain_here(command: list[str], capsys: pytest.CaptureFixture[str]) -> Told:
    return here(explain, "explain", command, capsys)


def content(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "explain/explain.json").read_text())
    return found


def test_training_leaves_cases_with_pictures_scores_and_a_check(trained: Path) -> None:
    found, table = content(trained), read_table(trained / "predictions.csv")
    assert (found["method"], found["layer"]) == ("gradcam", "convolution")
    assert found["localization"]["images"] > 0
    assert found["sanity"]["images"] <= 12
    assert found["model_dependent"] == found["sanity"]["model_dependent"]
    assert found["cases"]
    for case in found["cases"]:
        row = table.iloc[case["row"]]
        assert (row["path"], row["label"], row["split"]) == (case["path"], case["truth"], "test")
        plain, overlay = (
            cv2.imread(str(trained / "explain" / case[key])) for key in ("plain", "overlay")
        )
        assert plain is not None
        assert overlay is not None
        assert plain.shape == overlay.shape
        assert not np.array_equal(plain, overlay) or "nothing spoke" in " ".join(found["notes"])
    pictures = {f"overlays/{path.name}" for path in (trained / "explain/overlays").iterdir()}
    assert pictures == {case[key] for case in found["cases"] for key in ("plain", "overlay")}


def test_the_command_makes_of_a_finished_run_what_training_made(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    (run / "explain/of_before.txt").touch()
    told = explain_here([f"run={run}", "trust=true"], capsys)
    assert told.code == 0, told.err
    after = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    assert after == before
    for sentence in (*content(run)["notes"], *content(run)["localization"]["sentences"]):
        assert sentence in " ".join(told.out.split())
    assert max(len(line) for line in told.out.splitlines() if str(run) not in line) <= 80


def test_other_options_take_the_place_of_the_run_s_own_and_change_no_figure(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("metrics.json", "predictions.csv", "decisions.json", "config.yaml")
    before = [(run / name).read_bytes() for name in kept]
    command = ["trust=true", "method=eigencam", "layer=convolution", "cases=1", "sanity=0"]
    told = explain_here([f"run={run}", *command], capsys)
    assert told.code == 0, told.err
    found = content(run)
    assert found["method"] == "eigencam"
    assert found["sanity"] is None
    assert found["model_dependent"] is None
    assert len({case["kind"] for case in found["cases"]}) == len(found["cases"])
    assert "knows no class" in " ".join(found["notes"])
    assert [(run / name).read_bytes() for name in kept] == before
    assert (run / "report/index.html").stat().st_mtime >= (run / "explain").stat().st_mtime


def test_a_run_without_heatmaps_gets_them_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    told = train_here(words(root, run, "explain=none"), capsys)
    assert told.code == 0, told.err
    assert "Heatmaps" not in told.out
    assert not (run / "explain").exists()
    told = explain_here([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert told.code == 0, told.err
    assert content(run)["cases"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run=null"], "run=None is not allowed: say which run"),
        (["run=nowhere"], "there is no such folder"),
        (["run=run"], r"_target_=helpers.models.TinyNet is not fracnet's, timm's or torch's"),
        (["run=run", "method=gradcma"], "method=gradcma is not allowed; allowed: gradcam"),
        (["run=run", "cases=-1"], "cases=-1 is not allowed"),
        (["run=run", "layer=convolutoin", "trust=true"], "layer=convolutoin: .*'convolution'"),
        (["run=run", "methd=gradcam"], "methd"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_change_nothing(
    command: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "explain/explain.json").stat().st_mtime_ns
    told = explain_here(command, capsys)
    assert told.code == 1
    assert len(told.err.strip().splitlines()) == 1, told.err
    assert re.search(said, told.err), told.err
    assert (run / "explain/explain.json").stat().st_mtime_ns == before


def failing(*_: object, **__: object) -> None:
    raise RuntimeError("no map of this network")


def test_a_crash_leaves_the_heatmaps_of_before_and_no_half_ones(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    (run / "explain.part/overlays").mkdir(parents=True)  # of one that was killed
    (run / "explain.part/overlays/of_before.png").touch()
    with monkeypatch.context() as patch:
        patch.setattr("fracnet.runs.explain_run.localize", failing)  # the pictures are drawn
        with pytest.raises(RuntimeError, match="no map"):
            explain_here([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert not (run / "explain.part").exists()
    after = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    assert after == before
    assert not (run / "report.part").exists()


def test_training_whose_heatmaps_crash_leaves_its_report_and_they_can_be_made_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fracnet.runs.explain_run.draw_cases", failing)
        with pytest.raises(RuntimeError, match="no map"):
            train_here(words(root, run, "explain.cases=1", "explain.sanity=0"), capsys)
    capsys.readouterr()
    assert not (run / "explain.part").exists()
    assert json.loads((run / "provenance.json").read_text())["status"] == "failed"
    page = (run / "report/index.html").read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['metrics']['accuracy']['value']:.3f}" in page
    assert "There are no heatmaps yet" in page
    assert "parameters" in page, "what only training knows"
    assert (run / "report/model_card.md").is_file()
    told = explain_here([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert told.code == 0, told.err
    assert "data:image" in (run / "report/index.html").read_text(encoding="utf-8")


def test_data_that_have_changed_since_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["data_fingerprint"] = "f00d"
    (run / "provenance.json").write_text(json.dumps(provenance))
    told = explain_here([f"run={run}", "trust=true"], capsys)
    assert told.code == 1
    assert "the data have changed since the run" in told.err


def test_a_layer_that_is_not_there_is_told_before_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = train_here(words(root, tmp_path / "run", "explain.layer=layer4"), capsys)
    assert told.code == 1
    assert "explain.layer=layer4: that layer of TinyNet is not there" in told.err
    assert not (tmp_path / "run").exists()


def test_a_model_without_maps_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    more = ["model=hog_logistic", "model.cell=16"]
    told = train_here([*words(root, run, *more)[:2], *words(root, run, *more)[3:]], capsys)
    assert told.code == 0, told.err
    assert "HogLogistic is no network" in told.out
    assert content(run)["cases"] == []
    told = explain_here([f"run={run}"], capsys)
    assert told.code == 1
    assert "HogLogistic is no network" in told.err

"""A run ends with heatmaps, and `python -m fracnet.explain` makes them at any later time."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.command import CommandResult, run_command, run_train

from fracnet.data.manifest import read_table
from fracnet.explain import explain

pytestmark = pytest.mark.usefixtures("without_charts")

USER_CONF = Path(__file__).parent / "user_conf"
MURA = "{train: 14, valid: 12}"


class Silent:
    def readouterr(self) -> tuple[str, str]:
        return "", ""


def arguments(root: Path, run: Path, *more: str) -> list[str]:
    return [
        "--config-dir", str(USER_CONF), "model=tiny", "data=mura_phantom",
        f"data.root={root}", f"data.patients={MURA}", "image_size=64", "data.batch_size=16",
        "data.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "evaluation.figures=false", "logger=none", f"hydra.run.dir={run}", *more,
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
        result = run_train(arguments(root, run, *more), Silent())  # type: ignore[arg-type]
    assert result.code == 0, result.err
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def run_explain(command: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    return run_command(explain, "explain", command, capsys)


def content(run: Path) -> dict[str, Any]:
    explained: dict[str, Any] = json.loads((run / "explain/explain.json").read_text())
    return explained


def test_training_leaves_cases_with_pictures_scores_and_a_sanity_check(trained: Path) -> None:
    explained, table = content(trained), read_table(trained / "predictions.csv")
    assert (explained["method"], explained["layer"]) == ("gradcam", "convolution")
    assert explained["localization"]["images"] > 0
    assert explained["sanity"]["images"] <= 12
    assert explained["model_dependent"] == explained["sanity"]["model_dependent"]
    assert explained["cases"]
    for case in explained["cases"]:
        row = table.iloc[case["row"]]
        assert (row["path"], row["label"], row["split"]) == (case["path"], case["truth"], "test")
        plain, overlay = (
            cv2.imread(str(trained / "explain" / case[key])) for key in ("plain", "overlay")
        )
        assert plain is not None
        assert overlay is not None
        assert plain.shape == overlay.shape
        assert not np.array_equal(plain, overlay) or "nothing raised" in str(explained["notes"])
    pictures = {f"overlays/{path.name}" for path in (trained / "explain/overlays").iterdir()}
    assert pictures == {case[key] for case in explained["cases"] for key in ("plain", "overlay")}


def test_explain_reproduces_the_heatmaps_of_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    (run / "explain/earlier.txt").touch()
    result = run_explain([f"run={run}", "trust=true"], capsys)
    assert result.code == 0, result.err
    after = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    assert after == before
    for sentence in (*content(run)["notes"], *content(run)["localization"]["sentences"]):
        assert sentence in " ".join(result.out.split())
    assert max(len(line) for line in result.out.splitlines() if str(run) not in line) <= 80


def test_other_options_replace_the_heatmaps_and_change_no_metric(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("metrics.json", "predictions.csv", "decisions.json", "config.yaml")
    before = [(run / name).read_bytes() for name in names]
    command = ["trust=true", "method=eigencam", "layer=convolution", "cases=1", "sanity=0"]
    result = run_explain([f"run={run}", *command], capsys)
    assert result.code == 0, result.err
    explained = content(run)
    assert explained["method"] == "eigencam"
    assert explained["sanity"] is None
    assert explained["model_dependent"] is None
    assert len({case["kind"] for case in explained["cases"]}) == len(explained["cases"])
    assert "ignores the class" in " ".join(explained["notes"])
    assert [(run / name).read_bytes() for name in names] == before
    assert (run / "report/index.html").stat().st_mtime >= (run / "explain").stat().st_mtime


def test_a_run_without_heatmaps_gets_them_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    result = run_train(arguments(root, run, "explain=none"), capsys)
    assert result.code == 0, result.err
    assert "Heatmaps" not in result.out
    assert not (run / "explain").exists()
    result = run_explain([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert result.code == 0, result.err
    assert content(run)["cases"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run=null"], "run=null is not allowed: name a run"),
        (["run=nowhere"], "no such folder"),
        (["run=run"], r"_target_=helpers.models.TinyNet would be called to rebuild the run"),
        (["run=run", "method=gradcma"], "method=gradcma is not allowed; allowed: gradcam"),
        (["run=run", "cases=-1"], "cases=-1 is not allowed"),
        (["run=run", "layer=convolutoin", "trust=true"], "layer=convolutoin: .*'convolution'"),
        (["run=run", "methd=gradcam"], "methd"),
    ],
)
def test_mistakes_are_reported_in_one_sentence_and_change_nothing(
    command: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "explain/explain.json").stat().st_mtime_ns
    result = run_explain(command, capsys)
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert re.search(message, result.err), result.err
    assert (run / "explain/explain.json").stat().st_mtime_ns == before


def failing(*_: object, **__: object) -> None:
    raise RuntimeError("no map of this network")


def test_a_crash_leaves_the_earlier_heatmaps_and_no_partial_ones(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    killed = run / f".explain.{'0' * 16}.part"  # what a killed process left
    (killed / "overlays").mkdir(parents=True)
    (killed / "overlays/earlier.png").touch()
    with monkeypatch.context() as patch:
        patch.setattr("fracnet.runs.explain_run.localize", failing)  # the pictures are drawn
        with pytest.raises(RuntimeError, match="no map"):
            run_explain([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert not list(run.rglob("*.part"))
    after = {path: path.read_bytes() for path in (run / "explain").rglob("*") if path.is_file()}
    assert after == before


def test_training_survives_a_heatmap_crash_and_explain_adds_them_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fracnet.runs.explain_run.draw_cases", failing)
        with pytest.raises(RuntimeError, match="no map"):
            run_train(arguments(root, run, "explain.cases=1", "explain.sanity=0"), capsys)
    capsys.readouterr()
    assert not list(run.rglob("*.part"))
    assert json.loads((run / "provenance.json").read_text())["status"] == "failed"
    page = (run / "report/index.html").read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['metrics']['accuracy']['value']:.3f}" in page
    assert "There are no heatmaps yet" in page
    assert "parameters" in page, "only training knows this"
    assert (run / "report/model_card.md").is_file()
    result = run_explain([f"run={run}", "trust=true", "cases=1", "sanity=0"], capsys)
    assert result.code == 0, result.err
    assert "data:image" in (run / "report/index.html").read_text(encoding="utf-8")


def test_changed_data_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["data_fingerprint"] = "f00d"
    (run / "provenance.json").write_text(json.dumps(provenance))
    result = run_explain([f"run={run}", "trust=true"], capsys)
    assert result.code == 1
    assert "the data have changed since the run" in result.err


def test_a_missing_layer_is_reported_before_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_train(arguments(root, tmp_path / "run", "explain.layer=layer4"), capsys)
    assert result.code == 1
    assert "explain.layer=layer4: TinyNet has no such layer" in result.err
    assert not (tmp_path / "run").exists()


def test_a_model_without_heatmaps_is_reported(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    more = ["model=hog_logistic", "model.cell=16"]
    result = run_train([*arguments(root, run, *more)[:2], *arguments(root, run, *more)[3:]], capsys)
    assert result.code == 0, result.err
    assert "HogLogistic is not a network" in result.out
    assert content(run)["cases"] == []
    result = run_explain([f"run={run}"], capsys)
    assert result.code == 1
    assert "HogLogistic is not a network" in result.err

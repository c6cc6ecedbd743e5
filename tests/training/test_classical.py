"""Models without epochs leave the same run folder; messages about imbalanced classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.command import CommandResult, run_train

from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import read_table
from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.models.hog import HogLogistic
from fracnet.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("without_charts")

USER_CONF = Path(__file__).parents[1] / "user_conf"
HOG = ["model=hog_logistic", "model.cell=8"]
TINY = ["--config-dir", str(USER_CONF), "model=tiny", "trainer.max_epochs=1"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    small = ["image_size=32", "data.batch_size=16", "data.num_workers=0"]
    return [*phantom_overrides, *small, "trainer.accelerator=cpu"]


def run_in(folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    result = run_train([*overrides, f"hydra.run.dir={folder}"], capsys)
    assert result.code == 0, result.err
    return result


def test_a_classical_run_leaves_the_same_files_except_curves(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    result = run_in(run, [*overrides, *HOG], capsys)

    left = {path.name for path in run.iterdir() if path.name != "wandb"}
    assert left == {
        "baselines.csv",
        "checkpoints",
        "config.yaml",
        "decisions.json",
        "explain",
        "figures",
        "fit.json",
        "metrics.json",
        "ood.npz",
        "predictions.csv",
        "provenance.json",
        "report",
    }
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.npz"]
    figures = {path.name for path in (run / "figures").iterdir()}
    assert figures == {"confusion_matrix_test.png", "confusion_matrix_test.svg"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["fit"] == "classical"
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert "scikit-learn" in provenance["device"]

    table = read_table(run / "predictions.csv")
    assert table["split"].value_counts().to_dict() == {"test": 24, "val": 18}
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        recomputed = summarize(Predictions(table[table["split"] == split])).to_dict()
        assert json.loads(json.dumps(recomputed)) == metrics[split]
    val = table[table["split"] == "val"]
    truth = [row[f"prob_{row['label']}"] for _, row in val.iterrows()]
    assert metrics["selected"]["value"] == pytest.approx(-np.log(truth).mean())
    assert metrics["objective"]["value"] == metrics["val"]["metrics"]["macro_auc"]["value"]

    for part in ("not used: ", "optim", "HOG features", "accuracy", "shortcut", "val/loss"):
        assert part in result.out, part
    assert "per epoch" not in result.out
    assert result.out.count("  *\n") == 1, "one candidate is marked as chosen"


@pytest.mark.usefixtures("without_report")
def test_stored_model_predicts_what_the_table_holds_and_runs_repeat(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in "ab"]
    for run in runs:
        run_in(run, [*overrides, *HOG], capsys)
    first, second = ((run / "predictions.csv").read_bytes() for run in runs)
    assert first == second
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    manifest = UpperLimb(root=config["data"]["root"]).manifest()
    preprocess = Preprocess(config["preprocess"]["steps"], 32)
    cache = ImageCache.open_or_build(manifest, preprocess)
    table = read_table(runs[0] / "predictions.csv")
    place = {path: row for row, path in enumerate(manifest.table["path"])}
    model = HogLogistic.load(runs[0] / "checkpoints/best.npz")
    logits = model.logits(cache.images, np.array([place[path] for path in table["path"]]))
    stored = table[[f"logit_{name}" for name in manifest.classes]].to_numpy()
    np.testing.assert_allclose(logits, stored, rtol=1e-12)


@pytest.mark.usefixtures("without_report")
def test_class_weights_reach_the_regression(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path / "plain", [*overrides, *HOG], capsys)
    result = run_in(tmp_path / "weighted", [*overrides, *HOG, "imbalance=class_weights"], capsys)
    assert "class_weights: weights in the loss" in result.out
    plain, weighted = (tmp_path / name / "predictions.csv" for name in ("plain", "weighted"))
    assert plain.read_bytes() != weighted.read_bytes()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["model=hog_logistic", "model.cell=24"], ["model.cell=24", "image_size=32", "most 16"]),
        (["model=hog_logistic", "model.cell=2"], ["model.cell=2", "greater than or equal to 4"]),
        (["model=hog_logistic", "model.bins=1"], ["model.bins=1", "greater than or equal to 2"]),
        (["model=hog_logistic", "model.C=[1,-1]"], ["model.C.1=-1", "greater than 0"]),
        (["model=hog_logistic", "model.C=[]"], ["model.C=[]", "at least 1"]),
        ([*TINY, "+model.fit=classical"], ["TinyNet", "fit, logits", "model.fit=gradient"]),
    ],
)
def test_mistakes_are_reported_before_a_folder_is_created(
    overrides: list[str],
    more: list[str],
    parts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run_train([*overrides, *more, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    for part in parts:
        assert part in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_report")
def test_class_weights_reach_the_loss_of_a_network(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_in(tmp_path, [*overrides, *TINY, "imbalance=class_weights"], capsys)
    table = UpperLimb(root=overrides[1].removeprefix("data.root=")).manifest().table
    counts = table.loc[table["split"] == "train", "label"].value_counts().sort_index()
    expected = (counts.sum() / (6 * counts)).tolist()
    stored = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["class_weights"] == pytest.approx(expected)
    assert f"elbow {expected[0]:.3g}" in result.out


@pytest.mark.usefixtures("without_report")
def test_an_oversampled_run_reports_the_epoch_size_and_is_reproducible(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = [*overrides, *TINY, "imbalance=oversample"]
    result = run_in(tmp_path / "a", over, capsys)
    most = result.out.split("train images per epoch: ")[1]
    total, each = most.split(" (")[0], most.split("elbow ")[1].split(",")[0]
    assert int(total) == 6 * int(each)
    run_in(tmp_path / "b", [*over, "data.num_workers=2"], capsys)
    first, second = ((tmp_path / name / "predictions.csv").read_bytes() for name in "ab")
    assert first == second
    assert len(read_table(tmp_path / "a/predictions.csv")) == 42, "val and test as they are"


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.npz"
    HogLogistic(2, 32).save(path)
    data = path.read_bytes()
    with np.load(path) as stored:
        held = dict(stored)
    changes: list[dict[str, np.ndarray]] = [
        {"weights": np.array([{}], dtype=object)},
        {"weights": held["weights"][:, 1:]},
        {"bias": np.array([np.nan, 0.0])},
        {"image_size": np.array(10**9)},
        {"cell": np.array("x")},
        {"cell": np.array(32)},  # a block would be wider than the image
        {"bins": np.array(37)},
    ]
    contents = [b"", b"no zip", data[: len(data) // 2], data[:200] + b"\xff" + data[201:]]
    for change in changes:
        np.savez(path, **(held | change))
        contents.append(path.read_bytes())
    np.savez(path, bias=held["bias"])
    contents.append(path.read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"best\.npz cannot be read: .*[^.]\.$"):
            HogLogistic.load(path)

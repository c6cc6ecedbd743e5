"""A run's model predicts again: images of another dataset, or its own images in more views."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.command import CommandResult, run_command, run_evaluate, run_train
from helpers.fracture_files import write_fracatlas
from helpers.mura_files import write_mura
from helpers.tiny_overrides import tiny_overrides

from fracnet.data.manifest import read_table
from fracnet.ensemble import ensemble

pytestmark = pytest.mark.usefixtures("without_charts")

MAP = "class_map={no_fracture: normal, fracture: abnormal}"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sets")
    write_mura(folder / "MURA-v1.1")
    for path in (folder / "MURA-v1.1").rglob("*.png"):  # a mirror image differs
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        ramp = np.linspace(0, 100, pixels.shape[1])
        assert cv2.imwrite(str(path), (0.6 * pixels + ramp).astype(np.uint8))
    (folder / "fracatlas").mkdir()
    return folder / "MURA-v1.1", write_fracatlas(folder / "fracatlas")


@pytest.fixture(scope="module")
def trained(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on MURA's layout with a user's own class, from outside fracnet."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        result = train(sets, run)
    assert result.code == 0, result.err
    return run


def train(sets: tuple[Path, Path], run: Path) -> CommandResult:
    arguments = tiny_overrides(
        "data=mura",
        f"data.root={sets[0]}",
        "optim.lr=0.01",
        "evaluation.figures=false",
        "logger=none",
        f"hydra.run.dir={run}",
        epochs=2,
    )

    class Silent:
        def readouterr(self) -> tuple[str, str]:
            return "", ""

    return run_train(arguments, Silent())  # type: ignore[arg-type]


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def external(run: Path, sets: tuple[Path, Path], *arguments: str) -> list[str]:
    return [f"run={run}", "data=fracatlas", f"data.root={sets[1]}", "figures=false", *arguments]


def test_another_dataset_is_predicted_with_the_run_s_choices(
    run: Path, sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = run_evaluate(external(run, sets, MAP, "trust=true"), capsys)
    assert result.code == 0, result.err
    assert "External test" in result.out
    assert {path: path.read_bytes() for path in before} == before
    out = run / "evaluations" / "data-fracatlas"
    table = read_table(out / "predictions.csv")
    test = table[table["split"] == "test"]
    assert set(test["path"].str.split("/").str[0]) == {"images"}
    assert set(test["label"]) == {"normal", "abnormal"}
    fractured = test["path"].str.contains("/Fractured/")
    assert (fractured == (test["label"] == "abnormal")).all()
    original = read_table(run / "predictions.csv")
    np.testing.assert_array_equal(
        table.loc[table["split"] == "val", "prob_abnormal"],
        original.loc[original["split"] == "val", "prob_abnormal"],
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["n"] == len(test)
    assert metrics["decisions"] == json.loads((run / "decisions.json").read_text())
    assert set(metrics["baselines_on_test"]) == {"majority"}


def test_repredicting_the_test_split_matches_training(
    run: Path, sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"run={run}", "data=mura", f"data.root={sets[0]}", "figures=false", "trust=true"]
    result = run_evaluate(arguments, capsys)
    assert result.code == 0, result.err
    repeated, original = (
        read_table(folder / "predictions.csv").sort_values("path")
        for folder in (run / "evaluations" / "data-mura", run)
    )
    assert list(repeated["path"]) == list(original["path"])
    np.testing.assert_allclose(repeated["prob_abnormal"], original["prob_abnormal"], atol=1e-5)


def test_averaged_views_repeat_the_choice_on_validation(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_evaluate([f"run={run}", "tta=hflip", "figures=false", "trust=true"], capsys)
    assert result.code == 0, result.err
    assert "Test-time augmentation" in result.out
    out = run / "evaluations" / "tta-hflip"
    repeated, original = (read_table(folder / "predictions.csv") for folder in (out, run))
    assert list(repeated["path"]) == list(original["path"])
    assert not np.array_equal(repeated["prob_abnormal"], original["prob_abnormal"])
    of_rows = [
        json.loads((folder / "decisions.json").read_text())["validation"]["sha256"]
        for folder in (out, run)
    ]
    assert of_rows[0] != of_rows[1]

    # The mean of two equal runs in the same views.
    twin = shutil.copytree(run, run.parent / "twin", ignore=shutil.ignore_patterns("evaluations"))
    members = f"runs=['{run}','{twin}']"
    mean = run.parent / "mean"
    result = run_command(
        ensemble, "ensemble", [members, f"out={mean}", "tta=hflip", "trust=true"], capsys
    )
    assert result.code == 0, result.err
    assert "mean probability of the image and its hflip" in result.out
    averaged = read_table(mean / "predictions.csv").set_index("path")["prob_abnormal"]
    expected = repeated.set_index("path")["prob_abnormal"]
    np.testing.assert_allclose(averaged.loc[expected.index], expected, atol=1e-6)
    assert yaml.safe_load((mean / "config.yaml").read_text())["ensemble"]["tta"] == ["hflip"]


def test_a_class_of_another_package_is_not_built_without_trust(
    run: Path, sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_evaluate(external(run, sets, MAP), capsys)
    assert result.code == 1
    assert "helpers.models.TinyNet" in result.err
    assert "trust=true" in result.err
    # Metrics alone build nothing, so they need no trust.
    assert run_evaluate([f"run={run}", "figures=false"], capsys).code == 0


def test_a_checkpoint_that_names_another_class_than_the_config_is_refused(
    run: Path, sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"_target_": "fracnet.models.cnn.CustomCNN", "normalize": "half"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    result = run_evaluate(external(run, sets, MAP), capsys)
    assert result.code == 1
    assert "best.ckpt" in result.err
    checkpoint = run / "checkpoints" / "best.ckpt"
    held = torch.load(checkpoint, weights_only=True)
    held["hyper_parameters"]["loss"] = {"_target_": "os.system", "command": "false"}
    torch.save(held, checkpoint)
    result = run_evaluate(external(run, sets, MAP), capsys)
    assert result.code == 1
    assert "trust=true" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data=fracatlas"], ["no_fracture, fracture", "class_map={"]),
        (["data=fracatlas", "class_map={fracture: abnormal}"], ["class no_fracture"]),
        (["tta=[hflip,hflop]"], ["hflop", "hflip, vflip, rot180"]),
        (["tta=[hflip,hflip]"], ["twice"]),
        (["class_map={a: b}"], ["data=..."]),
        (["name=other"], ["data, tta"]),
    ],
)
def test_mistakes_are_reported_with_what_is_allowed(
    run: Path,
    sets: tuple[Path, Path],
    arguments: list[str],
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if arguments[0] == "data=fracatlas":
        arguments = [*arguments, f"data.root={sets[1]}"]
    result = run_evaluate([f"run={run}", "trust=true", *arguments], capsys)
    assert result.code == 1
    for argument in expected:
        assert argument in result.err
    assert not (run / "evaluations").exists()


def test_changed_data_are_refused(
    run: Path, sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["data_fingerprint"] = "0123456789abcdef"
    (run / "provenance.json").write_text(json.dumps(provenance))
    result = run_evaluate([f"run={run}", "tta=hflip", "trust=true"], capsys)
    assert result.code == 1
    assert "0123456789abcdef" in result.err

"""`python -m fracnet.train` on small phantoms: what it leaves behind, and that it is repeatable."""

import json
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.command import CommandResult, in_warm_process, run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import Warm

from fracnet.data.manifest import read_table
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.models.classifier import Classifier

# Of processes that find the model of the tests; only `test_run_folder_is_self_contained` draws.
WITHOUT_CHARTS = {"PYTHONPATH": str(Path(__file__).parent), "FRACNET_TEST_CHARTS": "no"}


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    """A run of seconds."""
    return tiny_overrides(*phantom_overrides, "optim.lr=0.01", epochs=3)


def run_in(folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    result = run_train([*overrides, f"hydra.run.dir={folder}"], capsys)
    assert result.code == 0, result.err
    return result


def test_run_folder_is_self_contained(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_in(tmp_path / "run", overrides, capsys)
    run = tmp_path / "run"

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["_target_"] == "helpers.models.TinyNet"
    assert config["trainer"]["max_epochs"] == 3
    assert "${" not in (run / "config.yaml").read_text(), "resolved"

    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert provenance["seed"] == 0
    assert provenance["packages"]["torch"] == version("torch")
    assert provenance["seconds"] > 0
    assert provenance["peak_resident_mib"] > 50
    assert provenance["images_per_second"] > 0
    phases = provenance["seconds_by_phase"]
    assert {"start", "data", "forward", "backward", "validation", "report"} <= set(phases)
    assert "CPU" in provenance["device"]
    assert "model=tiny" in provenance["command"]

    curves = pd.read_csv(run / "metrics.csv")
    assert curves["epoch"].tolist() == [1, 2, 3]
    assert curves.notna().all(axis=None)

    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt"]
    stored = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert not stored.get("optimizer_states")

    table = read_table(run / "predictions.csv")
    assert table["split"].value_counts().to_dict() == {"test": 24, "val": 18}
    assert table["polygons"].notna().all()

    for name in ("curves", "confusion_matrix_test"):
        assert (run / f"figures/{name}.png").stat().st_size > 10_000
    texts = ("accuracy", "shortcut", "majority", "elbow", "research use only", str(run))
    for part in (*texts, "images/s in training", "GiB at most"):
        assert part.lower() in result.out.lower(), part


@pytest.mark.usefixtures("without_report")
def test_the_stored_table_gives_identical_metrics(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, overrides, capsys)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    table = read_table(tmp_path / "predictions.csv")
    for split in ("val", "test"):
        recomputed = summarize(Predictions(table[table["split"] == split])).to_dict()
        assert json.loads(json.dumps(recomputed)) == stored[split]


@pytest.mark.usefixtures("without_report")
def test_the_selected_checkpoint_is_the_best_on_validation_and_gives_the_table(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A rate this high makes later epochs worse, so "best" and "last" differ.
    run_in(tmp_path, [*overrides, "optim.lr=0.3", "scheduler=none", "trainer.max_epochs=5"], capsys)
    curves = pd.read_csv(tmp_path / "metrics.csv")
    selected = json.loads((tmp_path / "metrics.json").read_text())["selected"]
    assert selected["epoch"] == curves["epoch"][curves["val/loss"].idxmin()]
    assert selected["value"] == pytest.approx(curves["val/loss"].min())
    table = read_table(tmp_path / "predictions.csv")
    val = table[table["split"] == "val"]
    chosen = np.choose(
        val["label"].map({c: i for i, c in enumerate(sorted(val["label"].unique()))}),
        [val[f"prob_{c}"] for c in sorted(val["label"].unique())],
    )
    assert -np.log(chosen).mean() == pytest.approx(selected["value"], rel=1e-5)


@pytest.mark.usefixtures("without_report")
def test_objective_is_the_validation_metric_at_the_selected_checkpoint(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra import compose, initialize_config_dir

    from fracnet.utils.files import config_dir

    run_in(tmp_path, [*overrides, "objective=accuracy"], capsys)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["objective"] == {
        "name": "accuracy",
        "value": stored["val"]["metrics"]["accuracy"]["value"],
    }
    with initialize_config_dir(str(config_dir())):
        assert compose("train")["objective"] in stored["val"]["metrics"]


@pytest.fixture(scope="module")
def reference(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("reference")
    command = ["-m", "fracnet.train", *overrides, f"hydra.run.dir={run}"]
    result = in_warm_process(command, run, **WITHOUT_CHARTS)
    assert result.code == 0, result.err
    return run


def figures_of(run: Path) -> pd.DataFrame:
    curves = pd.read_csv(run / "metrics.csv", dtype=str)
    return curves.drop(columns=["seconds", "images_per_second"])


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_same_seed_same_numbers_for_any_number_of_workers(
    workers: int,
    reference: Path,
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_in(tmp_path, [*overrides, f"data.num_workers={workers}"], capsys)
    pd.testing.assert_frame_equal(figures_of(tmp_path), figures_of(reference), check_exact=True)
    assert (tmp_path / "predictions.csv").read_bytes() == (
        reference / "predictions.csv"
    ).read_bytes()


@pytest.mark.usefixtures("without_report")
def test_another_seed_gives_different_metrics(
    reference: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, [*overrides, "seed=1"], capsys)
    assert not figures_of(tmp_path)["train/loss"].equals(figures_of(reference)["train/loss"])


def test_best_checkpoint_loads_as_weights_only_and_predicts_the_same(
    reference: Path, overrides: list[str]
) -> None:
    from fracnet.data.datasets.upper_limb import UpperLimb
    from fracnet.data.image_cache import ImageCache
    from fracnet.data.preprocess import Preprocess

    model = Classifier.load_from_checkpoint(
        reference / "checkpoints/best.ckpt", weights_only=True, map_location="cpu"
    ).eval()
    config = yaml.safe_load((reference / "config.yaml").read_text())
    manifest = UpperLimb(root=config["data"]["root"]).manifest()
    preprocess = Preprocess(config["preprocess"]["steps"], config["image_size"])
    cache = ImageCache.open_or_build(manifest, preprocess, on_bad_file="error")
    table = read_table(reference / "predictions.csv").set_index("path")
    with torch.inference_mode():
        for row, path in enumerate(manifest.table["path"]):
            if path in table.index:
                logits = model(torch.from_numpy(np.array(cache.images[row]))[None, None])[0]
                stored = table.loc[path, [f"logit_{c}" for c in manifest.classes]]
                assert logits.numpy() == pytest.approx(stored.to_numpy(float), abs=1e-4)


@pytest.mark.usefixtures("without_report")
def test_early_stopping_stops(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patience = ["callbacks.early_stopping.patience=2", "trainer.max_epochs=30"]
    run_in(tmp_path, [*overrides, *patience, "optim.lr=0.5", "scheduler=none"], capsys)
    curves = pd.read_csv(tmp_path / "metrics.csv")
    best = int(curves["val/loss"].idxmin())
    assert len(curves) < 30
    assert len(curves) == best + 1 + 2


def test_runs_started_in_the_same_second_have_separate_folders(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITHOUT_CHARTS.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "fracnet.train", *overrides, "trainer.max_epochs=1"]
    command.append("hydra.run.dir=runs/same_${fracnet.unique:}")
    jobs = [Warm(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_an_interrupted_run_keeps_its_curves_and_prints_their_path(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITHOUT_CHARTS.items():
        monkeypatch.setenv(name, value)
    endless = ["trainer.max_epochs=100000", "callbacks.early_stopping=null"]
    job = Warm(
        [sys.executable, "-m", "fracnet.train", *overrides, *endless, f"hydra.run.dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    curves = tmp_path / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        curves.exists() and len(curves.read_text().splitlines()) > 3
    ):
        time.sleep(0.1)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "Traceback" not in err
    assert str(tmp_path) in err
    assert len(pd.read_csv(curves)) >= 3
    assert (tmp_path / "checkpoints/last.ckpt").exists()
    assert json.loads((tmp_path / "provenance.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("cleanup", ["pass", "open('/gone')"], ids=["", "a clean-up fails"])
def test_sigterm_after_the_fit_is_recorded(
    cleanup: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITHOUT_CHARTS.items():
        monkeypatch.setenv(name, value)
    flag = tmp_path / "explaining"
    code = (
        "import sys, time\n"
        "from fracnet.config import hydra_cli\n"
        "from fracnet.train import train\n"
        "from fracnet.training import record, sweep\n"
        "def wait(*arguments):\n"
        f"    open({str(flag)!r}, 'w').close()\n"
        f"    try: time.sleep(100)\n    finally: {cleanup}\n"
        "record.explain_new_run = wait\n"
        f"sys.argv[1:] = {[*overrides, f'hydra.run.dir={tmp_path}/run']!r}\n"
        "hydra_cli.run(train, 'train', jobs=sweep)\n"
    )
    job = Warm([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    job.terminate()
    _, err = job.communicate(timeout=60)
    assert job.returncode == 143, err
    assert "Traceback" not in err
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    assert provenance["status"] == "interrupted"
    assert not (tmp_path / "run/.lock").exists()

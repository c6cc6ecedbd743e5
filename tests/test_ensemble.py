"""`python -m fracnet.ensemble`: a run folder from other runs, for evaluate and compare."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.command import CommandResult, run_command
from helpers.run_folders import table_of, write_run

from fracnet.data.manifest import read_table
from fracnet.ensemble import ensemble
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize

pytestmark = pytest.mark.usefixtures("without_charts")

QUICK = {"evaluation": {"figures": False, "resamples": 200}}


def run_ensemble(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    """`python -m fracnet.ensemble OVERRIDES` without the cost of a new process."""
    return run_command(ensemble, "ensemble", arguments, capsys)


def write_baselines(run: Path) -> None:
    table = table_of(0.0)
    test = table[table["split"] == "test"]
    both = [test.assign(baseline=name) for name in ("majority", "shortcut")]
    pd.concat(both).to_csv(run / "baselines.csv", index=False)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_ensemble_mean_is_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        run = write_run(tmp_path / f"runs/a{seed}", table_of(1.0, seed), seed=seed, config=QUICK)
        write_baselines(run)
    result = run_ensemble(["runs=runs/*", "out=runs/mean"], capsys)
    assert result.code == 0, result.err
    assert "Averages the probabilities of 3 runs." in result.out
    folder = tmp_path / "runs/mean"
    assert (folder / "baselines.csv").read_bytes() == (run / "baselines.csv").read_bytes()
    page = (folder / "report/index.html").read_text()
    assert "Ensemble of 3 runs" in page
    assert "fracnet.explain" not in page, "which refuses an ensemble"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["optim"] == {"lr": 0.1}
    assert "seed" not in config
    assert [run["folder"] for run in config["ensemble"]["runs"]] == ["../a0", "../a1", "../a2"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert "predictions.csv" in provenance["sha256"]
    metrics = json.loads((folder / "metrics.json").read_text())
    test = summarize(Predictions(read_table(folder / "predictions.csv")).split("test"))
    assert metrics["test"]["metrics"]["macro_auc"]["value"] == test.metrics["macro_auc"].value
    alone = [summarize(Predictions(table_of(1.0, seed)).split("test")) for seed in range(3)]
    mean = np.mean([summary.metrics["macro_auc"].value for summary in alone])
    assert test.metrics["macro_auc"].value > mean
    repeated = run_ensemble(["runs=runs/*", "out=runs/mean"], capsys)
    assert repeated.code == 1
    assert "runs/mean holds config.yaml, as a run does; name another folder" in repeated.err
    second = run_ensemble(["runs=runs/*", "out=runs/other"], capsys)
    assert "skipped: runs/mean: is an ensemble" in second.out


def test_an_ensemble_shows_no_names_that_a_member_must_not_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        run = write_run(tmp_path / f"runs/a{seed}", table_of(1.0, seed), seed=seed, config=QUICK)
    result = run_ensemble(["runs=runs/*", "out=shown"], capsys)
    assert result.code == 0, result.err
    assert ".png" in (tmp_path / "shown/report/index.html").read_text()
    fit = json.loads((run / "fit.json").read_text()) | {"report": {"images": False}}
    (run / "fit.json").write_text(json.dumps(fit))
    result = run_ensemble(["runs=runs/*", "out=hidden"], capsys)
    assert result.code == 0, result.err
    assert ".png" not in (tmp_path / "hidden/report/index.html").read_text()


def test_out_of_fold_predictions_choose_nothing_for_the_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(3):
        config = QUICK | {"data": {"folds": 3, "fold": fold}}
        write_run(tmp_path / f"runs/{fold}", table_of(1.0, fold, fold=fold), config=config)
    result = run_ensemble(["runs=runs/*", "out=folds"], capsys)
    assert result.code == 0, result.err
    assert "3 folds, so each image is predicted only by the run that validated on it" in " ".join(
        result.out.split()
    )
    decisions = json.loads((tmp_path / "folds/decisions.json").read_text())
    assert decisions["validation"]["n"] == 60
    assert decisions["temperature"] == 1
    assert "scored by single models" in decisions["temperature_note"]
    assert {point["threshold"] for point in decisions["operating_point"].values()} == {0.5}
    assert "so no temperature and no threshold is chosen" in " ".join(result.out.split())
    config = yaml.safe_load((tmp_path / "folds/config.yaml").read_text())
    assert config["ensemble"]["validation"] == "out_of_fold"
    assert [run["fold"] for run in config["ensemble"]["runs"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "name some runs"),
        (["runs=runs/a"], "an ensemble needs at least two"),
        (["runs=runs/*"], "share 20 of their val images"),
        (["run=runs/*"], "Did you mean 'runs=runs/*'?"),
    ],
)
def test_a_mistake_leaves_no_folder(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs/a", table_of(1.0))
    write_run(tmp_path / "runs/b", table_of(1.0, 1, fold=0))
    result = run_ensemble(arguments, capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert part in result.err
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["a", "b", "runs"]

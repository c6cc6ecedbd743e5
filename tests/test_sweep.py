"""`python -m fracnet.train -m`: jobs that end in any way, the table, and what they share."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from helpers.command import CommandResult, in_warm_process, run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import Warm

from fracnet.data import image_cache
from fracnet.data.image_io import read_grey
from fracnet.models.classifier import Classifier
from fracnet.training import sweep_plan
from fracnet.utils.errors import UserError
from fracnet.utils.files import cannot_write

# Except for `test_a_sweep_draws_its_page_and_the_report_of_the_best_job`.
pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parent
LIGHT = str(TESTS / "helpers/forked_sweep.py")
FORKS = "hydra.launcher._target_=hydra_plugins.forks.Forks"


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    """Jobs of a second."""
    return tiny_overrides(*phantom_overrides, "scheduler=none", "logger=none", size=40, epochs=2)


class Sweep(NamedTuple):
    result: CommandResult
    folder: Path
    decoded: Counter[str]


@pytest.fixture(scope="module")
def mixed(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two jobs that finish, one that diverges, one that is rejected, one with a bug."""
    folder, decoded = tmp_path_factory.mktemp("mixed") / "sweep", Counter[str]()

    def counted(path: Path) -> np.ndarray:
        decoded[str(path)] += 1
        return read_grey(path)

    step = Classifier.training_step

    def faulty(model: Classifier, batch: Any, batch_idx: int) -> Any:
        if model.hparams["optim"]["lr"] == 7e-2:
            raise RuntimeError("a bug")
        if model.hparams["optim"]["lr"] == 5e-2:
            raise UserError("optim.lr=0.05 is not\nallowed today")
        return step(model, batch, batch_idx)

    jobs = ["-m", "optim.lr=1e-2,1e35,5e-2,3e-2,7e-2", f"hydra.sweep.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_cache, "read_grey", counted)
        patch.setattr(Classifier, "training_step", faulty)
        patch.setenv("FRACNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        done = run_sweep([*overrides, *jobs])
    return Sweep(done, folder, decoded)


def run_sweep(overrides: list[str]) -> CommandResult:
    """As `run_train`, for a fixture that lives longer than capsys."""

    class Captured:
        def readouterr(self) -> tuple[str, str]:
            return out.getvalue(), err.getvalue()

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return run_train(overrides, Captured())  # type: ignore[arg-type]


def study(folder: Path) -> dict[str, list[dict[str, str]]]:
    content: dict[str, list[dict[str, str]]] = json.loads((folder / "sweep.json").read_text())
    return content


def test_each_job_ends_in_its_own_way_and_the_others_continue(mixed: Sweep) -> None:
    jobs = study(mixed.folder)["jobs"]
    assert [job["status"] for job in jobs] == [
        "finished",
        "diverged",
        "failed",
        "finished",
        "failed",
    ]
    assert "nan" in jobs[1]["reason"]
    assert jobs[2]["reason"] == "optim.lr=0.05 is not allowed today"
    assert jobs[4]["reason"] == "RuntimeError: a bug"
    assert mixed.result.code == 1


def test_the_table_comes_last_and_alone_shows_test_metrics(mixed: Sweep) -> None:
    before, table = mixed.result.out.split("5 jobs, by validation")
    assert "Test split" not in before
    assert "validation macro_auc" in before
    for part in ("finished", "diverged", "failed", "lr", "1e+35", "Test split", "optimistic"):
        assert part in table, part
    assert mixed.result.err.count("fracnet: job ") == 3
    assert mixed.result.err.count("Traceback") == 1, "of the bug alone"


def test_jobs_of_one_sweep_decode_no_image_twice(mixed: Sweep) -> None:
    assert len(mixed.decoded) == 48 + 18 + 24
    assert set(mixed.decoded.values()) == {1}


@pytest.mark.usefixtures("without_report")
def test_a_job_gives_the_same_metrics_as_a_single_run(
    mixed: Sweep, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_train([*overrides, "optim.lr=3e-2", f"hydra.run.dir={tmp_path}"], capsys)
    assert result.code == 0, result.err
    for name in ("predictions.csv", "metrics.json"):
        assert (tmp_path / name).read_bytes() == (mixed.folder / "3" / name).read_bytes()


def test_objective_is_the_validation_metric_at_the_selected_checkpoint(mixed: Sweep) -> None:
    rows = pd.read_csv(mixed.folder / "sweep.csv")
    for number in (0, 3):
        metrics = json.loads((mixed.folder / str(number) / "metrics.json").read_text())
        assert rows["value"][number] == metrics["val"]["metrics"]["macro_auc"]["value"]
    assert rows["best"].sum() == 1
    assert rows["best"].idxmax() == rows["value"].idxmax()


def test_the_table_can_be_recreated_from_the_folder(mixed: Sweep, tmp_path: Path) -> None:
    result = in_warm_process(["-m", "fracnet.sweep", str(mixed.folder)], tmp_path)
    assert result.code == 0
    table = mixed.result.out[mixed.result.out.index("5 jobs, by") :]
    assert result.out.split() == table.split()
    result = in_warm_process(["-m", "fracnet.sweep", str(tmp_path)], tmp_path)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")


def test_jobs_in_other_processes_are_in_the_table(tmp_path: Path) -> None:
    done = in_warm_process([LIGHT, "-m", "optim.lr=4,1,2,3", FORKS], tmp_path)
    assert done.code == 1, done.err
    (folder,) = (tmp_path / "runs").iterdir()
    jobs = study(folder)["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "finished", "failed", "failed"]
    assert study(folder)["best"] == [1]
    assert "job 3 failed: optim.lr=3 is not liked" in done.out.splitlines()


def test_sweeps_started_in_the_same_second_have_separate_folders(tmp_path: Path) -> None:
    command = [sys.executable, LIGHT, "-m", "optim.lr=1,4"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sweeps = [Warm(command, cwd=tmp_path, **quiet) for _ in range(2)]  # type: ignore[call-overload]
    assert [sweep.wait(timeout=100) for sweep in sweeps] == [0, 0]
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(len(study(folder)["jobs"]) == 2 for folder in folders)


def test_named_sweep_spans_its_axes_and_the_command_line_replaces_one(tmp_path: Path) -> None:
    command = [LIGHT, "-m", "sweep=lr_batch_epochs", "trainer.max_epochs=3"]
    done = in_warm_process(command, tmp_path)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs").iterdir()
    rows = pd.read_csv(folder / "sweep.csv")
    assert len(rows) == 4
    assert set(zip(rows["optim.lr"], rows["data.batch_size"], strict=True)) == {
        (lr, size) for lr in (1e-4, 1e-3) for size in (16, 32)
    }


def test_an_invalid_sweep_is_rejected_before_the_first_job(
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mixed: Sweep,
) -> None:
    monkeypatch.chdir(tmp_path)
    for more, parts in {
        "trainer.devices=2": ["trainer.devices=2", "one device", "launcher=serial", "ray"],
        "resume=somewhere": ["resume=somewhere", "without -m"],
        f"hydra.sweep.dir={mixed.folder}": [str(mixed.folder), "earlier sweep"],
        "hydra.sweep.dir=/dev/null/x": ["Cannot write /dev/null/x: Not a directory."],
        "model=tiny,resnet81": ["model=resnet81", "Did you mean 'resnet18'?"],
        "data.batch_size=16,0": ["data.batch_size=0 is not allowed", "1"],
        "seed=choice(1,2,-3)": ["seed=-3 is not allowed"],
    }.items():
        result = run_train([*overrides, "-m", "optim.lr=1,2", more], capsys)
        assert result.code == 1
        assert result.err.startswith("fracnet: error: ")
        assert result.err.count("\n") == 1, result.err
        assert all(part in result.err for part in parts), result.err
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("without_report")
def test_jobs_that_a_full_disk_cannot_record_are_one_sentence_each(
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, content: str) -> None:
        raise cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(sweep_plan, "write_record", full)
    result = run_train(
        [*overrides, "-m", "optim.lr=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"], capsys
    )
    assert result.code == 1
    first, second = result.err.splitlines()
    assert first.startswith(
        f"fracnet: job 0 failed: Cannot write {tmp_path}/sweep/0/job.json: No s"
    )
    assert second.startswith("fracnet: job 1 failed: ")


def test_cross_validated_sweep_ends_with_mean_and_spread(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_overrides = [
        word for word in overrides if not word.startswith(("data=", "data.root", "data.counts"))
    ]
    more = ["data=patients", f"data.root={tmp_path / 'data'}", "data.folds=3"]
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    result = run_train([*other_overrides, *more, "-m", "data.fold=0,1,2", sweep], capsys)
    assert result.code == 0, result.err
    assert re.search(
        r"over 3 folds: \d\.\d{3}, SD \d\.\d{3},\srange\s\d\.\d{3}\sto\s\d\.\d{3}\.", result.out
    )
    tables = [pd.read_csv(tmp_path / f"sweep/{n}/predictions.csv") for n in range(3)]
    validated = pd.concat(table[table["split"] == "val"] for table in tables)
    assert not validated["path"].duplicated().any(), "each image validates once"
    for table in tables[1:]:
        assert set(table[table["split"] == "test"]["path"]) == set(
            tables[0][tables[0]["split"] == "test"]["path"]
        )


@pytest.mark.usefixtures("without_report")
def test_one_key_starts_all_models_of_a_sweep_from_random_weights(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_overrides = [word for word in overrides if not word.startswith("model=")]
    more = ["-m", "model=custom_cnn,resnet18,hog_logistic", "model.pretrained=false"]
    more += ["trainer.max_epochs=1", "model.freeze=none", f"hydra.sweep.dir={tmp_path}"]
    result = run_train([*other_overrides, *more], capsys)
    assert result.code == 0, result.err
    assert [job["status"] for job in study(tmp_path)["jobs"]] == ["finished"] * 3


def test_a_sweep_draws_its_page_and_the_report_of_the_best_job(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRACNET_TEST_CHARTS")
    # A model of fracnet's own: the process does not find those of the tests.
    own = ["model=custom_cnn", "trainer.max_epochs=2"]
    sweep = ["-m", "optim.lr=1e-2,3e-2", f"hydra.sweep.dir={tmp_path}"]
    command = ["-m", "fracnet.train", *overrides[:2], *overrides[3:], *own, *sweep]
    done = in_warm_process(command, tmp_path)
    assert done.code == 0, done.err
    (best,) = study(tmp_path)["best"]
    charts = drawn_charts(tmp_path / "index.html")
    assert list(charts) == [
        "validation macro AUC against optim.lr, 2 runs",
        "macro AUC on validation by epoch, 2 runs",
        "loss on validation by epoch, 2 runs",
        "loss on train by epoch, 2 runs",
    ]
    for label, chart in charts.items():
        assert chart.count("<use") == 2, f"{label}: a mark per run"
    report = drawn_charts(tmp_path / f"{best}/report/index.html")
    assert {"Confusion matrix, test split, 24 images", "Loss by epoch"} <= set(report)
    assert all("<path" in chart for chart in report.values())


def drawn_charts(page: Path) -> dict[str, str]:
    """What is inside of each chart, by its label."""
    chart = '<svg class="chart"[^>]*aria-label="([^"]+)"(.*?)</svg>'
    return dict(re.findall(chart, page.read_text(encoding="utf-8"), re.S))

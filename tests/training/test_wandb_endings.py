"""The `.wandb` files of runs that end in other ways than by themselves, and of jobs of a sweep."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers.command import run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.wandb_file import only, read
from helpers.warm import Warm

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    """A run that takes about a second, plus the time of W&B."""
    return tiny_overrides(
        *phantom_overrides, "optim.lr=0.01", "logger.wandb.mode=offline", epochs=2
    )


def test_failed_run_has_its_exit_code(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["optim.lr=1e30", "scheduler=none", f"hydra.run.dir={tmp_path}"]
    result = run_train([*overrides, *wild], capsys)
    assert result.code == 1
    assert "diverged" in result.err
    assert read(only(tmp_path)).exit_code == 1


def test_jobs_of_a_sweep_share_a_group_and_nothing_else(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ["-m", "optim.lr=0.01,0.02", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/s1"]
    result = run_train([*overrides, *swept], capsys)
    assert result.code == 0
    closing = [line for line in result.out.splitlines() if line.startswith("W&B, offline")]
    assert len(closing) == 2
    assert all("a sync uploads its example images: " in line for line in closing)
    jobs = [read(path) for path in sorted(tmp_path.glob("s1/*/wandb/*run-*/*.wandb"))]
    assert [job.group for job in jobs] == ["s1", "s1"]
    assert [job.name for job in jobs] == ["lr=0.01", "lr=0.02"]
    assert [job.config["optim.lr"] for job in jobs] == [0.01, 0.02]
    assert len({job.id for job in jobs}) == 2
    for job in jobs:
        assert [row["epoch"] for row in job.history if "train/loss" in row] == [1]
        assert job.exit_code == 0
        assert "val/macro_auc_low" in job.summary
        assert not [key for key in job.summary if key.startswith("test/")], "show_test=best"


def offspring(pid: int) -> list[int]:
    """A process and all that it has started, the youngest first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    pids = [pid]
    for process in pids:
        pids += [child for child, parent in parents.items() if parent == process]
    return pids[::-1]


@pytest.mark.parametrize("kill", ["training", "everything"])
def test_killed_run_keeps_its_history_and_continues_it(
    kill: str,
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of runs of this process, not of the job
    endless = ["trainer.max_epochs=100000", "callbacks.early_stopping=null", "scheduler=none"]
    job = Warm(
        [sys.executable, "-m", "fracnet.train", *overrides, *endless, f"hydra.run.dir={tmp_path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def written() -> list[int]:
        paths = list(tmp_path.glob("wandb/*run-*/*.wandb"))
        rows = read(paths[0]).history if paths and paths[0].stat().st_size else []
        return [row["epoch"] for row in rows if "train/loss" in row]

    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and len(written()) < 3:
        time.sleep(0.2)
    family = offspring(job.pid)
    if len(family) < 2:
        job.kill()
    assert len(family) >= 2, "training, and wandb's own server"
    for process in family if kill == "everything" else [job.pid]:
        os.kill(process, signal.SIGKILL)
    job.wait(60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in family):
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in family), "nothing is left behind"
    stored = read(only(tmp_path))
    assert stored.exit_code != 0
    epochs = [row["epoch"] for row in stored.history if "train/loss" in row]
    assert len(epochs) >= 3
    assert epochs == list(range(1, len(epochs) + 1))
    assert all(math.isfinite(r["val/loss"]) for r in stored.history if "train/loss" in r)

    if kill == "training":
        seconds = pd.read_csv(tmp_path / "metrics.csv")["seconds"]
        done = len(seconds)
        more = [f"resume={tmp_path}", "trust=true", f"trainer.max_epochs={done + 2}"]
        result = run_train(more, capsys)
        assert result.code == 0, result.err
        first, second = (read(path) for path in sorted(tmp_path.glob("wandb/*run-*/*.wandb")))
        assert second.id == first.id
        assert second.name == first.name
        assert second.config["model"] == "tiny", "of the run, not of the command that resumes it"
        resumed = [row["epoch"] for row in second.history if "train/loss" in row]
        assert resumed[-1] == done + 2
        assert resumed == list(range(resumed[0], done + 3))
        assert seconds[len(epochs) : resumed[0] - 1].sum() < 2, "what W&B had a second to write"
        assert second.exit_code == 0


@pytest.mark.usefixtures("without_report")
def test_a_job_without_images_mentions_none(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["-m", "seed=1", "trainer.max_epochs=1", "logger.wandb.images=false"]
    result = run_train([*overrides, *more, f"hydra.sweep.dir={tmp_path}/s1"], capsys)
    assert result.code == 0, result.err
    assert "W&B, offline: " in result.out
    assert "example images" not in result.out

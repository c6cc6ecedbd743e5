"""Ctrl-C and SIGTERM stop a sweep at the last checkpoints, a second Ctrl-C at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import NESTED, Warm

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parent
LIGHT = [sys.executable, str(TESTS / "helpers/forked_sweep.py"), "-m"]


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A sweep in its own process group, as a shell starts it."""
    return Warm(
        [*command, f"hydra.sweep.dir={folder}"],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS), NESTED: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(folder: Path) -> list[str]:
    return [job["status"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]]


@pytest.mark.parametrize("launcher", ["serial", "joblib"])
def test_one_ctrl_c_stops_the_running_job_and_starts_no_other(
    launcher: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=1,5,4,3", *launcher_of_one(launcher)], folder)
    wait_for(folder / "1/waiting", job)
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=100)
    assert job.returncode == 130, err
    assert statuses(folder) == ["finished", "interrupted", "not run", "not run"]
    assert "fracnet: SIGINT: stopping the sweep" in err
    assert "jobs 2, 3 not run: the sweep stopped before this job started" in out
    assert "Traceback" not in err, err


def launcher_of_one(name: str) -> list[str]:
    """A launcher that runs one job at a time."""
    return [f"launcher={name}", *(["launcher.jobs=1"] if name == "joblib" else [])]


@pytest.mark.parametrize("launcher", ["serial", "joblib"])
def test_two_ctrl_c_end_a_job_that_does_not_stop(launcher: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=6,4", *launcher_of_one(launcher)], folder)
    wait_for(folder / "0/waiting", job)
    os.killpg(job.pid, signal.SIGINT)
    time.sleep(1)
    assert job.poll() is None, job.communicate()
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 130, err
    assert statuses(folder) == ["interrupted", "not run"]


def test_sigterm_stops_the_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=5,1"], folder)
    wait_for(folder / "0/waiting", job)
    job.terminate()
    _, err = job.communicate(timeout=100)
    assert job.returncode == 143, err
    assert statuses(folder) == ["interrupted", "not run"]


@pytest.mark.parametrize("workers", [0, 1, 2])  # 0: a serial sweep; 1: no process of joblib
def test_a_terminal_that_closes_stops_the_sweep_at_its_last_checkpoint(
    workers: int, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    launcher = ["launcher=joblib", f"launcher.jobs={workers}"] if workers else []
    job = started([*LIGHT, "optim.lr=6,5", *launcher], folder)
    for number in range(max(1, workers)):
        wait_for(folder / f"{number}/waiting", job)
    os.killpg(job.pid, signal.SIGHUP)  # also to the workers of joblib
    time.sleep(0.01)
    os.killpg(job.pid, signal.SIGHUP)  # as a closing terminal may send it
    time.sleep(1)
    assert json.loads((folder / "0/job.json").read_text())["status"] == "running"
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 143, err
    assert statuses(folder) == ["interrupted", "interrupted" if workers == 2 else "not run"]
    assert err.count("fracnet: SIGHUP: stopping the sweep") == 1


@pytest.mark.slow
def test_a_stopped_training_keeps_its_checkpoint_and_ends_its_loader_processes(
    phantom_overrides: list[str], tmp_path: Path
) -> None:
    more = ["scheduler=none", "logger=none", "callbacks.early_stopping=null"]
    overrides = tiny_overrides(*phantom_overrides, *more, size=40, workers=1, epochs="100000,2")
    folder = tmp_path / "sweep"
    job = started([sys.executable, "-m", "fracnet.train", "-m", *overrides], folder)
    wait_for(folder / "0/checkpoints/last.ckpt", job)
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 130, err
    assert "Traceback" not in err, err
    assert statuses(folder) == ["interrupted", "not run"]
    assert re.search(r"job 0 interrupted: curves and last.ckpt are in .*/0", out)
    provenance = json.loads((folder / "0/provenance.json").read_text())
    assert provenance["status"] == "interrupted"

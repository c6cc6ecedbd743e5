"""Joblib and a local Ray cluster run the jobs of a sweep, and bad options are told beforehand."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command import run_train
from helpers.warm import Warm
from omegaconf import OmegaConf

from fracnet.training import launchers
from fracnet.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parent
LIGHT = [sys.executable, str(TESTS / "helpers/forked_sweep.py"), "-m"]


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return Warm(
        [*LIGHT, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def statuses(folder: Path) -> list[str]:
    return [job["status"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]]


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("ray", marks=pytest.mark.slow)])
def test_each_job_ends_in_its_own_way(launcher: str, tmp_path: Path) -> None:
    job = started(["optim.lr=2,4,1,3", f"launcher={launcher}", "hydra.sweep.dir=sweep"], tmp_path)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 1, err
    assert (tmp_path / "sweep/sweep.json").exists(), err
    assert statuses(tmp_path / "sweep") == ["failed", "finished", "finished", "failed"]
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["best"] == [2]
    assert "sweep   4 jobs, at most 80 epochs" in out
    assert "job 3   failed: optim.lr=3 is not liked" in out
    assert "job 0   failed: the process exited with code 9; see job.log" in out


@pytest.mark.slow
def test_ctrl_c_stops_jobs_on_ray(tmp_path: Path) -> None:
    job = started(["optim.lr=5,4", "launcher=ray", "hydra.sweep.dir=sweep"], tmp_path)
    deadline = time.monotonic() + 100
    while not (tmp_path / "sweep/0/waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert statuses(tmp_path / "sweep")[0] == "interrupted"


def test_dry_run_lists_the_jobs_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--dry-run", "sweep.dry_run=true"):
        result = run_train(["-m", "optim.lr=4,1", "seed=0,1", "launcher=joblib", option], capsys)
        assert result.code == 0, result.err
        jobs = re.findall(r"^job (\d) +(.*)$", result.out, re.MULTILINE)
        assert [number for number, _ in jobs] == ["0", "1", "2", "3"]
        assert jobs[3][1] == "optim.lr=1 seed=1"
        assert "4 jobs, at most 80 epochs" in result.out
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs fracnet[optuna]")
@pytest.mark.parametrize(("sampler", "jobs"), [("tpe", 6), ("grid", 4)])
def test_dry_run_of_a_search_says_what_it_costs(
    sampler: str,
    jobs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["sweeper=optuna", f"sweeper.sampler={sampler}", "sweeper.n_trials=6"]
    space = ["trainer.max_epochs=choice(2,9)", "optim.lr=choice(1e-3,1e-4)"]
    result = run_train(["-m", *search, *space, "--dry-run"], capsys)
    assert result.code == 0, result.err
    assert f"sweep   {jobs} jobs, at most {9 * jobs} epochs" in result.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["launcher=rya"], ["launcher=rya", "Did you mean 'ray'?"]),
        (["launcher=joblib", "launcher.gpus_per_job=1"], ["launcher.gpus_per_job", "cpus_per_job"]),
        (["launcher=joblib", "launcher.cpus_per_job=999"], ["cpus_per_job=999", "core"]),
        (["launcher=ray", "launcher.cpus_per_job=-1"], ["launcher.cpus_per_job=-1"]),
        (["launcher=joblib", "optim.lrr=1,2"], ["optim.lrr", "Did you mean 'optim.lr"]),
        (["launcher=joblib", "data.batch_size=0"], ["data.batch_size=0"]),
        (["launcher=joblib", "launcher.jobs=0"], ["launcher.jobs=0", "auto or a number of jobs"]),
        (["launcher.jobs=2"], ["no key 'launcher.jobs'", "It is a key of launcher=joblib."]),
        (["launcher=ray", "launcher.address=127.0.0.1:1"], ["launcher.address=127.0.0.1:1"]),
        (["sweeper=random", "optim.lrr=1,2"], ["optim.lrr", "Did you mean 'optim.lr"]),
        (["sweeper=random", "seed=interval(4,1)"], ["seed=interval(4,1)", "smaller"]),
    ],
)
def test_a_bad_option_is_reported_before_anything_starts(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_train(["-m", "optim.lr=1,4", *arguments], capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert all(part in result.err for part in parts), result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs fracnet[slurm]")
def test_a_cluster_that_refuses_the_jobs_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpus' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    monkeypatch.chdir(tmp_path)
    arguments = ["launcher=slurm", "launcher.partition=gpus"]
    result = run_train(["-m", "optim.lr=1,4", *arguments], capsys)
    assert result.code == 1
    error = result.err.splitlines()[-1]
    assert error.startswith("fracnet: error: launcher=slurm started no job (")
    assert "invalid partition: gpus" in error
    assert "Traceback" not in result.err
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(launchers.PACKAGES, "joblib", "no_such_package.plugin")
    config = OmegaConf.create({"launcher": {"name": "joblib", "jobs": 1, "cpus_per_job": 1}})
    with pytest.raises(UserError, match=r"pip install 'fracnet\[joblib\]'"):
        launchers.check_launcher(config)

"""Ctrl-C stops the running job of a sweep, twice the sweep; SIGTERM stops it at once."""

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

TESTS = Path(__file__).parent
LIGHT = [sys.executable, str(TESTS / "helpers/forked_sweep.py"), "-m"]


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A sweep in its own process group, as a shell starts it."""
    return subprocess.Popen(
        [*command, f"hydra.sweep.dir={folder}"],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
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


def test_one_ctrl_c_stops_the_job_and_the_next_one_starts(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=1,5,4"], folder)
    wait_for(folder / "1/waiting", job)
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=100)
    assert job.returncode == 1
    assert statuses(folder) == ["finished", "interrupted", "finished"]
    assert err.splitlines() == [
        "",
        "fracnet: Stopping this job; press Ctrl-C again within 3 s to stop the sweep.",
        "fracnet: job 1 interrupted: by Ctrl-C",
    ]
    assert "job 1 interrupted: by Ctrl-C" in out.splitlines()


def test_two_ctrl_c_stop_the_sweep_and_still_print_its_table(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=1,5,4,3"], folder)
    wait_for(folder / "1/waiting", job)
    os.killpg(job.pid, signal.SIGINT)
    time.sleep(1)  # the next job waits longer than this
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=100)
    assert job.returncode == 130, err
    assert statuses(folder) == ["finished", "interrupted", "not run", "not run"]
    assert "fracnet: SIGINT: stopping the sweep." in err
    assert "jobs 2, 3 not run: the sweep stopped before this job started" in out
    assert "Traceback" not in err, err


def test_each_job_may_be_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=5", "seed=0,1", "trainer.max_epochs=7"], folder)
    for number in range(2):
        wait_for(folder / str(number) / "waiting", job)
        os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=100)
    assert job.returncode == 1, err
    assert statuses(folder) == ["interrupted", "interrupted"]


def test_sigterm_stops_the_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    job = started([*LIGHT, "optim.lr=5,1"], folder)
    wait_for(folder / "0/waiting", job)
    job.terminate()
    _, err = job.communicate(timeout=100)
    assert job.returncode == 143, err
    assert statuses(folder) == ["interrupted", "not run"]


def test_one_ctrl_c_during_an_import_stops_the_sweep(tmp_path: Path) -> None:
    folder, module = tmp_path / "sweep", tmp_path / "half.py"
    module.write_text(f"import time; open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(100)")
    code = (
        "import sys; from fracnet.config import hydra_cli\nfrom fracnet.training import sweep\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def task(cfg):\n    import half\n"
        "hydra_cli.run(task, 'train', jobs=sweep)\n"
    )
    job = started([sys.executable, "-c", code, "-m", "optim.lr=1,2"], folder)
    wait_for(tmp_path / "begun", job)
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=100)
    assert job.returncode == 130, err
    assert statuses(folder) == ["interrupted", "not run"]


@pytest.mark.slow
def test_a_stopped_training_ends_its_loader_processes_before_the_next_job(
    phantom_overrides: list[str], tmp_path: Path
) -> None:
    more = ["scheduler=none", "logger=none", "callbacks.early_stopping=null"]
    overrides = tiny_overrides(*phantom_overrides, *more, size=40, workers=1, epochs="100000,2")
    folder = tmp_path / "sweep"
    job = started([sys.executable, "-m", "fracnet.train", "-m", *overrides], folder)
    wait_for(folder / "0/checkpoints/last.ckpt", job)
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 1, err
    assert "Traceback" not in err, err
    assert statuses(folder) == ["interrupted", "finished"]
    assert re.search(r"job 0 interrupted: curves and last.ckpt are in .*/0", out)
    provenance = json.loads((folder / "0/provenance.json").read_text())
    assert provenance["status"] == "interrupted"

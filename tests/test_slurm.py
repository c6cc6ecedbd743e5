"""A sweep on a real Slurm of one node; see tests/slurm/start.sh."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.warm import Warm

TESTS = Path(__file__).parent
LIGHT = [sys.executable, str(TESTS / "helpers/forked_sweep.py"), "-m"]
OPTIONS = ["launcher=slurm", "launcher.cpus_per_job=1", "launcher.time=5"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which sbatch reaches it. Its sockets need a short path."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one node needs root")
    folder = Path("/tmp", f"fracnet-slurm-{os.getpid()}")
    script = ["bash", str(TESTS / "slurm/start.sh")]
    begun = subprocess.run([*script, "start", str(folder)], capture_output=True, text=True)
    if begun.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"Slurm does not start here: {begun.stderr[-500:]}")
    yield {"SLURM_CONF": begun.stdout.strip(), "PYTHONPATH": str(TESTS)}
    subprocess.run([*script, "stop", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)  # the daemons may still be writing


def started(jobs: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return Warm(
        [*LIGHT, jobs, *OPTIONS, f"hydra.sweep.dir={folder}"],
        cwd=folder.parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def statuses(folder: Path) -> list[str]:
    return [job["status"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]]


def test_jobs_end_independently(tmp_path: Path, slurm: dict[str, str]) -> None:
    sweep = started("optim.lr=2,4,1,3", tmp_path / "sweep", slurm)
    out, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1, out
    assert statuses(tmp_path / "sweep") == ["failed", "finished", "finished", "failed"], out
    assert "Sweep folder:" in out


def test_a_job_that_slurm_warns_is_saved_and_requeued(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    folder = tmp_path / "sweep"
    sweep = started("optim.lr=7,1", folder, slurm)
    deadline = time.monotonic() + 120
    while not (folder / "0/waiting").exists():
        assert time.monotonic() < deadline
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.2)
    folders = [path for path in (folder / "slurm").glob("*_*") if path.is_dir()]
    (array,) = {path.name.partition("_")[0] for path in folders}
    subprocess.run(["scancel", "--signal=USR2", f"{array}_0"], env=os.environ | slurm, check=True)
    out, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out
    assert statuses(folder) == ["finished", "finished"]
    assert "job 0   interrupted: by SIGTERM" in out

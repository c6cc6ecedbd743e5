"""A search that was killed goes on with the jobs that it would have chosen, and with no others."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
LIGHT = str(TESTS / "helpers/forked_sweep.py")

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="needs fracnet[optuna]")


def done(arguments: list[str], folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def jobs(sweep: Path) -> list[dict[str, Any]]:
    found = json.loads((sweep / "sweep.json").read_text())["jobs"]
    return [{key: job[key] for key in ("job", "overrides", "status", "value")} for job in found]


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    words = ["sweeper=random", "sweeper.n_trials=4", "optim.lr=tag(log, interval(0.1, 1.5))"]
    done([LIGHT, "-m", *words, f"hydra.sweep.dir={sweep}"], tmp_path)
    whole = jobs(sweep)
    assert [job["status"] for job in whole] == ["finished"] * 4
    # As if it had been killed in the third job.
    shutil.rmtree(sweep / "3")
    (sweep / "2/metrics.json").unlink()
    record = json.loads((sweep / "2/job.json").read_text())
    (sweep / "2/job.json").write_text(json.dumps(record | {"status": "interrupted"}))
    kept = (sweep / "0/metrics.json").stat().st_mtime_ns
    done(["-m", "fracnet.sweep", f"resume={sweep}", "trust=true"], tmp_path)
    assert jobs(sweep) == whole
    assert (sweep / "0/metrics.json").stat().st_mtime_ns == kept, "a finished job stays"

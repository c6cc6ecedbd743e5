"""A search that was killed goes on with the jobs that it would have chosen, and with no others."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.command import in_warm_process
from helpers.warm import NESTED

TESTS = Path(__file__).parent
LIGHT = str(TESTS / "helpers/forked_sweep.py")

pytestmark = [
    pytest.mark.skipif(find_spec("optuna") is None, reason="needs fracnet[optuna]"),
    pytest.mark.usefixtures("without_charts"),
]


def done(arguments: list[str], folder: Path, code: int = 0, **environment: str) -> str:
    environment |= {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", NESTED: "1"}
    result = in_warm_process(arguments, folder, **environment)
    assert result.code == code, result.err
    return result.out


def jobs(sweep: Path) -> list[dict[str, Any]]:
    found = json.loads((sweep / "sweep.json").read_text())["jobs"]
    return [{key: job[key] for key in ("job", "overrides", "status", "value")} for job in found]


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    words = ["sweeper=optuna", "sweeper.n_trials=13", "optim.lr=interval(0.1, 1.5)"]
    done([LIGHT, "-m", *words, f"hydra.sweep.dir={sweep}"], tmp_path)
    whole = jobs(sweep)
    assert [job["status"] for job in whole] == ["finished"] * 13
    # As if it had been killed in the last job but one; TPE has learnt from the first ten.
    shutil.rmtree(sweep / "12")
    (sweep / "11/metrics.json").unlink()
    record = json.loads((sweep / "11/job.json").read_text())
    (sweep / "11/job.json").write_text(json.dumps(record | {"status": "interrupted"}))
    kept = (sweep / "0/metrics.json").stat().st_mtime_ns
    again = ["-m", "fracnet.sweep", f"resume={sweep}", "trust=true", "launcher=joblib"]
    done(again, tmp_path)
    assert jobs(sweep) == whole
    assert (sweep / "0/metrics.json").stat().st_mtime_ns == kept, "a finished job stays"


@pytest.mark.slow
def test_jobs_that_failed_run_again_and_the_search_gets_all_its_jobs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    words = ["sweeper=optuna", "sweeper.n_trials=12", "sweeper.seed=2"]
    space = ["optim.lr=choice(0.5,3,1,4)", "optim.weight_decay=interval(0, 1)"]
    done([LIGHT, "-m", *words, *space, f"hydra.sweep.dir={sweep}"], tmp_path, code=1)
    before = jobs(sweep)
    failed = [job["job"] for job in before if job["status"] == "failed"]
    assert failed
    shutil.rmtree(sweep / "11")
    again = ["-m", "fracnet.sweep", f"resume={sweep}", "trust=true", "sweeper.n_trials=13"]
    done(again, tmp_path, QUICK="1")
    after = jobs(sweep)
    assert [job["status"] for job in after] == ["finished"] * 13
    for number in range(11):  # although the new results would lead to other choices
        assert after[number]["overrides"] == before[number]["overrides"]

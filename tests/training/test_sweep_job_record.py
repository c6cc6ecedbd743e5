"""job.json holds the status of a job, also when the job is resumed separately."""

import contextlib
import json
from pathlib import Path

import pytest
from helpers.jobs import add_job

from fracnet.training import resume
from fracnet.utils.errors import Diverged, UserError


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "finished", ""),
        (Diverged("nan"), "diverged", "nan"),
        (UserError("no\nroom"), "failed", "no room"),
        (RuntimeError("a bug"), "failed", "RuntimeError: a bug"),
        (KeyboardInterrupt(), "interrupted", "from the keyboard"),
        (SystemExit(3), "failed", "the process exited with code 3"),
    ],
    ids=repr,
)
def test_the_record_is_updated_when_a_job_is_resumed_separately(
    error: BaseException | None, status: str, reason: str, tmp_path: Path
) -> None:
    add_job(tmp_path, 4, ["optim.lr=1"], status="running")
    record = tmp_path / "4/job.json"
    end = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with end, resume.resumed_job(tmp_path / "4", True) as is_job:
        assert is_job
        assert json.loads(record.read_text())["status"] == "running"
        if error:
            raise error
    assert json.loads(record.read_text()) == {
        "job": 4,
        "overrides": ["optim.lr=1"],
        "status": status,
        "reason": reason,
    }


def test_the_record_holds_what_the_resume_changes(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1", "trainer.max_epochs=9", "seed=2"], status="running")
    overrides = ["resume=somewhere", "trust=true", "trainer.max_epochs=5"]
    with resume.resumed_job(tmp_path / "0", True, overrides):
        pass
    record = json.loads((tmp_path / "0/job.json").read_text())
    assert record["overrides"] == ["optim.lr=1", "trainer.max_epochs=5", "seed=2"]


def test_a_run_that_is_not_a_job_gets_no_record(tmp_path: Path) -> None:
    with resume.resumed_job(tmp_path, True) as is_job:
        assert not is_job
    assert not list(tmp_path.iterdir())

"""A sweep's folder from somebody else runs none of its programs, and nothing outside of it changes.

Each case is refused before a job starts.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import run_train
from helpers.run_files import two_class_table, write_run
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.fields import resolved
from fracnet.config.trust import upload_seal
from fracnet.runs.run_folder import RunFolder, check_entries
from fracnet.sweep import main, show
from fracnet.training import job_process, loggers
from fracnet.training.job_process import empty, objective, supervise
from fracnet.training.launchers import needs_trust
from fracnet.training.resume import check_new_job
from fracnet.training.sweep import _search_again
from fracnet.training.sweep_plan import (
    JobRecord,
    SweepPlan,
    code_hash,
    job_folders,
    risky_overrides,
    stop_level,
)
from fracnet.utils.errors import UserError
from fracnet.utils.files import CannotWrite, append_to, config_dir

JOB = ["model=custom_cnn", "data=upper_limb_phantom", "trainer.max_epochs=1", "logger=none"]
THEIRS = ["logger.wandb.mode=online", "logger.wandb.entity=them"]
SLURM = {
    "name": "slurm", "partition": None, "time": 1, "memory": None, "cpus_per_job": 1,
    "gpus_per_job": 0, "array": 1, "requeue": 0, "options": {},
}  # fmt: skip
RAY = {"name": "ray", "cpus_per_job": 1, "gpus_per_job": 0, "address": "local"}


def write_plan(sweep: Path, **changes: Any) -> Path:
    """A sweep of one job that has not started, with changes to its plan."""
    content = {
        "program": ["-m", "fracnet.train"], "options": [], "folder": str(Path.cwd()),
        "code": code_hash(), "launcher": {"name": "serial"}, "sweeper": "x", "jobs": [JOB],
        "epochs": [1], "process": {},
    } | changes  # fmt: skip
    sweep.mkdir(exist_ok=True)
    (sweep / "plan.json").write_text(json.dumps(content))
    return sweep


def compose_plain() -> dict[str, Any]:
    """The resolved config of a small training."""
    with initialize_config_dir(str(config_dir())):
        return resolved(compose("train", ["data=upper_limb_phantom", "logger=wandb"]))


def refusal(*words: str) -> None:
    """Run a `fracnet.sweep` that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fracnet.sweep", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jobs": [["resume=/theirs", "trust=true"]]}, "resume=/theirs trust=true), which could"),
        ({"jobs": [[*JOB, "model.name=${oc.env:OMP_NUM_THREADS,a}"]]}, "which could run any code"),
        (
            {"jobs": [[*JOB, "experiment=../../theirs/evil"]]},
            "=../../theirs/evil), which",
        ),
        ({"jobs": [[*JOB, "+data=[upper_limb_phantom,'../x']"]]}, "which could run any code"),
        ({"jobs": [[*JOB, "--config-dir=/theirs"]]}, "--config-dir=/theirs), which could"),
        (
            {"jobs": [[*JOB, "model@_global_.hydra.launcher=custom_cnn"]]},
            "which could run any code",
        ),
        ({"jobs": [[*JOB, "model._target_=os.mkdir"]]}, "os.mkdir would be called"),
        ({"jobs": [[*JOB, "logger=wandb", *THEIRS]]}, "(them/your project)"),
        ({"program": ["-c", "import theirs"]}, "-c import theirs"),
        ({"folder": "/theirs"}, "runs its jobs in /theirs"),
        ({"launcher": RAY | {"address": "ray://theirs:1"}}, "launcher.address=ray://theirs:1"),
        ({"launcher": SLURM | {"options": {"wrap": "x"}}}, "launcher.options={wrap: x}"),
        (
            {"launcher": SLURM | {"options": {"wrap": "x"}, "time": 7}},
            "launcher=slurm launcher.partition=null launcher.time=7 ",
        ),
        ({"launcher": SLURM | {"options": {"account": "x\nrm"}}}, "launcher.options={account:"),
        ({"launcher": SLURM | {"partition": "x\nrm"}}, "launcher.partition="),
        ({"launcher": {"name": "theirs"}}, "launcher.name=theirs"),
        ({"launcher": {"name": "serial", "setup": "x"}}, "launcher.setup"),
        ({"jobs": [[1]]}, "plan.json cannot be read"),
        ({"epochs": "x"}, "plan.json cannot be read"),
        ({"epochs": []}, "plan.json is damaged: it has 0 numbers of epochs for 1 job."),
    ],
)
def test_a_plan_that_could_run_any_code_needs_trust(
    changes: dict[str, Any], reason: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep", **changes)
    refusal(f"resume={sweep}")
    assert reason in capsys.readouterr().err
    assert not list(sweep.glob("*/"))


@pytest.mark.parametrize(
    "task",
    [
        ["--config-dir=/theirs"],
        ["resume=/theirs", "trust=true"],
        ["+model.x={_target_: os.mkdir}"],
        ["hydra.sweeper.storage=x"],
        ["experiment=choice(../../theirs/evil,fast)"],
    ],
)
def test_a_search_that_could_run_any_code_needs_trust(
    task: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep", jobs=[])
    record = {"hydra": {"overrides": {"task": ["sweeper=random", *task], "hydra": []}}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(record))
    refusal(f"resume={sweep}")
    assert "which could run any code" in capsys.readouterr().err


@pytest.mark.parametrize("trust", [False, None])
def test_a_job_that_a_search_chooses_passes_the_same_gate(
    trust: bool | None,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In its own process, which alone composes its config."""
    sweep = write_plan(place / "sweep", jobs=[])
    environment: dict[str, str] = {}
    monkeypatch.setattr(job_process, "_wait", lambda *_: (0, None))
    monkeypatch.setattr(job_process, "_end", lambda _: None)
    monkeypatch.setattr(
        job_process.subprocess, "Popen", lambda *_, env, **__: environment.update(env)
    )
    supervise(sweep, sweep / "0", 0, JOB, trust=trust)
    for name in (job_process.CHECK_VARIABLE, job_process.SWEEP_VARIABLE):
        monkeypatch.setenv(name, environment.get(name, ""))
    words = ["data=upper_limb_phantom", "model=resnet18", "model.name=hf-hub:theirs/net"]
    # What comes after the gate.
    words = [*words, "+trainer.nothing=1", f"hydra.run.dir={place / 'new'}"]
    reason = "hf-hub:theirs/net names a file or" if trust is False else "trainer.nothing=1"
    assert reason in run_train(words, capsys).err


def test_a_search_cannot_choose_what_a_plan_may_not_have(place: Path) -> None:
    """The words of its record are no overrides of a job yet."""
    sweep = write_plan(place / "sweep", jobs=[])
    resumed = OmegaConf.create({"resumed": {"sweep": str(sweep), "trust": False}})
    chosen = {"job": {"num": 0}, "overrides": {"task": [*JOB, "experiment=../../theirs/evil"]}}
    with pytest.raises(UserError, match="job 0 has experiment="):
        _search_again(resumed, OmegaConf.create(chosen))


def test_what_a_sweep_of_one_s_own_writes_is_not_risky() -> None:
    usual = ["seed=1", "model=custom_cnn", "+augment.x={a: [1, 'b c']}", "~scheduler", "data/x=y"]
    assert risky_overrides([*usual, "optim.lr=tag(log, interval(1e-5, 1e-2))"]) == []


def test_options_of_sbatch_that_choose_machines_need_no_trust() -> None:
    options = {"account": "mine", "qos": 1, "nodelist": "n01,n02", "exclude": "n+3"}
    assert needs_trust(SLURM | {"options": options, "partition": "gpu:a+b"}) == ""


@pytest.mark.parametrize("overrides", [{"task": "sweeper=random"}, {"task": [1]}, [1]])
def test_a_damaged_record_of_a_search_is_one_sentence(
    overrides: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep", jobs=[])
    for record in ({"hydra": {"overrides": overrides}}, {"hydra": [1]}):
        (sweep / "multirun.yaml").write_text(yaml.safe_dump(record))
        refusal(f"resume={sweep}")
        assert "multirun.yaml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("metrics", [{"objective": [1]}, {"objectives": [{"value": "x"}]}])
def test_damaged_metrics_of_a_job_are_one_sentence(metrics: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="each objective must hold a number"):
        objective(tmp_path)


@pytest.mark.parametrize("name", ["resumed/multirun.yaml", "pruning.journal", "0/train.log"])
def test_nothing_is_appended_through_a_link_to_a_file(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep")
    (place / "theirs").write_text("x")
    (sweep / name).parent.mkdir(exist_ok=True)
    (sweep / name).symlink_to(place / "theirs")
    refusal(f"resume={sweep}")
    assert f"{name} is a symbolic link to" in capsys.readouterr().err
    assert (place / "theirs").read_text() == "x"


def test_a_sweep_with_linked_checkpoints_is_shown_and_w_and_b_s_link_is_no_fault(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep", epochs=[1])
    write_run(sweep / "0", two_class_table(4, 4))
    JobRecord(sweep / "0", {"job": 0, "overrides": JOB}).write("finished")
    logs = sweep / "0/wandb/run-1/logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(place / "core.log")
    check_entries(sweep, "resume")
    shutil.rmtree(sweep / "0/checkpoints", ignore_errors=True)
    (place / "scratch").mkdir()
    (sweep / "0/checkpoints").symlink_to(place / "scratch")
    show(sweep)
    assert "job" in capsys.readouterr().out
    refusal(f"resume={sweep}")
    assert "0/checkpoints is a symbolic link to" in capsys.readouterr().err


def test_an_online_sweep_of_one_s_own_that_stopped_in_its_first_job_resumes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shows that its user lets it upload outlasts the job's broken start."""
    sweep = write_plan(place / "sweep")
    job = sweep / "a=1/0"  # folders may be nested
    job.mkdir(parents=True)
    seal = upload_seal("x", "me", None)
    (job / "tracking.json").write_text(json.dumps({"id": "x", "seal": seal}))
    (job / "metrics.csv").touch()
    JobRecord(job, {"job": 0, "overrides": JOB}).write("interrupted")
    plain = compose_plain()
    plain["logger"]["wandb"] |= {"mode": "online", "entity": "me"}
    monkeypatch.setattr(job_process, "_run", lambda *_: (1, None))
    supervise(sweep, job, 0, JOB, trust=False)
    assert not (job / "metrics.csv").exists()
    check_new_job(sweep, plain, "job 0")
    plain["logger"]["wandb"]["entity"] = "them"
    with pytest.raises(UserError, match="would send its results"):
        check_new_job(sweep, plain, "job 0")


@pytest.mark.parametrize(("trust", "sent"), [(False, ["1"]), (True, ["0", "1"])])
def test_w_and_b_gets_means_only_for_jobs_that_were_sent_from_here(
    trust: bool, sent: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = compose_plain()
    plain["logger"]["wandb"] |= {"mode": "online", "entity": "me"}
    logged = []

    class Recorder:
        def __init__(self, config: Any, plain: Any, folder: RunFolder) -> None:
            self.folder = folder

        def log_again(self, values: Any) -> None:
            logged.append(self.folder.path.name)

    monkeypatch.setattr(loggers, "RunLoggers", Recorder)
    for name, seal in (("0", "theirs"), ("1", upload_seal("x", "me", None))):
        (place / name).mkdir()
        (place / name / "config.yaml").write_text(yaml.safe_dump(plain))
        (place / name / "tracking.json").write_text(json.dumps({"id": "x", "seal": seal}))
    jobs = [{"job": n, "folder": str(n), "val": {"auc": {"value": 0.5}}} for n in (0, 1)]
    content = {"jobs": jobs, "configurations": [{"jobs": [0, 1]}], "show_test": "best"}
    loggers.log_repeats(place, content, trust)
    assert logged == sent


def test_nothing_outside_of_a_sweep_is_emptied_or_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep")
    (place / "precious").mkdir()
    (place / "precious/thesis.tex").touch()
    (sweep / "0").symlink_to(place / "precious")
    refusal(f"resume={sweep}")
    assert "0 is a symbolic link to" in capsys.readouterr().err
    assert (place / "precious/thesis.tex").exists()

    (sweep / "0").unlink()
    (sweep / "0").mkdir()
    (place / "profile").touch()
    (sweep / "0/job.log").symlink_to(place / "profile")
    (sweep / "0/checkpoints").mkdir()
    (sweep / "0/checkpoints/last.ckpt").touch()  # otherwise the folder is emptied
    with pytest.raises(CannotWrite, match=r"job\.log"):
        supervise(sweep, sweep / "0", 0, JOB)
    assert not (place / "profile").read_bytes()
    empty(sweep / "0")
    assert not list((sweep / "0").iterdir())
    assert (place / "profile").exists()


@pytest.mark.parametrize("kind", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", ["0/job.json", "plan.json", "stop", "0/job.log", "0/metrics.csv"])
def test_a_pipe_or_device_in_place_of_a_file_is_not_waited_for(
    name: str, kind: Callable[[Path], None], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_plan(place / "sweep")
    write_run(sweep / "1", two_class_table(4, 4))
    (sweep / "1/job.json").write_text(json.dumps({"job": 1, "status": "finished"}))
    (sweep / "0").mkdir()
    (sweep / name).unlink(missing_ok=True)
    kind(sweep / name)
    refusal(f"resume={sweep}")
    assert "is a named pipe, a socket or a device" in capsys.readouterr().err
    assert stop_level(sweep) == 0
    assert set(job_folders(sweep)) == {1}
    refusal(str(sweep))
    assert "is a named pipe, a socket or a device" in capsys.readouterr().err


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotWrite):
        append_to(tmp_path / "pipe")


def test_a_plan_nested_without_end_is_one_sentence(place: Path) -> None:
    sweep = write_plan(place / "sweep")
    (sweep / "plan.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        SweepPlan.read(sweep)

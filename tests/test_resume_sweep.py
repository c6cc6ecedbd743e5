"""A sweep that was killed and resumed equals one that was never stopped; it can be extended."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import NESTED, Warm

from fracnet.sweep import main

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parent
HOLD = """
import sys, time
from pathlib import Path
from fracnet.utils.processes import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(100)
"""
KILLS = int(os.environ.get("FRACNET_TEST_KILLS", "1"))
"""How often the slow test kills a sweep."""
MOMENTS = [
    "plan.json", "0/job.json", "0/metrics.csv", "0/metrics.json", "0/report/index.html",
    "1/checkpoints/last.ckpt", "1/job.json", "1/metrics.json",
]  # fmt: skip
"""The file after which it does so, within a second."""


def command(arguments: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A command in its own process group, as a shell starts it."""
    return Warm(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", NESTED: "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def done(arguments: list[str], folder: Path, code: int = 0, **environment: str) -> str:
    process = command(arguments, folder, **environment)
    out, _ = process.communicate(timeout=500)
    assert process.returncode == code, out
    return out


def numbers(sweep: Path) -> dict[str, bytes]:
    """What the jobs have computed: predictions and metrics of each, without times."""
    names = ("predictions.csv", "metrics.json", "decisions.json")
    files = {
        f"{n}/{name}": (sweep / str(n) / name).read_bytes() for n in range(2) for name in names
    }
    table = json.loads((sweep / "sweep.json").read_text())
    chosen = {key: table[key] for key in ("best", "ties", "objective", "swept")}
    return files | {"table": json.dumps(chosen).encode()}


def resume(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The error of a `fracnet.sweep` that is refused."""
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("", "name one sweep: python -m fracnet.sweep runs/sweep_..."),
        ("runs/a resume=runs/a", "given: runs/a and resume=runs/a."),
        ("resume = runs/a", "'=' has no key and no value; write key=value without spaces."),
        ("=runs/a", "'=runs/a' has no key; write key=value without spaces."),
        ("resume=", "'resume=' has no value; write key=value without spaces."),
        ("resume=runs/a optim.lr=1", "There is no key 'optim.lr'; allowed: "),
        ("runs/a show_tests=all", "Did you mean 'show_test'?"),
        ("runs/a show_test=test", "show_test=test is not allowed; allowed: best, all."),
        ("runs/a --show-test all", "without dashes. Did you mean 'show_test'?"),
        ("resume=runs/a show_test=all", "not possible with resume="),
        ("resume=runs/a trust=yes", "trust=yes is not allowed; allowed: true, false."),
        ("runs/a add=optim.lr=1", "add= needs resume=: python -m fracnet.sweep resume=runs/a"),
        ("runs/a --dry-run", "--dry-run needs resume="),
        ("runs/a", "is not a sweep folder"),
        ("resume=runs/a", "is a run folder; resume the run with: python -m fracnet.train resume="),
    ],
)
def test_mistakes_name_what_is_allowed(
    typed: str,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/config.yaml").touch()
    assert answer in resume(typed.split(), monkeypatch, capsys)


def test_its_version_is_that_of_the_other_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", "--version"])
    main()
    of_sweep = capsys.readouterr().out
    assert of_sweep.startswith("fracnet ")
    assert run_train(["--version"], capsys).out == of_sweep


@pytest.mark.slow
def test_a_killed_sweep_is_finished_and_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, plan = tmp_path / "sweep", tmp_path / "sweep/plan.json"
    light = [str(TESTS / "helpers/forked_sweep.py"), "-m", "optim.lr=1,5", "seed=0"]
    process = command([*light, f"hydra.sweep.dir={sweep}"], tmp_path)
    while not (sweep / "1/waiting").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = (sweep / "0/metrics.json").stat().st_mtime_ns
    words = [f"resume={sweep}", "trust=true"]

    assert "trust=true" in resume(words[:1], monkeypatch, capsys)
    assert "There is no key" in resume([*words, "add=optim.lrr=1"], monkeypatch, capsys)
    assert "no such folder" in resume(["resume=nowhere"], monkeypatch, capsys)
    assert "has no plan.json" in resume([f"resume={tmp_path}"], monkeypatch, capsys)
    text = plan.read_text()
    plan.write_text(text.replace(json.loads(text)["code"], "0.1.0 before"))
    assert "changed_code=true" in resume(words, monkeypatch, capsys)
    plan.write_text(text)
    holder = command(["-c", HOLD, str(sweep / ".sweep.lock")], tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    error = resume(words, monkeypatch, capsys)
    assert "is in use by another fracnet process" in error
    assert error.count("\n") == 1
    holder.kill()
    holder.communicate()

    out = done(["-m", "fracnet.sweep", *words], tmp_path, QUICK="1")
    assert "job 1   finished" in out
    added = ["add=optim.lr=1,4", "add=seed=0,2"]
    out = done(["-m", "fracnet.sweep", *words, *added], tmp_path, QUICK="1")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [(job["overrides"]["optim.lr"], job["overrides"]["seed"]) for job in jobs] == [
        ("1", "0"), ("5", "0"), ("1", "2"), ("5", "2"), ("4", "0"), ("4", "2"),
    ]  # fmt: skip
    assert {job["status"] for job in jobs} == {"finished"}
    assert (sweep / "0/metrics.json").stat().st_mtime_ns == finished, "it has not run again"
    assert not (sweep / "resumed").exists()

    (sweep / "sweep.json").unlink()  # as if killed after the last job, before the table
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", *words])
    main()
    assert "are done" in capsys.readouterr().out
    assert json.loads((sweep / "sweep.json").read_text())["jobs"] == jobs


@pytest.fixture(scope="module")
def training(phantom_overrides: list[str]) -> list[str]:
    overrides = tiny_overrides(*phantom_overrides, "scheduler=none", "logger=none", size=40)
    jobs = [
        "trainer.max_epochs=3",
        "optim.lr=1e-2,2e-2",
        "callbacks.early_stopping.patience=1",
    ]
    return ["-m", "fracnet.train", "-m", *overrides, *jobs]


@pytest.mark.slow
def test_a_sweep_killed_at_any_moment_ends_as_if_it_had_not(
    training: list[str], tmp_path: Path
) -> None:
    # Jobs in processes of their own have one thread as well.
    done([*training, f"hydra.sweep.dir={tmp_path / 'whole'}"], tmp_path, OMP_NUM_THREADS="1")
    whole = numbers(tmp_path / "whole")
    moments = random.Random(os.environ.get("FRACNET_TEST_SEED", "0"))
    for _ in range(KILLS):
        sweep = tmp_path / "killed"
        process = command([*training, "launcher=joblib", f"hydra.sweep.dir={sweep}"], tmp_path)
        # Before its plan is written there is no sweep that could be resumed.
        after = moments.choice(MOMENTS)
        while not (sweep / after).is_file():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        before = {n: job_status(sweep, n) for n in range(2)}
        launcher = moments.choice(["joblib", "serial"])
        resume = [f"resume={sweep}", f"launcher={launcher}", "trust=true"]
        out = done(["-m", "fracnet.sweep", *resume], tmp_path)
        print(f"killed after {after}: {before}, resumed with {launcher}", flush=True)
        assert numbers(sweep) == whole, out
        shutil.rmtree(sweep)


def job_status(sweep: Path, number: int) -> str | None:
    path = sweep / str(number) / "job.json"
    saved = (path.parent / "checkpoints/last.ckpt").is_file()
    status = json.loads(path.read_text())["status"] if path.is_file() else None
    return f"{status}{', checkpoint' if saved else ''}"

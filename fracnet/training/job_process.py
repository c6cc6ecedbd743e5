"""One job of a sweep as a process of its own, started and watched wherever the launcher puts it.

A launcher's worker only waits here. Whatever ends the job, memory or a signal, leaves the worker
alive, so the launcher goes on with the next job. What the job prints goes to job.log in its folder.
"""

import ctypes
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fracnet.training.sweep_plan import (
    JOB_FILE,
    STOP_FILE,
    JobRecord,
    SweepPlan,
    read_record,
    stop_level,
)
from fracnet.utils import processes
from fracnet.utils.errors import UserError
from fracnet.utils.files import append_to
from fracnet.utils.result_files import TRACKING

SWEEP_VARIABLE = "FRACNET_SWEEP"
"""Set in the process of a job: the folder of its sweep."""
CHECK_VARIABLE = "FRACNET_SWEEP_CHECK"
"""Set where a stranger may have planned the job."""
PARENT_VARIABLE = "FRACNET_SWEEP_PARENT"
"""Process id of the worker that started the job."""
LOG = "job.log"
SCORED = ("finished", "pruned")
"""How a job ends that gives its sweeper a metric."""
GRACE_SECONDS = 600.0
"""From a request to stop until the job is killed: an epoch's validation may have to end."""


def supervise(
    sweep: Path, folder: Path, number: int, overrides: Sequence[str], *, trust: bool | None = None
) -> Any:
    """Run one job to its end in a process of its own; how it ended is in its job.json.

    A job with a checkpoint is resumed, one that is finished is left alone. trust: False where a
    stranger may have planned it, so that its process checks what it is to do; None for a new sweep.
    Returns its objective, NaN if it has none.
    """
    record = JobRecord(folder, {"job": number, "overrides": list(overrides)})
    if read_record(folder / JOB_FILE).get("status") in SCORED:
        return objective(folder)
    if stop_level(sweep):
        record.write("not run", "the sweep stopped before this job started")
        return math.nan
    plan = SweepPlan.read(sweep)
    if (folder / "checkpoints/last.ckpt").is_file():
        arguments = [f"resume={folder}", *(["trust=true"] if trust else [])]
    else:
        empty(folder, (LOG, TRACKING))  # where its user lets it upload
        arguments = [*overrides, f"hydra.run.dir={folder}"]
    record.write("running")
    command = [sys.executable, *plan.program, *plan.options, *arguments]
    check = {CHECK_VARIABLE: "1"} if trust is False else {}
    code, stopped = _run(command, plan, sweep, folder, check)
    if (now := read_record(folder / JOB_FILE)).get("status") == "running":
        record.write(*_unrecorded_end(code, stopped))
    return objective(folder) if now.get("status") in SCORED else math.nan


def obey_parent() -> None:
    """In the process of a job: hear its worker's signals, and be killed when it dies (on Linux)."""
    parent = os.environ.pop(PARENT_VARIABLE, None)  # those that it starts have another parent
    if parent is None:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):  # it was quicker
        os._exit(1)
    # The worker ignores Ctrl-C and has sent it on; a job must hear that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)


def empty(folder: Path, keep: Sequence[str] = (LOG,)) -> None:
    """Remove what a run without a checkpoint has left in its folder. keep: files that stay."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in keep or path.is_symlink():
            path.unlink()


def objective(folder: Path) -> Any:
    """What a job returned to its sweeper: a metric or, of several objectives, a list of them.

    That of a pruned job is the best that it reached. NaN without one.
    """
    if (record := read_record(folder / JOB_FILE)).get("status") == "pruned":
        return record.get("value", math.nan)
    metrics = read_record(folder / "metrics.json")
    entries = metrics.get("objectives") or [metrics.get("objective") or {}]
    try:
        values = [math.nan if e.get("value") is None else float(e["value"]) for e in entries]
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'metrics.json'} cannot be read: each objective must hold a number."
        ) from error
    return values if len(values) > 1 else values[0]


def _run(
    command: Sequence[str], plan: SweepPlan, sweep: Path, folder: Path, check: dict[str, str]
) -> tuple[int, str | None]:
    """Exit code of the process, and why it was asked to stop if it was.

    check: further variables of its environment.
    """
    # Without this Lightning would take the task of Slurm for its own.
    own = {name: value for name, value in os.environ.items() if name != "SLURM_NTASKS"}
    environment = own | check | {SWEEP_VARIABLE: str(sweep), PARENT_VARIABLE: str(os.getpid())}
    threads = plan.launcher.get("cpus_per_job")
    if threads:  # the numbers of a training on CPUs depend on it
        environment["OMP_NUM_THREADS"] = str(max(1, int(threads)))
    with os.fdopen(append_to(folder / LOG), "ab") as log, _preemption() as received:
        child = subprocess.Popen(
            command,
            cwd=plan.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # the terminal's Ctrl-C reaches the sweep, which decides
        )
        try:
            return _wait(child, plan, sweep, received)
        finally:
            _end(child)


def _wait(
    child: subprocess.Popen[bytes], plan: SweepPlan, sweep: Path, received: Sequence[signal.Signals]
) -> tuple[int, str | None]:
    reason: str | None = None
    deadline = math.inf
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.2), reason
        level = stop_level(sweep) if (sweep / STOP_FILE).exists() else 0
        if reason is None:
            orphan = plan.launcher.get("name") != "slurm" and processes.is_gone(plan.process)
            reason = (
                (f"by {received[-1].name}" if received else None)
                or ("by Ctrl-C" if level else None)
                or ("the sweep's own process died" if orphan else None)
            )
            if reason is not None:
                # Ctrl-C ends at the last checkpoint; the others leave time to write one.
                child.send_signal(signal.SIGINT if level else signal.SIGTERM)
                deadline = time.monotonic() + GRACE_SECONDS
        if level > 1 or time.monotonic() > deadline:
            child.kill()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no job behind where the launcher itself ends its worker."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _unrecorded_end(code: int, stopped: str | None) -> tuple[str, str]:
    """Status and reason of a job whose process could not record them itself."""
    if stopped is not None:
        return "interrupted", stopped
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (usually: out of memory)" if -code == signal.SIGKILL else ""
        return "failed", f"the process was ended by {name}{memory}; see {LOG}"
    return "failed", f"the process exited with code {code}; see {LOG}"


@contextmanager
def _preemption() -> Iterator[list[signal.Signals]]:
    """The signals, as they come, by which a cluster takes the worker's machine away.

    The job stops first; then the signal is obeyed.
    """
    received: list[signal.Signals] = []
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {
        number: signal.signal(number, lambda number, _: received.append(signal.Signals(number)))
        for number in (numbers if os.environ.get("SLURM_JOB_ID") and main else ())
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        earlier = before.get(received[-1]) if received else None
        if callable(earlier):
            earlier(received[-1], None)  # submitit's own: it asks for the requeue

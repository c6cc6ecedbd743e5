"""The jobs of one `-m` command: each ends in its own way, and the others continue.

How a job ended is written into its folder (job.json), whichever process it ran in. The final table
is made from the folders alone, so `fracnet.sweep` can make it again at any time.

While jobs run one after the other, the first Ctrl-C stops the running job alone. The next job waits
a few seconds, in which a second Ctrl-C stops the sweep. SIGTERM stops everything. Imports nothing
heavy.
"""

import gc
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fracnet.config.hydra_cli import output_dir, reader_is_gone
from fracnet.config.schema import check
from fracnet.utils import processes
from fracnet.utils.errors import Diverged, Interrupted, UserError
from fracnet.utils.files import explain_disk_fault, write_atomically

PAUSE_SECONDS = 3.0
"""From a Ctrl-C to the start of the next job, at least."""
STOPPING_JOB = (
    f"Stopping this job; press Ctrl-C again within {PAUSE_SECONDS:g} s to stop the sweep."
)
STOPPING_WHILE_IMPORTING = "Stopping the sweep: an interrupted import cannot be repeated."
JOB_FILE = "job.json"
MULTIRUN_FILE = "multirun.yaml"
"""Hydra's own record of a sweep, in its folder."""

log = logging.getLogger(__name__)


class StopSignals:
    """Handles signals in the process that runs the jobs, from the first job to the table.

    ended: the signal that stopped the sweep, or None.
    """

    def __init__(self) -> None:
        self.ended: signal.Signals | None = None
        self._pressed: float | None = None  # time of a Ctrl-C, until the next job starts
        self._running = False
        self._process = 0
        self._before: dict[signal.Signals, Any] = {}

    def start_job(self) -> bool:
        """Whether the next job may start; returns after a pause if the last was interrupted."""
        self._process = os.getpid()
        self._listen()
        resume_at = (self._pressed or -PAUSE_SECONDS) + PAUSE_SECONDS
        while not self.ended and time.monotonic() < resume_at:
            time.sleep(0.05)
            resume_at = (self._pressed or -PAUSE_SECONDS) + PAUSE_SECONDS
        if self.ended:
            return False
        self._pressed, self._running = None, True
        return True

    def end_job(self) -> None:
        """The job has ended."""
        self._running = False

    def restore(self) -> None:
        """Put the handlers of before back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _listen(self) -> None:
        """For each job again, because libraries set handlers and do not restore them.

        Ignored signals stay ignored (nohup, a shell's background job). A thread cannot set
        handlers; then its starter handles signals.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            now = signal.getsignal(number)
            if number not in self._before and now is not signal.SIG_IGN:
                self._before[number] = now
            if number in self._before:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if os.getpid() != self._process:  # a fork of the job, such as a loader's worker
            if received == signal.SIGTERM:  # Ctrl-C reaches them all, and the job ends its own
                signal.signal(received, signal.SIG_DFL)
                os.kill(os.getpid(), received)
            return
        first = self._pressed is None and self._running
        importing = first and _is_importing(frame)
        if received == signal.SIGTERM or importing or not first:
            repeated = self.ended is not None
            self.ended = self.ended or received
            if not repeated:
                stopping = f"{received.name}: stopping the sweep."
                _write(STOPPING_WHILE_IMPORTING if importing else stopping)
            if first or repeated:  # otherwise the job is already ending, and may finish that
                self._pressed = self._pressed or time.monotonic()
                raise Interrupted(f"by {received.name}")
            return
        self._pressed = time.monotonic()
        _write(STOPPING_JOB)
        # Not KeyboardInterrupt: Lightning then ignores all further ones.
        raise Interrupted("by Ctrl-C")


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is half imported: importing it again in this process may fail."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _write(sentence: str) -> None:
    """Write to stderr without print, which the signal may have interrupted."""
    os.write(2, f"\nfracnet: {sentence}\n".encode())


@dataclass
class SweepState:
    """The sweep of this process; without a folder there is none."""

    folder: Path | None = None
    show_test: str = "best"
    stops: StopSignals = field(default_factory=StopSignals)


state = SweepState()


def running() -> bool:
    """Whether the current Hydra job belongs to a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def check_run(config: Any, in_sweep: bool) -> None:
    """Raise UserError for options that need a single run, or a sweep.

    config: composed or checked; only its keys trainer, resume and sweep are read.
    """
    if config.sweep and not in_sweep:
        raise UserError(
            f"sweep={config.sweep} has several jobs; start it with -m: "
            f"python -m fracnet.train -m sweep={config.sweep} ..."
        )
    if in_sweep and config.resume:
        raise UserError(
            f"resume={config.resume} resumes one run: start it without -m, once for each "
            "interrupted job of a sweep."
        )
    devices = config.trainer.devices
    if in_sweep and devices != 1 and (isinstance(devices, int | str) or len(devices) > 1):
        raise UserError(
            f"trainer.devices={devices} is not possible with -m: each process of a run starts the "
            "whole command, and so the whole sweep. Give each job one device, trainer.devices=1 "
            "(a Hydra launcher that runs each job in its own process can use several devices at "
            "once), or start the runs one by one, without -m."
        )


def check_resumable(folder: Path) -> None:
    """Raise UserError where there is no run to resume; answers before the heavy imports."""
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"resume={folder} is not a run folder: it has no config.yaml; allowed: a folder that "
            "fracnet.train printed as its run."
        )


def check_all_values(config: DictConfig) -> None:
    """Raise UserError for a swept value that no job may have, before the first job starts.

    Each value is checked with the first values of the other keys. Values that a sweeper samples
    are checked by their jobs.
    """
    params = (config.hydra.sweeper.get("params") or {}).items()
    texts = [*(f"{key}={value}" for key, value in params), *config.hydra.overrides.task]
    try:
        swept: dict[str, list[str]] = {}
        base: dict[str, str] = {}
        for override in OverridesParser.create().parse_overrides(texts):
            text = str(override.input_line)
            key = text.partition("=")[0]
            if override.is_choice_sweep() or override.is_range_sweep():
                swept[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
                base[key] = swept[key][0]
            elif not override.is_sweep_override():
                base[key] = text
        for key, choices in swept.items():
            for choice in choices:
                job = compose(str(config.hydra.job.config_name), [*(base | {key: choice}).values()])
                check(cast(dict[str, Any], OmegaConf.to_container(job, resolve=True)))
    except (HydraException, OmegaConfBaseException):
        return  # Hydra reports these itself, with the command line at hand


class SweepCallback(Callback):
    """Called by Hydra before the first job of a sweep, which it can reject as a whole."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder. Hydra swallows exceptions here, so an error ends the process."""
        folder = Path(str(config.hydra.sweep.dir)).resolve()
        try:
            check_run(config, in_sweep=True)
            if any(folder.rglob(JOB_FILE)):
                raise UserError(
                    f"hydra.sweep.dir={folder} holds the jobs of an earlier sweep; allowed: a "
                    "new folder for each sweep."
                )
            check_all_values(config)
        except UserError as error:
            print(f"fracnet: error: {error}", file=sys.stderr)
            sys.exit(1)
        state.folder, state.show_test = folder, str(config.get("show_test", "best"))


def run_job(task: Callable[[DictConfig], Any], cfg: DictConfig, traceback: bool) -> float:
    """Run one job; record how it ends, print an error in one line and do not raise it.

    traceback: show one for a UserError too.

    Returns:
        What `task` returns, NaN if it failed.
    """
    job = HydraConfig.get()
    folder, number = output_dir(), int(job.job.num)
    record = JobRecord(folder, {"job": number, "overrides": list(job.overrides.task)})
    value = math.nan
    try:
        if not state.stops.start_job():
            record.write("not run", "the sweep stopped before this job started")
            return value
        record.write("running")
        value = float(task(cfg))
        record.write("finished")
    except BaseException as error:
        state.stops.end_job()
        status, reason = outcome(error)
        record.write(status, reason)
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            raise  # no further job could print anything
        if _is_bug(error) or (traceback and isinstance(error, Exception)):
            log.exception("job %d %s", number, status)
        print(f"fracnet: job {number} {status}: {reason}", file=sys.stderr, flush=True)
    finally:
        state.stops.end_job()
        gc.collect()  # free the job's workers and device memory for the next job
    return value


@dataclass(frozen=True)
class JobRecord:
    """job.json: the state of a job of a sweep, whichever process runs it."""

    folder: Path
    content: Mapping[str, Any]

    def write(self, status: str, reason: str = "") -> None:
        """Write the current status."""
        content = {**self.content, "status": status, "reason": one_line(reason)}
        if status == "running":
            content["process"] = processes.this_process()
        write_atomically(self.folder / JOB_FILE, json.dumps(content, indent=2) + "\n")


@contextmanager
def resumed_job(folder: Path, resumed: bool, overrides: Sequence[str] = ()) -> Iterator[bool]:
    """Keep job.json up to date while one job of a sweep is resumed; yields whether it is one.

    overrides: those of the command, which replace the job's own.
    """
    path = folder / JOB_FILE
    if not resumed or not path.is_file():
        yield False
        return
    from fracnet.runs.run_folder import read_mapping  # pandas, for which --help must not wait

    content = read_mapping(path)
    given = [o for o in overrides if not o.startswith(("resume=", "trust=", "hydra."))]
    own = [str(override) for override in content.get("overrides") or ()]
    by_key = {o.lstrip("+~").partition("=")[0]: o for o in [*own, *given]}
    record = JobRecord(folder, content | {"overrides": list(by_key.values())})
    record.write("running")
    try:
        yield True
    except BaseException as error:
        record.write(*outcome(error))
        raise
    record.write("finished")
    parents = (parent for parent in folder.parents if (parent / MULTIRUN_FILE).is_file())
    sweep = next(parents, folder.parent)
    print(f"The run is a job of a sweep; `python -m fracnet.sweep {sweep}` shows all of it.")


def outcome(error: BaseException) -> tuple[str, str]:
    """Status and reason of a job that ended with `error`."""
    reason = one_line(error)
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", reason or "from the keyboard"
    if isinstance(error, Diverged):
        return "diverged", reason
    if isinstance(error, SystemExit):
        return "failed", f"the process exited with code {error.code}"
    reason = explain_disk_fault(error) or reason
    return "failed", f"{type(error).__name__}: {reason}" if _is_bug(error) else reason


def _is_bug(error: BaseException) -> bool:
    """Whether the program is at fault, and not the user's input."""
    expected = isinstance(error, UserError | OmegaConfBaseException) or explain_disk_fault(error)
    return isinstance(error, Exception) and not expected


def one_line(text: object) -> str:
    """The text with all white space folded."""
    return " ".join(str(text).split())


def begin() -> None:
    """Forget an earlier sweep of this process."""
    global state
    state = SweepState()


def finish() -> int:
    """Write and print the table of all jobs, if there was a sweep. Returns the exit code."""
    folder = state.folder
    if folder is None:
        return 0
    from rich.console import Console  # pandas and more, for which a typo must not wait

    from fracnet.report.sweep_page import print_sweep
    from fracnet.runs import sweep_summary

    state.stops.restore()
    stopped = 128 + state.stops.ended if state.stops.ended else 0
    if not any(folder.rglob(JOB_FILE)):  # rejected before its first job
        (folder / MULTIRUN_FILE).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return stopped or 1
    content = sweep_summary.collect(folder, state.show_test)
    print()
    print_sweep(Console(highlight=False), content, folder)
    return stopped or int(any(job["status"] != "finished" for job in content["jobs"]))

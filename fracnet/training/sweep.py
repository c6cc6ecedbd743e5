"""The jobs of one `-m` command: each comes to its own end, and the others go on.

How a job ended is written into its folder (job.json), whichever process it ran in. The table at
the end is made from the folders alone, so it can be made again at any time: see `fracnet.sweep`.
Light on purpose, like `fracnet.config.hydra_cli`.

Ctrl-C, and a request to terminate, while the jobs of a sweep run one after the other.

The first Ctrl-C ends the running job alone. A second one before the next job has started ends the
sweep, for which the next job waits a few seconds. SIGTERM ends all. Imports nothing heavy.
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
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fracnet.config.hydra_cli import reader_is_gone
from fracnet.utils.errors import Diverged, Interrupted, UserError

PAUSE = 3.0  # seconds from a Ctrl-C to the start of another job, at least

ONCE = f"this job ends, the next one follows; Ctrl-C within {PAUSE:g} s ends the sweep."
LOADING = "libraries were just being loaded, which cannot be done twice: the sweep ends."


class Stops:
    """Listens in the process that runs the jobs, from the first of them to the table.

    ended: the signal that has ended the sweep, or None.
    """

    def __init__(self) -> None:
        self.ended: signal.Signals | None = None
        self._pressed: float | None = None  # when Ctrl-C was heard, until another job starts
        self._running = False
        self._process = 0
        self._before: dict[signal.Signals, Any] = {}

    def start(self) -> bool:
        """A job wants to start: whether it may, after a pause where the last was interrupted."""
        self._process = os.getpid()
        self._listen()
        while not self.ended and time.monotonic() < (self._pressed or -PAUSE) + PAUSE:
            time.sleep(0.05)
        if self.ended:
            return False
        self._pressed, self._running = None, True
        return True

    def rest(self) -> None:
        """The job is over."""
        self._running = False

    def turn_away(self) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _listen(self) -> None:
        """Anew for each job, as libraries set handlers of their own and forget to take them back.

        Signals that are ignored stay so (nohup, a shell's background job). A thread cannot set
        handlers: then it is for whoever has started it to hear.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            now = signal.getsignal(number)
            if number not in self._before and now is not signal.SIG_IGN:
                self._before[number] = now
            if number in self._before:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        heard = signal.Signals(number)
        if os.getpid() != self._process:  # forked from the job, such as a data loader's
            if heard == signal.SIGTERM:  # but Ctrl-C reaches all of them, and the job ends its own
                signal.signal(heard, signal.SIG_DFL)
                os.kill(os.getpid(), heard)
            return
        first = self._pressed is None and self._running
        loading = first and _importing(frame)
        if heard == signal.SIGTERM or loading or not first:
            again = self.ended is not None
            self.ended = self.ended or heard
            if not again:
                _say(LOADING if loading else f"{heard.name}: the sweep ends.")
            if first or again:  # otherwise the job is ending already, and may do so in peace
                self._pressed = self._pressed or time.monotonic()
                raise Interrupted(f"by {heard.name}")
            return
        self._pressed = time.monotonic()
        _say(ONCE)
        # No KeyboardInterrupt: Lightning's answer to that is to ignore all further ones.
        raise Interrupted("by Ctrl-C")


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is half imported: another attempt in the same process may fail."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(sentence: str) -> None:
    """Not by print: the signal may have come in the middle of one."""
    os.write(2, f"\nfracnet: {sentence}\n".encode())


FILE = "job.json"
MULTIRUN = "multirun.yaml"  # Hydra's own record of a sweep, in its folder

log = logging.getLogger(__name__)


@dataclass
class State:
    """What the process that the user started knows of its sweep; no folder: there is none."""

    folder: Path | None = None
    show_test: str = "best"
    stops: Stops = field(default_factory=Stops)


state = State()


def running() -> bool:
    """Whether this is a job of a sweep. Only to be asked within a job."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def check(config: Any, in_sweep: bool) -> None:
    """Raise UserError for what goes with a single run only, or with a sweep only.

    config: composed or checked; asked for trainer.devices, resume and sweep.
    """
    if config.sweep and not in_sweep:
        raise UserError(
            f"sweep={config.sweep} names a study of several jobs; start it with -m: "
            f"python -m fracnet.train -m sweep={config.sweep} ..."
        )
    if in_sweep and config.resume:
        raise UserError(
            f"resume={config.resume} goes on with one run: start it without -m, for each run of a "
            "sweep that was cut off."
        )
    if in_sweep and config.trainer.devices != 1:
        raise UserError(
            f"trainer.devices={config.trainer.devices} is not possible with -m: the processes of "
            "a run start the whole command again, and so the whole sweep. Give each job one "
            "device, trainer.devices=1 (a Hydra launcher that runs each job in its own process "
            "can occupy several devices at once), or start the runs one by one, without -m."
        )


class Watch(Callback):
    """Told by Hydra of a sweep before its first job; here the sweep as a whole can be refused."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder. Hydra swallows exceptions here, so a refusal ends the process."""
        folder = Path(str(config.hydra.sweep.dir)).resolve()
        try:
            check(config, in_sweep=True)
            if any(folder.rglob(FILE)):
                raise UserError(
                    f"hydra.sweep.dir={folder} holds the jobs of an earlier sweep; allowed: a "
                    "folder of its own for each."
                )
        except UserError as error:
            print(f"fracnet: error: {error}", file=sys.stderr)
            sys.exit(1)
        state.folder, state.show_test = folder, str(config.get("show_test", "best"))


def run_job(task: Callable[[DictConfig], Any], cfg: DictConfig, traceback: bool) -> float:
    """Run one job; whatever becomes of it is written down, printed in one line and not raised.

    traceback: show one for a user's fault too.

    Returns:
        What `task` returns, NaN where it did not come to its end.
    """
    job = HydraConfig.get()
    folder, number = Path(job.runtime.output_dir), int(job.job.num)
    record = Record(folder, {"job": number, "overrides": list(job.overrides.task)})
    value = math.nan
    try:
        if not state.stops.start():
            record.tell("not run", "the sweep was ended before its turn")
            return value
        record.tell("running")
        value = float(task(cfg))
        record.tell("finished")
    except BaseException as error:
        state.stops.rest()
        status, reason = ending(error)
        record.tell(status, reason)
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            raise  # no job could say another word
        if _is_fault(error) or (traceback and isinstance(error, Exception)):
            log.exception("job %d %s", number, status)
        print(f"fracnet: job {number} {status}: {reason}", file=sys.stderr, flush=True)
    finally:
        state.stops.rest()
        gc.collect()  # the job's workers and device memory, before the next one wants its own
    return value


@dataclass(frozen=True)
class Record:
    """job.json: how a job of a sweep stands, whichever process runs it."""

    folder: Path
    content: Mapping[str, Any]

    def tell(self, status: str, reason: str = "") -> None:
        """Write how it stands now."""
        path = self.folder / FILE
        draft = path.with_name(path.name + ".part")
        told = {**self.content, "status": status, "reason": _one_line(reason)}
        draft.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path)


@contextmanager
def taken_up(folder: Path, resumed: bool, words: Sequence[str] = ()) -> Iterator[bool]:
    """Around a run: where it is a job of a sweep that is resumed by itself, its record follows.

    words: overrides that the command gives, which take the place of the job's own.

    Yields whether it is one.
    """
    path = folder / FILE
    if not resumed or not path.is_file():
        yield False
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    given = [word for word in words if not word.startswith(("resume=", "hydra."))]
    by_key = {word.lstrip("+~").partition("=")[0]: word for word in content["overrides"] + given}
    record = Record(folder, content | {"overrides": list(by_key.values())})
    record.tell("running")
    try:
        yield True
    except BaseException as error:
        record.tell(*ending(error))
        raise
    record.tell("finished")
    home = next((above for above in folder.parents if (above / MULTIRUN).is_file()), folder.parent)
    print(f"The run is a job of a sweep; `python -m fracnet.sweep {home}` shows the study.")


def ending(error: BaseException) -> tuple[str, str]:
    """Status and reason of a job that has ended with `error`."""
    reason = _one_line(str(error))
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", reason or "by the keyboard"
    if isinstance(error, Diverged):
        return "diverged", reason
    if isinstance(error, SystemExit):
        return "failed", f"it ended itself with exit code {error.code}"
    return "failed", f"{type(error).__name__}: {reason}" if _is_fault(error) else reason


def _is_fault(error: BaseException) -> bool:
    """Whether it is a fault of the program, and not one that a user can mend."""
    mendable = isinstance(error, UserError | OmegaConfBaseException)
    return isinstance(error, Exception) and not mendable


def _one_line(text: str) -> str:
    return " ".join(text.split())


def begin() -> None:
    """Forget any sweep that this process has run before."""
    global state
    state = State()


def finish() -> int:
    """Write and print the table of all jobs, if there was a sweep. Returns the exit code."""
    from rich.console import Console

    from fracnet.report.sweep_page import print_study
    from fracnet.runs import sweep_summary

    folder = state.folder
    if folder is None:
        return 0
    state.stops.turn_away()
    stopped = 128 + state.stops.ended if state.stops.ended else 0
    if not any(folder.rglob(FILE)):  # refused before its first job
        (folder / MULTIRUN).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return stopped or 1
    content = sweep_summary.collect(folder, state.show_test)
    print()
    print_study(Console(highlight=False), content, folder)
    return stopped or int(any(job["status"] != "finished" for job in content["jobs"]))

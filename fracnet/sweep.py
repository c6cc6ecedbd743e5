"""The jobs of one `-m` command: each comes to its own end, and the others go on.

How a job ended is written into its folder (job.json), whichever process it ran in. The table at
the end is made from the folders alone, so it can be made again at any time: see `fracnet.study`.
Light on purpose, like `fracnet.cli`.
"""

import gc
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fracnet.errors import Diverged, Interrupted, UserError
from fracnet.pipes import reader_is_gone
from fracnet.stops import Stops

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
    print(f"The run is a job of a sweep; `python -m fracnet.study {home}` shows the study.")


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


def conclude() -> int:
    """Write and print the table of all jobs. Returns the command's exit code."""
    from rich.console import Console

    from fracnet.report.study import print_study
    from fracnet.training import study

    folder = state.folder
    assert folder is not None
    state.stops.turn_away()
    stopped = 128 + state.stops.ended if state.stops.ended else 0
    if not any(folder.rglob(FILE)):  # refused before its first job
        (folder / MULTIRUN).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return stopped or 1
    content = study.collect(folder, state.show_test)
    print()
    print_study(Console(highlight=False), content, folder)
    return stopped or int(any(job["status"] != "finished" for job in content["jobs"]))

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fracnet.errors import Diverged, UserError

FILE = "job.json"

log = logging.getLogger(__name__)


@dataclass
class State:
    """What the process that the user started knows of its sweep; no folder: there is none."""

    folder: Path | None = None
    show_test: str = "best"
    stopped: bool = False


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
    content = {"job": number, "overrides": list(job.overrides.task)}

    def tell(status: str, reason: str = "") -> None:
        reason = " ".join(reason.split())
        _write(folder / FILE, content | {"status": status, "reason": reason})
        if status not in ("running", "finished", "not run"):
            print(f"fracnet: job {number} {status}: {reason}", file=sys.stderr, flush=True)

    if state.stopped:
        tell("not run", "the sweep was interrupted before its turn")
        return math.nan
    tell("running")
    value = math.nan
    try:
        value = float(task(cfg))
        tell("finished")
    except KeyboardInterrupt as stop:
        state.stopped = True
        tell("interrupted", str(stop) or "by the keyboard")
    except Diverged as error:
        tell("diverged", str(error))
    except (UserError, OmegaConfBaseException) as error:
        if traceback:
            log.exception("job %d", number)
        tell("failed", str(error))
    except SystemExit as end:
        tell("failed", f"it ended itself with exit code {end.code}")
    except Exception as error:
        log.exception("job %d: a fault of the program", number)
        tell("failed", f"{type(error).__name__}: {error}")
    finally:
        gc.collect()  # the job's workers and device memory, before the next one wants its own
    return value


def conclude() -> int:
    """Write and print the table of all jobs. Returns the command's exit code."""
    from rich.console import Console

    from fracnet.report.study import print_study
    from fracnet.training import study

    folder = state.folder
    assert folder is not None
    if not any(folder.rglob(FILE)):  # refused before its first job
        (folder / "multirun.yaml").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return 130 if state.stopped else 1
    content = study.collect(folder, state.show_test)
    print()
    print_study(Console(highlight=False), content, folder)
    if state.stopped:
        return 130
    return int(any(job["status"] != "finished" for job in content["jobs"]))


def _write(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)

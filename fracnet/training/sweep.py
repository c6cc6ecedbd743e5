"""The jobs of one `-m` command: each ends in its own way, and the others continue.

With `launcher=serial` the jobs run one after the other in this process. Any other launcher has
workers, each of which starts its job as a process of its own (`job_process`). How a job ended is
written into its folder (job.json), whichever process it ran in. The final table is made from the
folders alone, so `fracnet.sweep` can make it again at any time.

One Ctrl-C, or SIGTERM, stops the sweep: no further job starts, and the running ones end at their
last checkpoint, from which `fracnet.sweep resume=` continues. A second Ctrl-C ends them at once.
Imports nothing heavy.
"""

import gc
import logging
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fracnet.config.fields import resolved
from fracnet.config.hints import explain_error
from fracnet.config.hydra_cli import (
    exit_with,
    is_new,
    output_dir,
    reader_is_gone,
    remove_new_folders,
)
from fracnet.config.search import check_search
from fracnet.config.trust import ADVICE
from fracnet.training import job_process, launchers, sweep_plan, sweep_progress
from fracnet.training.job_configs import JobConfigs, planned_jobs, search_configs
from fracnet.training.stop_signals import StopSignals
from fracnet.training.sweep_plan import (
    JOB_FILE,
    LOCK_FILE,
    PLAN_FILE,
    STOP_FILE,
    JobRecord,
    SweepPlan,
)
from fracnet.training.sweep_progress import Progress
from fracnet.utils import distributed, processes, shared
from fracnet.utils.errors import Diverged, Interrupted, Pruned, UserError
from fracnet.utils.files import CannotWrite, cannot_write, explain_disk_fault, write_atomically
from fracnet.utils.result_files import COMMON_NAMES, TRACKING, check_no_results
from fracnet.utils.text import near_miss, one_line

NO_BEST_JOB = ("No trials are completed", "Record does not exist")
"""Optuna's texts where all jobs have failed, by storage."""
MULTIRUN_FILE = "multirun.yaml"
"""Hydra's own record of a sweep, in its folder."""
SEARCH_FILE = "optuna.db"
"""The study of a search; see conf/hydra/sweeper."""
OF_SWEEPS = {
    "sweep": "none",
    "search": "none",
    "launcher": "serial",
    "sweeper": "grid",
    "pruning": "none",
}
"""Groups that only `-m` reads, with the choice that a single run has."""
RESUMED = "resumed"
"""Folder in which Hydra's launcher works where a sweep is resumed."""

log = logging.getLogger(__name__)


@dataclass
class SweepState:
    """The sweep of this process; without a folder there is none.

    task: what runs one job. dry_run: list the jobs and run none. held: the sweep's lock.
    resumed: it has been planned by an earlier command. trust: by its user.
    """

    task: Callable[..., Any] | None = None
    dry_run: bool = False
    folder: Path | None = None
    resumed: bool = False
    trust: bool = True
    show_test: str = "best"
    stops: StopSignals = field(default_factory=StopSignals)
    held: ExitStack = field(default_factory=ExitStack)
    progress: Progress | None = None
    configs: JobConfigs | None = None


state = SweepState()


def running() -> bool:
    """Whether the current Hydra job belongs to a sweep, in this process or in one of its own."""
    return sweep_folder() is not None and distributed.rank() == 0


def sweep_folder() -> Path | None:
    """The folder of the sweep that the current Hydra job belongs to; None for a single run."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(str(HydraConfig.get().sweep.dir)).resolve()
    sweep = os.environ.get(job_process.SWEEP_VARIABLE)
    return Path(sweep) if sweep and (output_dir() / JOB_FILE).is_file() else None


def check_run(config: Any, in_python: bool = False) -> None:
    """Raise UserError for options that need a single run, or a sweep.

    A recipe may choose a launcher, which a single run ignores; its user has not asked for it.

    config: composed; only its keys trainer and resume are read.
    in_python: the run was started by `fracnet.fit`.
    """
    if sweep_folder() is None:
        typed = (o.lstrip("+").partition("=") for o in HydraConfig.get().overrides.task)
        chosen = {group: choice for group, _, choice in typed}
        of_sweeps = {
            group: str(chosen[group])
            for group, default in OF_SWEEPS.items()
            if str(chosen.get(group, default)).lower() not in (default, "null")
        }
        if of_sweeps:
            words = " ".join(f"{group}={choice}" for group, choice in of_sweeps.items())
            arguments = ", ".join(f"{group}={choice!r}" for group, choice in of_sweeps.items())
            start = f"python -m fracnet.train -m {words} ..."
            start = f"fracnet.sweep({arguments}, ...)" if in_python else start
            raise UserError(f"Only for sweeps: {words}. Start one with: {start}")
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    if config.resume:
        raise UserError(
            f"resume={config.resume} resumes one run: start it without -m. To finish a sweep: "
            "python -m fracnet.sweep resume=<folder of the sweep>"
        )
    devices = config.trainer.devices
    several = devices != 1 and (isinstance(devices, int | str) or len(devices) > 1)
    if several and _in_this_process(HydraConfig.get()):
        raise UserError(
            f"trainer.devices={devices} is not possible with -m launcher=serial: each process of a "
            "run starts the whole command, and so the whole sweep. Give each job one device, "
            "trainer.devices=1, or choose a launcher whose jobs are processes of their own: "
            f"{', '.join(launchers.PACKAGES)}."
        )


def _in_this_process(hydra: Any) -> bool:
    """Whether the jobs run in this process, one after the other. hydra: its part of a config."""
    resumed = any(override.startswith("+resumed.") for override in hydra.overrides.task)
    return str(hydra.launcher.get("_target_")).endswith(".BasicLauncher") and not resumed


def check_resumable(folder: Path) -> None:
    """Raise UserError where there is no run to resume; answers before the heavy imports."""
    if not folder.is_dir() or is_new(folder):
        parent = folder.parent
        names = {p.name for p in parent.iterdir()} if parent.is_dir() else set()
        near = near_miss(folder.name, sorted(names - {folder.name}))
        raise UserError(f"resume={folder}: no such folder.{near}")
    if (folder / PLAN_FILE).is_file():
        raise UserError(
            f"resume={folder} is a sweep folder; finish the sweep with: python -m fracnet.sweep "
            f"resume={folder}"
        )
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"resume={folder} is not a run folder: it has no config.yaml; allowed: a folder that "
            "fracnet.train printed as its run."
        )


class SweepCallback(Callback):
    """Called by Hydra before the first job of a sweep, which it can reject as a whole."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check and plan it. Hydra swallows exceptions here, so an error ends the process."""
        state.configs = JobConfigs()
        try:
            launchers.check_launcher(config)
            check_search(config)
            check_run(config)
            if "resumed" in config:
                follow(Path(str(config.resumed.sweep)), config)
                return
            folder = Path(str(config.hydra.sweep.dir)).resolve()
            if any(folder.rglob(JOB_FILE)) or (folder / PLAN_FILE).is_file():
                raise UserError(
                    f"hydra.sweep.dir={folder} holds the jobs of an earlier sweep; allowed: a "
                    "new folder for each sweep, or to finish this one: python -m fracnet.sweep "
                    f"resume={folder}"
                )
            check_no_results(folder, key="hydra.sweep.dir", ignored=COMMON_NAMES)
            plan_sweep(config, folder)
            follow(folder, config)
        except UserError as error:
            exit_with(str(error))


def plan_sweep(config: DictConfig, folder: Path) -> None:
    """Check the config of every job, print what they cost and write plan.json.

    With --dry-run, list the jobs instead.
    """
    try:
        jobs = planned_jobs(config)
        load = state.configs
        assert load is not None, "set where a sweep starts"
        configs = [load.checked(config, job) for job in jobs] or search_configs(config, load)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            explain_error(error, str(config.hydra.job.config_name), sys.argv[1:])
        ) from error
    options = [sweep_plan.swept_overrides(job) for job in jobs]
    for number, job in enumerate(options if state.dry_run else ()):
        print(f"job {number:<3} {' '.join(job)}")
    if configs:
        print(f"sweep   {sweep_progress.cost(configs)}", flush=True)
    if state.dry_run:
        if not jobs:
            print("sweep   the sweeper chooses its jobs as it goes")
        state.folder = None
        sys.exit(0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # of which Hydra would make a warning
        raise cannot_write(folder, error) from error
    plan = SweepPlan(
        program=sweep_plan.program_of(state.task),
        options=sweep_plan.options_of(config.hydra),
        folder=str(Path.cwd()),
        code=sweep_plan.code_hash(),
        launcher=resolved(config.launcher),
        sweeper=str(config.hydra.sweeper._target_),
        jobs=options,
        epochs=[int(job["trainer"]["max_epochs"]) for job in configs],
        process=processes.this_process(),
    )
    plan.write(folder)
    if not jobs:  # Hydra's grid alone writes it
        write_atomically(folder / MULTIRUN_FILE, OmegaConf.to_yaml(config))


def follow(folder: Path, config: DictConfig) -> None:
    """Take charge of the sweep in `folder`, until `finish`.

    Raises UserError where another command runs its jobs.
    """
    state.folder, state.show_test = folder, str(config.get("show_test", "best"))
    state.resumed = "resumed" in config
    state.trust = not state.resumed or bool(config.resumed.trust)
    name = f"the sweep in {folder}"
    state.held.enter_context(processes.locked(folder / LOCK_FILE, name))
    (folder / STOP_FILE).unlink(missing_ok=True)
    own_process = not _in_this_process(config.hydra)
    if own_process:
        state.stops.sweep = folder
        state.stops.listen()
    else:
        assert state.configs is not None
        state.configs.replace_hydras()
        shared.begin()
    plan = SweepPlan.read(folder)
    state.progress = Progress(folder, plan, lines=own_process)
    state.progress.start()


def run_job(task: Callable[[DictConfig], Any], cfg: DictConfig, traceback: bool) -> Any:
    """Run one job; record how it ends, print an error in one line and do not raise it.

    traceback: show one for a UserError too.

    Returns:
        What `task` returns; the best metric of a job that was pruned, NaN if it failed.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and not _in_this_process(hydra):
        return _supervise(cfg, hydra)
    folder = output_dir()
    record = JobRecord.of(folder)
    if hydra.mode == RunMode.MULTIRUN:
        number = int(hydra.job.num)
        overrides = sweep_plan.swept_overrides(hydra.overrides.task)
        record = JobRecord(folder, {"job": number, "overrides": overrides})
    value: Any = math.nan
    try:
        # A stop that came while a process of its own was starting.
        asked = hydra.mode != RunMode.MULTIRUN and sweep_plan.stop_level(sweep_folder() or folder)
        if not state.stops.start_job() or asked:
            record.write("not run", "the sweep stopped before this job started")
            return value
        record.write("running")
        gc.freeze()  # what exists by now, mostly modules: not to be searched after the job
        value = task(cfg)
        record.write("finished")
    except BaseException as error:
        state.stops.end_job()
        status, reason = outcome(error)
        if isinstance(error, Pruned):
            value = error.value
            record = JobRecord(folder, {**record.content, "value": value})
        with suppress(CannotWrite):  # where there was no room to record even that it started
            record.write(status, reason)
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            raise  # no further job could print anything
        if _is_bug(error) or (traceback and isinstance(error, Exception)):
            log.exception("job %d %s", record.content["job"], status)
        print(
            f"fracnet: job {record.content['job']} {status}: {reason}", file=sys.stderr, flush=True
        )
    finally:
        state.stops.end_job()
        gc.collect()  # free the job's workers and device memory for the next job
        gc.unfreeze()
    return value


def _supervise(cfg: DictConfig, hydra: Any) -> Any:
    """Run the current job as a process of its own, from a worker of the launcher."""
    if state.folder is None and threading.current_thread() is threading.main_thread():
        for ignored in (signal.SIGINT, signal.SIGHUP):  # the sweep's process decides
            signal.signal(ignored, signal.SIG_IGN)
    if "resumed" not in cfg:
        overrides = sweep_plan.swept_overrides(hydra.overrides.task)
        sweep = Path(str(hydra.sweep.dir)).resolve()
        return job_process.supervise(sweep, output_dir(), int(hydra.job.num), overrides)
    if "job" not in cfg.resumed:
        return _search_again(cfg, hydra)
    sweep, number = Path(str(cfg.resumed.sweep)), int(cfg.resumed.job)
    folder = sweep_plan.job_folders(sweep).get(number, sweep / str(number))
    planned = SweepPlan.read(sweep).jobs
    overrides = planned[number] if number < len(planned) else JobRecord.of(folder).overrides
    return job_process.supervise(sweep, folder, number, overrides, trust=bool(cfg.resumed.trust))


def _search_again(cfg: DictConfig, hydra: Any) -> Any:
    """The result of a job that a sweeper has chosen once more, which is run if it has none."""
    sweep, number = Path(str(cfg.resumed.sweep)), int(hydra.job.num)
    task = [o for o in hydra.overrides.task if not o.lstrip("+").startswith("resumed.")]
    overrides, folder = sweep_plan.swept_overrides(task), sweep / str(number)
    if not cfg.resumed.trust and (risky := sweep_plan.risky_overrides(overrides)):
        raise UserError(f"job {number} has {' '.join(risky)}, which could run any code. {ADVICE}")
    record = sweep_plan.read_record(folder / JOB_FILE)
    same = set(sweep_plan.swept_overrides(record.get("overrides") or ())) == set(overrides)
    done = record.get("status") in sweep_progress.DONE
    if done and not same:
        raise UserError(
            f"job {number} of the sweep was {' '.join(record['overrides'])}, and the sweeper now "
            f"chooses {' '.join(overrides)}: its options differ from those it began with."
        )
    if done:
        return job_process.objective(folder)
    if not same:  # it had not started, or is another one now
        job_process.empty(folder)
    return job_process.supervise(sweep, folder, number, overrides, trust=bool(cfg.resumed.trust))


def outcome(error: BaseException) -> tuple[str, str]:
    """Status and reason of a job that ended with `error`."""
    reason = one_line(error)
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", reason or "from the keyboard"
    if isinstance(error, Diverged):
        return "diverged", reason
    if isinstance(error, Pruned):
        return "pruned", reason
    if isinstance(error, SystemExit):
        return "failed", f"the process exited with code {error.code}"
    reason = explain_disk_fault(error) or reason
    return "failed", f"{type(error).__name__}: {reason}" if _is_bug(error) else reason


def _is_bug(error: BaseException) -> bool:
    """Whether the program is at fault, and not the user's input."""
    expected = isinstance(error, UserError | OmegaConfBaseException) or explain_disk_fault(error)
    return isinstance(error, Exception) and not expected


def begin(task: Callable[..., Any], dry_run: bool) -> None:
    """Forget an earlier sweep of this process.

    task: what runs one job. dry_run: list the jobs and run none.
    """
    global state
    state = SweepState(task, dry_run)
    shared.end()
    job_process.obey_parent()


def launcher_failed(error: Exception) -> bool:
    """Whether `error` is that of a launcher or a sweeper, which is printed then.

    The launcher could not start jobs, or one of its workers has died, or the sweep was stopped
    before a worker was ready.
    """
    folder = state.folder
    if folder is None:
        return False
    started = any(folder.rglob(JOB_FILE))
    if started and any(text in str(error) for text in NO_BEST_JOB):
        return True  # Optuna names no best job; the table shows that all have failed
    mendable = isinstance(error, UserError | HydraException | OmegaConfBaseException)
    if state.stops.sweep is None or (not started and (mendable or explain_disk_fault(error))):
        return False
    if not state.stops.ended:
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        if started:
            command = f"python -m fracnet.sweep resume={folder}"
            what = f"the launcher failed ({reason}); finish the sweep with: {command}"
        else:
            what = f"launcher={SweepPlan.read(folder).launcher['name']} started no job ({reason})."
            shutil.rmtree(folder / "slurm", ignore_errors=True)  # what it was to run
        print(f"fracnet: error: {what}", file=sys.stderr)
    launchers.wait_for_slurm(folder)
    return True


def finish() -> int:
    """Write and print the table of all jobs, if there was a sweep. Returns the exit code."""
    folder = state.folder
    if folder is None:
        return 0
    shared.end()
    from fracnet.runs import sweep_summary  # pandas: a typo must not wait for it

    if state.progress is not None:
        state.progress.stop()
    state.stops.restore()
    by_signal = signal.SIGINT if state.stops.ended == signal.SIGINT else signal.SIGTERM
    stopped = 128 + by_signal if state.stops.ended else 0
    with state.held:
        if not any(folder.rglob(JOB_FILE)):  # rejected before its first job
            remains = (MULTIRUN_FILE, SEARCH_FILE, PLAN_FILE, STOP_FILE, LOCK_FILE)
            for name in () if state.resumed else remains:
                (folder / name).unlink(missing_ok=True)
            remove_new_folders()
            return stopped or 1
        # What Hydra makes where a sweep is resumed; what Slurm has printed stays.
        launch = folder / RESUMED
        (launch / MULTIRUN_FILE).unlink(missing_ok=True)
        for path in (*launch.glob("*"), launch):
            with suppress(OSError):  # it is not empty, or not there
                path.rmdir()
        content = sweep_summary.collect(folder, state.show_test, report=True)
    if content["configurations"] and any(folder.rglob(TRACKING)):
        from fracnet.training.loggers import log_repeats  # seconds, for W&B alone

        log_repeats(folder, content, state.trust)
    print()
    sweep_summary.print_summary(content, folder)
    scored = job_process.SCORED
    return stopped or int(any(job["status"] not in scored for job in content["jobs"]))

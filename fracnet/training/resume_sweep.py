"""Finish a sweep that was stopped or killed, or extend it: `python -m fracnet.sweep resume=`.

The plan of the sweep says which jobs there are, the job.json of each how far it came. Hydra's
launcher then gets the numbers of the jobs that are not finished, and each goes on by itself.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter

from fracnet.config import hydra_cli
from fracnet.config.checks import check
from fracnet.config.fields import resolved
from fracnet.config.hints import explain_error
from fracnet.config.search import chosen_at_once
from fracnet.config.trust import ADVICE
from fracnet.runs.run_folder import check_entries, read_mapping
from fracnet.training import sweep
from fracnet.training.launchers import needs_trust
from fracnet.training.resume import check_new_job
from fracnet.training.sweep_plan import (
    JOB_FILE,
    LOCK_FILE,
    PLAN_FILE,
    SweepPlan,
    code_hash,
    job_folders,
    read_record,
    risky_overrides,
    swept_overrides,
)
from fracnet.training.sweep_progress import DONE
from fracnet.utils import processes
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir, write_atomically
from fracnet.utils.text import counted, override_value, quoted

_OVERRIDES = TypeAdapter(dict[str, list[str]])
PATIENCE_SECONDS = 15.0
"""How long jobs of a killed sweep may need to notice that, and end."""


@dataclass(frozen=True)
class Resumption:
    """What the user asks for.

    add: further values of axes: `optim.lr=1e-5,1e-6`. launcher: overrides of the launcher.
    n_trials: how many jobs a search is to have, as text; None: as many as it was to have.
    trust: the plan and the runs may name classes that fracnet does not know.
    changed_code: go on although fracnet has changed since the sweep started.
    """

    folder: Path
    add: Sequence[str] = ()
    launcher: Sequence[str] = ()
    n_trials: str | None = None
    trust: bool = False
    changed_code: bool = False
    dry_run: bool = False


def resume_sweep(wanted: Resumption) -> bool:
    """Run all jobs of a sweep that are not finished; ends the process as `fracnet.train -m` does.

    Returns:
        Whether all jobs were done already, so that only the sweep's table may be missing.

    Raises UserError: no sweep, another process runs it, or the code has changed.
    """
    folder = wanted.folder
    if not folder.is_dir():
        raise UserError(f"resume={folder}: no such folder.")
    check_entries(folder, "resume")
    plan = SweepPlan.read(folder)
    if not wanted.trust:
        _check_plan(plan, launcher_chosen=_chooses_launcher(wanted))
    with processes.locked(folder / LOCK_FILE, f"the sweep in {folder}"):
        if plan.code != (now := code_hash()) and not wanted.changed_code:
            raise UserError(
                f"resume={folder}: fracnet has changed since the sweep started ({plan.code} then, "
                f"{now} now), so further jobs may not be comparable with the finished ones. Use "
                "that version, or add changed_code=true."
            )
        _wait_for_jobs(folder)
        extended = _extended(folder, plan, wanted.add)
        started = job_folders(folder)
        numbers = [n for n in range(len(extended.jobs)) if _status(started.get(n)) not in DONE]
        _check_jobs(folder, extended, numbers, wanted.trust)
        if not plan.jobs:  # a sweeper chooses them by earlier results
            _search_again(wanted, plan)
            return False
        if wanted.n_trials is not None:
            raise UserError(
                f"sweeper.n_trials={wanted.n_trials} is for a search, and {folder} is a grid; "
                "extend it with add=, e.g. add=optim.lr=1e-5."
            )
        if not numbers:
            print(f"All {counted(len(extended.jobs), 'job')} of {folder} are done.")
            return not wanted.dry_run
        if wanted.dry_run:
            for number in numbers:
                overrides = extended.jobs[number] if number < len(extended.jobs) else []
                print(f"job {number:<3} {_status(started.get(number))}: {' '.join(overrides)}")
            return False
        extended.claimed().write(folder)
        _launch(wanted, extended, numbers)
    return False


def _status(job: Path | None) -> str:
    return str(read_record(job / JOB_FILE).get("status")) if job is not None else "missing"


def _wait_for_jobs(folder: Path) -> None:
    """Wait until the jobs of a sweep that was killed have ended: they notice it soon."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive := [n for n, path in job_folders(folder).items() if _is_alive(path)]:
        if time.monotonic() > deadline:
            raise UserError(
                f"resume={folder}: {counted(len(alive), 'job')} of it "
                f"({', '.join(map(str, sorted(alive)))}) still run; wait until they have ended, or "
                "stop them."
            )
        time.sleep(0.3)


def _is_alive(job: Path) -> bool:
    """Whether a job's process runs on this machine."""
    record = read_record(job / JOB_FILE)
    process = record.get("process")
    if record.get("status") != "running" or not isinstance(process, dict):
        return False
    here = processes.this_process()["machine"] == process.get("machine")
    return here and not processes.is_gone(process)


def _extended(folder: Path, plan: SweepPlan, add: Sequence[str]) -> SweepPlan:
    """The plan with further values of axes, without jobs that it has already."""
    if not add:
        return plan
    if not plan.jobs:
        raise UserError(
            f"add={add[0]} extends a grid, but the sweeper of {folder} chooses its own values; "
            "extend the search with sweeper.n_trials=<jobs in all>."
        )
    axes: dict[str, list[str]] = {}
    for job in plan.jobs:
        for override in job:
            key, _, value = override.partition("=")
            values = axes.setdefault(key, [])
            if value not in values:
                values.append(value)
    for key, values in _values(add).items():
        axes[key] = list(dict.fromkeys([*axes.get(key, ()), *values]))
    jobs = [[f"{k}={v}" for k, v in zip(axes, job, strict=True)] for job in product(*axes.values())]
    return _without_repetitions(plan, jobs)


def _values(add: Sequence[str]) -> dict[str, list[str]]:
    """The values of each axis in texts such as `optim.lr=1e-5,1e-6`."""
    values = {}
    try:
        for override in OverridesParser.create().parse_overrides(list(add)):
            key = override.get_key_element()
            if override.is_sweep_override():
                values[key] = list(override.sweep_string_iterator())
            else:
                values[key] = [str(override.get_value_element_as_str())]
    except HydraException as error:
        raise UserError(f"add={' '.join(add)}: {explain_error(error, 'train', add)}") from error
    return values


def _without_repetitions(plan: SweepPlan, jobs: Sequence[Sequence[str]]) -> SweepPlan:
    """The plan and those of `jobs` whose config none of its jobs has."""
    seen = [_composed(plan, job) for job in plan.jobs]
    new, epochs = [], []
    for job in jobs:
        config = _composed(plan, job)
        if config not in seen:
            seen.append(config)
            new.append(list(job))
            epochs.append(int(config["trainer"]["max_epochs"]))
    return replace(plan, jobs=[*plan.jobs, *new], epochs=[*plan.epochs, *epochs])


def _composed(plan: SweepPlan, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of one job, resolved. Raises UserError where there is none."""
    folders = [value for option, value in pairwise(plan.options) if option == "--config-dir"]
    given = [option for option in plan.options if option.startswith("hydra.searchpath=")]
    search = given or [f"hydra.searchpath=[{','.join(folders)}]"]
    try:
        with initialize_config_dir(str(config_dir())):
            return resolved(compose("train", [*search, *overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_error(error, "train", overrides)) from error


def _check_plan(plan: SweepPlan, launcher_chosen: bool) -> None:
    """Raise UserError for a plan that could run any code where a stranger has written it."""
    words = [*plan.options, *risky_overrides(o for job in plan.jobs for o in job)]
    if words or plan.program != ["-m", "fracnet.train"]:
        raise UserError(
            f"{PLAN_FILE} of the sweep names a program, options of Hydra or folders of your own "
            f"configs ({' '.join([*plan.program, *words])}), which could run any code. {ADVICE}"
        )
    if Path(plan.folder) != Path.cwd():
        raise UserError(
            f"{PLAN_FILE} of the sweep runs its jobs in {plan.folder}, whose Python modules could "
            f"take the place of others. Start this command in that folder. {ADVICE}"
        )
    if not launcher_chosen and (unsafe := needs_trust(plan.launcher)):
        raise UserError(
            f"{PLAN_FILE} of the sweep has {unsafe}, which could run any code. If these options "
            f"are yours, add to this command: {shlex.join(_launcher_words(plan))}"
        )


def _check_jobs(folder: Path, plan: SweepPlan, numbers: Sequence[int], trust: bool) -> None:
    """Raise UserError for a job whose config is invalid, or does what needs trust."""
    for number in numbers:
        if number < len(plan.jobs):
            plain = _composed(plan, plan.jobs[number])
            plain.pop("launcher", None)
            check(plain)
            if not trust:
                check_new_job(folder, plain, f"job {number} of {PLAN_FILE}")


def _chooses_launcher(wanted: Resumption) -> bool:
    return any(override.startswith("launcher=") for override in wanted.launcher)


def _launch(wanted: Resumption, plan: SweepPlan, numbers: Sequence[int]) -> None:
    """Give the numbers of the jobs to Hydra's launcher."""
    _run_jobs(
        wanted,
        plan,
        [],
        f"hydra.sweep.dir={quoted(str(wanted.folder / sweep.RESUMED))}",
        "hydra.sweep.subdir='${resumed.job}'",
        f"+resumed.job={','.join(map(str, numbers))}",
    )


def _run_jobs(wanted: Resumption, plan: SweepPlan, overrides: Sequence[str], *options: str) -> None:
    """Start Hydra as `fracnet.train -m` does. options: of Hydra."""
    sys.argv[1:] = [
        *overrides,
        *([] if _chooses_launcher(wanted) else _launcher_words(plan)),
        *wanted.launcher,
        "-m",
        *plan.options,
        *options,
        f"+resumed.sweep={quoted(str(wanted.folder))}",
        f"+resumed.trust={override_value(wanted.trust)}",
        "hydra/hydra_logging=disabled",
    ]
    hydra_cli.run(_no_task, "train", jobs=sweep)


def _launcher_words(plan: SweepPlan) -> list[str]:
    """The overrides that choose the plan's launcher with its options."""
    options = {key: value for key, value in plan.launcher.items() if key != "name"}
    own = [f"launcher.{key}={override_value(value)}" for key, value in options.items()]
    return [f"launcher={plan.launcher['name']}", *own]


def _search_again(wanted: Resumption, plan: SweepPlan) -> None:
    """Lead the sweeper through its search again; jobs that are done give the results they gave.

    With the same results it chooses the same jobs, see `RecordedSampler`; then it goes on.
    """
    record = read_mapping(wanted.folder / sweep.MULTIRUN_FILE)
    hydra = record.get("hydra") or {}
    try:
        given = _OVERRIDES.validate_python(hydra.get("overrides") or {})
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{wanted.folder / sweep.MULTIRUN_FILE} cannot be read: hydra.overrides must hold "
            "lists of texts."
        ) from error
    task = swept_overrides(given.get("task", []), "launcher")
    own = [option for option in given.get("hydra", []) if "sweeper" in option]
    named = [o for o in task if "_target_" in o]  # the others are checked when they are chosen
    if (own or named or risky_overrides(task)) and not wanted.trust:
        raise UserError(
            f"{sweep.MULTIRUN_FILE} of the sweep names classes or options of Hydra "
            f"({' '.join([*task, *own])}), which could run any code. {ADVICE}"
        )
    if wanted.dry_run:
        print("The sweeper chooses the jobs by the results of earlier ones; none can be listed.")
        return
    if wanted.n_trials is not None:
        number, started = wanted.n_trials, len(job_folders(wanted.folder))
        if not number.isdecimal() or int(number) < started:
            raise UserError(
                f"sweeper.n_trials={number} is not allowed: how many jobs the search is to have in "
                f"all, {started} or more."
            )
        plan = replace(plan, epochs=plan.epochs[:1] * int(number))
        task = [o for o in task if not o.startswith("sweeper.n_trials=")]
        task = [*task, f"sweeper.n_trials={wanted.n_trials}"]
        record["hydra"] = {**hydra, "overrides": given | {"task": task}}
        write_atomically(wanted.folder / sweep.MULTIRUN_FILE, OmegaConf.to_yaml(record))
    if wanted.launcher and not any(o.startswith("sweeper.n_jobs=") for o in task):
        # What it chooses depends on how many jobs it chooses before it sees their results.
        task = [*task, f"sweeper.n_jobs={chosen_at_once('auto', plan.launcher)}"]
    plan.claimed().write(wanted.folder)
    (wanted.folder / sweep.SEARCH_FILE).unlink(missing_ok=True)
    _run_jobs(wanted, plan, task, *own, f"hydra.sweep.dir={quoted(str(wanted.folder))}")


def _no_task(cfg: Any) -> float:
    """Never called: each job is a process of its own."""
    raise AssertionError

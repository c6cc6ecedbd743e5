"""A sweep's folder as one table: sweep.json, sweep.csv and a page, from the folders of its jobs.

Each job has its validation metrics at its selected checkpoint. Test metrics are included for the
job that validation chose, for all on request; each time, sweep.json records when, by which command
and for which jobs.
"""

import csv
import io
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fracnet.config.schema import mode
from fracnet.report.sweep_page import sweep_page
from fracnet.runs.find_runs import REPEAT_KEYS
from fracnet.runs.run_folder import (
    PROCESS_DIED,
    RunFolder,
    read_mapping,
    read_status,
    write_json,
)
from fracnet.runs.trials import PAGE, read_trial, sort_trials, today
from fracnet.utils.errors import UserError
from fracnet.utils.files import CannotWrite, write_atomically
from fracnet.utils.processes import is_gone
from fracnet.utils.text import plain_cell

JOB, RECORD, TABLE = "job.json", "sweep.json", "sweep.csv"
PLAN = "plan.json"
"""What fracnet was to run; see `training.sweep_plan`."""
MULTIRUN = "multirun.yaml"
"""Hydra's own record of a sweep's command."""
GRID_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
FOLD = "data.fold"

Row = dict[str, Any]


def collect(folder: Path, show_test: str = "best") -> dict[str, Any]:
    """Read all jobs, choose one by validation, write sweep.json, sweep.csv and index.html.

    show_test: "best" includes the test metrics of the chosen job alone, "all" those of all jobs.

    Returns:
        The content of sweep.json, which `print_sweep` prints.

    Raises:
        UserError: the folder holds no jobs, or those of several sweeps.
    """
    rows = [_read(path, folder) for path in folder.rglob(JOB)]
    if not rows:
        raise UserError(f"{folder} is not a sweep folder (no {JOB} found).")
    if len({row["job"] for row in rows}) < len(rows):
        raise UserError(f"{folder} holds more than one sweep; give the folder of one of them.")
    started = {row["job"] for row in rows}
    alive = any(row["status"] == "unfinished" for row in rows)
    reason = "it has not started" if alive else "the sweep stopped before this job started"
    rows += [row for row in _planned(folder, reason) if row["job"] not in started]
    rows.sort(key=lambda row: row["job"])
    swept = _swept(rows)
    for row in rows:
        row["overrides"] = {key: row["overrides"].get(key) for key in swept}
    finished = [row for row in rows if row["status"] == "finished" and row["value"] is not None]
    objectives = sorted({row["objective"] for row in finished})
    objective = objectives[0] if len(objectives) == 1 else None
    groups = _group_by_setting(rows) if FOLD in swept else [[row] for row in rows]
    better = _better(finished) if objective else None
    best, ties = _best(groups, better) if better else ([], [])
    viewed = [row for row in finished if show_test == "all" or row["job"] in best]
    for row in rows:
        metrics = row.pop("metrics")
        row["test"] = metrics["test"]["metrics"] if row in viewed else None
        if row in viewed:
            baselines = metrics["baselines_on_test"]
            row["n_test"] = metrics["test"]["n"]
            row["cited"] = metrics.get("cited", [])
            row["baselines"] = {name: of["metrics"] for name, of in baselines.items()}
    folds = [_fold_summary(group) for group in groups] if FOLD in swept and objective else None
    content = {
        "objective": objective,
        "objectives": objectives,
        "better": better,
        "swept": swept,
        "jobs": rows,
        "best": best,
        "ties": ties,
        "folds": folds,
        "show_test": show_test,
        "test_views": [*_earlier_views(folder), *_new_view(viewed, show_test)],
    }
    write_json(folder / RECORD, content)
    write_atomically(folder / TABLE, _as_csv(content))
    write_sweep_page(folder, content)
    return content


def write_sweep_page(folder: Path, sweep: Mapping[str, Any]) -> Path:
    """Write index.html for a sweep, whose sweep.json holds `sweep`; its path."""
    trials = []
    comparable = sweep["objective"] is not None  # values of several objectives share no axis
    for job in sweep["jobs"]:
        settings = dict(job["overrides"])
        parts = [f"{k.rpartition('.')[2]}={v}" for k, v in settings.items() if k not in REPEAT_KEYS]
        name = f"job {job['job']}"
        trials.append(
            read_trial(
                folder,
                RunFolder(folder / job["folder"]),
                name,
                " ".join(parts) or name,
                settings,
                job["value"] if job["value"] is not None and comparable else math.nan,
                selected=job["selected_epoch"],
                best=job["job"] in sweep["best"],
            )
        )
    trials = sort_trials(trials, sweep["better"] != "smaller")
    html = sweep_page(sweep, trials, name=folder.name, made=today())
    write_atomically(folder / PAGE, html)
    return folder / PAGE


def _planned(folder: Path, reason: str) -> list[Row]:
    """All jobs of a sweep as if none had started, from its plan, or from Hydra's record of it.

    reason: why they have not. Empty for a sweeper that chooses the next values by earlier results.
    """
    if planned := read_mapping(folder / PLAN).get("jobs"):
        return [_row(n, str(n), list(job), "not run", reason) for n, job in enumerate(planned)]
    hydra = read_mapping(folder / MULTIRUN).get("hydra") or {}
    sweeper = hydra.get("sweeper") or {}
    if sweeper.get("_target_") != GRID_SWEEPER:
        return []
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    texts = [*params, *(hydra.get("overrides") or {}).get("task", ())]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    except (HydraException, TypeError):
        return []  # a sweep over a pattern of names, which only its own config could expand
    return [
        _row(number, str(number), list(job), "not run", reason) for number, job in enumerate(jobs)
    ]


def _row(number: int, folder: str, overrides: Sequence[str], status: str, reason: str) -> Row:
    """A job without any result."""
    pairs = [override.lstrip("+~").partition("=") for override in overrides]
    return {
        "job": number,
        "folder": folder,
        "overrides": {key: value for key, _, value in pairs},
        "command": shlex.join(["python", "-m", "fracnet.train", *overrides]),
        "status": status,
        "reason": reason,
        "epochs": None,
        "selected_epoch": None,
        "objective": None,
        "value": None,
        "low": None,
        "high": None,
        "val": None,
        "metrics": None,
    }


def _read_job(path: Path, run: RunFolder) -> Row:
    """job.json, whose status is corrected where the job's process could not do that any more."""
    job = read_mapping(path)
    try:
        number, overrides = int(job["job"]), [str(override) for override in job["overrides"]]
        status, reason = str(job["status"]), str(job["reason"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read: it does not describe a job ({error}).") from error
    if status == "running":
        ended = read_status(run)
        if ended == "finished":  # killed between its last two records
            status = ended
        elif ended == "interrupted" or is_gone(job.get("process")):
            status, reason = "interrupted", PROCESS_DIED
        if status != "running":
            record = {k: v for k, v in job.items() if k != "process"}
            with suppress(CannotWrite):  # somebody else's folder: the next reader sees the same
                write_json(path, record | {"status": status, "reason": reason})
        else:
            status, reason = "unfinished", "it is still running, or its process died"
    return _row(number, "", overrides, status, reason)


def _read(path: Path, folder: Path) -> Row:
    """One job, from its folder."""
    run = RunFolder.open(path.parent, "sweep")
    row = _read_job(path, run)
    row |= {
        "folder": path.parent.relative_to(folder).as_posix(),
        "epochs": _epochs(run.curves),
    }
    if row["status"] == "finished" and run.metrics.is_file():
        metrics = read_mapping(run.metrics)
        validation = (metrics.get("val") or {}).get("metrics", {})
        estimate = validation.get(metrics["objective"]["name"], {})
        row |= {
            "low": estimate.get("low"),
            "high": estimate.get("high"),
            "selected_epoch": (metrics.get("selected") or {}).get("epoch"),
            "objective": metrics["objective"]["name"],
            "value": metrics["objective"]["value"],
            "val": validation or None,
            "metrics": metrics,
        }
    return row


def _epochs(curves: Path) -> int | None:
    """Rows of the curves; None for a job without any."""
    if not curves.is_file():
        return None
    with curves.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def _swept(rows: Sequence[Row]) -> list[str]:
    """Keys whose values differ between jobs, in the order of the command line."""
    keys = dict.fromkeys(key for row in rows for key in row["overrides"])
    values = {key: {row["overrides"].get(key) for row in rows} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def _group_by_setting(rows: Sequence[Row]) -> list[list[Row]]:
    """Jobs that differ in nothing but the fold."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        setting = tuple((k, v) for k, v in row["overrides"].items() if k != FOLD)
        groups.setdefault(setting, []).append(row)
    return list(groups.values())


def _better(finished: Sequence[Row]) -> str:
    """Whether a "smaller" or a "larger" objective is better; a user's own metric says so itself."""
    selected = finished[0]["metrics"].get("selected") or {}
    direction = selected.get("mode") or mode(finished[0]["objective"])
    return {"min": "smaller", "max": "larger"}[direction]


def _best(groups: Sequence[Sequence[Row]], better: str) -> tuple[list[int], list[int]]:
    """Jobs of the group with the best (mean) validation metric, and of groups with the same mean.

    The first counts. A group in which a job has no value is not compared.
    """
    means = {
        number: statistics.fmean(row["value"] for row in group)
        for number, group in enumerate(groups)
        if all(row["status"] == "finished" and row["value"] is not None for row in group)
    }
    if not means:
        return [], []
    top = min(means.values()) if better == "smaller" else max(means.values())
    first, *others = (number for number, mean in means.items() if mean == top)
    jobs = [[row["job"] for row in groups[number]] for number in (first, *others)]
    return jobs[0], [job for group in jobs[1:] for job in group]


def _fold_summary(group: Sequence[Row]) -> Row:
    """Mean and spread of one setting; over the folds that have a value."""
    values = [row["value"] for row in group if row["value"] is not None]
    return {
        "overrides": {k: v for k, v in group[0]["overrides"].items() if k != FOLD},
        "jobs": [row["job"] for row in group],
        "folds": len(group),
        "scored": len(values),
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values, default=None),
        "high": max(values, default=None),
    }


def _earlier_views(folder: Path) -> list[Row]:
    views: list[Row] = read_mapping(folder / RECORD).get("test_views") or []
    return views


def _new_view(viewed: Sequence[Row], show_test: str) -> list[Row]:
    """One entry for the record: which jobs' test metrics were viewed, when and by which command."""
    if not viewed:
        return []
    return [
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "show_test": show_test,
            "jobs": [row["job"] for row in viewed],
        }
    ]


def _as_csv(content: Mapping[str, Any]) -> str:
    """A row a job, with all validation metrics; test metrics only where they are viewed."""
    jobs = content["jobs"]
    names = {
        split: list(dict.fromkeys(name for job in jobs for name in job[split] or {}))
        for split in ("val", "test")
    }
    ends = {"": "value", "_low": "low", "_high": "high"}
    metrics = [(split, name, end) for split in names for name in names[split] for end in ends]
    own = ("status", "epochs", "selected_epoch", "objective", "value")
    columns = [f"{split}/{name}{end}" for split, name, end in metrics]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", *content["swept"], *own, "best", *columns, "folder", "reason"])
    for job in jobs:
        writer.writerow(
            [
                job["job"],
                *map(plain_cell, job["overrides"].values()),
                *(job[key] for key in own),
                int(job["job"] in content["best"]),
                *((job[split] or {}).get(name, {}).get(ends[end]) for split, name, end in metrics),
                plain_cell(job["folder"]),
                plain_cell(job["reason"]),
            ]
        )
    return text.getvalue()

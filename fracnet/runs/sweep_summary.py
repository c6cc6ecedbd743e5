"""A sweep's folder as one table: sweep.json, sweep.csv and a page, from the folders of its jobs.

Each job has its validation metrics at its selected checkpoint. Jobs that differ in nothing but the
seed or the fold are one configuration, and validation chooses among configurations by their means;
among several objectives it names the Pareto front and chooses nothing. Test metrics are included
for the jobs that validation chose, for all on request; each time, sweep.json records when, by which
command and for which jobs.
"""

import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console

from fracnet.config.fields import OVERALL_METRICS, POSITIVE_METRICS, mode, split_metric
from fracnet.data.manifest import read_table
from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import plain
from fracnet.evaluation.sweep_statistics import (
    fit_data_curve,
    key_importance,
    mean_interval,
    pareto_front,
)
from fracnet.report.comparison_page import differences_part
from fracnet.report.comparison_text import headline
from fracnet.report.sweep_page import print_sweep, sweep_page
from fracnet.report.sweep_tables import settings_text, short_value
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.find_runs import REPEAT_KEYS
from fracnet.runs.report_run import draw_figures, write_report
from fracnet.runs.run_folder import (
    PROCESS_DIED,
    RunFolder,
    check_entries,
    csv_text,
    read_curves,
    read_mapping,
    read_status,
    write_json,
)
from fracnet.runs.trials import PAGE, read_trial, sort_trials, today
from fracnet.utils.errors import UserError
from fracnet.utils.files import CannotWrite, by_number, write_atomically
from fracnet.utils.processes import is_gone
from fracnet.utils.result_files import PLAN_FILE, SWEEP_FILE

JOB, TABLE = "job.json", "sweep.csv"
MULTIRUN = "multirun.yaml"
"""Hydra's own record of a sweep's command."""
DATA_FRACTION = "data.fraction"
GRID_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
MOST_COMPARED, RESAMPLES = 20, 200
"""Configurations that are compared on the page, and resamples of the validation images."""

NO_RESULT = (
    "epochs", "selected_epoch", "objective", "value", "low", "high", "values", "val", "metrics",
)  # fmt: skip

Row = dict[str, Any]


def collect(folder: Path, show_test: str = "best", *, report: bool = False) -> dict[str, Any]:
    """Read all jobs, choose one by validation, write sweep.json, sweep.csv and index.html.

    show_test: "best" includes the test metrics of the chosen job alone, "all" those of all jobs.
    report: write the report of the chosen job if it has none yet.

    Returns:
        The content of sweep.json, which `print_summary` prints.

    Raises:
        UserError: the folder is not that of one sweep.
    """
    check_entries(folder, "")
    rows = [_read(path, folder) for path in folder.rglob(JOB)]
    if not rows:
        raise UserError(f"{folder} is not a sweep folder (no {JOB} found).")
    sweeps = sorted(str(path.parent) for path in folder.rglob(PLAN_FILE))
    if (folder / JOB).is_file():
        sweeps = [str(folder.parent)]
    if sweeps and sweeps != [str(folder)]:
        raise UserError(f"{folder} is not a sweep folder; name one: {', '.join(sweeps)}.")
    started = by_number(folder, [(row["job"], folder / row["folder"]) for row in rows])
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
    repeated = [key for key in REPEAT_KEYS if key in swept]
    groups = _group_by_setting(rows) if repeated else [[row] for row in rows]
    better = _better(finished[0], objective) if objective else None
    pareto = _pareto(finished) if objective else None
    ranked = _ranked(groups, better) if better and pareto is None else []
    first = [group for group in ranked if _mean(group) == _mean(ranked[0])]
    leaders = [[row["job"] for row in group] for group in first]
    best = leaders[0] if leaders else []
    viewed = [row for row in finished if show_test == "all" or row["job"] in best]
    for row in rows:
        metrics = row.pop("metrics")
        row["test"] = metrics["test"]["metrics"] if row in viewed else None
        if row in viewed:
            baselines = metrics["baselines_on_test"]
            row["n_test"] = metrics["test"]["n"]
            row["cited"] = metrics.get("cited", [])
            row["baselines"] = {name: values["metrics"] for name, values in baselines.items()}
    configurations = None
    if repeated and objective:
        configurations = [_configuration(group, repeated == ["seed"]) for group in groups]
    content: dict[str, Any] = {
        "objective": objective,
        "objectives": objectives,
        "better": better,
        "swept": swept,
        "jobs": rows,
        "best": best,
        "ties": [job for group in leaders[1:] for job in group],
        "repeated": repeated,
        "configurations": configurations,
        "pareto": pareto,
        "importance": _importance(finished, swept) if objective else [],
        "data_curves": _data_curves(folder, finished, better) if better and not pareto else [],
        "show_test": show_test,
        "test_views": _test_views(folder, viewed, show_test),
    }
    compared, why_not = _compare_jobs(folder, content, ranked)
    rows_of = [*compared.configurations, *compared.models] if compared else []
    content["differences"] = plain(rows_of)
    write_json(folder / SWEEP_FILE, content)
    write_atomically(folder / TABLE, csv_text(_as_table(content)))
    if report:
        chosen = best or (pareto["front"] if pareto else [])
        _report([RunFolder(folder / row["folder"]) for row in finished if row["job"] in chosen])
    _write_page(folder, content, compared, why_not)
    return content


def print_summary(content: Mapping[str, Any], folder: Path) -> None:
    """Print what `collect` gives for a sweep's folder."""
    print_sweep(Console(highlight=False), content, folder)


def _report(runs: Sequence[RunFolder]) -> None:
    """Write figures and report of those runs that have predictions but no report.

    A failure is printed: the results of all jobs must not be lost for it.
    """
    for run in runs:
        if not run.predictions.is_file() or run.report.is_file():
            continue
        try:
            check_entries(run.path, "run")  # nothing is drawn into a linked folder
            evaluation = evaluate_run(run)
            draw_figures(evaluation, evaluation.metadata.options.figures)
            write_report(evaluation)
        except (UserError, OSError) as error:
            print(f"No report of {run.path}: {error}")


def _compare_jobs(
    folder: Path, sweep: Mapping[str, Any], ranked: Sequence[Sequence[Row]]
) -> tuple[Comparison | None, str]:
    """The best of the `ranked` configurations against the best of all, on the validation images.

    None where fewer than two can be compared, with the reason if the page should state it.
    """
    if len(ranked) < 2 or "data.fold" in sweep["repeated"]:
        return None, ""
    try:
        candidates = [
            Candidate(
                _name(group[0]["overrides"]) or f"job {group[0]['job']}",
                tuple(_on_validation(folder, job) for job in group),
            )
            for group in ranked[:MOST_COMPARED]
        ]
        level, metric = split_metric(sweep["objective"])
        if level != "image":
            return None, f"Differences in {sweep['objective']} are not tested."
        return compare(candidates, metric, resamples=RESAMPLES), ""
    except FileNotFoundError:
        return None, ""  # predictions were removed
    except UserError as error:
        return None, f"Differences are not tested: {error}"


def _on_validation(folder: Path, job: Mapping[str, Any]) -> Member:
    """A job's predictions of the validation images, in the place of those that are compared."""
    path = RunFolder(folder / job["folder"]).predictions
    table = read_table(path)
    rows = table[table["split"] == "val"].assign(split="test").reset_index(drop=True)
    return Member(f"job {job['job']}", Predictions.trusted(rows))


def _name(overrides: Mapping[str, Any]) -> str:
    """What distinguishes a configuration, without the keys in which its jobs differ."""
    return settings_text({k: v for k, v in overrides.items() if k not in REPEAT_KEYS})


def _write_page(
    folder: Path, sweep: Mapping[str, Any], compared: Comparison | None, why_not: str
) -> None:
    """Write index.html. compared, why_not: as from `_compare_jobs`."""
    trials = []
    comparable = sweep["objective"] is not None  # values of several objectives share no axis
    for job in sweep["jobs"]:
        name = f"job {job['job']}"
        trials.append(
            read_trial(
                folder,
                RunFolder(folder / job["folder"]),
                name,
                _name(job["overrides"]) or name,
                {key: short_value(value) for key, value in job["overrides"].items()},
                job["value"] if job["value"] is not None and comparable else math.nan,
                job["job"] in sweep["best"],
            )
        )
    trials = sort_trials(trials, sweep["better"] != "smaller")
    kinds = (compared.configurations, compared.models) if compared else ()
    html = sweep_page(
        sweep,
        trials,
        name=folder.name,
        made=today(),
        differences=[
            differences_part(compared, rows, [headline(compared, rows)])
            for rows in kinds
            if compared and rows
        ],
        not_compared=why_not,
    )
    write_atomically(folder / PAGE, html)


def _planned(folder: Path, reason: str) -> list[Row]:
    """All jobs of a sweep as if none had started, from its plan, or from Hydra's record of it.

    reason: why they have not. Empty for a sweeper that chooses the next values by earlier results.
    """
    jobs = read_mapping(folder / PLAN_FILE).get("jobs") or _grid(folder)
    return [_row(n, str(n), list(job), "not run", reason) for n, job in enumerate(jobs)]


def _grid(folder: Path) -> Sequence[Sequence[str]]:
    """The overrides of each job, by Hydra's record."""
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
    return list(jobs)


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
    } | dict.fromkeys(NO_RESULT)


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
    run = RunFolder.open(path.parent, "")
    row = _read_job(path, run)
    curves = None
    with suppress(UserError):  # damaged, which the page's trial reports
        curves = read_curves(run)
    row |= {
        "folder": path.parent.relative_to(folder).as_posix(),
        "epochs": None if curves is None else len(curves),
    }
    if row["status"] == "finished" and run.metrics.is_file():
        metrics = read_mapping(run.metrics)
        validation = (metrics.get("val") or {}).get("metrics", {})
        values = {
            entry["name"]: {
                "value": entry["value"],
                **{end: validation.get(entry["name"], {}).get(end) for end in ("low", "high")},
            }
            for entry in metrics.get("objectives") or [metrics["objective"]]
        }
        row |= {
            **values[metrics["objective"]["name"]],
            "values": values if len(values) > 1 else None,
            "selected_epoch": (metrics.get("selected") or {}).get("epoch"),
            "objective": metrics["objective"]["name"],
            "val": validation or None,
            "metrics": metrics,
        }
    return row


def _swept(rows: Sequence[Row]) -> list[str]:
    """Keys whose values differ between jobs, in the order of the command line."""
    keys = dict.fromkeys(key for row in rows for key in row["overrides"])
    values = {key: {row["overrides"].get(key) for row in rows} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def _group_by_setting(rows: Sequence[Row]) -> list[list[Row]]:
    """Jobs that differ in nothing but the seed or the fold."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        setting = tuple((k, v) for k, v in row["overrides"].items() if k not in REPEAT_KEYS)
        groups.setdefault(setting, []).append(row)
    return list(groups.values())


def _better(row: Row, name: str) -> str:
    """Whether a "smaller" or a "larger" value is better; a user's own metric says so itself."""
    selected = row["metrics"].get("selected") or {}
    own = (selected.get("own_metrics") or {}).get(name) or {}
    direction = own.get("mode") or selected.get("mode") or mode(name)
    return {"min": "smaller", "max": "larger"}[direction]


def _pareto(finished: Sequence[Row]) -> Row | None:
    """The jobs that no other beats in all of several objectives; None where there is one."""
    names = list(finished[0]["values"] or ())
    if not names or any(list(row["values"] or ()) != names for row in finished):
        return None
    better = {name: _better(finished[0], name) for name in names}
    signs = [-1.0 if better[name] == "smaller" else 1.0 for name in names]
    table = [
        [math.nan if v["value"] is None else v["value"] for v in row["values"].values()]
        for row in finished
    ]
    front = pareto_front(np.array(table) * signs)
    return {"better": better, "front": [finished[i]["job"] for i in front]}


def _importance(finished: Sequence[Row], swept: Sequence[str]) -> list[Row]:
    """How much each swept key matters; see `key_importance`."""
    settings = {key: [row["overrides"][key] for row in finished] for key in swept}
    varied = {key: values for key, values in settings.items() if len(set(values)) > 1}
    values = [row["value"] for row in finished]
    return [asdict(importance) for importance in key_importance(varied, values)]


def _data_curves(folder: Path, finished: Sequence[Row], better: str) -> list[Row]:
    """The learning curve of data of each configuration; empty where the fraction does not vary."""
    curves: dict[tuple[Any, ...], list[tuple[float, int, float]]] = {}
    for row in finished:
        if DATA_FRACTION not in row["overrides"]:
            return []
        others = {k: v for k, v in row["overrides"].items() if k != DATA_FRACTION}
        setting = tuple((k, v) for k, v in others.items() if k not in REPEAT_KEYS)
        provenance = read_mapping(RunFolder(folder / row["folder"]).provenance)
        counts = (provenance.get("data") or {}).get("counts")
        if counts:
            run = (
                float(row["overrides"][DATA_FRACTION] or 1),
                sum(counts["train"].values()),
                row["value"],
            )
            curves.setdefault(setting, []).append(run)
    return [_data_curve(dict(setting), sorted(runs), better) for setting, runs in curves.items()]


def _data_curve(
    overrides: Mapping[str, Any], runs: Sequence[tuple[float, int, float]], better: str
) -> Row:
    """The points of one curve, means over runs, and its fit. runs: fraction, images, value."""
    points = []
    for fraction, group in groupby(runs, lambda run: run[0]):
        each = [(images, value) for _, images, value in group]
        values = [value for _, value in each]
        low, high = mean_interval(values)
        points.append(
            {
                "fraction": fraction,
                "images": statistics.fmean(images for images, _ in each),
                "each": [images for images, _ in each],
                "values": values,
                "mean": statistics.fmean(values),
                "low": low,
                "high": high,
            }
        )
    errors = [value if better == "smaller" else 1 - value for _, _, value in runs]
    curve = fit_data_curve([images for _, images, _ in runs], errors, [run[0] for run in runs])
    fit = None if curve is None else asdict(curve) | {"is_precise": curve.is_precise}
    return {"overrides": dict(overrides), "points": points, "fit": fit}


def _ranked(groups: Sequence[Sequence[Row]], better: str) -> list[Sequence[Row]]:
    """The groups by their (mean) validation metric, the best first, in order where they are equal.

    Without those in which a job has no value.
    """
    complete = [group for group in groups if all(row["value"] is not None for row in group)]
    return sorted(complete, key=_mean, reverse=better == "larger")


def _mean(group: Sequence[Row]) -> float:
    return statistics.fmean(row["value"] for row in group)


def _configuration(group: Sequence[Row], by_seed: bool) -> Row:
    """Mean and spread of one configuration over the seeds or folds that have a value.

    by_seed: give an interval of the mean as well. Folds share most of their training images, so
    their spread gives none.
    """
    values = [row["value"] for row in group if row["value"] is not None]
    low, high = mean_interval(values) if by_seed else (None, None)
    name = split_metric(str(group[0]["objective"]))[1]
    if low is not None and high is not None and name in (*OVERALL_METRICS, *POSITIVE_METRICS):
        low = max(low, -1.0 if name in ("kappa", "mcc") else 0.0)
        high = high if name == "log_loss" else min(high, 1.0)
    return {
        "overrides": {k: v for k, v in group[0]["overrides"].items() if k not in REPEAT_KEYS},
        "jobs": [row["job"] for row in group],
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": low,
        "high": high,
    }


def _test_views(folder: Path, viewed: Sequence[Row], show_test: str) -> list[Row]:
    """Which jobs' test metrics were viewed, when and by which command, up to now."""
    views: list[Row] = read_mapping(folder / SWEEP_FILE).get("test_views") or []
    view = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "show_test": show_test,
        "jobs": [row["job"] for row in viewed],
    }
    return [*views, view] if viewed else views


def _as_table(content: Mapping[str, Any]) -> pd.DataFrame:
    """One row per job, with all validation metrics; test metrics only where they are viewed."""
    jobs, ends = content["jobs"], {"": "value", "_low": "low", "_high": "high"}
    metrics = [
        (split, name, suffix)
        for split in ("val", "test")
        for name in dict.fromkeys(name for job in jobs for name in job[split] or {})
        for suffix in ends
    ]
    own = ("status", "epochs", "selected_epoch", "objective", "value")
    names = [f"{split}/{name}{suffix}" for split, name, suffix in metrics]
    rows = [
        [
            job["job"],
            *job["overrides"].values(),
            *(job[key] for key in own),
            int(job["job"] in content["best"]),
            *(
                (job[split] or {}).get(name, {}).get(ends[suffix])
                for split, name, suffix in metrics
            ),
            job["folder"],
            job["reason"],
        ]
        for job in jobs
    ]
    # A swept key may have the name of a column, as `objective` has.
    columns = ["job", *content["swept"], *own, "best", *names, "folder", "reason"]
    return pd.DataFrame(rows, columns=columns, dtype=object)

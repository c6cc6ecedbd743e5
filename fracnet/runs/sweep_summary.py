"""A sweep's folder as one table: study.json, study.csv and a page, from the folders of its jobs.

What stands in the table of each job is its validation figure at its selected checkpoint. Test
figures are taken over for the job that validation has chosen, for all on request; every time that
is done, study.json says when, by which command and for which jobs.
"""

import csv
import io
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fracnet.config.schema import mode
from fracnet.report.sweep_charts import Trial
from fracnet.report.sweep_page import sweep_page
from fracnet.runs.find_runs import TRIAL
from fracnet.runs.run_folder import RunFolder, write_json, write_whole
from fracnet.runs.trials import (
    PAGE,
    _audit,
    _by_value,
    _classes,
    _curves,
    _data,
    _facts,
    _link,
    _today,
)
from fracnet.utils.errors import UserError


def write_sweep(folder: Path, study: Mapping[str, Any]) -> Path:
    """Write index.html for a sweep, whose study.json holds `study`; its path."""
    trials = []
    comparable = study["objective"] is not None
    for job in study["jobs"]:
        run = RunFolder(folder / job["folder"])
        name = f"job {job['job']}"
        settings = dict(job["overrides"])
        words = [f"{k.rpartition('.')[2]}={v}" for k, v in settings.items() if k not in TRIAL]
        trials.append(
            Trial(
                name=name,
                of=" ".join(words) or name,
                settings=settings,
                # Figures of several objectives have no common axis.
                value=job["value"] if job["value"] is not None and comparable else math.nan,
                curves=_curves(run),
                selected=job["selected_epoch"],
                page=_link(folder, run),
                chosen=job["job"] in study["best"],
                facts=_facts(run, job["selected_epoch"]),
                data=_data(run),
                audit=_audit(run),
                classes=_classes(run),
            )
        )
    trials = _by_value(trials, study["better"] != "smaller")
    html = sweep_page(study, trials, name=folder.name, made=_today())
    write_whole(folder / PAGE, html)
    return folder / PAGE


JOB = "job.json"
FOLD = "data.fold"

Row = dict[str, Any]


def collect(folder: Path, show_test: str = "best") -> dict[str, Any]:
    """Read all jobs, choose one by validation, write study.json, study.csv and index.html.

    show_test: "best" takes over the test figures of the chosen job alone, "all" those of all.

    Returns:
        The content of study.json; `report.study.print_study` prints it.

    Raises:
        UserError: the folder holds no jobs, or those of several sweeps.
    """
    rows = sorted((_read(path, folder) for path in folder.rglob(JOB)), key=lambda row: row["job"])
    if not rows:
        raise UserError(f"{folder} is no folder of a sweep: there is no {JOB} below it.")
    if len({row["job"] for row in rows}) < len(rows):
        raise UserError(f"{folder} holds more than one sweep: name the folder of one of them.")
    swept = _swept(rows)
    for row in rows:
        row["overrides"] = {key: row["overrides"].get(key) for key in swept}
    finished = [row for row in rows if row["status"] == "finished" and row["value"] is not None]
    objectives = sorted({row["objective"] for row in finished})
    objective = objectives[0] if len(objectives) == 1 else None
    groups = _settings(rows) if FOLD in swept else [[row] for row in rows]
    best, ties = _best(groups, objective) if objective else ([], [])
    shown = [row for row in finished if show_test == "all" or row["job"] in best]
    for row in rows:
        metrics = row.pop("metrics")
        row["test"] = metrics["test"]["metrics"] if row in shown else None
        if row in shown:
            baselines = metrics["baselines_on_test"]
            row["n_test"] = metrics["test"]["n"]
            row["cited"] = metrics.get("cited", [])
            row["baselines"] = {name: of["metrics"] for name, of in baselines.items()}
    content = {
        "objective": objective,
        "objectives": objectives,
        "better": {"min": "smaller", "max": "larger"}[mode(objective)] if objective else None,
        "swept": swept,
        "jobs": rows,
        "best": best,
        "ties": ties,
        "folds": [_over_folds(group) for group in groups] if FOLD in swept and objective else None,
        "show_test": show_test,
        "test_shown": [*_looks_before(folder), *_look(shown, show_test)],
    }
    write_json(folder / "study.json", content)
    write_whole(folder / "study.csv", _as_csv(content))
    write_sweep(folder, content)
    return content


def _read(path: Path, folder: Path) -> Row:
    """One job as its folder tells it."""
    told = json.loads(path.read_text(encoding="utf-8"))
    run = RunFolder(path.parent)
    if told["status"] == "running":
        told |= {
            "status": "unfinished",
            "reason": "it is still running, or its process has ended without a word",
        }
    pairs = [word.lstrip("+~").partition("=") for word in told["overrides"]]
    row: Row = {
        "job": told["job"],
        "folder": path.parent.relative_to(folder).as_posix(),
        "overrides": {key: value for key, _, value in pairs},
        "status": told["status"],
        "reason": told["reason"],
        "epochs": _epochs(run.curves),
        "selected_epoch": None,
        "objective": None,
        "value": None,
        "low": None,
        "high": None,
        "metrics": None,
    }
    if told["status"] == "finished" and run.metrics.is_file():
        metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
        of_val = (metrics.get("val") or {}).get("metrics", {})
        interval = of_val.get(metrics["objective"]["name"], {})
        row |= {
            "low": interval.get("low"),
            "high": interval.get("high"),
            "selected_epoch": (metrics.get("selected") or {}).get("epoch"),
            "objective": metrics["objective"]["name"],
            "value": metrics["objective"]["value"],
            "metrics": metrics,
        }
    return row


def _epochs(curves: Path) -> int | None:
    """Rows of the curves; None for a job that got no further, or has no epochs."""
    if not curves.is_file():
        return None
    with curves.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def _swept(rows: Sequence[Row]) -> list[str]:
    """Keys whose values differ between jobs, in the order of the command line."""
    keys = dict.fromkeys(key for row in rows for key in row["overrides"])
    held = {key: {row["overrides"].get(key) for row in rows} for key in keys}
    return [key for key in keys if len(held[key]) > 1]


def _settings(rows: Sequence[Row]) -> list[list[Row]]:
    """Jobs that differ in nothing but the fold."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        setting = tuple((k, v) for k, v in row["overrides"].items() if k != FOLD)
        groups.setdefault(setting, []).append(row)
    return list(groups.values())


def _best(groups: Sequence[Sequence[Row]], objective: str) -> tuple[list[int], list[int]]:
    """Jobs of the group with the best (mean) validation figure, and those of others as good.

    The first counts. A group in which a job has no figure is not compared.
    """
    means = {
        number: statistics.fmean(row["value"] for row in group)
        for number, group in enumerate(groups)
        if all(row["status"] == "finished" and row["value"] is not None for row in group)
    }
    if not means:
        return [], []
    top = min(means.values()) if mode(objective) == "min" else max(means.values())
    first, *others = (number for number, mean in means.items() if mean == top)
    jobs = [[row["job"] for row in groups[number]] for number in (first, *others)]
    return jobs[0], [job for group in jobs[1:] for job in group]


def _over_folds(group: Sequence[Row]) -> Row:
    """Mean and spread of one setting; of the folds that have a figure."""
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


def _looks_before(folder: Path) -> list[Row]:
    path = folder / "study.json"
    if not path.is_file():
        return []
    looks: list[Row] = json.loads(path.read_text(encoding="utf-8"))["test_shown"]
    return looks


def _look(shown: Sequence[Row], show_test: str) -> list[Row]:
    """One entry for the record: who looked at which jobs' test figures."""
    if not shown:
        return []
    return [
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "show_test": show_test,
            "jobs": [row["job"] for row in shown],
        }
    ]


def _as_csv(content: Mapping[str, Any]) -> str:
    """A row a job; a test figure where it is shown, empty elsewhere."""
    shown = [row["test"] for row in content["jobs"] if row["test"]]
    names = list(dict.fromkeys(name for test in shown for name in test))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    own = ("status", "epochs", "selected_epoch", "objective", "value")
    limits = [f"test/{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(["job", *content["swept"], *own, "best", *limits, "folder", "reason"])
    for row in content["jobs"]:
        test = row["test"] or {}
        figures = [test.get(n, {}).get(key) for n in names for key in ("value", "low", "high")]
        writer.writerow(
            [
                row["job"],
                *row["overrides"].values(),
                *(row[key] for key in own),
                int(row["job"] in content["best"]),
                *figures,
                row["folder"],
                row["reason"],
            ]
        )
    return text.getvalue()

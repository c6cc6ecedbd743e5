"""The tables of a sweep, from the content of sweep.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.config.fields import split_metric
from fracnet.report.run_tables import FURTHER_METRICS, METRICS, MULTICLASS_METRICS
from fracnet.report.sweep_charts import MOST_RUNS, Trial
from fracnet.report.tables import (
    Cell,
    Link,
    Named,
    Table,
    mean_cell,
    round_scale,
    stored_cell,
)
from fracnet.utils.text import counted

TITLES = METRICS | FURTHER_METRICS | {"loss": "loss"}
MOST_ROWS = 500  # jobs in the table of the page
MOST_DETAILED = 60  # jobs in the table of all metrics
REPEATS = {"seed": "seeds", "data.fold": "folds"}
INTERVAL = "95 % interval"
LONG_NUMBER = 8  # characters of a number that is shown as it was given
NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}

Sweep = Mapping[str, Any]
"""The content of sweep.json."""


def metric_title(name: str) -> str:
    """`macro AUC`, `study kappa`; a metric of the user's own keeps its name."""
    level, base = split_metric(name)
    title = TITLES.get(base, base)
    return title if level == "image" else f"{level} {title}"


def has_choice(sweep: Sweep) -> bool:
    """Whether validation chose among configurations: the seeds or folds of one are no choice."""
    return bool(sweep["best"]) and len(sweep["configurations"] or "several") > 1


def jobs_table(sweep: Sweep, links: Mapping[int, str] | None = None) -> Table:
    """All jobs by number; on a page, where `links` has the addresses of their pages, by value."""
    jobs, objective = list(sweep["jobs"]), sweep["objective"]
    # Values of several objectives have no order and no scale.
    ranked = links is not None and objective is not None
    if ranked:
        sign = -1 if sweep["better"] == "larger" else 1
        jobs.sort(key=lambda job: math.inf if job["value"] is None else sign * job["value"])
    shown = jobs if links is None else jobs[:MOST_ROWS]
    scale = round_scale(job[k] for job in shown for k in ("value", "low", "high") if objective)
    chosen = sweep["best"] if has_choice(sweep) else []
    value = metric_title(objective) if objective else "value"
    further = list(sweep["pareto"]["better"])[1:] if sweep["pareto"] else []
    titles = [metric_title(name) for name in further]
    heads = ["job", *short_keys(sweep["swept"]), "status", "epochs", *titles, value, INTERVAL]
    rows: list[list[Cell]] = []
    for job in shown:
        link = Link(str(job["job"]), (links or {}).get(job["job"], ""))
        rows.append(
            [
                Named(link, tag="best" if job["job"] in chosen else ""),
                *map(short_value, job["overrides"].values()),
                job["status"],
                "-" if job["epochs"] is None else str(job["epochs"]),
                *(stored_cell((job["values"] or {}).get(name, NOTHING)).number for name in further),
                *_value_cells(job, objective),
                stored_cell(job if objective else NOTHING).bar(scale),
            ]
        )
    return Table(
        counted(len(jobs), "job") + (", by validation" if ranked or links is None else ""),
        [*heads, f"{scale}"],
        rows,
        marked=[n for n, job in enumerate(shown) if job["job"] in chosen],
        text=range(1, 1 + len(sweep["swept"])),
        sortable=True,
    )


def configurations_table(sweep: Sweep) -> Table | None:
    """Mean and spread of each configuration over its seeds or folds; None where nothing repeats.

    A configuration in which a job has no value comes last.
    """
    rows = sweep["configurations"]
    if not rows or not sweep["objective"]:
        return None
    sign = -1 if sweep["better"] == "larger" else 1

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        mean = math.inf if row["mean"] is None else sign * row["mean"]
        return len(row["values"]) < len(row["jobs"]), mean

    rows = sorted(rows, key=place)
    best = [n for n, row in enumerate(rows) if row["jobs"] == sweep["best"]]
    ends = [row[key] for row in rows for key in ("mean", "low", "high")]
    scale = round_scale([*ends, *(value for row in rows for value in row["values"])])
    cells: list[list[Cell]] = [
        [
            Named(
                settings_text(row["overrides"]) or "all jobs",
                tag="best" if n in best and has_choice(sweep) else "",
            ),
            f"{len(row['values'])} of {len(row['jobs'])}",
            mean_cell(row),
            "-" if row["sd"] is None else f"{row['sd']:.3f}",
            stored_cell(row, "mean").bar(scale, ticks=row["values"]),
        ]
        for n, row in enumerate(rows)
    ]
    interval = " (95 % CI)" if any(row["low"] is not None for row in rows) else ""
    return Table(
        f"Validation {metric_title(sweep['objective'])} over {repeats_of(sweep)}",
        ["configuration", repeats_of(sweep), f"mean{interval}", "SD", f"{scale}"],
        cells,
        marked=best,
        sortable=True,
    )


def repeats_of(sweep: Sweep) -> str:
    """`seeds`, `folds`, or `seeds and folds`."""
    return " and ".join(REPEATS[key] for key in sweep["repeated"])


def pareto_table(sweep: Sweep) -> Table | None:
    """The jobs that no other beats in every objective, by the first; None for one objective."""
    if not sweep["pareto"]:
        return None
    better = sweep["pareto"]["better"]
    first, sign = next(iter(better)), -1 if sweep["better"] == "larger" else 1
    jobs = [job for job in sweep["jobs"] if job["job"] in sweep["pareto"]["front"]]
    jobs.sort(key=lambda job: sign * job["values"][first]["value"])
    return Table(
        f"Pareto front: {counted(len(jobs), 'job')} that no other job beats in every objective",
        ["job", *short_keys(sweep["swept"]), *(metric_title(name) for name in better)],
        [
            [
                str(job["job"]),
                *map(short_value, job["overrides"].values()),
                *(stored_cell(job["values"][name]) for name in better),
            ]
            for job in jobs
        ],
        text=range(1, 1 + len(sweep["swept"])),
        sortable=True,
    )


def importance_table(sweep: Sweep) -> Table | None:
    """How much each swept key matters for the metric; None where that cannot be told."""
    rows = sweep["importance"]
    if not rows:
        return None
    scale = round_scale(row[end] for row in rows for end in ("value", "low", "high"))
    return Table(
        f"Importance of the keys for validation {metric_title(sweep['objective'])}",
        ["key", "importance (95 % CI)", f"{scale}"],
        [
            [row["key"], stored_cell(row, digits=2), stored_cell(row).bar(scale, guide=0.0)]
            for row in rows
        ],
        note="Share of the variance between jobs that regression trees lose when the key's values "
        "are shuffled; about 0, or below, for a key that makes no difference. The shares need not "
        "add up to 1.",
        sortable=True,
    )


def _value_cells(job: Mapping[str, Any], objective: str | None) -> list[Cell]:
    if job["value"] is None:
        return ["-", ""]
    cell = stored_cell(job)
    named = "" if objective else f" {metric_title(job['objective'])}"
    return [f"{cell.number}{named}", cell.interval]


def _cell(name: str, metric: Mapping[str, Any]) -> Cell:
    near_zero = name == "calibration_error" and metric["value"] == 0
    return stored_cell(metric, near_zero=near_zero)


def metrics_table(sweep: Sweep, links: Mapping[int, str]) -> Table | None:
    """Every validation metric of each finished job; None where there is none."""
    jobs = [job for job in sweep["jobs"] if job["val"]][:MOST_DETAILED]
    if not jobs:
        return None
    names = [name for name in METRICS | FURTHER_METRICS if any(name in j["val"] for j in jobs)]
    chosen = sweep["best"] if has_choice(sweep) else []
    rows: list[list[Cell]] = [
        [
            Named(
                Link(f"job {job['job']}", links.get(job["job"], "")),
                settings_text(job["overrides"]),
            ),
            *(_cell(name, job["val"][name]) if name in job["val"] else "-" for name in names),
        ]
        for job in jobs
    ]
    return Table(
        "All validation metrics, 95 % intervals",
        ["job", *(TITLES[name] for name in names)],
        rows,
        marked=[n for n, job in enumerate(jobs) if job["job"] in chosen],
        below=True,
        sortable=True,
    )


def test_table(sweep: Sweep) -> Table | None:
    """Test metrics of the jobs that sweep.json holds them for, above the baselines."""
    jobs = [job for job in sweep["jobs"] if job["test"]]
    if not jobs:
        return None
    starred = sweep["best"] if sweep["show_test"] == "all" and has_choice(sweep) else []
    lines = [(f"job {job['job']}{' *' * (job['job'] in starred)}", job["test"]) for job in jobs]
    lines += [(f"{name} baseline", metrics) for name, metrics in jobs[0]["baselines"].items()]
    return Table(
        f"Test split, {counted(jobs[0]['n_test'], 'image')}, 95 % intervals",
        ["", *MULTICLASS_METRICS.values()],
        [[name, *(stored_cell(of[key]) for key in MULTICLASS_METRICS)] for name, of in lines],
    )


def runs_table(trials: Sequence[Trial]) -> Table | None:
    """Seed, time, device and other facts of each run, with a link to its own page."""
    if not trials:
        return None
    columns = list(dict.fromkeys(name for t in trials for name, fact in t.facts.items() if fact))
    facts = {name: {trial.facts.get(name) or "-" for trial in trials} for name in columns}
    shared = [name for name in columns if len(facts[name]) == 1 and len(trials) > 1]
    columns = [name for name in columns if name not in shared]
    same = [f"{name} {facts[name].pop()}" for name in shared]
    shown = trials[:MOST_RUNS]
    linked = "; a name leads to the run's page" if any(trial.page for trial in shown) else ""
    first = "" if len(shown) == len(trials) else f", the first {MOST_RUNS} of {len(trials)}"
    return Table(
        f"In the order of the standings{first}{linked}",
        ["run", *columns],
        [
            [Link(trial.name, trial.page), *(trial.facts.get(name) or "-" for name in columns)]
            for trial in shown
        ],
        sortable=True,
        note=f"The same in all runs: {'; '.join(same)}." if same else "",
    )


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last part of a key where that is unique."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(end) > 1 else end for key, end in zip(keys, last, strict=True)]


def settings_text(overrides: Mapping[str, Any]) -> str:
    """`lr=0.01 optim=adam`."""
    pairs = zip(short_keys(list(overrides)), overrides.values(), strict=True)
    return " ".join(f"{key}={short_value(value)}" for key, value in pairs)


def short_value(value: Any) -> str:
    """A value of a job for reading: four digits of the many that a sampler gives; - for none."""
    text = "-" if value is None else str(value)
    if len(text) <= LONG_NUMBER:
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text

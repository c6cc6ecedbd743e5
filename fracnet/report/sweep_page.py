"""A sweep on the screen and on a page: jobs by validation, varied keys, and test as requested.

Both show the same tables, made of the content of sweep.json. Test metrics appear only for the jobs
that sweep.json holds them for.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fracnet.config.schema import split_metric
from fracnet.evaluation.summary import NOT_FROM_0, Estimate
from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.html import page
from fracnet.report.plots import Figure
from fracnet.report.published import published_lines
from fracnet.report.run_tables import FURTHER_METRICS, METRICS, MULTICLASS_METRICS
from fracnet.report.sweep_charts import (
    MOST_RUNS,
    Trial,
    fact_columns,
    front_chart,
    learning_curves,
    swept_keys,
)
from fracnet.report.tables import (
    Bar,
    Cell,
    EstimateCell,
    Link,
    Named,
    Scale,
    Table,
    estimate_cell,
    print_table,
    round_scale,
)
from fracnet.report.verdict import ABOVE_CHANCE, none_above_chance
from fracnet.utils.text import are, counted, limits

TITLES = METRICS | FURTHER_METRICS | {"loss": "loss"}


def _metric_title(name: str) -> str:
    """`macro AUC`, `study kappa`; a metric of the user's own keeps its name."""
    level, base = split_metric(name)
    title = TITLES.get(base, base)
    return title if level == "image" else f"{level} {title}"


MOST_ROWS = 500  # jobs in the table of the page
MOST_DETAILED = 60  # jobs in the table of all metrics
BASELINE_METRIC = "macro_auc"  # compares the best jobs with the baselines
COMPARE_NOTE = (
    "`python -m fracnet.compare runs=<this folder>` tells which differences are significant on the "
    "test split."
)
OPTIMISTIC = (
    "On the validation images. The best was chosen on the same ones, so its lead is optimistic: p "
    "is corrected for the number of differences, not for that choice."
)
PRUNED = "could no longer win; sweep.csv says after which epoch and by what"
REPEATS = {"seed": "seeds", "data.fold": "folds"}
INTERVAL = "95 % interval"

LONG_NUMBER = 8  # characters of a number that is shown as it was given
NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}

Sweep = Mapping[str, Any]
"""The content of sweep.json."""


def print_sweep(console: Console, sweep: Sweep, folder: Path) -> None:
    """Print all jobs by number, then the test metrics that sweep.json holds.

    Args:
        console: where to print.
        sweep: the content of sweep.json.
        folder: of the sweep, for the last lines.
    """
    print_table(console, jobs_table(sweep).without(INTERVAL))
    for table in filter(None, (configurations_table(sweep), pareto_table(sweep))):
        print_table(console, table)
    for sentence in result_notes(sweep):
        # A command stays on one line, so that it can be copied.
        console.print(Text(sentence.replace("`", "")), soft_wrap="`" in sentence)
    for sentence in failures(sweep):
        # One line each, however long, so that a pipe can search it.
        console.print(Text(sentence), soft_wrap=True)
    test = test_table(sweep)
    if test is not None:
        print_table(console, test)
        for sentence in _test_notes(sweep):
            console.print(Text(sentence))
        console.print(RESEARCH_ONLY)
    console.print(
        f"\nSweep folder: {folder}\n  sweep.json\n  sweep.csv\n  index.html", soft_wrap=True
    )


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
    value = _metric_title(objective) if objective else "value"
    further = list(sweep["pareto"]["better"])[1:] if sweep["pareto"] else []
    titles = [_metric_title(name) for name in further]
    heads = ["job", *_short(sweep["swept"]), "status", "epochs", *titles, value, INTERVAL]
    rows: list[list[Cell]] = []
    for job in shown:
        link = Link(str(job["job"]), (links or {}).get(job["job"], ""))
        rows.append(
            [
                Named(link, tag="best" if job["job"] in chosen else ""),
                *map(short_value, job["overrides"].values()),
                job["status"],
                "-" if job["epochs"] is None else str(job["epochs"]),
                *(_estimate((job["values"] or {}).get(name, NOTHING)).number for name in further),
                *_value_cells(job, objective),
                _bar(job, scale if objective else None),
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
    complete = [len(row["values"]) == len(row["jobs"]) for row in rows]

    def place(n: int) -> tuple[bool, float]:
        mean = rows[n]["mean"]
        return not complete[n], math.inf if mean is None else sign * mean

    ends = [row[key] for row in rows for key in ("mean", "low", "high")]
    scale = round_scale([*ends, *(value for row in rows for value in row["values"])])
    order = sorted(range(len(rows)), key=place)
    cells: list[list[Cell]] = []
    for n in order:
        row = rows[n]
        mean = math.nan if row["mean"] is None else row["mean"]
        cells.append(
            [
                Named(
                    settings_text(row["overrides"]) or "all jobs",
                    tag="best" if has_choice(sweep) and row["jobs"] == sweep["best"] else "",
                ),
                f"{len(row['values'])} of {len(row['jobs'])}",
                EstimateCell(mean, row["low"], row["high"])
                if row["low"] is not None
                else EstimateCell(mean).number,
                "-" if row["sd"] is None else f"{row['sd']:.3f}",
                Bar(mean, row["low"], row["high"], scale, ticks=row["values"]),
            ]
        )
    interval = " (95 % CI)" if any(row["low"] is not None for row in rows) else ""
    return Table(
        f"Validation {_metric_title(sweep['objective'])} over {_repeats(sweep)}",
        ["configuration", _repeats(sweep), f"mean{interval}", "SD", f"{scale}"],
        cells,
        marked=[n for n, row in enumerate(order) if rows[row]["jobs"] == sweep["best"]],
        sortable=True,
    )


def _repeats(sweep: Sweep) -> str:
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
        ["job", *_short(sweep["swept"]), *(_metric_title(name) for name in better)],
        [
            [
                str(job["job"]),
                *map(short_value, job["overrides"].values()),
                *(_estimate(job["values"][name]) for name in better),
            ]
            for job in jobs
        ],
        text=range(1, 1 + len(sweep["swept"])),
        sortable=True,
    )


def pareto_chart(sweep: Sweep) -> Figure | None:
    """The first two of several objectives against each other, and the front."""
    if not sweep["pareto"]:
        return None
    names = list(sweep["pareto"]["better"])[:2]
    front = sweep["pareto"]["front"] if len(sweep["pareto"]["better"]) == 2 else ()
    points = [
        (f"job {job['job']}", *(job["values"][n]["value"] for n in names), job["job"] in front)
        for job in sweep["jobs"]
        if job["values"] and all(job["values"][n]["value"] is not None for n in names)
    ]
    return Figure("pareto", "", [front_chart(points, [_metric_title(name) for name in names])])


def importance_table(sweep: Sweep) -> Table | None:
    """How much each swept key matters for the metric; None where that cannot be told."""
    rows = sweep["importance"]
    if not rows:
        return None
    scale = round_scale(row[end] for row in rows for end in ("value", "low", "high"))
    return Table(
        f"Importance of the keys for validation {_metric_title(sweep['objective'])}",
        ["key", "importance (95 % CI)", f"{scale}"],
        [
            [
                row["key"],
                EstimateCell(row["value"], row["low"], row["high"], signed=False, digits=2),
                Bar(row["value"], row["low"], row["high"], scale, guide=0.0),
            ]
            for row in rows
        ],
        note="Share of the variance between jobs that regression trees lose when the key's values "
        "are shuffled; about 0, or below, for a key that makes no difference. The shares need not "
        "add up to 1.",
        sortable=True,
    )


def _value_cells(job: Mapping[str, Any], objective: str | None) -> list[Cell]:
    cell = _estimate(job)
    if job["value"] is None:
        return ["-", ""]
    named = "" if objective else f" {_metric_title(job['objective'])}"
    return [f"{cell.number}{named}", cell.interval]


def _bar(job: Mapping[str, Any], scale: Scale | None) -> Cell:
    if scale is None or job["value"] is None:
        return Bar(math.nan, None, None, scale or Scale(0, 1))
    return Bar(job["value"], job["low"], job["high"], scale)


def _estimate(metric: Mapping[str, Any]) -> EstimateCell:
    value = math.nan if metric["value"] is None else metric["value"]
    return EstimateCell(value, metric["low"], metric["high"])


def _cell(name: str, metric: Mapping[str, Any]) -> Cell:
    cell = _estimate(metric)
    note = NOT_FROM_0 if name == "calibration_error" and cell.value == 0 else ""
    return estimate_cell(Estimate(cell.value, cell.low, cell.high, "", 0, note))


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
        [[name, *(_estimate(of[key]) for key in MULTICLASS_METRICS)] for name, of in lines],
    )


def _short(keys: Sequence[str]) -> list[str]:
    """The last part of a key where that is unique."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(end) > 1 else end for key, end in zip(keys, last, strict=True)]


def settings_text(overrides: Mapping[str, Any]) -> str:
    """`lr=0.01 optim=adam`."""
    pairs = zip(_short(list(overrides)), overrides.values(), strict=True)
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


def result_notes(sweep: Sweep) -> list[str]:
    """What the table means, the command that repeats the best job, and means over folds."""
    notes = []
    if has_choice(sweep):
        best = (
            "* marks the best job" if len(sweep["best"]) == 1 else "* marks the best configuration"
        )
        rule = f" by the mean over {_repeats(sweep)}" if sweep["configurations"] else ""
        notes.append(
            f"{best}{rule} ({sweep['better']} is better). Each value is that of the job's selected "
            "epoch; the best of several is chosen on the same images, so it is optimistic."
        )
    if sweep["ties"]:
        notes.append(f"Equally good: {job_names(sweep['ties'])}; the first is chosen.")
    if len(sweep["objectives"]) > 1:
        notes.append(
            f"No best job: the jobs have different objectives ({', '.join(sweep['objectives'])})."
        )
    elif not sweep["objectives"]:
        notes.append("No job finished, so there is nothing to choose from.")
    elif sweep["pareto"]:
        ways = ", ".join(f"{_metric_title(n)} {b}" for n, b in sweep["pareto"]["better"].items())
        notes.append(
            f"Nothing was chosen among the jobs of the front ({ways} is better): choose by what a "
            "miss and a false alarm cost you, before you look at the test split."
        )
    elif not sweep["best"] and sweep["configurations"]:
        notes.append(f"No best configuration: none has a value for all of its {_repeats(sweep)}.")
    if len(sweep["configurations"] or ()) == 1:
        notes.append(_mean(sweep, sweep["configurations"][0]))
    if has_choice(sweep):
        best_job = next(job for job in sweep["jobs"] if job["job"] == sweep["best"][0])
        notes.append(f"Repeat job {best_job['job']}: `{best_job['command']}`")
    return notes


def failures(sweep: Sweep) -> list[str]:
    """Why jobs have no value, each reason once."""
    groups: dict[tuple[str, str], list[int]] = {}
    for job in sweep["jobs"]:
        if job["status"] != "finished":
            reason = PRUNED if job["status"] == "pruned" else job["reason"]
            groups.setdefault((job["status"], reason), []).append(job["job"])
    return [f"{job_names(jobs)} {status}: {reason}" for (status, reason), jobs in groups.items()]


def _mean(sweep: Sweep, row: Mapping[str, Any]) -> str:
    which = settings_text(row["overrides"])
    start = f"{which}: " if which else ""
    scored, repeats = len(row["values"]), f"{len(row['jobs'])} {_repeats(sweep)}"
    if not scored:
        return f"{start}no job has a value."
    if scored != len(row["jobs"]):
        repeats = f"{scored} of {repeats}"
    sd = "" if row["sd"] is None else f", SD {row['sd']:.3f}"
    interval = "" if row["low"] is None else f", 95 % CI {limits(row['low'], row['high'])}"
    return (
        f"{start}mean validation {_metric_title(sweep['objective'])} over {repeats}: "
        f"{row['mean']:.3f}{sd}{interval}, {min(row['values']):.3f} to {max(row['values']):.3f}."
    )


def job_names(jobs: Sequence[int]) -> str:
    """`job 3`, `jobs 3, 5`."""
    return f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(str(job) for job in jobs)}"


def _test_notes(sweep: Sweep) -> list[str]:
    """Whose test metrics are shown and what that means; then published results."""
    jobs = [job for job in sweep["jobs"] if job["test"]]
    published = published_lines([(f"Job {job['job']}", job["cited"]) for job in jobs])
    if sweep["show_test"] == "all":
        note = (
            "The test metrics of all jobs are shown, which sweep.json records: choosing among them "
            "turns the test set into a second validation set."
        )
    elif not has_choice(sweep):
        note = (
            f"All {_repeats(sweep)} of one configuration on the one test split; nothing was chosen "
            "among them."
        )
    else:
        note = (
            f"Test metrics of {job_names(sweep['best'])} alone, which validation chose. "
            "`python -m fracnet.sweep FOLDER --show-test all` shows the others; sweep.json records "
            "that."
        )
    return [note, *published]


def sweep_page(
    sweep: Sweep,
    trials: Sequence[Trial],
    *,
    name: str,
    made: str,
    differences: Sequence[Mapping[str, Any]] = (),
    not_compared: str = "",
) -> str:
    """The page, as HTML, from the content of sweep.json and the jobs' folders.

    trials: the jobs that have started, the best by validation first. name: of the sweep. made: the
    day. differences: of the best jobs on validation, see `comparison_page.differences_part`.
    not_compared: why there are none.
    """
    jobs, objective = sweep["jobs"], sweep["objective"]
    finished = [job for job in jobs if job["status"] == "finished"]
    title = _metric_title(objective) if objective else "objective"
    audit = summarize_audits(trials)
    chance = _chance_notes(sweep)
    state = (
        "error" if not finished else "warning" if len(finished) < len(jobs) or chance else "hint"
    )
    links = {int(trial.name.removeprefix("job ")): trial.page for trial in trials if trial.page}
    more = len(jobs) - MOST_ROWS
    test = test_table(sweep)
    views = [
        f"{view['when']}: {job_names(view['jobs'])} (show_test={view['show_test']})"
        for view in sweep["test_views"]
    ]
    return page(
        "runs.html",
        {
            "kind": "Sweep",
            "name": name,
            "made": made,
            "severity": overall_severity(state, audit, trials),
            "tag": f"{len(finished)} of {counted(len(jobs), 'job')} finished",
            "headline": _headline(sweep, title),
            "sentences": [
                *audit.flaw,
                *chance,
                *(line.replace("* marks", "Marked is", 1) for line in result_notes(sweep)),
                *_baseline_notes(sweep),
                *(line[:1].upper() + line[1:] for line in failures(sweep)),
                *([COMPARE_NOTE] if len(finished) > 1 else []),
                *data_notes(trials),
                *audit.sentences,
            ],
            "facts": _facts(sweep, title, made, audit.fact),
            "warnings": [],
            "standings": jobs_table(sweep, links),
            "standings_notes": [f"The first {MOST_ROWS}; {more} more are in sweep.csv."]
            if more > 0
            else [],
            "configurations": configurations_table(sweep),
            "pareto": pareto_table(sweep),
            "pareto_chart": pareto_chart(sweep),
            "importance": importance_table(sweep),
            "metrics": metrics_table(sweep, links),
            "differences": differences,
            "differences_notes": [OPTIMISTIC] if differences else [],
            "no_configurations": not_compared,
            "swept": swept_keys(trials, f"validation {title}"),
            "swept_title": f"validation {title}",
            "curves": learning_curves(trials, objective or "", title),
            "runs": runs_table(trials),
            "test": test and {"table": test, "sentences": _test_notes(sweep), "views": views},
            "left": [],
            "method": [
                "Each value is that of validation at the job's selected checkpoint, with its 95 % "
                "interval. Test metrics appear only for the jobs that validation chose, unless "
                "they were requested; sweep.json records each time they were viewed.",
            ],
        },
    )


def runs_table(trials: Sequence[Trial]) -> Table | None:
    """Seed, time, device and other facts of each run, with a link to its own page."""
    if not trials:
        return None
    columns = fact_columns(trials)
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
    )


def _headline(sweep: Sweep, title: str) -> str:
    if sweep["pareto"]:
        front, n = sweep["pareto"]["front"], len(sweep["pareto"]["better"])
        return f"{counted(len(front), 'job')} on the Pareto front of {n} objectives."
    if not sweep["best"]:
        return "There is no best job."
    best = [job for job in sweep["jobs"] if job["job"] in sweep["best"]]
    values = [job["value"] for job in best]
    mean = sum(values) / len(values)
    settings = settings_text({k: v for k, v in best[0]["overrides"].items() if k not in REPEATS})
    over = f"{len(best)} {_repeats(sweep)}"
    if not has_choice(sweep):
        return f"Over {over}, validation {title} is {mean:.3f} on average."
    if sweep["configurations"]:
        return f"Validation chooses {settings}: mean {title} {mean:.3f} over {over}."
    of = f" ({settings})" if settings else ""
    name = job_names(sweep["best"]).replace(" ", "\N{NO-BREAK SPACE}")
    return f"Validation chooses {name}{of}: {title} {mean:.3f}."


def _chance_notes(sweep: Sweep) -> list[str]:
    """That no job with test metrics is shown to do better than chance, where it is so."""
    jobs = [job for job in sweep["jobs"] if job["test"]]
    if not none_above_chance([job["test"][BASELINE_METRIC]["low"] for job in jobs]):
        return []
    if len(jobs) > 2:
        return [f"None of the {len(jobs)} jobs with test metrics is {ABOVE_CHANCE}."]
    names = job_names([job["job"] for job in jobs])
    return [f"{names[0].upper()}{names[1:]} {are(len(jobs))} not {ABOVE_CHANCE}."]


def _baseline_notes(sweep: Sweep) -> list[str]:
    """Which baselines the best jobs do not beat on test, whatever was chosen among jobs."""
    best = [job for job in sweep["jobs"] if job["job"] in sweep["best"] and job["test"]]
    notes = []
    for name in best[0]["baselines"] if best else []:
        pairs = [(_auc(job["test"]), _auc(job["baselines"][name]), job["job"]) for job in best]
        behind = [pair for pair in pairs if pair[0] <= pair[1]]  # NaN is behind nothing
        if behind:
            own, other, _ = max(behind)
            verb = "does" if len(behind) == 1 else "do"
            notes.append(
                f"On test {job_names([job for *_, job in behind])} {verb} not beat the {name} "
                f"baseline: {MULTICLASS_METRICS[BASELINE_METRIC]} {own:.3f} against {other:.3f}."
            )
    return notes


def _auc(metrics: Mapping[str, Any]) -> float:
    value = metrics[BASELINE_METRIC]["value"]
    return math.nan if value is None else float(value)


def _facts(sweep: Sweep, title: str, made: str, audit: str) -> list[dict[str, str]]:
    facts = {
        "jobs": str(len(sweep["jobs"])),
        "keys swept": str(len(sweep["swept"])),
        "objective": f"validation {title}",
        "jobs with test metrics": str(sum(bool(job["test"]) for job in sweep["jobs"])),
        "times test was viewed": str(len(sweep["test_views"])),
        "audit of the data": audit,
        "made on": made,
    }
    return [{"name": name, "value": value} for name, value in facts.items()]

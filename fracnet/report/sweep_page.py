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
from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.html import page
from fracnet.report.published import published_lines
from fracnet.report.run_tables import FURTHER_METRICS, METRICS, MULTICLASS_METRICS
from fracnet.report.sweep_charts import MOST_RUNS, Trial, fact_columns, learning_curves, swept_keys
from fracnet.report.tables import (
    Bar,
    Cell,
    EstimateCell,
    Link,
    Named,
    Scale,
    Table,
    print_table,
    round_scale,
)
from fracnet.report.verdict import ABOVE_CHANCE, none_above_chance
from fracnet.utils.text import are, counted

TITLES = METRICS | FURTHER_METRICS | {"loss": "loss"}


def _metric_title(name: str) -> str:
    """`macro AUC`, `study kappa`; a metric of the user's own keeps its name."""
    level, base = split_metric(name)
    title = TITLES.get(base, base)
    return title if level == "image" else f"{level} {title}"


MOST_ROWS = 60  # jobs in a table of the page
BASELINE_METRIC = "macro_auc"  # compares the best jobs with the baselines
SEED_NOTE = "The seed was swept as well: which of otherwise equal jobs comes out best is chance."
COMPARE_NOTE = (
    "`python -m fracnet.compare runs=<this folder>` tells which differences are significant."
)
INTERVAL = "95 % interval"

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
    """Whether validation chose among settings: the folds of one setting are no choice."""
    return bool(sweep["best"]) and len(sweep["folds"] or "several") > 1


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
    heads = ["job", *_short(sweep["swept"]), "status", "epochs", value, INTERVAL]
    rows: list[list[Cell]] = []
    for job in shown:
        link = Link(str(job["job"]), (links or {}).get(job["job"], ""))
        rows.append(
            [
                Named(link, tag="best" if job["job"] in chosen else ""),
                *("-" if value is None else str(value) for value in job["overrides"].values()),
                job["status"],
                "-" if job["epochs"] is None else str(job["epochs"]),
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


def metrics_table(sweep: Sweep, links: Mapping[int, str]) -> Table | None:
    """Every validation metric of each finished job; None where there is none."""
    jobs = [job for job in sweep["jobs"] if job["val"]][:MOST_ROWS]
    if not jobs:
        return None
    names = [name for name in METRICS | FURTHER_METRICS if any(name in j["val"] for j in jobs)]
    chosen = sweep["best"] if has_choice(sweep) else []
    rows: list[list[Cell]] = [
        [
            Named(
                Link(f"job {job['job']}", links.get(job["job"], "")), _settings(job["overrides"])
            ),
            *(_estimate(job["val"][name]) if name in job["val"] else "-" for name in names),
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


def _settings(overrides: Mapping[str, Any]) -> str:
    """`lr=0.01 optim=adam`."""
    pairs = zip(_short(list(overrides)), overrides.values(), strict=True)
    return " ".join(f"{key}={'-' if value is None else value}" for key, value in pairs)


def result_notes(sweep: Sweep) -> list[str]:
    """What the table means, the command that repeats the best job, and means over folds."""
    notes = []
    if has_choice(sweep):
        best = "* marks the best job" if len(sweep["best"]) == 1 else "* marks the best setting"
        rule = "" if len(sweep["best"]) == 1 else " by the mean over folds"
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
    elif not sweep["best"] and sweep["folds"]:
        notes.append("No best setting: none has a value for every fold.")
    notes += [_fold_mean(setting, sweep["objective"]) for setting in sweep["folds"] or []]
    if has_choice(sweep):
        best_job = next(job for job in sweep["jobs"] if job["job"] == sweep["best"][0])
        notes.append(f"Repeat job {best_job['job']}: `{best_job['command']}`")
    return notes


def failures(sweep: Sweep) -> list[str]:
    """Why jobs have no value, each reason once."""
    groups: dict[tuple[str, str], list[int]] = {}
    for job in sweep["jobs"]:
        if job["status"] != "finished":
            groups.setdefault((job["status"], job["reason"]), []).append(job["job"])
    return [f"{job_names(jobs)} {status}: {reason}" for (status, reason), jobs in groups.items()]


def _fold_mean(setting: Mapping[str, Any], objective: str) -> str:
    which = " ".join(f"{key}={value}" for key, value in setting["overrides"].items())
    start = f"{which}: " if which else ""
    if not setting["scored"]:
        return f"{start}no fold has a value."
    sd = "" if setting["sd"] is None else f", SD {setting['sd']:.3f}"
    folds = f"{setting['folds']} folds"
    if setting["scored"] != setting["folds"]:
        folds = f"{setting['scored']} of {folds}"
    title = _metric_title(objective)
    return (
        f"{start}mean validation {title} over {folds}: {setting['mean']:.3f}{sd}, "
        f"{setting['low']:.3f} to {setting['high']:.3f}."
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
        note = "The model of each fold on the one test split; nothing was chosen among them."
    else:
        note = (
            f"Test metrics of {job_names(sweep['best'])} alone, which validation chose. "
            "`python -m fracnet.sweep FOLDER --show-test all` shows the others; sweep.json records "
            "that."
        )
    return [note, *published]


def sweep_page(sweep: Sweep, trials: Sequence[Trial], *, name: str, made: str) -> str:
    """The page, as HTML, from the content of sweep.json and the jobs' folders.

    trials: the jobs that have started, the best by validation first. name: of the sweep. made: the
    day.
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
                *([SEED_NOTE] if "seed" in sweep["swept"] and has_choice(sweep) else []),
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
            "metrics": metrics_table(sweep, links),
            "differences": [],
            "no_configurations": "",
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
    if not sweep["best"]:
        return "There is no best job."
    best = [job for job in sweep["jobs"] if job["job"] in sweep["best"]]
    values = [job["value"] for job in best]
    mean = sum(values) / len(values)
    settings = _settings({k: v for k, v in best[0]["overrides"].items() if k != "data.fold"})
    if not has_choice(sweep):
        return f"Over {counted(len(best), 'fold')}, validation {title} is {mean:.3f} on average."
    if len(best) > 1:
        return f"Validation chooses {settings}: mean {title} {mean:.3f} over {len(best)} folds."
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

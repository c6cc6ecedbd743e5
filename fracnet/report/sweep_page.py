"""The page of a sweep: its jobs by validation, what was swept, and only what is shown of test.

The closing table of a sweep: all jobs by validation, the chosen one's test figures below.

80 columns and no reliance on color, as the table of a single run.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.report import tables
from fracnet.report.caveats import about_data, audits, box
from fracnet.report.console import METRICS, RESEARCH_ONLY, plain_table
from fracnet.report.html import page
from fracnet.report.published import told
from fracnet.report.sweep_charts import MOST_RUNS, Trial, columns, overlaid, swept
from fracnet.report.tables import Reach, interval
from fracnet.report.verdict import SHOWN, none_exceeds
from fracnet.utils.text import are, counted, limits

TITLES = METRICS | {"loss": "loss"}
FIGURES = {
    "accuracy": "accuracy",
    "macro_sensitivity": "macro sens.",
    "macro_specificity": "macro spec.",
    "macro_auc": "macro AUC",
}


def print_study(console: Console, study: Mapping[str, Any], folder: Path) -> None:
    """Print what `training.study.collect` has written.

    Args:
        console: where to.
        study: the content of study.json.
        folder: of the sweep, for the last lines.
    """
    console.print(_jobs(study))
    for sentence in remarks(study):
        console.print(Text(sentence))
    for sentence in endings(study):
        # One line each, however long: whoever pipes this can search it.
        console.print(Text(sentence), soft_wrap=True)
    if any(job["test"] for job in study["jobs"]):
        console.print(_test_table(study))
        console.print(Text(about_test(study)))
        shown = [job for job in study["jobs"] if job["test"]]
        for line in told([(f"Job {job['job']}", job["cited"]) for job in shown]):
            console.print(Text(line))
        console.print(RESEARCH_ONLY)
    console.print(
        f"\nSweep folder: {folder}\n  study.json\n  study.csv\n  index.html", soft_wrap=True
    )


def is_choice(study: Mapping[str, Any]) -> bool:
    """Whether something was chosen: the folds of one setting are no choice."""
    return bool(study["best"]) and len(study["folds"] or "several") > 1


def _jobs(study: Mapping[str, Any]) -> Table:
    jobs = study["jobs"]
    table = plain_table(f"{counted(len(jobs), 'job')}, by validation")
    table.add_column("job", justify="right", no_wrap=True)
    for name in _short(study["swept"]):
        table.add_column(Text(name), overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    objective = study["objective"]
    title = f"validation {TITLES[objective]}" if objective else "validation"
    table.add_column(title, max_width=18)
    for job in jobs:
        value = "" if job["value"] is None else f"{job['value']:.3f}"
        if value and not objective:
            value += f" {TITLES[job['objective']]}"
        star = "  *" if job["job"] in study["best"] and is_choice(study) else ""
        table.add_row(
            str(job["job"]),
            *(Text("-" if value is None else value) for value in job["overrides"].values()),
            job["status"],
            "-" if job["epochs"] is None else str(job["epochs"]),
            value + star,
        )
    return table


def _short(keys: Sequence[str]) -> list[str]:
    """The last part of a key where that says which it is."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(end) > 1 else end for key, end in zip(keys, last, strict=True)]


def remarks(study: Mapping[str, Any]) -> list[str]:
    """What the table means, and the mean over folds."""
    told = []
    if is_choice(study):
        whose = "* the best" if len(study["best"]) == 1 else "* the best by the mean over folds"
        told.append(
            f"{whose} ({study['better']} is better). Each figure stands at the job's selected "
            "epoch; the best of several is chosen on the same images, so it is optimistic."
        )
    if study["ties"]:
        told.append(f"As good: {named(study['ties'])}; the first is taken.")
    if len(study["objectives"]) > 1:
        told.append(
            f"No best: the jobs have different objectives ({', '.join(study['objectives'])})."
        )
    elif not study["objectives"]:
        told.append("No job came to its end: there is nothing to choose from.")
    elif not study["best"] and study["folds"]:
        told.append("No best: no setting has a figure for every fold.")
    return told + [_folds(setting, study["objective"]) for setting in study["folds"] or []]


def endings(study: Mapping[str, Any]) -> list[str]:
    """Why jobs have no figure, each reason once."""
    ends: dict[tuple[str, str], list[int]] = {}
    for job in study["jobs"]:
        if job["status"] != "finished":
            ends.setdefault((job["status"], job["reason"]), []).append(job["job"])
    return [f"{named(jobs)} {status}: {reason}" for (status, reason), jobs in ends.items()]


def _folds(setting: Mapping[str, Any], objective: str) -> str:
    which = " ".join(f"{key}={value}" for key, value in setting["overrides"].items())
    start = f"{which}: " if which else ""
    if not setting["scored"]:
        return f"{start}no fold has a figure."
    sd = "" if setting["sd"] is None else f", SD {setting['sd']:.3f}"
    of = setting["folds"]
    some = f"{of} folds" if setting["scored"] == of else f"{setting['scored']} of {of} folds"
    return (
        f"{start}mean validation {TITLES[objective]} over {some}: {setting['mean']:.3f}{sd}, "
        f"{setting['low']:.3f} to {setting['high']:.3f}."
    )


def named(jobs: Sequence[int]) -> str:
    """`job 3`, `jobs 3, 5`."""
    return f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(str(job) for job in jobs)}"


def _test_table(study: Mapping[str, Any]) -> Table:
    shown = [job for job in study["jobs"] if job["test"]]
    table = plain_table(f"test split, {counted(shown[0]['n_test'], 'image')}, 95 % intervals")
    table.add_column("")
    for title in FIGURES.values():
        table.add_column(title, no_wrap=True)
    for job in shown:
        star = " *" if job["job"] in study["best"] and study["show_test"] == "all" else ""
        table.add_row(f"job {job['job']}{star}", *(_cell(job["test"][name]) for name in FIGURES))
    for name, baseline in shown[0]["baselines"].items():
        cells = (_cell(baseline[figure]) for figure in FIGURES)
        table.add_row(f"{name} baseline", *cells)
    return table


def _cell(estimate: Mapping[str, Any]) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "n/a"
    interval = "no interval" if low is None or high is None else limits(low, high)
    return f"{value:.3f}\n{interval}"


def about_test(study: Mapping[str, Any]) -> str:
    """Whose test figures are shown, and what that means."""
    if study["show_test"] == "all":
        return (
            "All jobs' test figures are shown, which study.json keeps on record: choosing among "
            "them makes the test a second validation."
        )
    if not is_choice(study):
        return "Each fold's model on the one test split; nothing was chosen among them."
    return (
        f"Test figures of {named(study['best'])} alone, which validation has chosen. "
        "`python -m fracnet.sweep FOLDER --show-test all` shows the others; study.json keeps that "
        "on record."
    )


MOST_ROWS = 60
AGAINST = "macro_auc"
SEEDS = "The seed was swept, too: which of equal jobs comes out best is chance."
COMPARE = "`python -m fracnet.compare runs=<this folder>` tells which differences are real."


def sweep_page(study: Mapping[str, Any], trials: Sequence[Trial], *, name: str, made: str) -> str:
    """The page, as HTML, from the content of study.json and what the jobs' folders tell.

    trials: the jobs that have begun, the best by validation first. name: of the sweep. made: the
    day.
    """
    jobs, objective = study["jobs"], study["objective"]
    finished = [job for job in jobs if job["status"] == "finished"]
    title = TITLES.get(objective, objective) if objective else "objective"
    missing = len(jobs) - len(finished)
    audited = audits(trials)
    chance = _chance(study)
    state = "error" if not finished else "warning" if missing or chance else "hint"
    return page(
        "study.html",
        {
            "kind": "Sweep",
            "name": name,
            "made": made,
            "severity": box(state, audited, trials),
            "tag": f"{len(finished)} of {counted(len(jobs), 'job')} finished",
            "headline": _headline(study, title),
            "told": [
                *audited.flaw,
                *chance,
                *(line.replace("* the best", "Marked is the best", 1) for line in remarks(study)),
                *_against(study),
                *(line[:1].upper() + line[1:] for line in endings(study)),
                *([SEEDS] if "seed" in study["swept"] and is_choice(study) else []),
                *([COMPARE] if len(finished) > 1 else []),
                *about_data(trials),
                *audited.sentences,
            ],
            "facts": _facts(study, title, made, audited.fact),
            "warnings": [],
            "leaders": _leaders(study, title),
            "differences": [],
            "no_configurations": "",
            "swept": swept(trials, f"validation {title}"),
            "swept_of": f"{title} on validation",
            "curves": overlaid(trials, objective or "", title),
            "trials": trials,
            "columns": columns(trials),
            "most_runs": MOST_RUNS,
            "test": _test(study),
            "left": [],
            "method": [
                "Each figure is that of validation at the job's selected checkpoint, with its 95 % "
                "interval. Test figures appear only for jobs that validation has chosen, unless "
                "they were asked for; study.json keeps a record of each look.",
            ],
        },
    )


def _headline(study: Mapping[str, Any], title: str) -> str:
    if not study["best"]:
        return "There is no best job to name."
    best = [job for job in study["jobs"] if job["job"] in study["best"]]
    values = [job["value"] for job in best]
    mean = sum(values) / len(values)
    words = _settings({k: v for k, v in best[0]["overrides"].items() if k != "data.fold"})
    if not is_choice(study):
        return f"Over {counted(len(best), 'fold')}, validation {title} is {mean:.3f} on average."
    if len(best) > 1:
        return f"Validation chooses {words}: mean {title} {mean:.3f} over {len(best)} folds."
    of = f" ({words})" if words else ""
    who = named(study["best"]).replace(" ", "\N{NO-BREAK SPACE}")
    return f"Validation chooses {who}{of}: {title} {mean:.3f}."


def _chance(study: Mapping[str, Any]) -> list[str]:
    """That no job whose test figures are shown is shown to exceed chance, where it is so."""
    shown = [job for job in study["jobs"] if job["test"]]
    if not none_exceeds([job["test"][AGAINST]["low"] for job in shown]):
        return []
    if len(shown) > 2:
        return [f"None of the {len(shown)} jobs whose test is looked at is {SHOWN}."]
    names = named([job["job"] for job in shown])
    return [f"{names[0].upper()}{names[1:]} {are(len(shown))} not {SHOWN}."]


def _against(study: Mapping[str, Any]) -> list[str]:
    """Which baselines the best jobs do not beat on test, which no choice among jobs mends."""
    best = [job for job in study["jobs"] if job["job"] in study["best"] and job["test"]]
    lines = []
    for name in best[0]["baselines"] if best else []:
        pairs = [(_auc(job["test"]), _auc(job["baselines"][name]), job["job"]) for job in best]
        behind = [pair for pair in pairs if pair[0] <= pair[1]]  # NaN is behind nothing
        if behind:
            own, other, _ = max(behind)
            verb = "does" if len(behind) == 1 else "do"
            lines.append(
                f"On test {named([job for *_, job in behind])} {verb} not beat the {name} "
                f"baseline: {FIGURES[AGAINST]} {own:.3f} against {other:.3f}."
            )
    return lines


def _auc(figures: Mapping[str, Any]) -> float:
    value = figures[AGAINST]["value"]
    return math.nan if value is None else float(value)


def _settings(overrides: Mapping[str, Any]) -> str:
    """`lr=0.01 optim=adam`, with the last part of a key where that says which it is."""
    last = [key.rpartition(".")[2] for key in overrides]
    short = [key if last.count(end) > 1 else end for key, end in zip(overrides, last, strict=True)]
    pairs = zip(short, overrides.values(), strict=True)
    return " ".join(f"{key}={'-' if value is None else value}" for key, value in pairs)


def _facts(study: Mapping[str, Any], title: str, made: str, audited: str) -> list[dict[str, str]]:
    shown = [job for job in study["jobs"] if job["test"]]
    facts = {
        "jobs": str(len(study["jobs"])),
        "keys swept": str(len(study["swept"])),
        "objective": f"validation {title}",
        "jobs whose test is shown": str(len(shown)),
        "looks at test on record": str(len(study["test_shown"])),
        "audit of the data": audited,
        "made on": made,
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def _leaders(study: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Jobs by validation, those without a figure last."""
    sign = -1 if study["better"] == "larger" else 1
    order = list(study["jobs"])
    one = study["objective"] is not None  # figures of several have no order and no scale
    if one:
        order.sort(key=lambda job: math.inf if job["value"] is None else sign * job["value"])
    shown = order[:MOST_ROWS]
    every = [job[key] for job in shown for key in ("value", "low", "high") if one]
    scale = tables.linear([value for value in every if value is not None] or [0.0, 1.0])
    left = len(order) - len(shown)
    return {
        "caption": counted(len(order), "job") + (", by validation" if one else ""),
        "columns": ["status", "epochs", f"{title} (95 %)"],
        "bar": "validation",
        "ends": [words for _, words in (scale.ticks[0], scale.ticks[-1])],
        "rows": [_leader(study, job, scale) for job in shown],
        "notes": [f"The first {len(shown)}; {left} more are in study.csv."] if left else [],
    }


def _leader(study: Mapping[str, Any], job: Mapping[str, Any], scale: tables.Axis) -> dict[str, Any]:
    reach = _reach(job)
    words = reach.words
    if job["value"] is not None and study["objective"] is None:
        words = f"{TITLES.get(job['objective'], job['objective'])} {words}"
        reach = Reach(math.nan)
    return {
        "name": f"job {job['job']}",
        "beside": _settings(job["overrides"]),
        "chosen": job["job"] in study["best"] and is_choice(study),
        "cells": [job["status"], "-" if job["epochs"] is None else str(job["epochs"]), words],
        "bar": interval(reach, scale),
    }


def _test(study: Mapping[str, Any]) -> dict[str, Any] | None:
    """Test figures of the jobs whose are shown, above the baselines."""
    shown = [job for job in study["jobs"] if job["test"]]
    if not shown:
        return None
    rows = [(f"job {job['job']}", job["test"]) for job in shown]
    rows += [(f"{name} baseline", figures) for name, figures in shown[0]["baselines"].items()]
    return {
        "caption": f"Test split, {counted(shown[0]['n_test'], 'image')}, 95 % intervals",
        "columns": list(FIGURES.values()),
        "rows": [(name, [_reach(figures[key]).words for key in FIGURES]) for name, figures in rows],
        "told": [
            about_test(study),
            *told([(f"Job {job['job']}", job["cited"]) for job in shown]),
        ],
        "looks": [
            f"{look['when']}: {named(look['jobs'])} (show_test={look['show_test']})"
            for look in study["test_shown"]
        ],
    }


def _reach(told: Mapping[str, Any]) -> Reach:
    value = math.nan if told["value"] is None else told["value"]
    return Reach(value, told["low"], told["high"])

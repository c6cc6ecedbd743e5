"""The page of a sweep: its jobs by validation, what was swept, and only what is shown of test."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.report import svg
from fracnet.report.chance import SHOWN, none_exceeds
from fracnet.report.cited import told
from fracnet.report.page import page
from fracnet.report.reach import Reach, interval
from fracnet.report.study import FIGURES, TITLES, about_test, endings, is_choice, named, remarks
from fracnet.report.study_data import about_data, audits, box
from fracnet.report.swept import swept
from fracnet.report.trials import MOST_RUNS, Trial, columns, overlaid
from fracnet.words import are, counted

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
    scale = svg.linear([value for value in every if value is not None] or [0.0, 1.0])
    left = len(order) - len(shown)
    return {
        "caption": counted(len(order), "job") + (", by validation" if one else ""),
        "columns": ["status", "epochs", f"{title} (95 %)"],
        "bar": "validation",
        "ends": [words for _, words in (scale.ticks[0], scale.ticks[-1])],
        "rows": [_leader(study, job, scale) for job in shown],
        "notes": [f"The first {len(shown)}; {left} more are in study.csv."] if left else [],
    }


def _leader(study: Mapping[str, Any], job: Mapping[str, Any], scale: svg.Axis) -> dict[str, Any]:
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

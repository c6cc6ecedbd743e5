"""The closing table of a sweep: all jobs by validation, the chosen one's test figures below.

80 columns and no reliance on colour, as the table of a single run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.report.cited import told
from fracnet.report.console import METRICS, RESEARCH_ONLY, plain_table
from fracnet.words import counted, limits

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
        console.print(_test(study))
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


def _test(study: Mapping[str, Any]) -> Table:
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
        "`python -m fracnet.study FOLDER --show-test all` shows the others; study.json keeps that "
        "on record."
    )

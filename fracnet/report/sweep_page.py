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

from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.console import RESEARCH_ONLY, print_text
from fracnet.report.data_curve import (
    METHOD,
    data_curve_figure,
    data_curve_notes,
    data_curve_table,
)
from fracnet.report.html import page
from fracnet.report.plots import Figure
from fracnet.report.published import published_lines
from fracnet.report.run_tables import MULTICLASS_METRICS
from fracnet.report.sweep_charts import Trial, front_chart, learning_curves, swept_keys
from fracnet.report.sweep_tables import (
    INTERVAL,
    MOST_ROWS,
    REPEATS,
    Sweep,
    configurations_table,
    has_choice,
    importance_table,
    jobs_table,
    metric_title,
    metrics_table,
    pareto_table,
    repeats_of,
    runs_table,
    settings_text,
    test_table,
)
from fracnet.report.tables import print_table
from fracnet.report.verdict import ABOVE_CHANCE, none_above_chance
from fracnet.utils.text import are, counted, limits

BASELINE_METRIC = "macro_auc"  # compares the best jobs with the baselines
PRUNED = "could no longer win; sweep.csv says after which epoch and by what"
COMPARE_NOTE = (
    "`python -m fracnet.compare runs=<this folder>` tells which differences are significant on the "
    "test split."
)
OPTIMISTIC = (
    "On the validation images. The best was chosen on the same ones, so its lead is optimistic: p "
    "is corrected for the number of differences, not for that choice."
)


def print_sweep(console: Console, sweep: Sweep, folder: Path) -> None:
    """Print all jobs by number, then the test metrics that sweep.json holds.

    Args:
        console: where to print.
        sweep: the content of sweep.json.
        folder: of the sweep, for the last lines.
    """
    print_table(console, jobs_table(sweep).without(INTERVAL))
    for table in filter(
        None, (configurations_table(sweep), pareto_table(sweep), data_curve_table(sweep))
    ):
        print_table(console, table)
    for sentence in [*result_notes(sweep), *data_curve_notes(sweep)]:
        # A command stays on one line, so that it can be copied.
        console.print(Text(sentence.replace("`", "")), soft_wrap="`" in sentence)
    for sentence in failures(sweep):
        # One line each, however long, so that a pipe can search it.
        console.print(Text(sentence), soft_wrap=True)
    test = test_table(sweep)
    if test is not None:
        print_table(console, test)
        print_text(console, *test_notes(sweep), RESEARCH_ONLY)
    console.print(
        f"\nSweep folder: {folder}\n  sweep.json\n  sweep.csv\n  index.html", soft_wrap=True
    )


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
    title = metric_title(objective) if objective else "objective"
    audit = summarize_audits(trials)
    chance = chance_notes(sweep)
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
            "headline": headline(sweep, title),
            "sentences": [
                *audit.flaw,
                *chance,
                *(line.replace("* marks", "Marked is", 1) for line in result_notes(sweep)),
                *baseline_notes(sweep),
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
            "data_curve": data_curve_figure(sweep),
            "data_curve_table": data_curve_table(sweep),
            "data_curve_notes": [*data_curve_notes(sweep), METHOD],
            "metrics": metrics_table(sweep, links),
            "differences": differences,
            "differences_notes": [OPTIMISTIC] if differences else [],
            "no_configurations": not_compared,
            "localization": [],
            "swept": swept_keys(trials, f"validation {title}"),
            "swept_title": f"validation {title}",
            "curves": learning_curves(trials, objective or "", title),
            "runs": runs_table(trials),
            "test": test and {"table": test, "sentences": test_notes(sweep), "views": views},
            "left": [],
            "method": [
                "Each value is that of validation at the job's selected checkpoint, with its 95 % "
                "interval. Test metrics appear only for the jobs that validation chose, unless "
                "they were requested; sweep.json records each time they were viewed.",
            ],
        },
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
    return Figure("pareto", "", [front_chart(points, [metric_title(name) for name in names])])


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


def result_notes(sweep: Sweep) -> list[str]:
    """What the table means, the command that repeats the best job, and means over folds."""
    notes = []
    if has_choice(sweep):
        best = (
            "* marks the best job" if len(sweep["best"]) == 1 else "* marks the best configuration"
        )
        rule = f" by the mean over {repeats_of(sweep)}" if sweep["configurations"] else ""
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
        ways = ", ".join(f"{metric_title(n)} {b}" for n, b in sweep["pareto"]["better"].items())
        notes.append(
            f"Nothing was chosen among the jobs of the front ({ways} is better): choose by what a "
            "miss and a false alarm cost you, before you look at the test split."
        )
    elif not sweep["best"] and sweep["configurations"]:
        notes.append(f"No best configuration: none has a value for all of its {repeats_of(sweep)}.")
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
    scored, repeats = len(row["values"]), f"{len(row['jobs'])} {repeats_of(sweep)}"
    if not scored:
        return f"{start}no job has a value."
    if scored != len(row["jobs"]):
        repeats = f"{scored} of {repeats}"
    sd = "" if row["sd"] is None else f", SD {row['sd']:.3f}"
    interval = "" if row["low"] is None else f", 95 % CI {limits(row['low'], row['high'])}"
    return (
        f"{start}mean validation {metric_title(sweep['objective'])} over {repeats}: "
        f"{row['mean']:.3f}{sd}{interval}, range {min(row['values']):.3f} to "
        f"{max(row['values']):.3f}."
    )


def job_names(jobs: Sequence[int]) -> str:
    """`job 3`, `jobs 3, 5`."""
    return f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(str(job) for job in jobs)}"


def test_notes(sweep: Sweep) -> list[str]:
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
            f"All {repeats_of(sweep)} of one configuration on the one test split; nothing was "
            "chosen among them."
        )
    else:
        note = (
            f"Test metrics of {job_names(sweep['best'])} alone, which validation chose. "
            "`python -m fracnet.sweep FOLDER show_test=all` shows the others; sweep.json records "
            "that."
        )
    return [note, *published]


def headline(sweep: Sweep, title: str) -> str:
    """What validation chooses, in one sentence. title: of the objective."""
    if sweep["pareto"]:
        front, n = sweep["pareto"]["front"], len(sweep["pareto"]["better"])
        return f"{counted(len(front), 'job')} on the Pareto front of {n} objectives."
    if not sweep["best"]:
        return "There is no best job."
    best = [job for job in sweep["jobs"] if job["job"] in sweep["best"]]
    values = [job["value"] for job in best]
    mean = sum(values) / len(values)
    settings = settings_text({k: v for k, v in best[0]["overrides"].items() if k not in REPEATS})
    over = f"{len(best)} {repeats_of(sweep)}"
    if not has_choice(sweep):
        return f"Over {over}, validation {title} is {mean:.3f} on average."
    if sweep["configurations"]:
        return f"Validation chooses {settings}: mean {title} {mean:.3f} over {over}."
    of = f" ({settings})" if settings else ""
    name = job_names(sweep["best"]).replace(" ", "\N{NO-BREAK SPACE}")
    return f"Validation chooses {name}{of}: {title} {mean:.3f}."


def chance_notes(sweep: Sweep) -> list[str]:
    """That no job with test metrics is shown to do better than chance, where it is so."""
    jobs = [job for job in sweep["jobs"] if job["test"]]
    if not none_above_chance([job["test"][BASELINE_METRIC]["low"] for job in jobs]):
        return []
    if len(jobs) > 2:
        return [f"None of the {len(jobs)} jobs with test metrics is {ABOVE_CHANCE}."]
    names = job_names([job["job"] for job in jobs])
    return [f"{names[0].upper()}{names[1:]} {are(len(jobs))} not {ABOVE_CHANCE}."]


def baseline_notes(sweep: Sweep) -> list[str]:
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

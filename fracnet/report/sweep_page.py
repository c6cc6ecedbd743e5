"""A sweep on the screen and on a page: jobs by validation, varied keys, and test as requested.

Both show the same tables, made of the content of sweep.json. Test metrics appear only for the jobs
that sweep.json holds them for.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.data_curve import (
    METHOD,
    data_curve_figure,
    data_curve_notes,
    data_curve_table,
)
from fracnet.report.html import page
from fracnet.report.plots import Figure
from fracnet.report.sweep_charts import Trial, front_chart, learning_curves, swept_keys
from fracnet.report.sweep_notes import (
    baseline_notes,
    chance_notes,
    failures,
    headline,
    job_names,
    result_notes,
    test_notes,
)
from fracnet.report.sweep_tables import (
    INTERVAL,
    MOST_ROWS,
    Sweep,
    configurations_table,
    importance_table,
    jobs_table,
    metric_title,
    metrics_table,
    pareto_table,
    runs_table,
    test_table,
)
from fracnet.report.tables import print_table
from fracnet.utils.text import counted

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
        for sentence in test_notes(sweep):
            console.print(Text(sentence))
        console.print(RESEARCH_ONLY)
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

"""From run folders to the candidates of a comparison, and from its result to files."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from fracnet.config.commands import CompareCommand
from fracnet.evaluation.aggregation import level_problems, to_level
from fracnet.evaluation.comparison import (
    Candidate,
    Comparison,
    Member,
    PointingGames,
    compare,
    compare_pointing,
)
from fracnet.evaluation.decisions import calibrate, cut_of
from fracnet.evaluation.predictions import clusters_of, concatenate
from fracnet.report.comparison_page import (
    comparison_page,
    differences_figure,
    print_comparison,
)
from fracnet.report.plots import save
from fracnet.report.sweep_charts import Trial
from fracnet.runs.evaluate_run import run_decisions
from fracnet.runs.find_runs import (
    Configuration,
    FinishedRun,
    SkippedRun,
    find_two_or_more,
    group_by_config,
    one_per_run,
)
from fracnet.runs.run_folder import csv_text, read_mapping, read_run_metadata, write_json
from fracnet.runs.trials import PAGE, difference_warnings, read_trial, sort_trials, today
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.result_files import COMPARISON_FILE

DIFFERENCE_COLUMNS = (
    "kind", "name", "reference", "value", "low", "high", "method", "error", "p", "holm", "test",
    "verdict", "agree", "within", "detectable", "needed", "alpha", "note",
)  # fmt: skip
STANDING_COLUMNS = (
    "name", "runs", "chosen", "validation", "value", "low", "high", "method", "note",
)  # fmt: skip
PATH_OPTIONS = {"runs", "out"}
"""Options that hold paths; the page omits them because it may be shared."""


def load_candidates(
    command: CompareCommand,
) -> tuple[list[Candidate], list[SkippedRun], list[Configuration]]:
    """The candidates, the folders that cannot be used, and the configurations with their runs.

    Raises:
        UserError: fewer than two finished runs, or a run lacks the requested level or decisions.
    """
    runs, skipped = find_two_or_more(command.runs, "a comparison")
    configurations = group_by_config(runs) if command.seeds == "grouped" else one_per_run(runs)
    if len(configurations) == 1:
        raise UserError(
            f"runs={','.join(command.runs)} matches {len(runs)} runs of one configuration, which "
            "differ only in seed or fold. Add runs of another configuration, or compare these runs "
            "with one another: seeds=apart."
        )
    candidates = [
        Candidate(c.name, tuple(_member(run, command) for run in c.runs)) for c in configurations
    ]
    return candidates, skipped, configurations


def compare_candidates(
    command: CompareCommand,
    candidates: Sequence[Candidate],
    configurations: Sequence[Configuration],
    progress: Progress[Any] = no_progress,
) -> Comparison:
    """What `load_candidates` gave, compared as the command says; see `compare`."""
    result = compare(
        candidates,
        command.metric,
        class_name=command.class_name,
        level=command.level,
        reference=_resolve_reference(command.reference, configurations),
        pairs=command.pairs,
        margin=command.margin,
        resamples=command.resamples,
        progress=progress,
    )
    return replace(result, localization=_compare_heatmaps(result, configurations))


def _compare_heatmaps(
    result: Comparison, configurations: Sequence[Configuration]
) -> PointingGames | None:
    """The pointing games of the runs with heatmaps, on the test images that all of them drew."""
    hits: dict[str, dict[str, int]] = {}
    for run in (run for c in configurations for run in c.runs):
        localization = read_mapping(run.folder.explanation).get("localization") or {}
        if by_path := localization.get("hits"):
            hits[run.name] = by_path
    if len(hits) < 2:
        return None
    first = next(run for c in configurations for run in c.runs if run.name in hits)
    table = first.predictions.split("test").table
    table = table[
        table["path"].isin(set.intersection(*(set(by_path) for by_path in hits.values())))
    ]
    if not len(table):
        return None
    arrays = {
        name: np.array([by_path[str(path)] for path in table["path"]], dtype=bool)
        for name, by_path in hits.items()
    }
    return compare_pointing(result, arrays, clusters_of(table))


def _resolve_reference(
    reference: str | None, configurations: Sequence[Configuration]
) -> str | None:
    """A reference given as a folder, by the name of its run in this comparison."""
    if reference is None:
        return None
    path = Path(reference).expanduser().resolve()
    for configuration in configurations:
        for run in configuration.runs:
            if run.folder.path.resolve() == path:
                return run.name
    return reference


def _member(run: FinishedRun, command: CompareCommand) -> Member:
    predictions, cut, views = run.predictions, None, "mean"
    if command.decisions == "frozen":
        val = predictions.split("val")
        if not len(val):
            raise UserError(
                f"decisions=frozen needs decisions made on validation, but predictions.csv of "
                f"{run.name} has no val rows. Without them, use decisions=raw."
            )
        content = run_decisions(run.folder, val, read_run_metadata(run.folder))
        predictions = calibrate(predictions, float(content["temperature"]))
        views, points = content["views"], content["operating_point"]
        if points is not None:
            if command.level not in points:
                raise UserError(
                    f"level={command.level} has no operating point in decisions.json of "
                    f"{run.name}; available: {', '.join(points)}."
                )
            cut = cut_of(content, command.level)
    if problem := level_problems(predictions)[command.level]:
        raise UserError(f"level={command.level} is not available for {run.name}: {problem}.")
    splits = [rows for rows in map(predictions.split, ("test", "val")) if len(rows)]
    parts = [to_level(rows, command.level, views) for rows in splits]
    return Member(run.name, concatenate(parts), cut)


def report_comparison(
    folder: Path,
    command: CompareCommand,
    result: Comparison,
    configurations: Sequence[Configuration],
    skipped: Sequence[SkippedRun],
    console: Console,
) -> None:
    """Print the tables, write the files, and print their paths."""
    print_comparison(console, result)
    paths = write_comparison(folder, command, result, configurations, skipped)
    console.print(f"\nComparison: {folder}", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.relative_to(folder)}", soft_wrap=True)


def write_comparison(
    folder: Path,
    command: CompareCommand,
    result: Comparison,
    configurations: Sequence[Configuration],
    skipped: Sequence[SkippedRun],
) -> list[Path]:
    """Write comparison.json, two tables, a page and figures of the differences; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "options": command.model_dump(),
        **result.to_dict(),
        "candidates": [_candidate(configuration) for configuration in configurations],
        "skipped": [{"run": run.name, "reason": run.reason} for run in skipped],
    }
    write_json(folder / COMPARISON_FILE, content)
    rows = [*content["models"], *content["configurations"]]
    standings = [row | {"runs": " ".join(row["runs"])} for row in content["standings"]]
    for name, records, columns in (
        ("comparison.csv", rows, DIFFERENCE_COLUMNS),
        ("standings.csv", standings, STANDING_COLUMNS),
    ):
        table = pd.DataFrame(records, columns=columns, dtype=object)
        write_atomically(folder / name, csv_text(table))
    html = comparison_page(
        result,
        _trials(folder, result, configurations),
        options=command.model_dump(exclude=PATH_OPTIONS),
        skipped=[{"name": run.name, "reason": run.reason} for run in skipped],
        warnings=difference_warnings([run for c in configurations for run in c.runs]),
        date=today(),
    )
    write_atomically(folder / PAGE, html)
    names = (PAGE, COMPARISON_FILE, "comparison.csv", "standings.csv")
    return [*(folder / name for name in names), *_figures(folder, result)]


def _candidate(configuration: Configuration) -> dict[str, Any]:
    runs = [
        {
            "name": run.name,
            "folder": str(run.folder.path),
            "seed": run.config.get("seed"),
            "predictions_sha256": run.fingerprint(),
        }
        for run in configuration.runs
    ]
    return {"name": configuration.name, "differs": dict(configuration.differs), "runs": runs}


def _trials(
    folder: Path, result: Comparison, configurations: Sequence[Configuration]
) -> list[Trial]:
    """The runs for the page, in the order of the standings and then of validation."""
    groups = group_by_config([run for c in configurations for run in c.runs])
    settings = {run.name: group.differs for group in groups for run in group.runs}
    runs = {run.name: run for c in configurations for run in c.runs}
    best = result.standings[0]
    chosen = None if math.isnan(best.validation) else best.chosen
    trials = []
    for standing in result.standings:
        of_standing = [
            read_trial(
                folder,
                runs[name].folder,
                name,
                standing.name,
                settings[name],
                value,
                name == chosen,
            )
            for name, value in zip(standing.runs, standing.validations, strict=True)
        ]
        trials += sort_trials(of_standing, result.metric.larger_is_better)
    return trials


def _figures(folder: Path, result: Comparison) -> list[Path]:
    paths = []
    for kind, rows in (("models", result.models), ("configurations", result.configurations)):
        if any(not math.isnan(row.value) for row in rows):
            figure = differences_figure(result, rows, f"differences_{kind}")
            paths += save(figure, folder / "figures")
    return [path for path in paths if path.suffix == ".png"]

"""From run folders to candidates of a comparison, and from its result to files."""

import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.config.schema import CompareCommand
from fracnet.evaluation.aggregation import offered, to_level
from fracnet.evaluation.comparison import Candidate, Comparison, Member
from fracnet.evaluation.decisions import calibrated
from fracnet.report.comparison_page import called, comparison_page, rows_of
from fracnet.report.plots import DifferenceRow, differences
from fracnet.runs.evaluate_run import frozen
from fracnet.runs.find_runs import (
    COMPARISON,
    Configuration,
    FinishedRun,
    LeftOut,
    apart,
    find,
    grouped,
)
from fracnet.runs.run_folder import tell, write_json, write_whole
from fracnet.runs.trials import (
    PAGE,
    _by_value,
    _telling_first,
    _today,
    _trial,
    _unlike,
)
from fracnet.utils.errors import UserError


def write_comparison(
    folder: Path,
    found: Comparison,
    known: Sequence[Configuration],
    left: Sequence[LeftOut],
    options: Mapping[str, Any],
) -> Path:
    """Write index.html for a comparison; its path. options: what was asked for."""
    alike = grouped([run for configuration in known for run in configuration.runs])
    settings = {run.name: _telling_first(one.differs) for one in alike for run in one.runs}
    standings = {standing.name: standing for standing in found.standings}
    first = found.standings[0]
    trials = []
    for configuration in known:
        standing = standings[configuration.name]
        values = dict(zip(standing.runs, standing.validations, strict=True))
        for run in configuration.runs:
            best = run.name == first.chosen and not math.isnan(first.validation)
            of = configuration.name
            trials.append(_trial(folder, run, of, settings[run.name], values[run.name], best))
    order = list(standings)
    trials = _by_value(trials, found.figure.larger_is_better)
    trials.sort(key=lambda trial: order.index(trial.of))
    html = comparison_page(
        found,
        trials,
        options=options,
        left=[{"name": run.name, "reason": run.reason} for run in left],
        warnings=_unlike([run for configuration in known for run in configuration.runs]),
        made=_today(),
    )
    write_whole(folder / PAGE, html)
    return folder / PAGE


DIFFERENCE = (
    "kind",
    "name",
    "reference",
    "value",
    "low",
    "high",
    "method",
    "error",
    "p",
    "holm",
    "test",
    "verdict",
    "agree",
    "within",
    "detectable",
    "needed",
    "alpha",
    "note",
)

# Options that say where things lie, which a page that is shown around leaves out.
_PLACES = {"runs", "out"}
STANDING = ("name", "runs", "chosen", "validation", "value", "low", "high", "method", "note")


def candidates(
    command: CompareCommand,
) -> tuple[list[Candidate], list[LeftOut], list[Configuration]]:
    """What is compared; the folders that are not; and the configurations with their runs.

    Raises:
        UserError: fewer than two finished runs, or a level or decisions that a run does not have.
    """
    runs, left = find(command.runs)
    if len(runs) < 2:
        told = "".join(f" {run.name}: {run.reason}." for run in left)
        one = f"only one finished run, {runs[0].name}" if runs else "no finished run"
        raise UserError(
            f"runs={','.join(command.runs)} names {one}; a comparison needs two at least.{told}"
        )
    found = grouped(runs) if command.seeds == "grouped" else apart(runs)
    if len(found) == 1:
        raise UserError(
            f"runs={','.join(command.runs)} names {len(runs)} runs of one configuration, which "
            "differ in seed or fold alone; compare it with another, or the runs with one another: "
            "seeds=apart."
        )
    made = [Candidate(c.name, tuple(_member(run, command) for run in c.runs)) for c in found]
    return made, left, found


def as_named(reference: str | None, known: Sequence[Configuration]) -> str | None:
    """A reference given as a folder, by the name that the run has here."""
    if reference is None:
        return None
    path = Path(reference).expanduser().resolve()
    for run in (run for configuration in known for run in configuration.runs):
        if run.folder.path.resolve() == path:
            return run.name
    return reference


def _member(run: FinishedRun, command: CompareCommand) -> Member:
    table, threshold, views = run.table, None, "mean"
    if command.decisions == "frozen":
        val = table[table["split"] == "val"]
        if not len(val):
            raise UserError(
                f"decisions=frozen needs what validation has chosen, and {run.name} has no val "
                "rows in its predictions.csv; allowed without them: decisions=raw."
            )
        content = frozen(run.folder.decisions, val, tell(run.folder).options)
        table, views = calibrated(table, float(content["temperature"])), content["views"]
        points = content["operating_point"]
        if points is not None:
            if command.level not in points:
                raise UserError(
                    f"level={command.level} has no operating point in the decisions.json of "
                    f"{run.name}; it has: {', '.join(points)}."
                )
            threshold = float(points[command.level]["threshold"])
    why = offered(table)[0][command.level]
    if why:
        raise UserError(f"level={command.level} is not to be had for {run.name}: {why}.")
    parts = [to_level(rows, command.level, views) for _, rows in table.groupby("split")]
    return Member(run.name, pd.concat(parts, ignore_index=True), threshold)


def write(
    folder: Path,
    command: CompareCommand,
    found: Comparison,
    known: Sequence[Configuration],
    left: Sequence[LeftOut],
) -> list[Path]:
    """Write comparison.json, two tables, a page and figures of the differences; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "options": command.model_dump(),
        **found.to_dict(),
        "candidates": [_candidate(configuration) for configuration in known],
        "left_out": [{"run": run.name, "reason": run.reason} for run in left],
    }
    write_json(folder / COMPARISON, content)
    rows = [*content["models"], *content["configurations"]]
    write_whole(folder / "comparison.csv", _as_csv(DIFFERENCE, rows))
    standings = [row | {"runs": " ".join(row["runs"])} for row in content["standings"]]
    write_whole(folder / "standings.csv", _as_csv(STANDING, standings))
    names = (COMPARISON, "comparison.csv", "standings.csv")
    page = write_comparison(folder, found, known, left, command.model_dump(exclude=_PLACES))
    return [page, *(folder / name for name in names), *_figures(folder, found)]


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


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _figures(folder: Path, found: Comparison) -> list[Path]:
    drawn = []
    for kind, every in (("models", found.models), ("configurations", found.configurations)):
        rows = [row for row in every if not math.isnan(row.value)]
        if not rows:
            continue
        one = called(rows[0], 1) if len({row.reference for row in rows}) == 1 else ""
        drawn += differences(
            [
                DifferenceRow(
                    called(row, 0) + ("" if one else f" less {called(row, 1)}"),
                    row.value,
                    row.low,
                    row.high,
                    row.holm,
                    row.note,
                )
                for row in rows
            ],
            folder / "figures",
            metric=found.figure.title,
            reference=one,
            margin=found.margin,
            higher_is_better=found.figure.larger_is_better,
            note=f"{rows_of(found)}.",
            p_name="p (Holm)" if len(every) > 1 else "p",
            name=f"differences_{kind}",
        )
    return [path for path in drawn if path.suffix == ".png"]

"""A run's figures, from the files of its folder alone: no images, no model, no GPU.

Training calls this at its end, after it has written those files; `fracnet.evaluate` at any time
later. So both give the same figures, to the last digit.

An evaluation as a person meets it: figures in the folder, tables on the screen.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from scipy.special import log_softmax

from fracnet.config.schema import Cited, Evaluation, validated
from fracnet.data.manifest import read_table, write_table
from fracnet.evaluation.assessment import Assessment, assess
from fracnet.evaluation.decisions import check_operating, decide, logits, settings, verify
from fracnet.evaluation.predictions import check, check_apart, classes_of, targets
from fracnet.evaluation.summary import Summary, plain
from fracnet.report import plots
from fracnet.report.published import cited_pairs
from fracnet.report.run_console import print_assessment
from fracnet.runs.run_folder import Remade, RunFolder, Told, read_baselines, tell, write_json
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, T, no_progress, progress_bar


@dataclass(frozen=True)
class Judgment:
    """An evaluation, and the folder that has its metrics.json."""

    assessment: Assessment
    told: Told
    table: pd.DataFrame
    folder: Path
    objective: float  # NaN where the run names none, or it is undefined
    cited: Sequence[Mapping[str, str]]


def judge(
    run: RunFolder,
    changes: Mapping[str, Any] | None = None,
    name: str = "",
    *,
    remade: Remade | None = None,
    beside: Sequence[Cited] = (),
    progress: Progress = no_progress,
) -> Judgment:
    """Score the predictions of a run and write metrics.json.

    Args:
        run: its folder, with predictions.csv.
        changes: options other than the run's own; then the folder `evaluations/<name>` is written
            and nothing else.
        name: of that folder.
        remade: predictions to score in place of those of the folder, written as `changes` are.
        beside: published figures besides those of the run's config; metrics.json leaves them out.
        progress: told of the steps.

    Raises:
        UserError: files that are missing, or are not as the run has left them.
    """
    told = remade.told if remade else tell(run)
    options, folder = told.options, run.path
    if changes:
        options = validated(Evaluation, {**told.options.said(), **changes})
    if changes or remade:
        folder = run.evaluations / name
    own = settings(options) != settings(told.options) or bool(remade and remade.validation_too)
    table = remade.table if remade else read_table(run.predictions)
    check(table)
    if changes and "operating_point" in changes:
        check_operating(changes["operating_point"], len(classes_of(table)))
    check_apart(table)  # before validation chooses anything
    val = table[table["split"] == "val"]
    decisions = None
    if len(val):
        decisions = decide(val, options) if own else frozen(run.decisions, val, options)
    beaten = remade.baselines if remade else read_baselines(run)
    found = assess(table, options, decisions, beaten, progress)
    folder.mkdir(parents=True, exist_ok=True)
    if remade:
        write_table(table, folder / run.predictions.name)
    if own and decisions is not None:
        write_json(folder / run.decisions.name, decisions)
    return record(found, told, table, folder, beside)


def judge_table(
    table: pd.DataFrame,
    data: str,
    notes: Sequence[str],
    options: Evaluation,
    folder: Path,
    *,
    origin: Mapping[str, Any] | None = None,
    beside: Sequence[Cited] = (),
    progress: Progress = no_progress,
) -> Judgment:
    """Score anyone's predictions: writes the table as it was read, decisions and metrics.json.

    `data` and `notes` are what it is called and what a reader must know; `origin`, the file and how
    it was read, is kept in metrics.json under "table".
    """
    check_apart(table)  # before validation chooses anything
    val = table[table["split"] == "val"]
    decisions = decide(val, options) if len(val) else None
    found = assess(table, options, decisions, progress=progress)
    out = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.predictions, index=False, lineterminator="\n")
    out.decisions.unlink(missing_ok=True)
    if decisions is not None:
        write_json(out.decisions, decisions)
    told = Told(options, None, (), None, data, tuple(notes))
    return record(found, told, table, folder, beside, origin)


def record(
    found: Assessment,
    told: Told,
    table: pd.DataFrame,
    folder: Path,
    beside: Sequence[Cited] = (),
    origin: Mapping[str, Any] | None = None,
) -> Judgment:
    """Write metrics.json into the folder."""
    objective = math.nan
    content: dict[str, Any] = {"table": dict(origin)} if origin else {}
    if told.objective is not None and found.val is not None:
        val = table[table["split"] == "val"]
        objective = objective_value(found.val, val, told.objective)
        content["objective"] = {"name": told.objective, "value": objective}
    if told.selected is not None:
        content["selected"] = told.selected
    content |= found.to_dict()
    shown = found.test or found.val
    assert shown is not None

    def pairs(cited: Sequence[Cited]) -> list[dict[str, str]]:
        return cited_pairs([c.model_dump() for c in cited], shown, told.data, found.official)

    if told.cited:
        content["cited"] = pairs(told.cited)
    content["data"] = {"name": told.data, "notes": list(told.notes)}
    write_json(folder / RunFolder(folder).metrics.name, plain(content))  # undefined: null
    return Judgment(found, told, table, folder, objective, pairs([*told.cited, *beside]))


def frozen(path: Path, val: pd.DataFrame, options: Evaluation) -> dict[str, Any]:
    """The decisions that the file holds; where there is none yet they are made, and written once.

    Raises `UserError` where the file is not as it was written, or goes with other rows or options.
    """
    if not path.exists():
        write_json(path, decide(val, options))
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); remove it to have validation choose anew."
        ) from error
    verify(content, val, options, str(path))
    return content


def objective_value(summary: Summary, table: pd.DataFrame, name: str) -> float:
    """The validation figure `name` at the selected checkpoint."""
    if name != "loss":
        return summary.metrics[name].value
    of = log_softmax(logits(table), axis=1)
    return float(-of[np.arange(len(table)), targets(table)].mean())


def progress_if(visible: bool) -> Progress:
    """A bar on stderr, where it is wanted and stderr is a terminal."""

    def progress(items: Iterable[T], total: int, description: str) -> Iterable[T]:
        return progress_bar(items, total, description, visible)

    return progress


def draw(found: Judgment, everything: bool = True) -> list[Path]:
    """Draw what belongs to the evaluation, and the learning curves of a run's own folder.

    everything: otherwise the curves and the confusion matrix alone.
    """
    run = RunFolder(found.folder)
    folder = run.figures
    drawn = []
    epoch = (found.told.selected or {}).get("epoch")
    if epoch is not None and run.curves.is_file():
        drawn += plots.curves(run.curves, folder, selected=epoch)
    if not everything:
        return drawn + plots.draw_confusion(found.assessment, folder)
    with Console(stderr=True).status("drawing figures"):  # seconds; nothing but on a terminal
        return drawn + plots.draw_all(found.assessment, found.table, folder)


def present(console: Console, found: Judgment, drawn: Sequence[Path], word: str = "Run") -> None:
    """Print the figures, then where everything lies; `word` says what kind of folder it is."""
    print_assessment(console, found.assessment, notes=found.told.notes, cited=found.cited)
    names = ("metrics.json", "predictions.csv", "decisions.json")
    there = [found.folder / name for name in names if (found.folder / name).is_file()]
    print(f"\n{word} folder: {found.folder}")
    for path in [*there, *(path for path in drawn if path.suffix == ".png")]:
        print(f"  {path.relative_to(found.folder)}")

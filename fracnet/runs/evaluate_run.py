"""Evaluate a run, or any table of predictions: no images, no model, no GPU.

Training calls this at its end, after it has written the predictions; `fracnet.evaluate` at any time
later. Both give the same metrics, to the last digit.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from fracnet.config.commands import EvaluateCommand
from fracnet.config.fields import validated
from fracnet.config.schema import Cited, Evaluation
from fracnet.data.manifest import write_table
from fracnet.evaluation import csv_import
from fracnet.evaluation.assessment import Assessment, evaluate
from fracnet.evaluation.decisions import (
    check_operating_point,
    decide,
    decision_options,
    verify_decisions,
)
from fracnet.evaluation.metric_selection import selection_value
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import Summary, plain
from fracnet.report.published import compare_with_published
from fracnet.runs.run_folder import (
    TABLE_KEY,
    RunFolder,
    RunMetadata,
    read_baselines,
    read_mapping,
    read_plain,
    read_predictions,
    read_run_metadata,
    with_format,
    write_json,
)
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.result_files import EVALUATION, check_no_results


@dataclass(frozen=True)
class NewPredictions:
    """Predictions that a run's model has made again, for other images or in more views.

    includes_validation: whether the validation rows are new too, so that they choose again.
    """

    predictions: Predictions
    metadata: RunMetadata
    baselines: Mapping[str, Predictions]
    includes_validation: bool


@dataclass(frozen=True)
class RunEvaluation:
    """An evaluation and the folder that holds its metrics.json.

    objectives: the validation metrics that the run names; NaN where one is undefined.
    cited: published metrics compared with those of this evaluation.
    baselines: their predictions for the test rows.
    """

    assessment: Assessment
    metadata: RunMetadata
    predictions: Predictions
    folder: RunFolder
    objectives: tuple[float, ...]
    cited: Sequence[Mapping[str, str]]
    baselines: Mapping[str, Predictions]

    @property
    def objective(self) -> float:
        """The first of them; NaN without any."""
        return self.objectives[0] if self.objectives else math.nan


def evaluate_run(
    run: RunFolder,
    changes: Mapping[str, Any] | None = None,
    name: str = "",
    *,
    new: NewPredictions | None = None,
    cited: Sequence[Cited] = (),
    progress: Progress = no_progress,
) -> RunEvaluation:
    """Evaluate the predictions of a run and write metrics.json.

    Args:
        run: its folder, with predictions.csv.
        changes: options that differ from the run's own; then only the folder `evaluations/<name>`
            is written.
        name: of that folder.
        new: predictions evaluated in place of those in the run folder; written as `changes` are.
        cited: published metrics besides those of the run's config; metrics.json leaves them out.
        progress: shows the steps.

    Raises:
        UserError: files that are missing or were changed since the run wrote them.
    """
    metadata = new.metadata if new else read_run_metadata(run)
    options, folder = metadata.options, run
    if changes:
        options = validated(Evaluation, {**options.numeric_options(), **changes})
    if changes or new:
        folder = RunFolder(run.evaluations / name)
    new_decisions = decision_options(options) != decision_options(metadata.options) or bool(
        new and new.includes_validation
    )
    predictions = new.predictions if new else read_predictions(run)
    if changes and "operating_point" in changes:
        check_operating_point(changes["operating_point"], len(predictions.classes))
    baselines = new.baselines if new else read_baselines(run)
    val = predictions.split("val")
    decisions = None
    if len(val):  # which may write decisions.json: all other files have been checked
        decisions = (
            decide(val, options, out_of_fold=not new and metadata.out_of_fold)
            if new_decisions
            else run_decisions(run, val, metadata)
        )
    assessment = evaluate(predictions, options, decisions, baselines, progress)
    folder.path.mkdir(parents=True, exist_ok=True)
    if new:
        write_table(predictions.table, folder.predictions)
    if new_decisions and decisions is not None:
        write_json(folder.decisions, decisions)
    return _write_metrics(assessment, metadata, predictions, folder, cited, baselines)


def evaluate_table(
    path: Path,
    command: EvaluateCommand,
    folder: Path,
    cited: Sequence[Cited] = (),
    progress: Progress = no_progress,
) -> RunEvaluation:
    """Evaluate any csv of predictions, with the command's columns, labels and options.

    Writes the table as it was read, decisions and metrics.json. Raises UserError for a file that
    cannot be read, options that do not fit its classes, and a folder of other results.
    """
    out = RunFolder(folder)
    of_table = TABLE_KEY in read_mapping(out.metrics)
    check_no_results(folder, EVALUATION if of_table else "")
    predictions, notes = csv_import.read_csv_predictions(path, command.columns, command.labels)
    options = validated(Evaluation, command.changes())
    if command.operating_point is not None:
        check_operating_point(command.operating_point, len(predictions.classes))
    val = predictions.split("val")
    decisions = decide(val, options) if len(val) else None
    assessment = evaluate(predictions, options, decisions, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(out.predictions, predictions.table.to_csv(index=False, lineterminator="\n"))
    out.decisions.unlink(missing_ok=True)
    if decisions is not None:
        write_json(out.decisions, decisions)
    metadata = RunMetadata(options, (), (), None, path.name, tuple(notes))
    origin = csv_import.origin(path, command.columns, command.labels)
    return _write_metrics(assessment, metadata, predictions, out, cited, {}, origin)


def _write_metrics(
    assessment: Assessment,
    metadata: RunMetadata,
    predictions: Predictions,
    folder: RunFolder,
    cited: Sequence[Cited],
    baselines: Mapping[str, Predictions],
    origin: Mapping[str, Any] | None = None,
) -> RunEvaluation:
    content: dict[str, Any] = {TABLE_KEY: dict(origin)} if origin else {}
    objectives: dict[str, float] = {}
    if metadata.objectives and assessment.val is not None:
        val = predictions.split("val")
        for name in metadata.objectives:
            objectives[name] = _objective_value(name, assessment.val, val, metadata)
        entries = [{"name": name, "value": value} for name, value in objectives.items()]
        content["objective"] = entries[0]
        if len(entries) > 1:
            content["objectives"] = entries
    if metadata.selected is not None:
        content["selected"] = metadata.selected
    content |= assessment.to_dict()
    summary = assessment.test or assessment.val
    assert summary is not None

    all_cited = compare_with_published(
        [entry.model_dump() for entry in (*metadata.cited, *cited)],
        summary,
        metadata.data,
        assessment.official,
    )
    if metadata.cited:
        content["cited"] = all_cited[: len(metadata.cited)]
    content["data"] = {"name": metadata.data, "notes": list(metadata.notes)}
    write_json(folder.metrics, with_format(plain(content)))  # undefined: null
    values = tuple(objectives.values())
    return RunEvaluation(assessment, metadata, predictions, folder, values, all_cited, baselines)


def run_decisions(run: RunFolder, val: Predictions, metadata: RunMetadata) -> dict[str, Any]:
    """The content of the run's decisions.json, which is made and written at the first call.

    Raises `UserError` where the file was changed, or belongs to other rows or options.
    """
    path = run.decisions
    if not path.exists():
        write_json(path, decide(val, metadata.options, out_of_fold=metadata.out_of_fold))
    try:
        content = read_mapping(path)
    except UserError as error:
        raise UserError(f"{error} Remove it to let validation choose again.") from error
    verify_decisions(content, val, metadata.options, str(path))
    return content


def _objective_value(name: str, summary: Summary, val: Predictions, metadata: RunMetadata) -> float:
    """A validation metric that the run's `objective` names, at the selected checkpoint."""
    selected = metadata.selected or {}
    if name in summary.metrics:
        return summary.metrics[name].value
    if name in (own := selected.get("own_metrics") or {}):  # which only the training computes
        return float(own[name]["value"])
    if name != "loss":
        return selection_value(val, name, metadata.options.views)
    log_probabilities = log_softmax(val.logits, axis=1)
    return float(-log_probabilities[np.arange(len(val)), val.targets].mean())


def evaluation_name(changes: Mapping[str, Any]) -> str:
    """A folder name that states the changed options, e.g. `views-max_tta-hflip`."""
    parts = [re.sub(r"[^\w.]+", "-", f"{key} {value}").strip("-") for key, value in changes.items()]
    return "_".join(parts)[:100]


def read_cited(path: Path) -> list[Cited]:
    """Published metrics from a YAML file: a list, or one under the key `cited`."""
    if not path.is_file():
        raise UserError(f"cited={path}: no such file.")
    content = read_plain(path, "cited=")
    rows = content.get("cited") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise UserError(
            f"cited={path} must hold a list of published metrics, each like "
            "- {metric: accuracy, value: 0.89, n: 83, source: where it was published}."
        )
    return [validated(Cited, row, f"{path}: cited.{i}") for i, row in enumerate(rows)]

"""What a training leaves in its run folder: predictions, baselines, fit.json, metrics, report."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from fracnet.config.checks import mode_of
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import write_table
from fracnet.data.splits import SPLITS
from fracnet.evaluation import baselines
from fracnet.evaluation.predictions import COPIES, PROB, Predictions
from fracnet.models.classifier import Classifier
from fracnet.models.validation import ValidationMetrics
from fracnet.runs.checkpoint import load_model
from fracnet.runs.evaluate_run import RunEvaluation, evaluate_run
from fracnet.runs.explain_run import explain_new_run
from fracnet.runs.ood_reference import write_ood_reference
from fracnet.runs.report_run import (
    config_shows_images,
    draw_figures,
    print_evaluation,
    write_report,
)
from fracnet.runs.repredict import predict_external
from fracnet.runs.run_folder import RunFolder, read_mapping, write_json
from fracnet.training.classical import Classical
from fracnet.training.run_header import model_name, training_options
from fracnet.utils.files import write_atomically
from fracnet.utils.progress import progress_bar
from fracnet.utils.shared import shared


def write_fit(
    folder: RunFolder,
    table: pd.DataFrame,
    data: RadiographData,
    selected: dict[str, Any],
    config: Config,
    model: Classifier | Classical,
) -> None:
    """Write predictions.csv, baselines.csv and fit.json.

    Whether a report shows images depends on the config and on where W&B runs; fit.json keeps it,
    because the environment may be another one later.

    table: predictions for val and test at the selected checkpoint. selected: which epoch, or which
    setting of a model without epochs, was selected, by what; a metric of the user's own is added,
    which nothing but the training can compute.
    """
    if own := [name for name in config.objectives if name in config.metrics]:
        val = Predictions.trusted(table[table["split"] == "val"].reset_index(drop=True))
        metrics = ValidationMetrics.requested(config, data)
        values = {n: {"value": metrics.value(val, n), "mode": mode_of(config, n)} for n in own}
        selected = selected | {"own_metrics": values}
    write_table(table, folder.predictions)
    write_atomically(
        folder.baselines, shared("baselines.csv", data.opened, lambda: _baselines_csv(data))
    )
    shown = {"images": config_shows_images(config)}
    facts = {"data": _data_facts(data), "model": _model_facts(folder, config, model)}
    write_json(folder.fit, {"selected": selected, **facts, "report": shown})
    # From a run that had this folder before: its predictions were others.
    folder.decisions.unlink(missing_ok=True)


def evaluate_and_print(
    folder: RunFolder, selected: dict[str, Any], config: Config, in_sweep: bool
) -> RunEvaluation:
    """Evaluate the run from its files, also on another dataset; draw figures, print metrics.

    in_sweep: print the objective alone; the sweep decides whose test metrics are shown.
    """
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    evaluation = evaluate_run(folder, progress=progress)
    figures = []
    if not without_report(config, in_sweep):
        figures = draw_figures(evaluation, config.evaluation.figures)
    if in_sweep:
        at = f" at the selected epoch {selected['epoch']}" if "epoch" in selected else ""
        pairs = zip(config.objectives, evaluation.objectives, strict=True)
        values = ", ".join(f"{name} {value:.4f}" for name, value in pairs)
        print(f"validation {values}{at}\n", flush=True)
    else:
        print_evaluation(evaluation, figures, "Run")
    run_external_test(folder, config, in_sweep)
    return evaluation


def run_external_test(folder: RunFolder, config: Config, in_sweep: bool) -> None:
    """`data.test_on`: predict its test split; write evaluations/data-<name>, and print it.

    in_sweep: print nothing; the sweep decides whose test metrics are shown.
    """
    node = config.data.test_on
    if node is None:
        return
    assert isinstance(node, Mapping)
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    logits = load_model(folder, config, trust=True)  # this process has trained it
    dataset = build(node, "data.test_on")
    new = predict_external(folder, config, dataset, config.data.class_map, logits, progress)
    name = new.metadata.data
    evaluation = evaluate_run(folder, name=f"data-{name}", new=new, progress=progress)
    figures = []
    if not without_report(config, in_sweep):
        figures = draw_figures(evaluation, config.evaluation.figures)
        write_report(evaluation, folder, images=config_shows_images(config))
    if not in_sweep:
        print(f"\nThe same model on another dataset, {name}:\n")
        print_evaluation(evaluation, figures, "Evaluation", folder)


def explain(
    evaluation: RunEvaluation,
    config: Config,
    data: RadiographData,
    in_sweep: bool,
    mark: Callable[[str], None],
) -> None:
    """Write the reference for out-of-distribution images, then the heatmaps.

    mark: `RunTimes.mark`, called in between.
    """
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    write_ood_reference(evaluation.folder, config, data, progress)
    mark("OOD reference")
    explain_new_run(evaluation, config, data, in_sweep)


def without_report(config: Config, in_sweep: bool) -> bool:
    """Whether the run is a job that trains a head alone, for less time than a report takes.

    The sweep's end reports the best of them, and `fracnet.evaluate` any other.
    """
    return in_sweep and config.model.freeze == "backbone"


def report(evaluation: RunEvaluation, config: Config, in_sweep: bool) -> None:
    """Write the report of a run that has just been trained."""
    if without_report(config, in_sweep):
        return
    paths = write_report(evaluation)
    if not in_sweep:
        print(f"\nReport  {paths[0]}", flush=True)


def _baselines_csv(data: RadiographData) -> str:
    """Predictions for the test rows by the two baselines that any model must beat.

    One row per image and baseline: which, the image, its groups, the probabilities.
    """
    train, test = data.rows("train"), data.rows("test")
    targets, rows = data.manifest.targets(), data.table.iloc[test]
    features = data.cache.features
    tables = {
        "majority": baselines.majority(targets[train], rows, data.classes),
        "shortcut": baselines.shortcut(
            features[train], targets[train], features[test], rows, data.classes
        ),
    }
    parts = []
    for name, table in tables.items():
        probabilities = [c for c in table.columns if str(c).startswith(PROB)]
        groups = ["patient", "study", "region", *([COPIES] if COPIES in table else ())]
        part = table[["path", "split", "label", *groups, *probabilities]].copy()
        part.insert(0, "baseline", name)
        parts.append(part)
    return pd.concat(parts).to_csv(index=False, lineterminator="\n")


def _model_facts(
    folder: RunFolder, config: Config, model: Classifier | Classical
) -> Mapping[str, Any]:
    """What fit.json holds of the model."""
    if not isinstance(model, Classifier):
        return {"name": model.describe()}
    weights = read_mapping(folder.provenance).get("weights")
    return {
        "name": model_name(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": [*([weights] if weights else []), *training_options(config, model)],
    }


def _data_facts(data: RadiographData) -> dict[str, Any]:
    """What fit.json holds of the data besides their fingerprint: names, exclusions, patients."""
    manifest = data.manifest
    used = manifest.table[manifest.table["split"].isin(SPLITS)]
    groups = {}
    for unit in ("patient", "study"):
        counts = used.groupby("split")[unit].nunique()
        if counts.sum():
            groups["patients" if unit == "patient" else "studies"] = {
                str(split): int(n) for split, n in counts.items()
            }
    return {
        "name": manifest.name,
        "notes": list(manifest.notes),
        "license": manifest.license,
        "citation": manifest.citation,
        "groups": manifest.groups,
        "counts": groups,
        "excluded": json.loads(manifest.excluded.to_json(orient="records")),
    }

"""What a run leaves behind: predictions, metrics.json, figures, and the table on the screen."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import write_table
from fracnet.evaluation import baselines
from fracnet.evaluation.levels import check_views
from fracnet.evaluation.predictions import PROB
from fracnet.evaluation.strata import check_by
from fracnet.training.judge import judge
from fracnet.training.present import draw, present, progress
from fracnet.training.run_folder import RunFolder, write_json


def check_evaluation(config: Config, data: RadiographData) -> None:
    """Raise UserError for what the closing evaluation could not do, before hours of training."""
    test = data.manifest.table.iloc[data.rows("test")]
    check_by(test, config.evaluation.by, "evaluation.by")
    check_views(config.evaluation.views, len(data.classes), "evaluation.views")


def baseline_tables(data: RadiographData) -> dict[str, pd.DataFrame]:
    """Predictions for the test rows by the two baselines that any model must beat."""
    train, test = data.rows("train"), data.rows("test")
    targets, rows = data.manifest.targets(), data.manifest.table.iloc[test]
    features = data.cache.features
    return {
        "majority": baselines.majority(targets[train], rows, data.classes),
        "shortcut": baselines.shortcut(
            features[train], targets[train], features[test], rows, data.classes
        ),
    }


def write_baselines(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """One row an image and baseline: which, the image, its groups, the probabilities."""
    parts = []
    for name, table in tables.items():
        probs = [c for c in table.columns if str(c).startswith(PROB)]
        part = table[["path", "split", "label", "patient", "study", "region", *probs]].copy()
        part.insert(0, "baseline", name)
        parts.append(part)
    pd.concat(parts).to_csv(path, index=False, lineterminator="\n")


def about_data(data: RadiographData) -> dict[str, Any]:
    """What fit.json holds of the data besides their fingerprint: names, exclusions, patients."""
    manifest = data.manifest
    groups = {}
    for unit in ("patient", "study"):
        of = manifest.table.groupby("split")[unit].nunique()
        if of.sum():
            groups["patients" if unit == "patient" else "studies"] = {
                str(split): int(n) for split, n in of.items()
            }
    return {
        "name": manifest.name,
        "notes": list(manifest.notes),
        "licence": manifest.licence,
        "citation": manifest.citation,
        "groups": manifest.groups,
        "counts": groups,
        "excluded": json.loads(manifest.excluded.to_json(orient="records")),
    }


def conclude(
    folder: RunFolder,
    table: pd.DataFrame,
    data: RadiographData,
    selected: dict[str, Any],
    config: Config,
    in_sweep: bool = False,
) -> float:
    """Write everything that follows from the predictions, and print the test figures.

    The figures are made from the files, read back, by the function that makes them again later.

    Args:
        folder: where to; its config.yaml is there already.
        table: predictions for val and test at the selected checkpoint.
        data: for the baselines and the notes.
        selected: which epoch (or, without epochs, which setting) was selected, by what.
        config: asked whether there is to be a progress bar.
        in_sweep: print the objective alone; whose test figures are shown is the sweep's to decide.

    Returns:
        The validation figure `objective` at the selected checkpoint.
    """
    write_table(table, folder.predictions)
    write_baselines(baseline_tables(data), folder.baselines)
    write_json(folder.fit, {"selected": selected, "data": about_data(data)})
    # Of a run that had this folder before, or was cut off right here: its rows were others.
    folder.decisions.unlink(missing_ok=True)
    found = judge(folder, show=progress(config.trainer.progress_bar))
    drawn = draw(found, config.evaluation.figures)
    if in_sweep:
        at = f" at the selected epoch {selected['epoch']}" if "epoch" in selected else ""
        print(f"validation {config.objective} {found.objective:.4f}{at}\n", flush=True)
    else:
        present(Console(highlight=False, soft_wrap=False), found, drawn)
    return found.objective

"""What a run leaves behind: predictions, metrics.json, figures, and the table on the screen."""

from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from scipy.special import log_softmax

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import write_table
from fracnet.evaluation import baselines
from fracnet.evaluation.binary import binary_rows
from fracnet.evaluation.predictions import classes_of, targets
from fracnet.evaluation.summary import Summary, plain, summarise
from fracnet.report import figures
from fracnet.report.binary import print_binary
from fracnet.report.cited import cited_lines
from fracnet.report.console import print_summary
from fracnet.training.run_folder import RunFolder, write_json


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


def conclude(
    folder: RunFolder,
    table: pd.DataFrame,
    data: RadiographData,
    selected: dict[str, Any],
    config: Config,
    in_sweep: bool = False,
) -> float:
    """Write everything that follows from the predictions, and print the test figures.

    Args:
        folder: where to.
        table: predictions for val and test at the selected checkpoint.
        data: for the baselines and the notes.
        selected: which epoch (or, without epochs, which setting) was selected, by what.
        config: names the validation figure that a sweep optimises, and figures to print beside.
        in_sweep: print that figure alone; whose test figures are shown is the sweep's to decide.

    Returns:
        That figure at the selected checkpoint.
    """
    write_table(table, folder.predictions)
    tables = {split: table[table["split"] == split] for split in ("val", "test")}
    summaries = {name: summarise(t) for name, t in (tables | baseline_tables(data)).items()}
    by_level = binary_rows(tables["test"]) if data.task == "binary" else ()
    objective = config.objective
    value = objective_value(summaries["val"], tables["val"], objective)
    content: dict[str, Any] = {
        "objective": {"name": objective, "value": value},
        "selected": selected,
        "val": summaries["val"].to_dict(),
        "test": summaries["test"].to_dict(),
        "baselines_on_test": {name: summaries[name].to_dict() for name in ("majority", "shortcut")},
    }
    if by_level:
        content["test_by_level_and_region"] = [row.to_dict() for row in by_level]
    write_json(folder.metrics, plain(content))  # an undefined figure is null
    drawn = []
    if "epoch" in selected:
        drawn += figures.curves(folder.curves, folder.figures, selected=selected["epoch"])
    drawn += figures.confusion_matrix(summaries["test"], folder.figures)
    if in_sweep:
        at = f" at the selected epoch {selected['epoch']}" if "epoch" in selected else ""
        print(f"validation {objective} {value:.4f}{at}\n", flush=True)
        return value
    console = Console(highlight=False, soft_wrap=False)
    if by_level:
        print_binary(console, by_level, data.classes[1])
    print_summary(
        console,
        summaries["test"],
        shortcut=summaries["shortcut"],
        majority=summaries["majority"],
        notes=data.manifest.notes,
    )
    cited = [figure.model_dump() for figure in config.cited]
    for line in cited_lines(cited, summaries["test"], data.manifest.name):
        console.print(line, markup=False, highlight=False, emoji=False)
    print(f"\nRun folder: {folder.path}")
    for path in [folder.metrics, folder.predictions, *(p for p in drawn if p.suffix == ".png")]:
        print(f"  {path.relative_to(folder.path)}")
    return value


def objective_value(summary: Summary, table: pd.DataFrame, name: str) -> float:
    """The validation figure `name` at the selected checkpoint."""
    if name != "loss":
        return summary.metrics[name].value
    logits = table[[f"logit_{name}" for name in classes_of(table)]].to_numpy(dtype=np.float64)
    return float(-log_softmax(logits, axis=1)[np.arange(len(table)), targets(table)].mean())

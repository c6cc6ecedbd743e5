"""Run folders as training leaves them, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from helpers.predictions import draw_scores

from fracnet.evaluation.predictions import assemble
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY

CLASSES = ("normal", "abnormal")


def table_of(
    skill: float, seed: int = 0, count: int = 60, views: int = 2, fold: int | None = None
) -> pd.DataFrame:
    """Predictions for `count` test patients and half as many of val, the same for each seed.

    With a fold, val has only the patients of this fold.
    """
    parts = []
    for split, size in (("val", count // 2), ("test", count)):
        patient = np.repeat(np.arange(size), views)
        target = patient // 2 % 2
        rows = pd.DataFrame(
            {
                "path": [f"{split}/{p:03d}_{i % views}.png" for i, p in enumerate(patient)],
                "split": split,
                "label": np.array(CLASSES)[target],
                "patient": [f"{split}{p:03d}" for p in patient],
                "study": [f"{split}{p:03d}s" for p in patient],
                "region": "wrist",
            }
        )
        rng = np.random.default_rng([seed, split == "test"])
        part = assemble(rows, CLASSES, draw_scores(rng, target, 2, skill, patient, 0.3))
        parts.append(part if split == "test" or fold is None else part[patient % 3 == fold])
    return pd.concat(parts, ignore_index=True)


def write_run(
    folder: Path,
    table: pd.DataFrame,
    status: str = "finished",
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run with a seed and further keys of its config."""
    folder.mkdir(parents=True)
    plain = {"seed": seed, "objective": "macro_auc", "optim": {"lr": 0.1}} | (config or {})
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    content = {FORMAT_KEY: FORMAT, "status": status, "data_fingerprint": "f00d"}
    (folder / "provenance.json").write_text(json.dumps(content))
    (folder / "fit.json").write_text(json.dumps({"selected": {"epoch": 1}, "data": {"name": "x"}}))
    if status == "finished":
        table.to_csv(folder / "predictions.csv", index=False, lineterminator="\n")
    return folder

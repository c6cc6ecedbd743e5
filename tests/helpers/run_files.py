"""Run folders as training leaves them, without any training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fracnet.data.manifest import write_table
from fracnet.evaluation.predictions import assemble
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY

PAIR = ("normal", "abnormal")
NOTE = "A note of the dataset."


def two_class_table(
    val: int = 40, test: int = 40, seed: int = 0, shift: float = -1.0, confident: float = 2.0
) -> pd.DataFrame:
    """Patients with one or two studies of one to three views; val and test rows, as in MURA.

    `shift` makes the likeliest class a bad rule, `confident` the logits too confident.
    """
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for patient in range(val + test):
        split = "val" if patient < val else "test"
        for study in range(1 + (patient % 4 == 0)):
            abnormal = rng.random() < 0.4
            region = ("elbow", "hand", "wrist")[(patient + study) % 3]
            noise = rng.normal()
            for view in range(rng.integers(1, 4)):
                name = f"{region}/{patient:03}/{study}"
                rows.append(
                    {
                        "path": f"{split}/{name}/{view}.png",
                        "split": split,
                        "label": PAIR[abnormal],
                        "patient": f"{patient:03}",
                        "study": name,
                        "region": region,
                        "view": ("AP", "lateral", None)[view],
                    }
                )
                scores.append(confident * (1.5 * abnormal - 0.5 + 0.7 * noise + 0.7 * rng.normal()))
    logits = np.column_stack([np.zeros(len(scores)), np.array(scores) + shift])
    return assemble(pd.DataFrame(rows), PAIR, logits)


def write_run(
    folder: Path,
    table: pd.DataFrame,
    *,
    baseline: bool = True,
    **config: Any,
) -> Path:
    """predictions.csv, baselines.csv, config.yaml, fit.json and provenance.json of a run."""
    folder.mkdir(parents=True)
    write_table(with_annotation_columns(table), folder / "predictions.csv")
    if baseline:
        test = table[table["split"] == "test"]
        for name in [c for c in table.columns if c.startswith("prob_")]:
            test = test.assign(**{name: 1 / sum(c.startswith("prob_") for c in table)})
        test = test.drop(columns=[c for c in test.columns if c.startswith("logit_")])
        rows = pd.concat([test.assign(baseline=name) for name in ("majority", "shortcut")])
        rows.to_csv(folder / "baselines.csv", index=False)
    settings = {"objective": "macro_auc", "cited": [], "evaluation": {"resamples": 100, "by": []}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | config))
    fit = {"selected": {"epoch": 2}, "data": {"name": "mura_like", "notes": [NOTE]}}
    (folder / "fit.json").write_text(json.dumps(fit))
    provenance = {FORMAT_KEY: FORMAT, "status": "finished"}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def with_annotation_columns(table: pd.DataFrame) -> pd.DataFrame:
    """With the manifest's columns that tests of metrics leave out."""
    return table.assign(polygons=None, boxes=None)


def write_foreign_csv(table: pd.DataFrame, folder: Path) -> None:
    """preds.csv as another program might write it: test rows, other names, labels 0 and 1."""
    test = table[table["split"] == "test"]
    foreign = pd.DataFrame({"image": test["path"], "truth": (test["label"] == PAIR[1]) * 1})
    foreign = foreign.assign(score=test[f"prob_{PAIR[1]}"], person=test["patient"])
    foreign.to_csv(folder / "preds.csv")


def file_contents(folder: Path) -> dict[str, bytes]:
    """Content of every file in the folder and below, by its relative path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

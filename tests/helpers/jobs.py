"""Folders of a sweep as its jobs leave them, without any training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.predictions import make_table

from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY

TEST = summarize(Predictions(make_table((8, 9, 10), seed=1))).to_dict()


def add_job(
    sweep: Path,
    number: int,
    overrides: Sequence[str],
    value: float | None = None,
    *,
    objective: str = "macro_auc",
    status: str = "finished",
    reason: str = "",
    epochs: int = 3,
    cited: Sequence[Mapping[str, str]] = (),
    objectives: Mapping[str, float] | None = None,
) -> None:
    """The folder of a job; with a value it has metrics, without one the job ended earlier."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    job: dict[str, Any] = {"job": number, "overrides": list(overrides)}
    (folder / "job.json").write_text(json.dumps(job | {"status": status, "reason": reason}))
    if value is None:
        return
    rows = "".join(f"{epoch},0.5\n" for epoch in range(1, epochs + 1))
    (folder / "metrics.csv").write_text(f"epoch,val/loss\n{rows}")
    selected = {"epoch": 2, "by": "val/loss", "value": 0.5}
    (folder / "fit.json").write_text(json.dumps({"selected": selected}))
    metrics = {
        FORMAT_KEY: FORMAT,
        "objective": {"name": objective, "value": value},
        "selected": selected,
        "val": TEST,
        "test": TEST,
        "baselines_on_test": {"majority": TEST, "shortcut": TEST},
    }
    if objectives:
        entries = [{"name": name, "value": metric} for name, metric in objectives.items()]
        metrics |= {"objective": entries[0], "objectives": entries}
    if cited:
        metrics["cited"] = list(cited)
    (folder / "metrics.json").write_text(json.dumps(metrics))

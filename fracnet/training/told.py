"""What a run folder says of itself besides predictions: options, selection, notes, baselines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fracnet.config import validated
from fracnet.data.manifest import read_table
from fracnet.errors import UserError
from fracnet.groups import Cited
from fracnet.objects import near_miss
from fracnet.options import Evaluation
from fracnet.training.run_folder import RunFolder, jobs_of


@dataclass(frozen=True)
class Told:
    """What a run folder says of itself besides its predictions; None where it does not."""

    options: Evaluation
    objective: str | None
    cited: tuple[Cited, ...]
    selected: Mapping[str, Any] | None
    data: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Remade:
    """Predictions that a run's model has made anew; `validation_too`: not for the test alone."""

    table: pd.DataFrame
    told: Told
    baselines: Mapping[str, pd.DataFrame]
    validation_too: bool

    def test(self) -> pd.DataFrame:
        """Its test rows."""
        return self.table[self.table["split"] == "test"]


def tell(run: RunFolder) -> Told:
    """Read what the folder says of itself; `UserError` if it holds no predictions."""
    if not run.predictions.is_file():
        raise UserError(_no_predictions(run))
    config = mapping(run.config)
    fit = mapping(run.fit)
    cited = [
        validated(Cited, figure, f"{run.config}: cited.{i}")
        for i, figure in enumerate(config.get("cited") or [])
    ]
    data = fit.get("data") or {}
    return Told(
        options=validated(Evaluation, config.get("evaluation") or {}, f"{run.config}: evaluation"),
        objective=config.get("objective"),
        cited=tuple(cited),
        # Runs of before there was fit.json have it among their figures.
        selected=fit.get("selected") or mapping(run.metrics).get("selected"),
        data=data.get("name", "the test split"),
        notes=tuple(data.get("notes", ())),
    )


def read_baselines(run: RunFolder) -> dict[str, pd.DataFrame]:
    """The baselines' predictions by name; none where the run has no baselines.csv."""
    if not run.baselines.is_file():
        return {}
    table = read_table(run.baselines)
    return {str(name): rows for name, rows in table.groupby("baseline", sort=False)}


def mapping(path: Path) -> dict[str, Any]:
    """What a JSON or YAML file holds; nothing where there is none."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it holds no keys with values.")
    return content


def _no_predictions(run: RunFolder) -> str:
    folder = run.path
    if not folder.is_dir():
        parent = folder.parent
        here = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        return f"run={folder}: there is no such folder.{near_miss(folder.name, here)}"
    jobs = jobs_of(folder)
    if jobs and not run.config.is_file():
        names = ", ".join(job.relative_to(folder).as_posix() for job in jobs[:10])
        return (
            f"run={folder} is the folder of a sweep; name one of its jobs, {names}"
            f"{' and so on' if len(jobs) > 10 else ''}, as in run={jobs[0]}."
        )
    status = mapping(run.provenance).get("status")
    if status is not None:
        return (
            f"run={folder} holds no predictions.csv: the run is {status!r} and has not come to its "
            f"end; python -m fracnet.train resume={folder} goes on with it."
        )
    return f"run={folder} is no run folder: it holds no predictions.csv."

"""The run folder: where each thing lies, and how it is written.

What a run folder says of itself besides predictions: options, selection, notes, baselines.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fracnet.config.instantiate import near_miss
from fracnet.config.schema import Cited, Evaluation, validated
from fracnet.data.manifest import read_table
from fracnet.utils.errors import UserError


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Code, data, packages, seed, command, device, time and memory."""
        return self.path / "provenance.json"

    @property
    def curves(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """The figures of val and test at the selected checkpoint, and the baselines."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """One row an image of val and test."""
        return self.path / "predictions.csv"

    @property
    def baselines(self) -> Path:
        """One row an image of test and baseline, which the column `baseline` names."""
        return self.path / "baselines.csv"

    @property
    def fit(self) -> Path:
        """What the fit tells of itself: the selected epoch, the data's name and notes; `report`."""
        return self.path / "fit.json"

    @property
    def decisions(self) -> Path:
        """Temperature and operating points that validation has chosen, with a hash."""
        return self.path / "decisions.json"

    @property
    def novelty(self) -> Path:
        """The training images in short, to tell others that are unlike them."""
        return self.path / "novelty.npz"

    @property
    def evaluations(self) -> Path:
        """Folder of further evaluations, each with other options."""
        return self.path / "evaluations"

    @property
    def explain(self) -> Path:
        """Folder of heatmaps: explain.json and overlays/*.png."""
        return self.path / "explain"

    @property
    def explanation(self) -> Path:
        """What the heatmaps show, how well they find what is marked, and whether to trust them."""
        return self.explain / "explain.json"

    @property
    def figures(self) -> Path:
        """Folder of PNG and SVG."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The page for people; the model card lies beside it."""
        return self.path / "report" / "index.html"

    @property
    def checkpoints(self) -> Path:
        """Folder of best.ckpt, and of last.ckpt while a run is not finished."""
        return self.path / "checkpoints"


def write_config(folder: RunFolder, plain: Mapping[str, Any]) -> None:
    """Write the resolved config as YAML."""
    write_whole(folder.config, yaml.safe_dump(dict(plain), sort_keys=False))


def write_json(path: Path, content: Any) -> None:
    """Write plain containers; NaN is an error, since JSON has none."""
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or the one before."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def jobs_of(folder: Path) -> list[Path]:
    """The runs of a sweep's folder, in the order of their numbers; none where it is no such."""
    jobs = [path.parent for path in folder.glob("*/job.json")]
    return sorted(jobs, key=lambda path: (len(path.name), path.name))


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

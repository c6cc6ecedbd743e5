"""The run folder: where each thing lies, and how it is written."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


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

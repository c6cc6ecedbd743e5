"""The finished runs that a pattern names: their configs and predictions, and who is left out."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonpath, relpath
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fracnet.data.manifest import read_table
from fracnet.errors import UserError
from fracnet.evaluation.identity import check_apart
from fracnet.evaluation.predictions import check
from fracnet.hashes import sha256_of
from fracnet.training.run_folder import RunFolder, jobs_of
from fracnet.training.told import mapping

# What a comparison leaves in its own folder.
COMPARISON = "comparison.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has come to its end. `config` is empty where its folder holds none."""

    name: str
    folder: RunFolder
    config: dict[str, Any]
    table: pd.DataFrame

    @property
    def is_ensemble(self) -> bool:
        """Whether it is the mean of other runs."""
        return "ensemble" in self.config

    def fingerprint(self) -> str:
        """SHA-256 of its predictions file."""
        return sha256_of(self.folder.predictions)


@dataclass(frozen=True)
class LeftOut:
    """A folder that the pattern names and that cannot be used, and why."""

    name: str
    reason: str


def find(patterns: Sequence[str], key: str = "runs") -> tuple[list[FinishedRun], list[LeftOut]]:
    """Read the runs whose folders match, in the order of their names.

    The folder of a sweep stands for the runs in it, that of a comparison for nothing. Names are
    paths, from the last folder that all runs have in common. Each folder is taken once.

    Raises:
        UserError: nothing matches, or a table that cannot be scored, or whose val and test share
            a patient; `key` is where the config names the patterns.
    """
    runs, left = [], []
    paths = [path for path in _folders(patterns, key) if not (path / COMPARISON).exists()]
    start = _start(paths)
    for path in paths:
        folder, name = RunFolder(path), relpath(path.resolve(), start)
        reason = _unfinished(folder)
        if reason:
            left.append(LeftOut(name, reason))
        else:
            runs.append(_read(folder, name))
    return runs, left


def _start(paths: Sequence[Path]) -> Path:
    """Where names begin: one folder above what the runs have in common, to say where they are."""
    parents = [str(path.resolve().parent) for path in paths]
    return Path(commonpath(parents)).parent if parents else Path()


def _folders(patterns: Sequence[str], key: str) -> Iterator[Path]:
    seen = set()
    for pattern in patterns:
        found = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser())))
        folders = [path for path in found if path.is_dir()]
        if not folders:
            what = "only files" if found else "nothing"
            raise UserError(
                f"{key}={pattern} matches {what}; allowed: folders of runs, or a pattern for them "
                f"such as 'runs/*' (from the current folder, {Path.cwd()})."
            )
        for path in [run for folder in folders for run in _within(folder)]:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _within(folder: Path) -> list[Path]:
    """The runs of a sweep's folder; else the folder itself."""
    jobs = jobs_of(folder)
    return jobs if jobs and not (folder / "predictions.csv").exists() else [folder]


def _unfinished(folder: RunFolder) -> str:
    """Why this is no finished run; empty where it is one."""
    if folder.provenance.is_file():
        status = mapping(folder.provenance).get("status")
        if status != "finished":
            known = {"running": "still running, or its process has ended without a word"}
            return known.get(str(status), str(status))
    if folder.predictions.is_file():
        return ""
    if folder.config.is_file():
        return "it has no predictions.csv"
    return "no folder of a run"


def _read(folder: RunFolder, name: str) -> FinishedRun:
    config: dict[str, Any] = {}
    if folder.config.is_file():
        config = yaml.safe_load(folder.config.read_text(encoding="utf-8")) or {}
    table = read_table(folder.predictions)
    try:
        check(table)
        check_apart(table)
    except UserError as error:
        raise UserError(f"{folder.predictions}: {error}") from error
    return FinishedRun(name, folder, config, table)

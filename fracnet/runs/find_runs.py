"""The finished runs that a pattern names: their configs and predictions, and who is left out.

Runs that differ in nothing but the seed (or the fold) are trials of one configuration.
"""

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonpath, relpath
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fracnet.data.manifest import read_table
from fracnet.evaluation.predictions import check, check_apart
from fracnet.runs.run_folder import RunFolder, jobs_of, mapping
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of

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


# What tells one run of a configuration from another.
TRIAL = ("seed", "data.fold")

# What no trained weight depends on: where files lie, what is shown, how figures are made.
BESIDE = (
    "data_dir",
    "data.root",
    "data.num_workers",
    "trainer.progress_bar",
    "trainer.accelerator",
    "objective",
    "show_test",
    "sweep",
    "resume",
)
NODES_BESIDE = ("logger", "cited", "evaluation", "explain", "report", "ensemble.runs")

# Where configurations differ in many keys, these name them best.
TELLING = ("model.name", "model._target_")


@dataclass(frozen=True)
class Configuration:
    """Runs of equal config. `differs` holds the keys in which it stands apart from the others."""

    name: str
    runs: tuple[FinishedRun, ...]
    differs: Mapping[str, Any]


def grouped(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """The configurations of these runs, in the order of their first ones.

    A run without a config is one by itself. Names are the few keys that tell the configurations
    apart; a run's own name where no key does.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    flat = [_flat(members[0].config) for members in groups.values()]
    keys = dict.fromkeys(key for config in flat for key in config)
    differing = [key for key in keys if len({_text(c.get(key)) for c in flat}) > 1]
    chosen = _few(differing, flat)
    result = []
    for config, members in zip(flat, groups.values(), strict=True):
        name = " ".join(f"{short}={_shown(config[key])}" for key, short in chosen if key in config)
        if not members[0].config or not name:
            name = members[0].name
        elif members[0].is_ensemble:
            name = f"{members[0].name} (ensemble)"
        result.append(Configuration(name, tuple(members), {k: config.get(k) for k in differing}))
    return result


def apart(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """Each run by itself, under its own name."""
    return [Configuration(run.name, (run,), {}) for run in runs]


def _key(run: FinishedRun) -> str:
    """Equal for runs of one configuration, and for no others."""
    return _text(_flat(run.config)) if run.config and not run.is_ensemble else f"run {run.name}"


def _flat(config: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Dotted keys and values, without those that do not matter here."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{start}{name}"
        if key in TRIAL or key in BESIDE or key in NODES_BESIDE:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _few(differing: Sequence[str], flat: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Keys that suffice to tell the configs apart, each with its short form."""
    ordered = sorted(differing, key=lambda key: key not in TELLING)
    kept: list[str] = []
    told = 1
    for key in ordered:
        parts = {tuple(_text(config.get(name)) for name in (*kept, key)) for config in flat}
        if len(parts) > told:
            kept, told = [*kept, key], len(parts)
    last = [_last(key) for key in kept]
    return [(key, key if last.count(end) > 1 else end) for key, end in zip(kept, last, strict=True)]


def _last(key: str) -> str:
    head, _, end = key.rpartition(".")
    return head if end in ("_target_", "name") and head else end


def _shown(value: Any) -> str:
    """A value as a part of a name: of a dotted path the end, of a list its length."""
    if isinstance(value, list):
        return f"[{len(value)}]"
    if isinstance(value, str) and "." in value and " " not in value:
        return value.rpartition(".")[2]
    return _text(value) if not isinstance(value, str) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

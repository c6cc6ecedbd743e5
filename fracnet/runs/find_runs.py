"""The finished runs that a pattern matches, and how they group into configurations.

Runs that differ only in the seed (or the fold) are repeats of one configuration.
"""

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonpath, relpath
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from fracnet.evaluation.predictions import Predictions
from fracnet.runs.run_folder import (
    RunFolder,
    read_mapping,
    read_predictions,
    read_status,
    running_where,
    sweep_jobs,
)
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.result_files import COMPARISON_FILE

"""Marks the folder of a comparison, which is no run."""
REPEAT_KEYS = ("seed", "data.fold")
"""Keys in which runs of one configuration may differ."""
IGNORED_KEYS = (
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
"""Keys that no trained weight depends on: where files lie, what is shown."""
IGNORED_NODES = ("logger", "cited", "evaluation", "explain", "report", "ensemble.runs", "pruning")
"""Nodes that no trained weight depends on: tracking, how metrics are computed."""
MODEL_NAME = "model.name"
"""The key that names a configuration best where configurations differ in many."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run. `config` is empty where its folder has none."""

    name: str
    folder: RunFolder
    config: dict[str, Any]
    predictions: Predictions

    @property
    def is_ensemble(self) -> bool:
        """Whether it is the mean of other runs."""
        return "ensemble" in self.config

    def fingerprint(self) -> str:
        """SHA-256 of its predictions file."""
        return sha256_of(self.folder.predictions)


@dataclass(frozen=True)
class SkippedRun:
    """A folder that the pattern matches and that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Configuration:
    """Runs of equal config. `differs`: keys in which configurations differ, naming ones first."""

    name: str
    runs: tuple[FinishedRun, ...]
    differs: Mapping[str, Any]


def find_runs(patterns: Sequence[str]) -> tuple[list[FinishedRun], list[SkippedRun]]:
    """Read the runs whose folders match, in the order of their names.

    A sweep folder stands for its runs; the folder of a comparison is ignored. Names are paths
    relative to the deepest common folder. Each folder is read once.

    Raises:
        UserError: nothing matches, a run of another version of fracnet, or a table that cannot be
            evaluated or whose val and test share a patient.
    """
    hydra: Any = HydraConfig.instance().cfg  # Hydra has created this command's own folder
    own = Path(hydra.hydra.runtime.output_dir).resolve() if hydra else None
    paths = [
        path
        for path in _folders(patterns)
        if not (path / COMPARISON_FILE).exists() and path.resolve() != own
    ]
    # Names begin one folder above what all runs share, which shows where they are.
    parents = [str(path.resolve().parent) for path in paths]
    start = Path(commonpath(parents)).parent if parents else Path()
    runs, skipped = [], []
    for path in paths:
        folder, name = RunFolder.open(path, "runs"), relpath(path.resolve(), start)
        if reason := _why_unusable(folder):
            skipped.append(SkippedRun(name, reason))
        else:
            config = read_mapping(folder.config)
            runs.append(FinishedRun(name, folder, config, read_predictions(folder)))
    return runs, skipped


def find_two_or_more(
    patterns: Sequence[str], purpose: str, *, ensembles: bool = True
) -> tuple[list[FinishedRun], list[SkippedRun]]:
    """As `find_runs`; UserError where there are fewer than two.

    purpose: what needs two, e.g. "a comparison". ensembles: False skips runs that are ensembles.
    """
    runs, skipped = find_runs(patterns)
    if not ensembles:
        skipped += [SkippedRun(run.name, "is an ensemble") for run in runs if run.is_ensemble]
        runs = [run for run in runs if not run.is_ensemble]
    if len(runs) < 2:
        matches = f"only one finished run, {runs[0].name}" if runs else "no finished run"
        reasons = "".join(f" {run.name}: {run.reason}." for run in skipped)
        raise UserError(
            f"runs={','.join(patterns)} matches {matches}; {purpose} needs at least two.{reasons}"
        )
    return runs, skipped


def _folders(patterns: Sequence[str]) -> Iterator[Path]:
    seen = set()
    for pattern in patterns:
        matches = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser())))
        folders = [path for path in matches if path.is_dir()]
        if not folders:
            what = "only files" if matches else "nothing"
            raise UserError(
                f"runs={pattern} matches {what}; allowed: run folders, or a pattern for them such "
                f"as 'runs/*' (relative to the current folder, {Path.cwd()})."
            )
        for path in [run for folder in folders for run in _runs_in(folder)]:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _runs_in(folder: Path) -> list[Path]:
    """The runs of a sweep folder; otherwise the folder itself."""
    jobs = sweep_jobs(folder)
    return jobs if jobs and not (folder / "predictions.csv").exists() else [folder]


def _why_unusable(folder: RunFolder) -> str:
    """Why this is not a finished run; empty if it is one."""
    status = read_status(folder)
    if status == "running":
        return running_where(folder)
    if folder.provenance.is_file() and status != "finished":
        return str(status)
    if folder.predictions.is_file():
        return ""
    return "has no predictions.csv" if folder.config.is_file() else "not a run folder"


def group_by_config(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """The configurations of these runs, in the order of their first ones.

    A run without a config is a configuration of its own. Names are the few keys that distinguish
    the configurations; a run's own name where no key does.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_group_key(run), []).append(run)
    flat = [_flat(members[0].config) for members in groups.values()]
    # A network without a name has that of its class.
    named = [{MODEL_NAME: c["model._target_"], **c} if "model._target_" in c else c for c in flat]
    keys = dict.fromkeys(key for config in named for key in config)
    differing = [key for key in keys if len({_as_json(c.get(key)) for c in named}) > 1]
    naming = _naming_keys(sorted(differing, key=lambda key: key != MODEL_NAME), named)
    differing = [key for key in differing if any(key in config for config in flat)]
    result = []
    for config, full, members in zip(flat, named, groups.values(), strict=True):
        name = " ".join(f"{short}={_short(full[key])}" for key, short in naming if key in full)
        if not members[0].config or not name:
            name = members[0].name
        elif members[0].is_ensemble:
            name = f"{members[0].name} (ensemble)"
        result.append(Configuration(name, tuple(members), {k: config.get(k) for k in differing}))
    return result


def one_per_run(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """Each run by itself, under its own name."""
    return [Configuration(run.name, (run,), {}) for run in runs]


def _group_key(run: FinishedRun) -> str:
    """Equal for runs of one configuration, and only for those."""
    return _as_json(_flat(run.config)) if run.config and not run.is_ensemble else f"run {run.name}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values, without those that do not define a configuration."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in REPEAT_KEYS or key in IGNORED_KEYS or key in IGNORED_NODES:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _naming_keys(
    differing: Sequence[str], flat: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Keys that suffice to distinguish the configs, each with its short form."""
    keys: list[str] = []
    distinct = 1
    for key in differing:
        values = {tuple(_as_json(config.get(name)) for name in (*keys, key)) for config in flat}
        if len(values) > distinct:
            keys, distinct = [*keys, key], len(values)
    ends = [_last_part(key) for key in keys]
    return [(key, key if ends.count(end) > 1 else end) for key, end in zip(keys, ends, strict=True)]


def _last_part(key: str) -> str:
    head, _, end = key.rpartition(".")
    return head if end in ("_target_", "name") and head else end


def _short(value: Any) -> str:
    """A value as part of a name: the end of a dotted path, the length of a list."""
    if isinstance(value, list):
        return f"[{len(value)}]"
    if isinstance(value, str) and "." in value and " " not in value:
        return value.rpartition(".")[2]
    return _as_json(value) if not isinstance(value, str) else value


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

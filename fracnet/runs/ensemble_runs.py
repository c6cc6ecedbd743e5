"""A run folder made of other runs: what they share, who they are, and their mean."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os.path import relpath
from pathlib import Path
from typing import Any

from fracnet.data.manifest import write_table
from fracnet.evaluation.ensembles import Ensemble, average
from fracnet.runs.find_runs import FinishedRun, LeftOut, find
from fracnet.runs.provenance import code_version
from fracnet.runs.report_run import chosen
from fracnet.runs.run_folder import RunFolder, mapping, write_config, write_json
from fracnet.utils.errors import UserError

KEY = "ensemble"


def members(patterns: Sequence[str]) -> tuple[list[FinishedRun], list[LeftOut]]:
    """The runs that the patterns name, without ensembles; and what is left out.

    Raises `UserError` where fewer than two remain.
    """
    found, left = find(patterns)
    runs = [run for run in found if not run.is_ensemble]
    left += [LeftOut(run.name, "an ensemble itself") for run in found if run.is_ensemble]
    if len(runs) < 2:
        told = "".join(f" {run.name}: {run.reason}." for run in left)
        one = f"only one finished run, {runs[0].name}" if runs else "no finished run"
        raise UserError(
            f"runs={','.join(patterns)} names {one}; an ensemble needs two at least.{told}"
        )
    return runs, left


def combine(runs: Sequence[FinishedRun], folder: RunFolder) -> Ensemble:
    """Average the runs and write the folder: config, provenance, predictions, baselines.

    config.yaml holds the keys in which all runs agree and, under `ensemble`, who they are. Folders
    are given relative to this one.

    Raises:
        UserError: the folder holds a run already, or the runs do not go together.
    """
    if folder.config.exists() or folder.predictions.exists():
        raise UserError(f"out={folder.path} holds a run already; allowed: a new folder.")
    made = average({run.name: run.table for run in runs})
    folder.path.mkdir(parents=True, exist_ok=True)
    who = {
        "of": "mean of probabilities",
        "validation": made.validation,
        "runs": [_member(run, folder.path) for run in runs],
    }
    write_config(folder, common([run.config for run in runs]) | {KEY: who})
    write_table(made.table, folder.predictions)
    told = common([mapping(run.folder.fit) for run in runs])
    # Names that one of the runs must not show, the ensemble would.
    images = all(chosen(run.folder) for run in runs)
    about = {"selected": None, "data": told.get("data") or {}, "report": {"images": images}}
    write_json(folder.fit, about)
    baselines = [run.folder.baselines for run in runs]
    if all(path.is_file() for path in baselines):
        contents = {path.read_bytes() for path in baselines}
        if len(contents) == 1:
            folder.baselines.write_bytes(contents.pop())
    write_json(folder.provenance, _provenance(runs))
    return made


def common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys that all of them have with the same value, nested ones likewise."""
    first, *others = configs
    shared: dict[str, Any] = {}
    for key, value in first.items():
        if not all(key in other for other in others):
            continue
        values = [value, *(other[key] for other in others)]
        if all(isinstance(v, Mapping) for v in values):
            shared[key] = common(values)
        elif all(v == value for v in values):
            shared[key] = value
    return shared


def _member(run: FinishedRun, start: Path) -> dict[str, Any]:
    data = run.config.get("data") or {}
    return {
        "folder": relpath(run.folder.path.resolve(), start.resolve()),
        "seed": run.config.get("seed"),
        "fold": data.get("fold") if data.get("folds") else None,
        "predictions_sha256": run.fingerprint(),
    }


def _provenance(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    data = {mapping(run.folder.provenance).get("data_fingerprint") for run in runs}
    return {
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.executable).name, "-m", "fracnet.ensemble", *sys.argv[1:]],
        "data_fingerprint": data.pop() if len(data) == 1 else None,
        "code": code_version(),
    }

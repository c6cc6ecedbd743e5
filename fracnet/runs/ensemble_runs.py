"""An ensemble as a run folder: what its members share, who they are, and their mean."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os.path import relpath
from pathlib import Path
from typing import Any

from fracnet.config import hydra_cli
from fracnet.data.manifest import write_table
from fracnet.evaluation.ensembles import OUT_OF_FOLD, Ensemble, average
from fracnet.runs.find_runs import FinishedRun
from fracnet.runs.report_run import images_allowed
from fracnet.runs.run_folder import (
    HASHES,
    RunFolder,
    code_version,
    predictions_hashes,
    read_mapping,
    with_format,
    write_config,
    write_json,
)
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically


def write_ensemble(
    runs: Sequence[FinishedRun], folder: RunFolder, tta: Sequence[str] = ()
) -> Ensemble:
    """Average the runs and write the folder: config, provenance, predictions, baselines.

    config.yaml holds the keys in which all runs agree and, under `ensemble`, the runs. Their
    folders are given relative to this one. tta: the further views that their predictions average.

    Raises:
        UserError: the folder holds a run already, or the runs do not match.
    """
    if folder.predictions.exists():
        raise UserError(f"out={folder.path} holds predictions.csv already; allowed: a new folder.")
    ensemble = average({run.name: run.predictions for run in runs})
    folder.path.mkdir(parents=True, exist_ok=True)
    members = {
        "of": "mean of probabilities",
        "validation": ensemble.validation,
        **({"tta": list(tta)} if tta else {}),
        "runs": [_member(run, folder.path) for run in runs],
    }
    write_config(folder, _common_keys([run.config for run in runs]) | {"ensemble": members})
    write_table(ensemble.predictions.table, folder.predictions)
    fit = _common_keys([read_mapping(run.folder.fit) for run in runs])
    # The ensemble must not show names that one of the runs must not show.
    images = all(images_allowed(run.folder) for run in runs)
    own_fit = {"selected": None, "data": fit.get("data") or {}, "report": {"images": images}}
    write_json(folder.fit, own_fit)
    baselines = [run.folder.baselines for run in runs]
    if all(path.is_file() for path in baselines):
        contents = {path.read_bytes() for path in baselines}
        if len(contents) == 1:
            write_atomically(folder.baselines, contents.pop())
    data = {read_mapping(run.folder.provenance).get("data_fingerprint") for run in runs}
    provenance = {
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": hydra_cli.typed_command("ensemble"),
        "data_fingerprint": data.pop() if len(data) == 1 else None,
        "code": code_version(),
        HASHES: predictions_hashes(folder),
    }
    write_json(folder.provenance, with_format(provenance))
    return ensemble


def ensemble_notes(ensemble: Ensemble) -> list[str]:
    """How an ensemble was built, in a sentence or two."""
    runs = sum(len(fold) for fold in ensemble.folds)
    sentences = [f"Averages the probabilities of {runs} runs."]
    if ensemble.validation == OUT_OF_FOLD:
        noun = "run" if runs == len(ensemble.folds) else "runs"
        sentences.append(
            f"Their validation images are {len(ensemble.folds)} folds, so each image is predicted "
            f"only by the {noun} that validated on it. What fits those predictions does not fit "
            "the mean of all runs, so no temperature and no threshold is chosen: the ensemble is "
            "uncalibrated and, with two classes, decides at 0.5."
        )
    return sentences


def _common_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys, nested ones included, that all of them have with the same value."""
    first, *others = configs
    shared: dict[str, Any] = {}
    for key, value in first.items():
        if not all(key in other for other in others):
            continue
        values = [value, *(other[key] for other in others)]
        if all(isinstance(v, Mapping) for v in values):
            shared[key] = _common_keys(values)
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

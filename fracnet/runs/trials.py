"""The page of a comparison or of a sweep, from its result and the folders of its runs."""

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from fracnet.evaluation.predictions import classes_of
from fracnet.report.sweep_charts import Trial
from fracnet.runs.find_runs import TELLING, FinishedRun
from fracnet.runs.run_folder import RunFolder, mapping

PAGE = "index.html"


def _trial(
    folder: Path, run: FinishedRun, of: str, settings: Mapping[str, Any], value: float, best: bool
) -> Trial:
    selected = (mapping(run.folder.fit).get("selected") or {}).get("epoch")
    return Trial(
        name=run.name,
        of=of,
        settings=settings,
        value=value,
        curves=_curves(run.folder),
        selected=selected,
        page=_link(folder, run.folder),
        chosen=best,
        facts=_facts(run.folder, selected),
        data=_data(run.folder),
        audit=_audit(run.folder),
        classes=_classes(run.folder),
    )


def _telling_first(differs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: differs[key] for key in sorted(differs, key=lambda key: key not in TELLING)}


def _by_value(trials: Sequence[Trial], larger_is_better: bool) -> list[Trial]:
    sign = -1 if larger_is_better else 1
    return sorted(
        trials, key=lambda t: (math.inf if math.isnan(t.value) else sign * t.value, not t.chosen)
    )


def _curves(run: RunFolder) -> pd.DataFrame | None:
    if not run.curves.is_file() or not run.curves.stat().st_size:
        return None
    return pd.read_csv(run.curves)


def _link(folder: Path, run: RunFolder) -> str:
    """Where the run's own page lies, if it has one, seen from `folder`."""
    if not run.report.is_file():
        return ""
    return quote(Path(os.path.relpath(run.report, folder)).as_posix())


def _data(run: RunFolder) -> str:
    """The data set's name; empty where the run does not say."""
    return str((mapping(run.fit).get("data") or {}).get("name", ""))


def _audit(run: RunFolder) -> dict[str, str] | None:
    """What the audit of its data said; empty where there was none, None where it does not tell."""
    about = mapping(run.provenance).get("data") or {}
    return {k: str(v) for k, v in (about["audit"] or {}).items()} if "audit" in about else None


def _classes(run: RunFolder) -> tuple[str, ...]:
    if not run.predictions.is_file():
        return ()
    return classes_of(pd.read_csv(run.predictions, nrows=0))


def _facts(run: RunFolder, selected: int | None) -> dict[str, str]:
    """Seed, epoch, time, device, code and data of a run, as far as it tells them."""
    told = mapping(run.provenance)
    code = told.get("code") or {}
    seconds = told.get("seconds")
    return {
        "seed": str(told.get("seed", "")),
        "kept epoch": "" if selected is None else str(selected),
        "time": "" if seconds is None else f"{seconds:.0f} s",
        "device": str(told.get("device", "")),
        "code": _version(code),
        "data": str(told.get("data_fingerprint", ""))[:12],
    }


def _version(code: Mapping[str, Any]) -> str:
    commit = str(code.get("commit") or "")[:8]
    changed = " (modified)" if code.get("modified") else ""
    return " ".join(filter(None, (str(code.get("fracnet", "")), commit))) + changed


def _unlike(runs: Sequence[FinishedRun]) -> list[str]:
    """What the runs do not share besides their configs, and a reader must know."""
    told = [mapping(run.folder.provenance) for run in runs]
    warnings = []
    data = {str(one["data_fingerprint"]) for one in told if one.get("data_fingerprint")}
    if len(data) > 1:
        warnings.append(
            f"The runs saw {len(data)} states of the data (fingerprints {', '.join(sorted(data))})."
            " Their test rows are the same; what they were trained and validated on may not be."
        )
    codes = {_version(one["code"]) for one in told if one.get("code")}
    if len(codes) > 1:
        warnings.append(
            f"The runs were made by {len(codes)} versions of the code ({', '.join(sorted(codes))}):"
            " a difference may be one of code."
        )
    return warnings


def _today() -> str:
    return datetime.now(UTC).date().isoformat()

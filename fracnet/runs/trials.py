"""The runs of a sweep or comparison as its page shows them, read from their folders."""

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
from fracnet.runs.find_runs import FinishedRun
from fracnet.runs.run_folder import RunFolder, read_curves, read_mapping
from fracnet.utils.errors import UserError

PAGE = "index.html"


def read_trial(
    folder: Path,
    run: RunFolder,
    name: str,
    of: str,
    settings: Mapping[str, Any],
    value: float,
    chosen: bool,
) -> Trial:
    """A run's `Trial` for the page in `folder`; the other arguments are its fields.

    Damaged curves are reported and left out: the page of all runs must not be lost for them.
    """
    curves = None
    try:
        curves = read_curves(run)
    except UserError as error:
        print(f"No curves of {run.path}: {error}")
    provenance, fit = read_mapping(run.provenance), read_mapping(run.fit)
    data = provenance.get("data") or {}
    selected = (fit.get("selected") or {}).get("epoch")
    page = quote(Path(os.path.relpath(run.report, folder)).as_posix())
    return Trial(
        name=name,
        of=of,
        settings=settings,
        value=value,
        curves=curves,
        selected=selected,
        page=page if run.report.is_file() else "",
        chosen=chosen,
        facts=_facts(provenance, selected),
        data=str((fit.get("data") or {}).get("name", "")),
        audit={k: str(v) for k, v in (data["audit"] or {}).items()} if "audit" in data else None,
        classes=classes_of(pd.read_csv(run.predictions, nrows=0))
        if run.predictions.is_file()
        else (),
    )


def sort_trials(trials: Sequence[Trial], larger_is_better: bool) -> list[Trial]:
    """The best by validation first, those without a value last."""
    sign = -1 if larger_is_better else 1
    return sorted(
        trials, key=lambda t: (math.inf if math.isnan(t.value) else sign * t.value, not t.chosen)
    )


def _facts(provenance: Mapping[str, Any], selected: int | None) -> dict[str, str]:
    """Seed, epoch, time, device, code and data of a run, as far as they are known."""
    seconds = provenance.get("seconds")
    return {
        "seed": str(provenance.get("seed", "")),
        "selected epoch": "" if selected is None else str(selected),
        "time": "" if seconds is None else f"{seconds:.0f} s",
        "device": str(provenance.get("device", "")),
        "code": _version(provenance.get("code") or {}),
        "data": str(provenance.get("data_fingerprint", ""))[:12],
    }


def _version(code: Mapping[str, Any]) -> str:
    commit = str(code.get("commit") or "")[:8]
    changed = " (modified)" if code.get("modified") else ""
    return " ".join(filter(None, (str(code.get("fracnet", "")), commit))) + changed


def difference_warnings(runs: Sequence[FinishedRun]) -> list[str]:
    """Differences between runs besides their configs that a reader must know."""
    records = [read_mapping(run.folder.provenance) for run in runs]
    warnings = []
    data = {str(r["data_fingerprint"]) for r in records if r.get("data_fingerprint")}
    if len(data) > 1:
        warnings.append(
            f"The runs saw {len(data)} versions of the data (fingerprints "
            f"{', '.join(sorted(data))}). Their test rows are the same; training and validation "
            "rows may differ."
        )
    codes = {_version(record["code"]) for record in records if record.get("code")}
    if len(codes) > 1:
        warnings.append(
            f"The runs come from {len(codes)} versions of the code ({', '.join(sorted(codes))}), "
            "so a difference may come from the code."
        )
    return warnings


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()

"""Run folders with all files of a report, and a parser of their pages."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from helpers.predictions import make_table
from helpers.run_files import two_class_table, write_run

from fracnet.report.run_content import RunContent
from fracnet.runs import report_run
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY, RunFolder

VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


def two_classes(folder: Path, table: pd.DataFrame | None = None, **config: Any) -> Path:
    """An evaluated run with patients and studies; their names occur nowhere else."""
    run = _write_two_classes(folder, table, **config)
    evaluate_run(RunFolder(run))
    return run


def two_class_content(folder: Path, table: pd.DataFrame | None = None, **config: Any) -> RunContent:
    """What the page of such a run shows."""
    return content_of(_write_two_classes(folder, table, **config))


def _write_two_classes(folder: Path, table: pd.DataFrame | None, **config: Any) -> Path:
    rows = two_class_table() if table is None else table
    has_patient = rows["patient"].notna()
    rows = rows.assign(patient=("person-" + rows["patient"]).where(has_patient))
    return write_run(folder, rows, **config)


def six_classes(folder: Path) -> Path:
    """An evaluated run of six classes without patients; validation is as large as the test."""
    run = _write_six_classes(folder)
    evaluate_run(RunFolder(run))
    return run


def six_class_content(folder: Path) -> RunContent:
    """What the page of such a run shows."""
    return content_of(_write_six_classes(folder))


def _write_six_classes(folder: Path) -> Path:
    counts = (14, 20, 13, 14, 14, 8)
    parts = [
        make_table(counts, 2.5, seed=k, split=split) for k, split in enumerate(("val", "test"))
    ]
    return write_run(folder, pd.concat(parts, ignore_index=True).assign(region=None))


def content_of(folder: Path, images: bool = True) -> RunContent:
    """What the page of a run folder shows."""
    return report_run.report_content(evaluate_run(RunFolder(folder)), images=images)


def write_report(folder: Path, images: bool | None = None) -> list[Path]:
    """Write the report of a run folder."""
    return report_run.write_report(evaluate_run(RunFolder(folder)), images=images)


def write_run_metadata(folder: Path) -> None:
    """provenance.json, metrics.csv and more of fit.json, as training leaves them."""
    counts = {
        split: {"normal": 1200, "abnormal": 800 + n}
        for n, split in enumerate(("train", "val", "test"))
    }
    provenance = {
        FORMAT_KEY: FORMAT,
        "started": "2026-01-31T12:00:00+00:00",
        "command": ["python", "-m", "fracnet.train", "data.root=/home/somebody/mura"],
        "data_fingerprint": "f00d",
        "data": {"counts": counts, "audit": None},
        "code": {"fracnet": "0.1.0", "commit": "abc", "modified": False},
        "seconds": 530.0,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    epochs = {"epoch": [1, 2], "train/loss": [0.7, 0.5], "val/loss": [0.6, 0.4]}
    pd.DataFrame(epochs | {"val/macro_auc": [0.6, 0.8]}).to_csv(folder / "metrics.csv")
    fit = json.loads((folder / "fit.json").read_text())
    fit["data"]["excluded"] = [{"split": "train", "reason": "unreadable file", "n": 7}]
    fit["data"]["counts"] = {"patients": {"train": 90, "val": 40, "test": 40}}
    (folder / "fit.json").write_text(json.dumps(fit))


def write_explanation(
    folder: Path,
    kinds: Sequence[str] = ("right and confident", "wrong and confident"),
    **scores: Any,
) -> None:
    """explain.json with a case of each of `kinds`, and their pictures."""
    (folder / "explain/overlays").mkdir(parents=True)
    table = pd.read_csv(folder / "predictions.csv")
    cases = []
    for number, kind in enumerate(kinds):
        row = len(table) - 1 - number
        case: dict[str, Any] = {"kind": kind, "path": table["path"][row], "row": row}
        predicted = "abnormal" if kind.startswith("wrong") else "normal"
        case |= {"truth": "normal", "predicted": predicted}
        case |= {"probability": 0.9, "patient": str(table["patient"][row])}
        for key in ("overlay", "plain"):
            case[key] = f"overlays/{number}_{key}.png"
            noise = np.random.default_rng(number).integers(0, 256, (400, 400, 3), np.uint8)
            cv2.imwrite(str(folder / "explain" / case[key]), noise)
        cases.append(case)
    content = {"method": "gradcam", "layer": "head", "model_dependent": True, "cases": cases}
    content |= {"localization": None, "sanity": None, "notes": ["How to read them."]} | scores
    (folder / "explain/explain.json").write_text(json.dumps(content))


def update_config(folder: Path, **more: Any) -> None:
    """Add keys to config.yaml."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | more))


class Page(HTMLParser):
    """Elements, ids and text of a page; it refuses elements that are closed in the wrong place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of this kind."""
        return [attributes for name, attributes in self.seen if name == tag]

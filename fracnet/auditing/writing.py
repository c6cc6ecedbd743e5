"""From an audit to its page and its JSON, on disk and in the cache."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fracnet.auditing.findings import by_severity
from fracnet.auditing.pairs import first_to_show
from fracnet.auditing.pictures import shown_pairs
from fracnet.auditing.shortcuts import Reached, figure
from fracnet.auditing.verdict import CAUTION
from fracnet.auditing.whole import Audited
from fracnet.data import audits
from fracnet.data.splits import SPLITS
from fracnet.report.page import page
from fracnet.words import are, counted

UNITS = {
    "width": "width, pixels",
    "height": "height, pixels",
    "file_size": "file, kB",
    "mean": "mean, grey levels",
    "standard_deviation": "deviation, grey levels",
}
LOWEST = 0.4  # left end of the drawn intervals, or further left where one of them begins there


def write(found: Audited, folder: Path, pictures: int) -> None:
    """Write index.html and audit.json into `folder`, and keep the JSON for training.

    pictures: at most so many pairs are shown. Each file appears whole or not at all.
    Raises UserError where they cannot be written.
    """
    html = as_page(found, pictures)
    text = json.dumps(found.as_json(str(folder)), indent=1, allow_nan=False) + "\n"
    audits.write_whole(folder / "audit.json", text)
    audits.write_whole(folder / "index.html", html)
    if found.looked:
        audits.write_whole(audits.place(found.fingerprint["hash"]), text)


def as_page(found: Audited, pictures: int) -> str:
    """The page, as HTML."""
    manifest, counts = found.manifest, found.fingerprint["counts"]
    chosen = first_to_show(manifest.table, found.pairs)[:pictures]
    totals = [sum(counts[split].values()) for split in SPLITS]
    n_pairs = len(found.pairs)
    lowest = _left_end(found.reached)
    return page(
        "audit.html",
        {
            "name": manifest.name,
            "severity": found.severity,
            "verdict": found.verdict,
            "caution": CAUTION,
            "made": found.made[:10],
            "facts": _facts(found) if found.looked else [],
            "looked": found.looked,
            "findings": [
                {
                    "severity": finding.severity,
                    "title": finding.title,
                    "text": finding.text,
                    "advice": finding.advice,
                    "listed": finding.listed,
                    "listed_title": f"In detail ({finding.total})",
                }
                for finding in by_severity(found.findings)
            ],
            "splits": SPLITS,
            "balance": [_line(label, counts, totals) for label in manifest.classes],
            "totals": totals,
            "notes": manifest.notes,
            "n_pairs": n_pairs,
            "pairs_told": f"{counted(n_pairs, 'pair')} {are(n_pairs)} verified; "
            f"{len(chosen)} {are(len(chosen))} shown, those across splits first.",
            "pairs": shown_pairs(manifest, chosen),
            "area": "AUC" if len(manifest.classes) == 2 else "macro AUC",
            "shortcuts": [_reach(one, lowest) for one in found.reached],
            "shortcuts_from": f"{lowest:g}",
            "shortcuts_told": _shortcuts_told(found),
            "fingerprint": found.fingerprint,
            "quantiles": _quantiles(found.fingerprint),
            "groups": found.groups,
        },
    )


def _facts(found: Audited) -> list[dict[str, str]]:
    patients, bad = found.manifest.table["patient"].nunique(), found.fingerprint["unreadable"]
    unreadable = [{"name": "files that cannot be read", "value": str(bad)}] if bad else []
    return [
        {"name": "images", "value": str(found.fingerprint["images"])},
        *unreadable,
        {"name": "classes", "value": str(len(found.manifest.classes))},
        {"name": "patients", "value": str(patients) if patients else "unknown"},
        {"name": "verified pairs of copies", "value": str(len(found.pairs))},
        {"name": "fingerprint", "value": str(found.fingerprint["hash"])},
    ]


def _line(label: str, counts: dict[str, dict[str, int]], totals: list[int]) -> dict[str, Any]:
    held = [counts[split][label] for split in SPLITS]
    return {
        "label": label,
        "cells": [{"n": n, "share": n / max(1, of)} for n, of in zip(held, totals, strict=True)],
        "total": sum(held),
    }


def _left_end(reached: Sequence[Reached]) -> float:
    """Where the drawn intervals begin, so that none is cut off."""
    begins = [one.auc if one.low is None else one.low for one in reached]
    return min(LOWEST, math.floor(10 * min(begins, default=LOWEST)) / 10)


def _reach(one: Reached, lowest: float) -> dict[str, Any]:
    def at(value: float) -> float:
        return round(200 * (value - lowest) / (1 - lowest), 1)

    known = one.low is not None and one.high is not None
    return {
        "name": one.name,
        "value": f"{one.auc:.3f}",
        "interval": figure(one).partition("(")[2].rstrip(")"),
        "low": at(one.low) if known and one.low is not None else None,
        "high": at(one.high) if known and one.high is not None else None,
        "at": round(at(one.auc) - 1.5, 1),
        "chance": at(0.5),
    }


def _shortcuts_told(found: Audited) -> str:
    if not found.reached:
        return ""
    best = found.reached[1]
    return (
        "What forests of trees reach that are given these figures of an image and not its picture, "
        "each on groups of images that it has not seen. A histogram or a file's size is made by "
        f"bone too, but knows no shape. Alone, {best.name} tells most."
    )


def _quantiles(fingerprint: dict[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for name, words in UNITS.items():
        values = fingerprint[name]
        scale = 1000 if name == "file_size" else 1
        if values is not None:
            lines.append({"name": words, "held": [f"{value / scale:.4g}" for value in values]})
    return lines

"""An audit's page, its JSON (on disk and in the cache), and its lines on the screen.

The pictures are part of the page as data URLs, so it loads nothing from anywhere else.
"""

import base64
import json
import math
import shlex
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from fracnet.data.audit_record import audit_path
from fracnet.data.image_io import Grey, read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.data_audit.checks import SEARCH, describe_pair, most_telling_first
from fracnet.data_audit.findings import CAUTION, by_severity, image_name
from fracnet.data_audit.label_errors import Doubt
from fracnet.data_audit.near_duplicates import Pair
from fracnet.data_audit.run_audit import AuditResult
from fracnet.data_audit.shortcuts import FamilyScore, area_name, format_score
from fracnet.data_audit.similar_images import SimilarPair
from fracnet.report.console import RESEARCH_ONLY, print_text
from fracnet.report.html import page
from fracnet.report.tables import Bar, Scale
from fracnet.utils.files import remove_drafts, write_atomically
from fracnet.utils.result_files import AUDIT_FILE
from fracnet.utils.text import are, counted

SIDE = 240  # pixels of the longest side of a picture
QUALITY = 72  # of its JPEG
AXIS_START = 0.4  # of the interval plots, or lower if an interval starts lower
QUANTITIES = {
    "width": "width, pixels",
    "height": "height, pixels",
    "file_size": "file size, kB",
    "mean": "mean, grey levels",
    "standard_deviation": "standard deviation, grey levels",
}


def write_report(result: AuditResult, folder: Path, pictures: int) -> None:
    """Write index.html and audit.json into `folder`, and store the JSON for training.

    pictures: maximum number of pairs shown. Each file is written completely or not at all.
    Raises UserError if one cannot be written.
    """
    html = render_audit_page(result, pictures)
    text = json.dumps(result.as_json(str(folder)), indent=1, allow_nan=False) + "\n"
    remove_drafts(folder)
    write_atomically(folder / AUDIT_FILE, text)
    write_atomically(folder / "index.html", html)
    if result.has_images:
        write_atomically(audit_path(result.fingerprint["hash"]), text)


def render_audit_page(result: AuditResult, pictures: int) -> str:
    """The page as HTML."""
    manifest, fingerprint = result.manifest, result.fingerprint
    counts, n_pairs = fingerprint["counts"], len(result.pairs)
    chosen = most_telling_first(manifest.table, result.pairs)[:pictures]
    totals = [sum(counts[split].values()) for split in SPLITS]
    start = _axis_start(result.shortcuts)
    return page(
        "audit.html",
        {
            "name": manifest.name,
            "severity": result.severity,
            "verdict": result.verdict,
            "caution": CAUTION,
            "made": result.created[:10],
            "provenance": [
                ("command", shlex.join(result.command)),
                ("data", str(manifest.root)),
                ("code", f"fracnet {version('fracnet')}"),
            ],
            "facts": _facts(result) if result.has_images else [],
            "has_images": result.has_images,
            "findings": [
                {
                    "severity": finding.severity,
                    "title": finding.title,
                    "text": finding.text,
                    "advice": finding.advice,
                    # The section on shortcuts has all of their scores.
                    "listed": [] if finding.check == "shortcuts" else finding.listed,
                    "listed_title": f"Details ({len(finding.items)})",
                }
                for finding in by_severity(result.findings)
            ],
            "splits": SPLITS,
            "balance": [_class_row(label, counts, totals) for label in manifest.classes],
            "totals": totals,
            "notes": manifest.notes,
            "n_pairs": n_pairs,
            "pair_counts": f"{counted(n_pairs, 'pair')} {are(n_pairs)} verified; {len(chosen)} "
            f"{are(len(chosen))} shown, pairs across splits first.",
            "pairs": [_pair_card(manifest, pair, describe_pair(pair)) for pair in chosen],
            "n_similar": len(result.similar),
            "similar": [
                _pair_card(manifest, pair, f"similarity {pair.similarity:.2f}")
                for pair in result.similar[:pictures]
            ],
            "n_doubts": len(result.doubts),
            "doubts": [_doubt_card(manifest, doubt) for doubt in result.doubts[:pictures]],
            "area": area_name(len(manifest.classes)),
            "shortcuts": [_interval_bar(score, start) for score in result.shortcuts],
            "axis_start": f"{start:g}",
            "fingerprint": fingerprint,
            "quantiles": _quantiles(fingerprint),
            "groups": result.groups,
            "search": SEARCH,
        },
    )


def print_findings(result: AuditResult, folder: Path) -> None:
    """Print the verdict, a line for each finding, and where the report is."""
    console = Console(highlight=False)
    manifest, fingerprint = result.manifest, result.fingerprint
    if result.has_images:
        totals = {split: sum(fingerprint["counts"][split].values()) for split in SPLITS}
        counts = ", ".join(f"{n} {split}" for split, n in totals.items() if n)
        print_text(
            console, f"{manifest.name}: {counted(fingerprint['images'], 'image')} ({counts})"
        )
        if n_bad := fingerprint["unreadable"]:
            print_text(console, f"{counted(n_bad, 'more file')} cannot be read")
        print_text(console, f"fingerprint {fingerprint['hash']}\n")
    else:
        print_text(console, f"{manifest.name} in {manifest.root}\n")
    print_text(console, result.verdict[0] + "\n", style="bold")
    for finding in by_severity(result.findings):
        # What is wrong with a set that cannot be trained on is only in the text.
        text = f"{finding.title} {finding.text}" if finding.check == "table" else finding.title
        start = f"{finding.severity:9}"
        indent = " " * len(start)
        print_text(
            console,
            textwrap.fill(text, console.width, initial_indent=start, subsequent_indent=indent),
        )
    print_text(console, f"\n{CAUTION}")
    print_text(console, RESEARCH_ONLY)
    # Not through the console, which would break a long path in two.
    print(f"\npage    {folder / 'index.html'}\njson    {folder / 'audit.json'}", flush=True)


def _pair_card(manifest: Manifest, pair: Pair | SimilarPair, description: str) -> dict[str, Any]:
    """Two pictures and, of an altered copy, the second one aligned with the first."""
    table = manifest.table.iloc[[pair.a, pair.b]]
    a, b = (read_grey(manifest.file(path)) for path in table["path"])
    names = [image_name(manifest.table, row) for row in (pair.a, pair.b)]
    pictures = [
        {"src": _data_url(image), "alt": f"Radiograph {name}", "caption": name}
        for image, name in zip((a, b), names, strict=True)
    ]
    copies = isinstance(pair, Pair)
    if isinstance(pair, Pair) and pair.transform is not None:
        alt = f"Radiograph {names[1]}, aligned with {names[0]}"
        aligned = {"alt": alt, "caption": "the second image aligned with the first"}
        pictures.append({"src": _data_url(overlay(a, b, pair)), **aligned})
    return {
        "description": description,
        "splits": " and ".join(dict.fromkeys(table["split"].astype(str))),
        # Similar images of different people may well differ in both.
        "across": copies and table["split"].nunique() > 1,
        "two_labels": copies and table["label"].nunique() > 1,
        "pictures": pictures,
    }


def _doubt_card(manifest: Manifest, doubt: Doubt) -> dict[str, Any]:
    """An image with its own label and the one that is better supported."""
    row = manifest.table.iloc[doubt.row]
    name = image_name(manifest.table, doubt.row)
    return {
        "src": _data_url(read_grey(manifest.file(row["path"]))),
        "alt": f"Radiograph {name}",
        "caption": name,
        "given": f"{row['label']} {doubt.given_probability:.2f}",
        "suggested": f"{doubt.suggested} {doubt.suggested_probability:.2f}",
    }


def overlay(a: Grey, b: Grey, pair: Pair) -> Grey:
    """Image b warped onto a, uint8 of a's shape; black outside b."""
    assert pair.transform is not None
    matrix = np.asarray(pair.transform, np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(b, matrix, (a.shape[1], a.shape[0]), flags=flags).astype(np.uint8)


def _data_url(image: Grey) -> str:
    """A JPEG of at most `SIDE` pixels as a data URL."""
    height, width = image.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert encoded
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _facts(result: AuditResult) -> list[dict[str, str]]:
    n_patients, n_bad = result.manifest.table["patient"].nunique(), result.fingerprint["unreadable"]
    facts = {
        "images": result.fingerprint["images"],
        "unreadable files": n_bad or None,
        "classes": len(result.manifest.classes),
        "patients": n_patients or "unknown",
        "verified pairs of copies": len(result.pairs),
        "fingerprint": result.fingerprint["hash"],
    }
    return [{"name": name, "value": str(v)} for name, v in facts.items() if v is not None]


def _class_row(label: str, counts: dict[str, dict[str, int]], totals: list[int]) -> dict[str, Any]:
    of_split = [counts[split][label] for split in SPLITS]
    return {
        "label": label,
        "cells": [
            {"n": n, "share": n / max(1, total)} for n, total in zip(of_split, totals, strict=True)
        ],
        "total": sum(of_split),
    }


def _axis_start(scores: Sequence[FamilyScore]) -> float:
    """Where the axis of the interval plots starts, so that no interval is cut off."""
    lows = [score.auc if score.low is None else score.low for score in scores]
    return min(AXIS_START, math.floor(10 * min(lows, default=AXIS_START)) / 10)


def _interval_bar(score: FamilyScore, start: float) -> dict[str, Any]:
    """A row of the table of shortcuts."""
    return {
        "name": score.name,
        "value": f"{score.auc:.3f}",
        "interval": format_score(score).partition("(")[2].rstrip(")"),
        "bar": Bar(score.auc, score.low, score.high, Scale(start, 1.0), guide=0.5),
    }


def _quantiles(fingerprint: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "cells": [
                f"{value / (1000 if key == 'file_size' else 1):.4g}" for value in fingerprint[key]
            ],
        }
        for key, name in QUANTITIES.items()
        if fingerprint[key] is not None
    ]

"""From an audit to its page and its JSON, on disk and in the cache.

Small pictures for the page, as text that an `<img>` takes: nothing is loaded from elsewhere.
"""

import base64
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fracnet.data import audit_record
from fracnet.data.image_io import Grey, read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.data_audit.checks import first_to_show, in_words
from fracnet.data_audit.findings import CAUTION, by_severity, called
from fracnet.data_audit.near_duplicates import Pair
from fracnet.data_audit.run_audit import Audited
from fracnet.data_audit.shortcuts import Reached, figure
from fracnet.report.html import page
from fracnet.utils.text import are, counted

if TYPE_CHECKING:
    pass

SIDE = 240  # pixels of the longest side
QUALITY = 72


def shown_pairs(manifest: Manifest, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """What the page shows of each pair: two pictures, and the second one laid over the first.

    The third is None where the pixels are the same. Reads the files again.
    """
    table = manifest.table
    result = []
    for pair in pairs:
        a, b = (read_grey(manifest.root / table["path"].iloc[row]) for row in (pair.a, pair.b))
        names = [called(table, row) for row in (pair.a, pair.b)]
        pictures = [
            {"src": as_source(a), "alt": f"Radiograph {names[0]}", "caption": names[0]},
            {"src": as_source(b), "alt": f"Radiograph {names[1]}", "caption": names[1]},
        ]
        if pair.transform is not None:
            laid = laid_over(a, b, pair)
            caption = "the second one brought into the place of the first"
            alt = f"Radiograph {names[1]}, brought into the place of {names[0]}"
            pictures.append({"src": as_source(laid), "alt": alt, "caption": caption})
        splits = [str(table["split"].iloc[row]) for row in (pair.a, pair.b)]
        labels = [str(table["label"].iloc[row]) for row in (pair.a, pair.b)]
        result.append(
            {
                "words": in_words(pair),
                "where": " and ".join(dict.fromkeys(splits)),
                "parted": splits[0] != splits[1],
                "mixed": labels[0] != labels[1],
                "pictures": pictures,
            }
        )
    return result


def laid_over(a: Grey, b: Grey, pair: Pair) -> Grey:
    """The pixels of b where those of a are, uint8 of a's shape; black where b shows nothing."""
    assert pair.transform is not None
    matrix = np.asarray(pair.transform, np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(b, matrix, (a.shape[1], a.shape[0]), flags=flags).astype(np.uint8)


def as_source(image: Grey) -> str:
    """A JPEG of at most `SIDE` pixels, as a data URL."""
    height, width = image.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


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
    audit_record.write_whole(folder / "audit.json", text)
    audit_record.write_whole(folder / "index.html", html)
    if found.looked:
        audit_record.write_whole(audit_record.place(found.fingerprint["hash"]), text)


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


def _tell(found: "Audited", folder: Path) -> None:
    from rich.console import Console

    from fracnet.data.splits import SPLITS
    from fracnet.data_audit.findings import CAUTION, by_severity
    from fracnet.report.console import RESEARCH_ONLY, say

    console = Console(highlight=False)
    about = found.fingerprint
    if found.looked:
        held = {split: sum(about["counts"][split].values()) for split in SPLITS}
        counts = ", ".join(f"{n} {split}" for split, n in held.items() if n)
        say(console, f"{found.manifest.name}: {counted(about['images'], 'image')} ({counts})")
        if n_bad := about["unreadable"]:
            say(console, f"{counted(n_bad, 'more file')}, which cannot be read")
        say(console, f"fingerprint {about['hash']}\n")
    else:
        say(console, f"{found.manifest.name} in {found.manifest.root}\n")
    say(console, found.verdict[0] + "\n", style="bold")
    for finding in by_severity(found.findings):
        start = f"{finding.severity:9}"
        # What is wrong with a set that cannot be trained on stands in the text alone.
        told = f"{finding.title} {finding.text}" if finding.check == "table" else finding.title
        wrapped = textwrap.fill(
            told, console.width, initial_indent=start, subsequent_indent=" " * len(start)
        )
        say(console, wrapped)
    say(console, f"\n{CAUTION}")
    say(console, RESEARCH_ONLY)
    # Not by way of the console, which would break a long path in two.
    print(f"\npage    {folder / 'index.html'}\njson    {folder / 'audit.json'}", flush=True)

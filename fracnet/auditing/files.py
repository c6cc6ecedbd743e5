"""Checks of files: which can be read, what their names share, whether the set can be trained on."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from fracnet.auditing.findings import LISTED, Finding, called, detail
from fracnet.data.manifest import Manifest
from fracnet.errors import UserError
from fracnet.words import are, counted

NUMBERED = 3.0  # images a name within one split, from which on names only number the images
COMMON = 50  # images of one name, from which on it is no name of a picture
RESAVED = ".rf."  # Roboflow puts it between a file's old name and a hash


def unreadable(manifest: Manifest, bad: Mapping[int, str], policy: str) -> Finding:
    """Files that are no whole image; policy is data.on_bad_file, error or skip."""
    rows, table = sorted(bad), manifest.table
    n = len(rows)
    if not n:
        return Finding("files", "ok", f"All {counted(len(table), 'file')} can be read.")
    return Finding(
        "files",
        "error" if policy == "error" else "warning",
        f"{counted(n, 'file')} of {len(table)} cannot be read.",
        "Training stops at such a file."
        if policy == "error"
        else "Training leaves them out (data.on_bad_file=skip).",
        "Mend or fetch them again"
        + (", or leave them out with data.on_bad_file=skip." if policy == "error" else "."),
        [f"{called(table, row)}: {bad[row]}" for row in rows[:LISTED]],
        [detail(table, row) | {"reason": bad[row]} for row in rows],
        n,
    )


def unreadable_copies(manifest: Manifest, bad: Mapping[int, str]) -> list[Finding]:
    """Unreadable files of the same bytes, whose pictures no one can compare; empty files apart."""
    table = manifest.table
    rows_of = defaultdict(list)
    for row in sorted(bad):
        if digest := _digest(manifest.root / table["path"].iloc[row]):
            rows_of[digest].append(row)
    twins = [rows for rows in rows_of.values() if len(rows) > 1]
    if not twins:
        return []
    splits = table["split"].to_numpy(str)
    parted = sum(len({*splits[rows]}) > 1 for rows in twins)
    n = sum(map(len, twins))
    across = f", {parted} of them across splits" if parted else ""
    return [
        Finding(
            "copies of unreadable files",
            "warning" if parted else "hint",
            f"{n} of the files that cannot be read are copies of one another, byte for byte.",
            f"They hold {counted(len(twins), 'picture')}{across}. Mended, they would be copies as "
            "others are.",
            "Fetch them again, then repeat the audit.",
            [" and ".join(called(table, row) for row in rows[:4]) for rows in twins[:LISTED]],
            [{"images": [detail(table, row) for row in rows]} for rows in twins],
            len(twins),
        )
    ]


def _digest(path: Path) -> bytes:
    """Of the file's bytes; nothing where it is empty or the disk does not give it."""
    try:
        with path.open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size
            return b"" if empty else hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""  # among the unreadable, with its reason, already


def structure(manifest: Manifest) -> list[Finding]:
    """What would keep the set from being trained on, groups across splits aside."""
    alone = manifest.table.assign(patient=np.nan, study=np.nan)
    try:
        replace(manifest, table=alone).check()
    except UserError as error:
        return [Finding("table", "error", "The set cannot be trained on as it is.", str(error))]
    return []


def stem(path: str) -> str:
    """A file's name without its ending, and without what Roboflow adds."""
    name = PurePosixPath(path).name
    return name.split(RESAVED)[0] if RESAVED in name else PurePosixPath(path).stem


def stems(manifest: Manifest, copies: set[tuple[int, int]]) -> Finding:
    """Names shared across splits; copies: rows (a < b) of verified copies, for comparison."""
    table = manifest.table
    rows_of = defaultdict(list)
    for row, path in enumerate(table["path"]):
        rows_of[stem(path)].append(row)
    splits = table["split"].to_numpy(str)
    n_within = np.mean([len(rows) / len({*splits[rows]}) for rows in rows_of.values()] or [0.0])
    if n_within >= NUMBERED:
        return Finding(
            "stems",
            "ok",
            "File names only number the images within their folders, so they say nothing.",
        )
    shared = {name: rows for name, rows in rows_of.items() if len({*splits[rows]}) > 1}
    if not shared:
        return Finding("stems", "ok", "No file name is shared across splits.")
    pairs = {
        (a, b)
        for rows in shared.values()
        if len(rows) <= COMMON
        for i, a in enumerate(rows)
        for b in rows[i + 1 :]
        if splits[a] != splits[b]
    }
    verified = len(pairs & copies)
    return Finding(
        "stems",
        "hint",
        f"{counted(len(shared), 'file name')} {are(len(shared))} shared across splits.",
        f"Of the {counted(len(pairs), 'pair')} of images that share a name across splits, "
        f"{verified} {are(verified)} verified as copies by their pixels. A shared name is a hint: "
        "unrelated images can be called the same.",
        "",
        [f"{called(table, a)} and {called(table, b)}" for a, b in sorted(pairs)[:LISTED]],
        [{"a": detail(table, a), "b": detail(table, b)} for a, b in sorted(pairs)],
        len(pairs),
    )

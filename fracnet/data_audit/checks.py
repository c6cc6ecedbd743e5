"""Checks of files: which can be read, what their names share, whether the set can be trained on.

Pairs of copies in words, in JSON, and in the order in which they are worth looking at.

What verified copies mean: across splits, within them, under two labels or two patients.

Checks of labels: how many of each class, and what has none.

Checks for leaks: patients, and studies of unknown patients, in several splits.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS, group_overlap
from fracnet.data_audit.findings import LISTED, Finding, called, detail, records, share
from fracnet.data_audit.near_duplicates import Pair, clusters
from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

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


KINDS: Mapping[str, str] = {
    "same bytes": "the same file",
    "same pixels": "the same pixels",
    "copy": "altered copy",
}


def in_words(pair: Pair) -> str:
    """`altered copy, mirrored, agreement 0.93`."""
    if pair.kind != "copy":
        return KINDS[pair.kind]
    turned = ", mirrored" if pair.mirrored else ""
    return f"{KINDS[pair.kind]}{turned}, agreement {pair.score:.2f}"


def as_json(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Pairs for audit.json; transform maps pixels (x, y) of a to those of b."""
    path, split, label = (table[key].to_numpy(str) for key in ("path", "split", "label"))
    return [
        {
            "a": str(path[pair.a]),
            "b": str(path[pair.b]),
            "rows": [pair.a, pair.b],
            "splits": [str(split[pair.a]), str(split[pair.b])],
            "labels": [str(label[pair.a]), str(label[pair.b])],
            "kind": pair.kind,
            "mirrored": pair.mirrored,
            "score": round(float(pair.score), 4),
            "transform": _plain(pair),
        }
        for pair in pairs
    ]


def _plain(pair: Pair) -> list[list[float]] | None:
    if pair.transform is None:
        return None
    return [[round(float(value), 5) for value in row] for row in pair.transform]


def first_to_show(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs across splits first, then of two labels, then altered ones.

    Among those, one of each cluster before a second one of any.
    """
    split, label = (table[key].to_numpy(str) for key in ("split", "label"))
    cluster = clusters(pairs, len(table))

    def gravity(pair: Pair) -> tuple[bool, bool, bool]:
        return (
            bool(split[pair.a] == split[pair.b]),
            bool(label[pair.a] == label[pair.b]),
            pair.kind != "copy",
        )

    seen: Counter[tuple[Any, ...]] = Counter()
    order = {}
    for place, pair in enumerate(sorted(pairs, key=lambda pair: (pair.a, pair.b))):
        key = (*gravity(pair), int(cluster[pair.a]))
        order[pair.a, pair.b] = (gravity(pair), seen[key], place)
        seen[key] += 1
    return sorted(pairs, key=lambda pair: order[pair.a, pair.b])


@dataclass(frozen=True)
class _Copies:
    """Verified copies and where they lie; cluster: int64 [N], images joined by pairs share one."""

    table: pd.DataFrame
    pairs: Sequence[Pair]
    splits: npt.NDArray[np.str_]
    cluster: npt.NDArray[np.int64]

    def told(self, pairs: Sequence[Pair]) -> list[str]:
        """The first of them for the page."""
        names = [
            (called(self.table, pair.a), called(self.table, pair.b)) for pair in pairs[:LISTED]
        ]
        return [
            f"{a} and {b}: {in_words(pair)}" for (a, b), pair in zip(names, pairs, strict=False)
        ]

    def pictures(self, of: npt.NDArray[np.bool_] | None = None) -> list[list[int]]:
        """Rows of each picture that several images show, among those of the mask `of`."""
        rows_of = defaultdict(list)
        for row in range(len(self.table)) if of is None else np.flatnonzero(of).tolist():
            rows_of[int(self.cluster[row])].append(row)
        return [rows for rows in rows_of.values() if len(rows) > 1]

    def images(self, rows: Sequence[int]) -> dict[str, Any]:
        """One picture for the JSON."""
        return {"images": [detail(self.table, row) for row in rows]}


def copies(manifest: Manifest, pairs: Sequence[Pair]) -> list[Finding]:
    """What verified copies mean for the splits."""
    table = manifest.table
    if not pairs:
        told = f"No copies, exact or altered, were found among {counted(len(table), 'image')}."
        return [Finding("copies", "ok", told)]
    found = _Copies(table, pairs, table["split"].to_numpy(str), clusters(pairs, len(table)))
    return [*_across(found), *_within(found), *_two_patients(found), *_two_labels(found)]


def _across(found: _Copies) -> list[Finding]:
    """Copies in two splits: a leak for each split that they make look better."""
    splits, cluster = found.splits, found.cluster
    findings = []
    for split, earlier in (("test", ("train", "val")), ("val", ("train",))):
        held = np.isin(splits, earlier)
        leaked = np.flatnonzero((splits == split) & np.isin(cluster, np.unique(cluster[held])))
        if not len(leaked):
            continue
        n = int((splits == split).sum())
        mine = [
            p for p in found.pairs if split in (splits[p.a], splits[p.b]) and _parted(p, splits)
        ]
        mine = [p for p in mine if {str(splits[p.a]), str(splits[p.b])} <= {split, *earlier}]
        kinds = Counter(pair.kind for pair in mine)
        told = ", ".join(f"{KINDS[kind]}: {n}" for kind, n in kinds.items())
        use = "test figures" if split == "test" else "the choice of the checkpoint"
        findings.append(
            Finding(
                "copies across splits",
                "leak",
                f"{len(leaked)} of {n} {split} images ({share(len(leaked), n)}) "
                f"{'has' if len(leaked) == 1 else 'have'} a verified copy in "
                f"{' or '.join(earlier)}.",
                f"They are known by heart, so {use} cannot be trusted"
                + (f" (pairs: {told})." if told else " (by way of copies of copies)."),
                "data.split=deduplicated trains without them.",
                found.told(mine),
                [detail(found.table, int(row)) for row in leaked],
                len(mine),
            )
        )
    return findings


def _within(found: _Copies) -> list[Finding]:
    findings = []
    for split in SPLITS:
        own = found.splits == split
        pictures = found.pictures(own)
        surplus = sum(len(rows) - 1 for rows in pictures)
        if not surplus:
            continue
        n = int(own.sum())
        mine = [pair for pair in found.pairs if own[pair.a] and own[pair.b]]
        train = split == "train"
        verb = "repeats" if surplus == 1 else "repeat"
        findings.append(
            Finding(
                "copies within splits",
                "hint" if train else "warning",
                f"{surplus} of {n} {split} images ({share(surplus, n)}) {verb} another one of "
                f"{split}.",
                "Their pictures count more than others in training; a split of this set by file "
                "would leak."
                if train
                else f"The {split} split has fewer pictures than images: its intervals are too "
                "narrow.",
                "For cross-validation: data.split=deduplicated data.folds=5 keeps copies together."
                if train
                else "",
                found.told(mine),
                [found.images(rows) for rows in pictures],
                len(mine),
            )
        )
    return findings


def _two_patients(found: _Copies) -> list[Finding]:
    known = found.table["patient"].notna().to_numpy()
    patients = found.table["patient"].to_numpy(str)
    of_picture = [(rows, {*patients[rows][known[rows]].tolist()}) for rows in found.pictures()]
    mixed = [rows for rows, held in of_picture if len(held) > 1]
    if not mixed:
        return []
    n = len(set().union(*(held for _, held in of_picture if len(held) > 1)))
    return [
        Finding(
            "two patients",
            "warning",
            f"{counted(len(mixed), 'picture')} {'has' if len(mixed) == 1 else 'have'} copies under "
            f"different patients ({n} in all), so patient ids may be wrong.",
            "One person under two ids can lie in two splits, however carefully they were made by "
            "patient, and with other images than these.",
            "Look at the pairs and mend the ids. data.split=deduplicated data.folds=5 takes such "
            "patients for one; data.split=deduplicated alone leaves out the copies, not the other "
            "images of the same person.",
            _first(found, mixed),
            [
                found.images(rows)
                | {"patients": [str(patients[row]) if known[row] else None for row in rows]}
                for rows in mixed
            ],
            len(mixed),
        )
    ]


def _two_labels(found: _Copies) -> list[Finding]:
    labels = found.table["label"].to_numpy(str)
    mixed = [rows for rows in found.pictures() if len({*labels[rows]}) > 1]
    if not mixed:
        return [Finding("two labels", "ok", "No picture has two labels among its copies.")]
    return [
        Finding(
            "two labels",
            "warning",
            f"{counted(len(mixed), 'picture')} {'has' if len(mixed) == 1 else 'have'} copies with "
            "different labels.",
            "One of the labels is wrong, or they mean less than they seem to.",
            "Look at the pairs, and mend or leave out the images.",
            _first(found, mixed),
            [found.images(rows) for rows in mixed],
            len(mixed),
        )
    ]


def _first(found: _Copies, pictures: Sequence[Sequence[int]]) -> list[str]:
    """The first pictures for the page, up to four images of each."""
    return [
        " and ".join(called(found.table, row) for row in rows[:4]) for rows in pictures[:LISTED]
    ]


def _parted(pair: Pair, splits: npt.NDArray[np.str_]) -> bool:
    return bool(splits[pair.a] != splits[pair.b])


UNEVEN = 3.0  # times as many train images of the commonest class as of the rarest
FEW = 10  # test images of a class, below which its figures say little


def balance(manifest: Manifest) -> list[Finding]:
    """How unequal classes are, and whether there are enough of each to say anything."""
    table = manifest.table
    counts = {
        split: [
            int(((table["split"] == split) & (table["label"] == c)).sum()) for c in manifest.classes
        ]
        for split in SPLITS
    }
    found = []
    most, least = max(counts["train"]), min(counts["train"])
    common = manifest.classes[counts["train"].index(most)]
    rare = manifest.classes[counts["train"].index(least)]
    share = most / max(1, sum(counts["train"]))
    text = (
        f"Always naming {common} has an accuracy of {share:.3f} on train. Look at sensitivity and "
        "specificity of each class, not at accuracy alone."
    )
    if least and most / least >= UNEVEN:
        found.append(
            Finding(
                "balance",
                "hint",
                f"{common} has {most / least:.1f} times as many train images as {rare}.",
                text,
                "imbalance=class_weights, or another choice of that group.",
            )
        )
    elif least:
        found.append(Finding("balance", "ok", "Classes are of similar size in train.", text))
    for split in ("val", "test"):
        few = [(c, n) for c, n in zip(manifest.classes, counts[split], strict=True) if n < FEW]
        if few:
            found.append(
                Finding(
                    "balance",
                    "warning" if any(n == 0 for _, n in few) else "hint",
                    f"{counted(len(few), 'class')} {'has' if len(few) == 1 else 'have'} fewer than "
                    f"{FEW} {split} images{'' if len(few) == 1 else ' each'}.",
                    "A sensitivity from so few has an interval tens of points wide.",
                    "",
                    [f"{c}: {counted(n, split + ' image')}" for c, n in few],
                )
            )
    return found


def left_out(manifest: Manifest, n_stopping: int = 0) -> Finding:
    """Images without a label, and others that the source does not offer or training leaves out.

    n_stopping: unreadable files at which training stops, so that they are not left out.
    """
    excluded = manifest.excluded[manifest.excluded["n"] > 0]
    if not len(excluded):
        rest = "; none is left out" if not n_stopping else ""
        return Finding("unlabeled", "ok", f"Every image has a label{rest}.")
    n = int(excluded["n"].sum())
    return Finding(
        "unlabeled",
        "hint",
        f"{counted(n, 'image')} {are(n)} left out before training.",
        "Images without a label are no verified normals; they are not used as such."
        if excluded["reason"].str.contains("label").any()
        else "",
        "",
        [f"{row.split}: {row.n} ({row.reason})" for row in excluded.itertuples()],
        records(excluded),
    )


def groups(manifest: Manifest) -> Finding:
    """Patients, and studies of unknown patients, that lie in several splits."""
    table = manifest.table
    known = table["patient"].notna() | table["study"].notna()
    if not known.any():
        return Finding(
            "groups",
            "hint",
            "Patients are unknown, so no one can tell whether one lies in several splits.",
            f"Source of groups: {manifest.groups}. Intervals count every image as independent, and "
            "are too narrow where several come from one person.",
        )
    overlap = group_overlap(table)
    rest = "" if known.all() else f" Of {int((~known).sum())} images neither is known."
    if not len(overlap):
        units = {
            unit: table[unit].nunique()
            for unit in ("patient", "study")
            if table[unit].notna().any()
        }
        told = " and ".join(counted(n, unit) for unit, n in units.items())
        return Finding(
            "groups", "ok", f"{told}, none of them in more than one split.", rest.strip()
        )
    parted = Counter(overlap["unit"])
    told = " and ".join(counted(n, str(unit)) for unit, n in parted.items())
    n_images = int(overlap["n"].sum())
    where = Counter(overlap["splits"])
    return Finding(
        "groups",
        "leak",
        f"{told} {'has' if len(overlap) == 1 else 'have'} images in more than one split.",
        f"Their {counted(n_images, 'image')} make test figures too good: a model can know the "
        f"person.{rest}",
        "Split by patient: no group may lie in two splits. Training refuses this split.",
        [f"{counted(n, 'group')} in {splits}" for splits, n in where.most_common()],
        records(overlap),
    )

"""What verified copies mean: across splits, within them, under two labels or two patients."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.auditing.duplicates import Pair, clusters
from fracnet.auditing.findings import LISTED, Finding, called, detail, share
from fracnet.auditing.pairs import KINDS, in_words
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.words import counted


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

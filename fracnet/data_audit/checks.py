"""Checks of files, names, classes, groups and copies. Each returns findings."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS, group_overlap
from fracnet.data_audit.findings import (
    Finding,
    image_detail,
    image_name,
    percent,
    records,
)
from fracnet.data_audit.near_duplicates import Pair, clusters
from fracnet.utils.errors import UserError
from fracnet.utils.files import without_waiting
from fracnet.utils.text import are, counted, have

NUMBERED = 3.0  # images per name within a split from which names only number images
COMMON = 50  # images with the same name from which the name identifies no picture
RESAVED = ".rf."  # Roboflow puts it between a file's old name and a hash
UNEVEN = 3.0  # train images of the most common class divided by those of the rarest
FEW = 10  # test images of a class below which its metrics say little

SEARCH = (
    "The search also covers copies after a flip, rotation, shear, crop or padding, with another "
    "tone curve, inverted, noisy, blurred, labeled, recompressed or beside another image. It found "
    "178 of 178 planted copies with one such change and 174 of 178 with three where each image had "
    "four copies; where each had at most one, an earlier version found 36 of 42 phantom copies "
    "with three changes. Among 353 further images without copies it found 172 of the 178, and 27 "
    "of 1,115 pairs were wrong (experiments/duplicates). So some copies may be missed, and some "
    "pairs may be wrong."
)
"""What was searched for, and the recall where it was measured."""

KIND_NAMES: Mapping[str, str] = {
    "same bytes": "the same file",
    "same pixels": "the same pixels",
    "copy": "altered copy",
}


def check_readable(manifest: Manifest, bad: Mapping[int, str], policy: str) -> Finding:
    """Unreadable files; policy is data.on_bad_file, error or skip."""
    rows, table = sorted(bad), manifest.table
    n = len(rows)
    if not n:
        return Finding("files", "ok", f"All {counted(len(table), 'file')} are readable.")
    return Finding(
        "files",
        "error" if policy == "error" else "warning",
        f"{n} of {counted(len(table), 'file')} cannot be read.",
        "Training stops at such a file."
        if policy == "error"
        else "Training leaves them out (data.on_bad_file=skip).",
        "Repair them or download them again"
        + (", or leave them out with data.on_bad_file=skip." if policy == "error" else "."),
        [f"{image_name(table, row)}: {bad[row]}" for row in rows],
        [image_detail(table, row) | {"reason": bad[row]} for row in rows],
    )


def check_unreadable_copies(manifest: Manifest, bad: Mapping[int, str]) -> list[Finding]:
    """Unreadable files with the same bytes, whose pixels cannot be compared; not empty files."""
    table = manifest.table
    rows_of = defaultdict(list)
    for row in sorted(bad):
        if digest := _file_digest(manifest.file(table["path"].iloc[row])):
            rows_of[digest].append(row)
    copies = [rows for rows in rows_of.values() if len(rows) > 1]
    if not copies:
        return []
    splits = table["split"].to_numpy(str)
    n_across = sum(len({*splits[rows]}) > 1 for rows in copies)
    across = f", {n_across} of them across splits" if n_across else ""
    return [
        Finding(
            "copies of unreadable files",
            "warning" if n_across else "hint",
            f"{sum(map(len, copies))} unreadable files are byte-for-byte copies of one another.",
            f"They hold {counted(len(copies), 'picture')}{across}. Once repaired, they will be "
            "copies like any others.",
            "Download them again, then repeat the audit.",
            [_names(table, rows) for rows in copies],
            [_images(table, rows) for rows in copies],
        )
    ]


def _names(table: pd.DataFrame, rows: Sequence[int]) -> str:
    """Up to four images, for the page."""
    return " and ".join(image_name(table, row) for row in rows[:4])


def _images(table: pd.DataFrame, rows: Sequence[int]) -> dict[str, Any]:
    """The images of one picture, for the JSON."""
    return {"images": [image_detail(table, row) for row in rows]}


def _file_digest(path: Path) -> bytes:
    """Digest of a file's bytes; empty if the file is empty or cannot be opened."""
    try:
        with open(path, "rb", opener=without_waiting) as file:
            empty = not os.fstat(file.fileno()).st_size
            return b"" if empty else hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""  # already listed as unreadable, with the reason


def check_trainable(manifest: Manifest) -> list[Finding]:
    """What would stop training, except groups that overlap between splits."""
    ungrouped = manifest.table.assign(patient=np.nan, study=np.nan)
    try:
        replace(manifest, table=ungrouped).check()
    except UserError as error:
        return [Finding("table", "error", "Training cannot run on this dataset.", str(error))]
    return []


def stem(path: str) -> str:
    """A file's name without its ending and without what Roboflow adds."""
    name = PurePosixPath(path).name
    return name.split(RESAVED)[0] if RESAVED in name else PurePosixPath(path).stem


def check_stems(manifest: Manifest, copies: set[tuple[int, int]]) -> Finding:
    """File names shared across splits. copies: rows (a < b) of verified copies across splits."""
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
            "File names only number the images within their folders, so they identify nothing.",
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
    n_verified = len(pairs & copies)
    return Finding(
        "stems",
        "hint",
        f"{counted(len(shared), 'file name')} {are(len(shared))} shared across splits.",
        f"Of the {counted(len(pairs), 'pair')} of images that share a name across splits, "
        f"{n_verified} {are(n_verified)} verified as copies by their pixels. A shared name is only "
        "a hint: unrelated images can have the same name.",
        "",
        [_names(table, pair) for pair in sorted(pairs)],
        [{"a": image_detail(table, a), "b": image_detail(table, b)} for a, b in sorted(pairs)],
    )


def describe_pair(pair: Pair) -> str:
    """`altered copy, mirrored, score 0.93`."""
    if pair.kind != "copy":
        return KIND_NAMES[pair.kind]
    flags = (", mirrored" * pair.mirrored) + (", inverted" * pair.inverted)
    return f"{KIND_NAMES[pair.kind]}{flags}, score {pair.score:.2f}"


def pairs_as_json(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
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
            "inverted": pair.inverted,
            "score": round(float(pair.score), 4),
            "transform": None
            if pair.transform is None
            else [[round(float(value), 5) for value in row] for row in pair.transform],
        }
        for pair in pairs
    ]


def most_telling_first(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs across splits first, then pairs with two labels, then altered copies.

    Among equals, one pair of each cluster comes before a second pair of any cluster.
    """
    split, label = (table[key].to_numpy(str) for key in ("split", "label"))
    cluster = clusters(pairs, len(table))

    def priority(pair: Pair) -> tuple[bool, bool, bool]:
        return (
            bool(split[pair.a] == split[pair.b]),
            bool(label[pair.a] == label[pair.b]),
            pair.kind != "copy",
        )

    seen: Counter[tuple[Any, ...]] = Counter()
    order = {}
    for place, pair in enumerate(sorted(pairs, key=lambda pair: (pair.a, pair.b))):
        key = (*priority(pair), int(cluster[pair.a]))
        order[pair.a, pair.b] = (priority(pair), seen[key], place)
        seen[key] += 1
    return sorted(pairs, key=lambda pair: order[pair.a, pair.b])


@dataclass(frozen=True)
class _Copies:
    """Verified copies; cluster: int64 [N], the same for images that pairs connect."""

    table: pd.DataFrame
    pairs: Sequence[Pair]
    splits: npt.NDArray[np.str_]
    cluster: npt.NDArray[np.int64]

    def list_pairs(self, pairs: Sequence[Pair]) -> list[str]:
        """For the page."""
        return [f"{_names(self.table, (pair.a, pair.b))}: {describe_pair(pair)}" for pair in pairs]

    def pictures(self, mask: npt.NDArray[np.bool_] | None = None) -> list[list[int]]:
        """Rows of each picture that several images show, optionally among the rows of a mask."""
        rows_of = defaultdict(list)
        for row in range(len(self.table)) if mask is None else np.flatnonzero(mask).tolist():
            rows_of[int(self.cluster[row])].append(row)
        return [rows for rows in rows_of.values() if len(rows) > 1]


def check_copies(
    manifest: Manifest, pairs: Sequence[Pair], bad: Collection[int] = ()
) -> list[Finding]:
    """What verified copies mean for the splits, patients and labels; `bad` rows do not count."""
    table = manifest.table
    if not pairs:
        n = counted(len(table) - len(bad), "image")
        return [
            Finding("copies", "ok", f"No copies, exact or altered, were found among {n}.", SEARCH)
        ]
    splits = table["split"].to_numpy(str).copy()
    splits[list(bad)] = ""
    copies = _Copies(table, pairs, splits, clusters(pairs, len(table)))
    return [
        *_check_across(copies),
        *_check_within(copies),
        *_check_two_patients(copies),
        *_check_two_labels(copies),
    ]


def _check_across(copies: _Copies) -> list[Finding]:
    """Copies in two splits: a leak in each split whose metrics they inflate."""
    splits, cluster = copies.splits, copies.cluster
    findings = []
    for split, earlier in (("test", ("train", "val")), ("val", ("train",))):
        is_earlier = np.isin(splits, earlier)
        leaked = np.flatnonzero(
            (splits == split) & np.isin(cluster, np.unique(cluster[is_earlier]))
        )
        if not len(leaked):
            continue
        n = int((splits == split).sum())
        pairs = [
            pair
            for pair in copies.pairs
            if {split} < {splits[pair.a], splits[pair.b]} <= {split, *earlier}
        ]
        kinds = Counter(pair.kind for pair in pairs)
        kind_counts = ", ".join(f"{KIND_NAMES[kind]}: {count}" for kind, count in kinds.items())
        use = "test metrics" if split == "test" else "the choice of the checkpoint"
        findings.append(
            Finding(
                "copies across splits",
                "leak",
                f"{len(leaked)} of {n} {split} images ({percent(len(leaked), n)}) "
                f"{have(len(leaked))} a verified copy in {' or '.join(earlier)}.",
                f"The model may have memorized them, so {use} cannot be trusted "
                + (f"(pairs: {kind_counts})." if kind_counts else "(through copies of copies)."),
                "data.split=deduplicated trains without them.",
                copies.list_pairs(pairs),
                [image_detail(copies.table, int(row)) for row in leaked],
            )
        )
    return findings


def _check_within(copies: _Copies) -> list[Finding]:
    findings = []
    for split in SPLITS:
        mask = copies.splits == split
        pictures = copies.pictures(mask)
        n_surplus = sum(len(rows) - 1 for rows in pictures)
        if not n_surplus:
            continue
        n = int(mask.sum())
        pairs = [pair for pair in copies.pairs if mask[pair.a] and mask[pair.b]]
        train = split == "train"
        verb = "repeats" if n_surplus == 1 else "repeat"
        findings.append(
            Finding(
                "copies within splits",
                "hint" if train else "warning",
                f"{n_surplus} of {n} {split} images ({percent(n_surplus, n)}) {verb} another "
                f"{split} image.",
                "These pictures count more than others in training, and splitting this set by file "
                "would leak."
                if train
                else f"The {split} split has fewer pictures than images. Intervals of runs trained "
                "after this audit count all copies of a picture as one observation.",
                "For cross-validation, data.split=deduplicated data.folds=5 keeps verified copies "
                "together."
                if train
                else "",
                copies.list_pairs(pairs),
                [_images(copies.table, rows) for rows in pictures],
            )
        )
    return findings


def _check_two_patients(copies: _Copies) -> list[Finding]:
    known = copies.table["patient"].notna().to_numpy()
    patients = copies.table["patient"].to_numpy(str)
    mixed = {
        tuple(rows): ids
        for rows in copies.pictures()
        if len(ids := {*patients[rows][known[rows]].tolist()}) > 1
    }
    if not mixed:
        return []
    return [
        Finding(
            "two patients",
            "warning",
            f"{counted(len(mixed), 'picture')} {have(len(mixed))} copies under "
            f"different patients ({len(set().union(*mixed.values()))} in total), so patient ids "
            "may be wrong.",
            "A person with two ids can end up in two splits even if the split is by patient, also "
            "with images other than these.",
            "Look at the pairs and correct the ids. data.split=deduplicated data.folds=5 treats "
            "such patients as one; data.split=deduplicated alone leaves out the copies, but not "
            "other images of the same person.",
            [_names(copies.table, rows) for rows in mixed],
            [
                _images(copies.table, rows)
                | {"patients": [str(patients[row]) if known[row] else None for row in rows]}
                for rows in mixed
            ],
        )
    ]


def _check_two_labels(copies: _Copies) -> list[Finding]:
    labels = copies.table["label"].to_numpy(str)
    mixed = [rows for rows in copies.pictures() if len({*labels[rows]}) > 1]
    if not mixed:
        return [Finding("two labels", "ok", "No picture has copies with different labels.")]
    return [
        Finding(
            "two labels",
            "warning",
            f"{counted(len(mixed), 'picture')} {have(len(mixed))} copies with different labels.",
            "One of the labels is wrong, or the labels mean less than they seem to.",
            "Look at the pairs, and correct the labels or leave out the images.",
            [_names(copies.table, rows) for rows in mixed],
            [_images(copies.table, rows) for rows in mixed],
        )
    ]


def check_balance(manifest: Manifest) -> list[Finding]:
    """How unequal classes are, and whether each has enough images to evaluate."""
    table = manifest.table
    counts = {
        split: [
            int(((table["split"] == split) & (table["label"] == label)).sum())
            for label in manifest.classes
        ]
        for split in SPLITS
    }
    findings = []
    most, least = max(counts["train"]), min(counts["train"])
    common = manifest.classes[counts["train"].index(most)]
    rare = manifest.classes[counts["train"].index(least)]
    text = (
        f"Always predicting {common} has an accuracy of {most / max(1, sum(counts['train'])):.3f} "
        "on train. Look at the sensitivity and specificity of each class, not only at accuracy."
    )
    if least and most / least >= UNEVEN:
        findings.append(
            Finding(
                "balance",
                "hint",
                f"{common} has {most / least:.1f} times as many train images as {rare}.",
                text,
                "imbalance=class_weights, or another option of that group.",
            )
        )
    elif least:
        findings.append(Finding("balance", "ok", "Classes are of similar size in train.", text))
    for split in ("val", "test"):
        few = [(c, n) for c, n in zip(manifest.classes, counts[split], strict=True) if n < FEW]
        if few:
            findings.append(
                Finding(
                    "balance",
                    "warning" if any(n == 0 for _, n in few) else "hint",
                    f"{counted(len(few), 'class')} {have(len(few))} fewer than "
                    f"{FEW} {split} images{'' if len(few) == 1 else ' each'}.",
                    "The interval of a sensitivity from so few images is tens of points wide.",
                    "",
                    [f"{c}: {counted(n, split + ' image')}" for c, n in few],
                )
            )
    return findings


def check_excluded(manifest: Manifest, n_stopping: int = 0) -> Finding:
    """Images without a label, and others that the dataset or training leaves out.

    n_stopping: unreadable files at which training stops, so they are not left out.
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
        "Images without a label are not verified normals and are not used as such."
        if excluded["reason"].str.contains("label").any()
        else "",
        "",
        [f"{row.split}: {row.n} ({row.reason})" for row in excluded.itertuples()],
        records(excluded),
    )


def check_groups(manifest: Manifest) -> Finding:
    """Patients, and studies of unknown patients, in more than one split."""
    table = manifest.table
    known = table["patient"].notna() | table["study"].notna()
    if not known.any():
        return Finding(
            "groups",
            "hint",
            "Patients are unknown, so one may be in several splits.",
            "Intervals treat every image as independent and are too narrow if several show one "
            "person.",
        )
    overlap = group_overlap(table)
    rest = "" if known.all() else f"Patient and study of {int((~known).sum())} images are unknown."
    if not len(overlap):
        units = [unit for unit in ("patient", "study") if table[unit].notna().any()]
        counts = " and ".join(counted(table[unit].nunique(), unit) for unit in units)
        return Finding("groups", "ok", f"{counts}, none of them in more than one split.", rest)
    counts = " and ".join(counted(n, str(unit)) for unit, n in Counter(overlap["unit"]).items())
    n_images = int(overlap["n"].sum())
    return Finding(
        "groups",
        "leak",
        f"{counts} {have(len(overlap))} images in more than one split.",
        f"The {counted(n_images, 'image')} of these groups make test metrics too good: a model can "
        f"recognize the person. {rest}".strip(),
        "Split by patient: no group may be in two splits. Training rejects this split.",
        [
            f"{counted(n, 'group')} in {splits}"
            for splits, n in Counter(overlap["splits"]).most_common()
        ],
        records(overlap),
    )

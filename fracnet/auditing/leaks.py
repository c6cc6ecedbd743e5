"""Checks for leaks: patients across splits; copies across splits, within them, of two labels."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.auditing.duplicates import Pair, clusters
from fracnet.auditing.findings import LISTED, Finding, called, detail, records, share
from fracnet.auditing.pairs import KINDS, in_words
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS, group_overlap
from fracnet.words import counted


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


def copies(manifest: Manifest, pairs: Sequence[Pair]) -> list[Finding]:
    """What verified copies mean for the splits."""
    table = manifest.table
    if not pairs:
        told = f"No copies, exact or altered, were found among {counted(len(table), 'image')}."
        return [Finding("copies", "ok", told)]
    splits, labels = table["split"].to_numpy(str), table["label"].to_numpy(str)
    cluster = clusters(pairs, len(table))
    return [
        *_across(table, pairs, splits, cluster),
        *_within(table, pairs, splits, cluster),
        *_two_labels(table, labels, cluster),
    ]


def _across(
    table: pd.DataFrame,
    pairs: Sequence[Pair],
    splits: npt.NDArray[np.str_],
    cluster: npt.NDArray[np.int64],
) -> list[Finding]:
    """Copies in two splits: a leak for each split that they make look better."""
    found = []
    for split, earlier in (("test", ("train", "val")), ("val", ("train",))):
        held = np.isin(splits, earlier)
        leaked = np.flatnonzero((splits == split) & np.isin(cluster, np.unique(cluster[held])))
        if not len(leaked):
            continue
        n = int((splits == split).sum())
        mine = [p for p in pairs if {splits[p.a], splits[p.b]} & {split} and _parted(p, splits)]
        mine = [p for p in mine if {str(splits[p.a]), str(splits[p.b])} <= {split, *earlier}]
        kinds = Counter(pair.kind for pair in mine)
        told = ", ".join(f"{KINDS[kind]}: {n}" for kind, n in kinds.items())
        use = "test figures" if split == "test" else "the choice of the checkpoint"
        found.append(
            Finding(
                "copies across splits",
                "leak",
                f"{len(leaked)} of {n} {split} images ({share(len(leaked), n)}) "
                f"{'has' if len(leaked) == 1 else 'have'} a verified copy in "
                f"{' or '.join(earlier)}.",
                f"They are known by heart, so {use} cannot be trusted"
                + (f" (pairs: {told})." if told else " (by way of copies of copies)."),
                "data.split=deduplicated trains without them.",
                [_told(table, pair) for pair in mine[:LISTED]],
                [detail(table, int(row)) for row in leaked],
                len(mine),
            )
        )
    return found


def _within(
    table: pd.DataFrame,
    pairs: Sequence[Pair],
    splits: npt.NDArray[np.str_],
    cluster: npt.NDArray[np.int64],
) -> list[Finding]:
    found = []
    for split in SPLITS:
        own = cluster[splits == split]
        sizes = np.bincount(own, minlength=1)
        surplus = int((sizes[sizes > 1] - 1).sum())
        if not surplus:
            continue
        mine = [p for p in pairs if splits[p.a] == splits[p.b] == split]
        train = split == "train"
        verb = "repeats" if surplus == 1 else "repeat"
        found.append(
            Finding(
                "copies within splits",
                "hint" if train else "warning",
                f"{surplus} of {len(own)} {split} images ({share(surplus, len(own))}) {verb} "
                f"another one of {split}.",
                "Their pictures count more than others in training; a split of this set by file "
                "would leak."
                if train
                else f"The {split} split has fewer pictures than images: its intervals are too "
                "narrow.",
                "For cross-validation: data.split=deduplicated data.folds=5 keeps copies together."
                if train
                else "",
                [_told(table, pair) for pair in mine[:LISTED]],
                n=len(mine),
            )
        )
    return found


def _two_labels(
    table: pd.DataFrame, labels: npt.NDArray[np.str_], cluster: npt.NDArray[np.int64]
) -> list[Finding]:
    rows_of = defaultdict(list)
    for row, number in enumerate(cluster):
        rows_of[int(number)].append(row)
    mixed = [rows for rows in rows_of.values() if len({*labels[rows]}) > 1]
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
            [" and ".join(called(table, row) for row in rows[:4]) for rows in mixed[:LISTED]],
            [{"images": [detail(table, row) for row in rows]} for rows in mixed],
            len(mixed),
        )
    ]


def _parted(pair: Pair, splits: npt.NDArray[np.str_]) -> bool:
    return bool(splits[pair.a] != splits[pair.b])


def _told(table: pd.DataFrame, pair: Pair) -> str:
    return f"{called(table, pair.a)} and {called(table, pair.b)}: {in_words(pair)}"

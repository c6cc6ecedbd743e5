"""Groups of images that must not be parted: found in two splits, carved into splits, folded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

SPLITS = ("train", "val", "test")
STRATA = ("region", "label")


def groups_of(table: pd.DataFrame) -> pd.DataFrame:
    """The group of each row of a manifest table, on its index.

    Returns columns unit ("patient" where that is known, else "study", else "image") and group
    (the id; for an image its path).
    """
    patient, study = table["patient"], table["study"]
    group = patient.where(patient.notna(), study)
    unit = np.where(patient.notna(), "patient", np.where(study.notna(), "study", "image"))
    if "path" in table.columns:
        group = group.where(group.notna(), table["path"])
    return pd.DataFrame({"unit": unit, "group": group}, index=table.index)


def group_overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Groups of a manifest table that have images in more than one split.

    An image's group is its patient where that is known, else its study; images of which neither
    is known are not compared. Study names must be unique over the data set.

    Returns columns unit ("patient" or "study"), group, splits ("train, val", in the order
    train, val, test), n (images of the group), sorted by unit and group; empty if all is well.
    """
    flat = groups_of(table).assign(split=table["split"])
    flat = flat[flat["unit"] != "image"].astype({"group": str})
    found = flat.groupby(["unit", "group"], as_index=False).agg(
        splits=("split", lambda held: ", ".join(sorted(held.unique(), key=_order))),
        n=("split", "size"),
        n_splits=("split", "nunique"),
    )
    overlap = found.loc[found["n_splits"] > 1, ["unit", "group", "splits", "n"]]
    return overlap.reset_index(drop=True)


def carve(
    table: pd.DataFrame, share: float, seed: int, strata: Sequence[str] = STRATA
) -> npt.NDArray[np.bool_]:
    """Choose whole groups that make up `share` of the images, alike in the mix of the strata.

    table: columns patient, study, path, label and the strata. share: between 0 and 1.
    Returns bool [N], true for the chosen rows (see `_deal` for the manner). Every class keeps an
    image that is not chosen, and has a chosen one where it lies in several groups. Raises
    UserError where nothing can be chosen.
    """
    assert 0 < share < 1, share
    tally = _Tally.of(table, strata)
    chosen = _deal(tally, np.array([1 - share, share]), seed) == 1

    def left(label: int) -> float:
        return tally.counts[~chosen, label].sum()

    order = sorted(tally.shuffled(seed), key=lambda group: tally.counts[group, 0])
    for label in tally.labels:  # rare classes: small groups change sides
        while left(label) == 0:
            chosen[next(group for group in order if tally.counts[group, label])] = False
    for label in tally.labels:
        for group in order:
            held = [other for other in tally.labels if tally.counts[group, other]]
            if tally.counts[chosen, label].sum() > 0:
                break
            if label in held and all(left(o) > tally.counts[group, o] for o in held):
                chosen[group] = True
    if not chosen.any():
        raise UserError(
            f"No part can be carved from {counted(len(table), 'image')} in "
            f"{counted(len(chosen), 'group')} (patients, else studies, else images): a "
            "class would lose its last train image. A class needs two groups at least."
        )
    return chosen[tally.group]


def folds(
    table: pd.DataFrame, n_folds: int, seed: int, strata: Sequence[str] = STRATA
) -> npt.NDArray[np.int64]:
    """Deal whole groups out to folds of about equal size that are alike in the mix of the strata.

    table: columns patient, study, label and the strata, of the images to be dealt (not the test).
    Returns int64 [N], the fold of each row, 0 to n_folds - 1. Raises UserError where an image has
    neither patient nor study, or there are fewer groups than folds.
    """
    if n_folds < 2:
        raise UserError(f"data.folds={n_folds}: cross-validation needs 2 folds at least.")
    unknown = int((groups_of(table)["unit"] == "image").sum())
    if unknown:
        raise UserError(
            f"data.folds={n_folds}: folds need patients or studies, so that no one is trained and "
            f"validated on at once, but {unknown} of the {len(table)} images have neither."
        )
    tally = _Tally.of(table, strata)
    if len(tally.counts) < n_folds:
        raise UserError(
            f"data.folds={n_folds}: there {are(len(tally.counts))} only "
            f"{counted(len(tally.counts), 'group')} (patients, else studies) to deal out."
        )
    return _deal(tally, np.full(n_folds, 1 / n_folds), seed)[tally.group]


def _deal(tally: "_Tally", shares: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.int64]:
    """The part that each group goes to, int64 [G]; `shares` of the parts sum to 1.

    Large groups come first, equal ones in an order of seed and name. Each goes where it keeps the
    parts closest to their shares: of all images, of each value of each stratum and of each
    combination of them. Closest is the least sum of held^2 / wanted, which is chi-squared but for
    a constant. A group may so lie in several strata, and every machine deals alike.
    """
    wanted = shares[:, None] * tally.counts.sum(axis=0)
    held = np.zeros_like(wanted)
    part_of = np.zeros(len(tally.counts), dtype=np.int64)
    for group in sorted(tally.shuffled(seed), key=lambda group: -tally.counts[group, 0]):
        counts = tally.counts[group]
        part = int((counts * (2 * held + counts) / wanted).sum(axis=1).argmin())
        held[part] += counts
        part_of[group] = part
    return part_of


@dataclass(frozen=True)
class _Tally:
    """Images of each group.

    names: of the G groups, sorted. group: int [N], the group of each row. counts: float [G, K],
    images of a group in all (column 0), in each value of each stratum and in each combination.
    labels: the columns of `counts` that stand for the classes.
    """

    names: list[str]
    group: npt.NDArray[np.intp]
    counts: npt.NDArray[np.float64]
    labels: list[int]

    @classmethod
    def of(cls, table: pd.DataFrame, strata: Sequence[str]) -> "_Tally":
        assert "label" in strata, strata
        found = groups_of(table)
        names, group = np.unique(
            (found["unit"] + " " + found["group"].astype(str)).to_numpy(str), return_inverse=True
        )
        parts = [np.bincount(group, minlength=len(names))[:, None]]
        labels: list[int] = []
        for size in range(1, len(strata) + 1):
            for columns in combinations(strata, size):
                cell = table.groupby(list(columns), dropna=False).ngroup().to_numpy()
                n_cells = int(cell.max()) + 1
                if columns == ("label",):
                    start = sum(part.shape[1] for part in parts)
                    labels = list(range(start, start + n_cells))
                flat = np.bincount(group * n_cells + cell, minlength=len(names) * n_cells)
                parts.append(flat.reshape(len(names), n_cells))
        return cls(list(names), group, np.hstack(parts).astype(np.float64), labels)

    def shuffled(self, seed: int) -> list[int]:
        """The groups in an order of seed and name alone, whatever the versions of libraries."""
        keys = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in self.names]
        return sorted(range(len(keys)), key=keys.__getitem__)


def _order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)

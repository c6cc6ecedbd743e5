"""Groups of images that must stay together: overlap between splits, new splits, folds, shares."""

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

SPLITS = ("train", "val", "test")
UNUSED = "unused"
"""In place of a split: of train images that `data.fraction` leaves out, which keep their row."""
STRATA = ("region", "label")


def groups_of(table: pd.DataFrame) -> pd.DataFrame:
    """The group of each row of a manifest table, with the same index.

    Returns columns unit ("patient" if known, else "study", else "image") and group (the id; for an
    image its path).
    """
    patient, study = table["patient"], table["study"]
    group = patient.where(patient.notna(), study)
    unit = np.where(patient.notna(), "patient", np.where(study.notna(), "study", "image"))
    if "path" in table.columns:
        group = group.where(group.notna(), table["path"])
    return pd.DataFrame({"unit": unit, "group": group}, index=table.index)


def name_groups(groups: pd.DataFrame) -> tuple[str, pd.Series]:
    """The unit of `groups_of` ("group" if there are several) and an unambiguous name per row.

    With several units the name includes the unit, because a study may have the id of a patient.
    """
    units, names = groups["unit"].unique(), groups["group"].astype(str)
    if len(units) == 1:
        return str(units[0]), names
    return "group", groups["unit"] + " " + names


def group_overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Groups of a manifest table that have images in more than one split.

    The group of an image is its patient if known, else its study; images with neither are not
    compared. Study names must be unique in the dataset.

    Returns columns unit ("patient" or "study"), group, splits ("train, val", in the order
    train, val, test), n (images of the group), sorted by unit and group; empty without overlap.
    """

    def order(split: str) -> tuple[int, str]:
        return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)

    flat = groups_of(table).assign(split=table["split"])
    flat = flat[flat["unit"] != "image"].astype({"group": str})
    groups = flat.groupby(["unit", "group"], as_index=False).agg(
        splits=("split", lambda splits: ", ".join(sorted(splits.unique(), key=order))),
        n=("split", "size"),
        n_splits=("split", "nunique"),
    )
    overlap = groups.loc[groups["n_splits"] > 1, ["unit", "group", "splits", "n"]]
    return overlap.reset_index(drop=True)


def sample_groups(table: pd.DataFrame, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose whole groups with `share` of the images and a similar mix of the strata.

    table: columns patient, study, path, label and `STRATA`. share: between 0 and 1.
    Returns bool [N], true for the chosen rows (see `_distribute` for the method). Every class
    keeps an image that is not chosen, and has a chosen one if it spans several groups. Raises
    UserError if nothing can be chosen.
    """
    assert 0 < share < 1, share
    tally = _Tally.of(table)
    chosen = _distribute(tally, np.array([1 - share, share]), seed) == 1

    def remaining(label: int) -> float:
        return tally.counts[~chosen, label].sum()

    order = sorted(tally.shuffled(seed), key=lambda group: tally.counts[group, 0])
    for label in tally.labels:  # rare classes: small groups change sides
        while remaining(label) == 0:
            chosen[next(group for group in order if tally.counts[group, label])] = False
    for label in tally.labels:
        for group in order:
            labels = [other for other in tally.labels if tally.counts[group, other]]
            if tally.counts[chosen, label].sum() > 0:
                break
            if label in labels and all(remaining(o) > tally.counts[group, o] for o in labels):
                chosen[group] = True
    if not chosen.any():
        raise UserError(
            f"Cannot split off a part of {counted(len(table), 'image')} in "
            f"{counted(len(chosen), 'group')} (patients, else studies, else images): a class would "
            "lose its last train image. Each class needs a group for train and one for each part."
        )
    return chosen[tally.group]


def assign_folds(table: pd.DataFrame, n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Assign whole groups to folds of about equal size and a similar mix of the strata.

    table: columns patient, study, label and `STRATA`, of the images to assign (not the test).
    Returns int64 [N], the fold of each row, 0 to n_folds - 1. Raises UserError if there are fewer
    groups than folds.
    """
    tally = _Tally.of(table)
    if len(tally.counts) < n_folds:
        raise UserError(
            f"data.folds={n_folds}: there {are(len(tally.counts))} only "
            f"{counted(len(tally.counts), 'group')} (patients, else studies)."
        )
    return _distribute(tally, np.full(n_folds, 1 / n_folds), seed)[tally.group]


def nested_share(table: pd.DataFrame, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose whole groups with about `share` of the images; a smaller share is part of a larger.

    table: columns patient, study, path, label and `STRATA`. share: above 0, at most 1.
    Returns bool [N], true for the chosen rows. Within each combination of strata the groups stand
    in an order given by seed and name, each at the share of images that comes before its middle.
    The groups that stand lowest are chosen until the share is reached, so every combination gives
    about the same share, and the order does not depend on it. A group in several combinations
    stands in that of most of its images.
    """
    tally = _Tally.of(table)
    n_images = tally.counts[:, 0]
    cell = tally.counts[:, tally.cells :].argmax(axis=1)
    place = np.zeros(len(n_images))
    order = np.array(tally.shuffled(seed), dtype=np.int64)
    for number in np.unique(cell):
        members = order[cell[order] == number]
        ends = n_images[members].cumsum()
        place[members] = (ends - n_images[members] / 2) / ends[-1]
    order = order[np.argsort(place[order], kind="stable")]
    ends = n_images[order].cumsum()
    chosen = np.zeros(len(n_images), dtype=np.bool_)
    chosen[order] = ends - n_images[order] / 2 < share * ends[-1]
    return chosen[tally.group]


def _distribute(
    tally: "_Tally", shares: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """The part of each group, int64 [G]; `shares` of the parts sum to 1.

    Large groups come first, equal ones in an order given by seed and name. Each goes to the part
    that keeps all parts closest to their shares: of all images, of each value of each stratum and
    of each combination of values. Closest is the least sum of actual^2 / target, which is
    chi-squared up to a constant. So a group may span several strata, and the result is the same on
    every machine.
    """
    target = shares[:, None] * tally.counts.sum(axis=0)
    actual = np.zeros_like(target)
    part_of = np.zeros(len(tally.counts), dtype=np.int64)
    for group in sorted(tally.shuffled(seed), key=lambda group: -tally.counts[group, 0]):
        counts = tally.counts[group]
        part = int((counts * (2 * actual + counts) / target).sum(axis=1).argmin())
        actual[part] += counts
        part_of[group] = part
    return part_of


@dataclass(frozen=True)
class _Tally:
    """Images of each group.

    names: of the G groups, sorted. group: int [N], the group of each row. counts: float [G, K],
    images of a group in total (column 0), in each value of each stratum and in each combination.
    labels: the columns of `counts` for the classes. cells: the first column of the combination of
    all strata, which are the last ones.
    """

    names: list[str]
    group: npt.NDArray[np.intp]
    counts: npt.NDArray[np.float64]
    labels: list[int]
    cells: int

    @classmethod
    def of(cls, table: pd.DataFrame) -> "_Tally":
        groups = groups_of(table)
        names, group = np.unique(
            (groups["unit"] + " " + groups["group"].astype(str)).to_numpy(str), return_inverse=True
        )
        parts = [np.bincount(group, minlength=len(names))[:, None]]
        labels: list[int] = []
        for size in range(1, len(STRATA) + 1):
            for columns in combinations(STRATA, size):
                cell = table.groupby(list(columns), dropna=False).ngroup().to_numpy()
                n_cells = int(cell.max()) + 1
                if columns == ("label",):
                    start = sum(part.shape[1] for part in parts)
                    labels = list(range(start, start + n_cells))
                flat = np.bincount(group * n_cells + cell, minlength=len(names) * n_cells)
                parts.append(flat.reshape(len(names), n_cells))
        counts = np.hstack(parts).astype(np.float64)
        return cls(list(names), group, counts, labels, counts.shape[1] - n_cells)

    def shuffled(self, seed: int) -> list[int]:
        """The groups in an order that depends only on seed and names, not on library versions."""
        keys = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in self.names]
        return sorted(range(len(keys)), key=keys.__getitem__)

"""Splits that fracnet makes: files that are created once and reused, deduplication, folds.

    # Split of mura, created once and reused. Delete this file to create a new one.
    # data.val_share=0.1
    # data.split_seed=0
    patient,split
    patient00001,train
    ...

The file is next to the data, so that everybody who uses them has the same split, or in the cache
folder if the data folder is not writable. The lines with "=" are the settings that it was made
with. Cross-validation pools train and val and assigns them to folds in a file of the same kind
(`patient,fold`).

Neither folds nor deduplication change the test images, so metrics compare with the official split.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from fracnet.data.manifest import Manifest, without_rows
from fracnet.data.splits import UNUSED, assign_folds, groups_of, name_groups, nested_share
from fracnet.metrics.clusters import components
from fracnet.utils.csv_table import csv_reader
from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir, remove_drafts, write_atomically
from fracnet.utils.text import counted, list_some

log = logging.getLogger(__name__)

Recipe = Mapping[str, int | float]
Pairs = Sequence[tuple[str, str]]

SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}
COPY_REASON = "verified copy in a later split"
UNEVEN = 3  # times as many images of the most common class as of the rarest
FOLD_SEED = 0  # constant: the folds in the file are the same for every seed of a run


@dataclass(frozen=True)
class SplitFile:
    """A table of two columns, group and part, in the folder of a dataset.

    folder: of the data. file_name: such as fracnet_split.csv. title: start of the first line.
    columns: their names, the group's first. parts: allowed values of the second column.
    recipe: config keys and values that determine the split.
    """

    folder: Path
    file_name: str
    title: str
    columns: tuple[str, str]
    parts: Sequence[str]
    recipe: Recipe

    @property
    def locations(self) -> tuple[Path, Path]:
        """Where the file may be: with the data, else in the cache, by the path of the data."""
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return self.folder / self.file_name, cache_dir() / "splits" / digest / self.file_name

    def load_or_create(
        self, groups: Collection[str], create: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """The part of each group, from the file; `create` provides it if there is no file.

        Logs groups that are in the file but not in the data. Raises UserError if the file was made
        with other settings, is damaged, or lacks some of the groups.
        """
        path = self._existing() or self._write(create())
        part_of = self._read(path)
        if unknown := sorted(set(groups) - set(part_of)):
            raise UserError(
                f"{path} lacks {counted(len(unknown), self.columns[0])} of the data: "
                f"{list_some(unknown, len(unknown))}. It was made for other data. Delete it to "
                "create a new one; results with the two files are not comparable."
            )
        if absent := sorted(set(part_of) - set(groups)):
            log.warning(
                f"{path} lists {counted(len(absent), self.columns[0])} that the data lack: "
                f"{list_some(absent, len(absent), 3)}."
            )
        return part_of

    def _existing(self) -> Path | None:
        return next((path for path in self.locations if path.is_file()), None)

    def _write(self, part_of: Mapping[str, str]) -> Path:
        text = io.StringIO()
        text.write(
            f"# {self.title}, created once and reused. Delete this file to create a new one.\n"
        )
        for key, value in self.recipe.items():
            text.write(f"# {key}={value}\n")
        minimal, quoted = (
            csv.writer(text, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        minimal.writerow(self.columns)
        for row in sorted(part_of.items()):
            # Quotes keep a carriage return in the cell, and mark that # does not start a comment.
            (quoted if row[0].startswith("#") or "\r" in row[0] else minimal).writerow(row)
        assert self._parse(self.locations[0], text.getvalue()) == part_of
        failures = []
        for path in self.locations:
            try:
                return self._write_first(path, text.getvalue())
            # Read-only, full, ...; NotImplementedError if the file system has no locks.
            except (OSError, NotImplementedError) as error:
                failures.append(f"{path.parent} ({getattr(error, 'strerror', None) or error})")
        raise UserError(
            f"{self.title}: cannot write {self.file_name} to {' or to '.join(failures)}. Set the "
            "environment variable FRACNET_CACHE to a writable folder."
        )

    def _write_first(self, path: Path, text: str) -> Path:
        """Write the complete file, unless another process was faster: then its file is used."""
        if path != self.locations[0]:
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with FileLock(lock):
            existing = self._existing()
            if existing is None:
                remove_drafts(path.parent)
                write_atomically(path, text)
            lock.unlink(missing_ok=True)  # processes that lock from here on find the file
        if existing:
            return existing
        log.info("%s: written to %s and reused from now on.", self.title, path)
        return path

    def _read(self, path: Path) -> dict[str, str]:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                return self._parse(path, file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read {path}: {error}.") from error

    def _parse(self, path: Path, text: str) -> dict[str, str]:
        """The part of each group in the text of a file. Raises UserError."""
        recipe: dict[str, str] = {}
        part_of: dict[str, str] = {}
        header = False
        # Only these end a line; a group may contain others, such as a form feed, or be quoted.
        reader = csv_reader(text)
        try:
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                valid = len(cells) == 2 and bool(cells[0]) and cells[1] in self.parts
                if cells[0].startswith("#") and not (header and valid):
                    key, equals, value = ",".join(cells)[1:].partition("=")
                    if equals and not header:
                        recipe[key.strip()] = value.strip()
                    continue
                if not header:
                    header = True
                    valid = tuple(cells) == self.columns
                elif valid:
                    valid = part_of.setdefault(*cells) == cells[1]
                if not valid:
                    line = ",".join(cells)
                    raise self._invalid(path, f"line {reader.line_num} is {line!r}")
        except csv.Error as error:
            raise self._invalid(path, f"line {reader.line_num}: {error}") from error
        if not part_of:
            raise self._invalid(path, "it lists no group")
        self._check_recipe(path, recipe)
        return part_of

    def _check_recipe(self, path: Path, recipe: Mapping[str, str]) -> None:
        try:
            other = [key for key in self.recipe if float(recipe[key]) != self.recipe[key]]
        except (KeyError, ValueError):
            lines = ", ".join(f"# {key}=..." for key in self.recipe)
            raise self._invalid(path, f"it lacks the lines {lines}") from None
        if other:
            theirs = " and ".join(f"{key}={recipe[key]}" for key in other)
            ours = " and ".join(f"{key}={self.recipe[key]}" for key in other)
            raise UserError(
                f"{path} was made with {theirs}, but the config says {ours}. Set {theirs} to keep "
                "this split, or delete the file to create a new one."
            )

    def _invalid(self, path: Path, reason: str) -> UserError:
        return UserError(
            f"{path} is not a valid split file: {reason}. Expected are the columns "
            f"{','.join(self.columns)}, each {self.columns[0]} once, with one of "
            f"{', '.join(self.parts)}. Correct it, or delete it to create a new one."
        )


def deduplicate(manifest: Manifest, pairs: Pairs, *, pooled: bool = False) -> Manifest:
    """The manifest without images that have a copy in a later split (train, val, test).

    pairs: paths of verified copies; copies of copies count. pooled: treat train and val as one,
    because folds will be made from them.
    """
    table = manifest.table
    order = {**SPLIT_ORDER, "val": 0} if pooled else SPLIT_ORDER
    rank = table["split"].map(order).to_numpy(np.int64)
    cluster = components(len(table), _row_pairs(table, pairs))
    last = np.zeros(cluster.max(initial=-1) + 1, np.int64)
    np.maximum.at(last, cluster, rank)
    rows = np.flatnonzero(rank < last[cluster]).tolist()
    note = (
        f"{manifest.name}: data.split=deduplicated leaves out {counted(len(rows), 'image')} with a "
        "verified copy in a later split; the test images are the official ones."
    )
    result = without_rows(manifest, rows, COPY_REASON)
    if uneven := uneven_classes(result):
        note += f" It leaves {uneven}."
    return replace(result, notes=(*result.notes, note))


def uneven_classes(manifest: Manifest) -> str:
    """`train: 368 fractured, 30 normal`, for each split in which one class is much rarer."""
    counts = manifest.table.groupby(["split", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(manifest.classes), fill_value=0)
    return "; ".join(
        f"{split}: " + ", ".join(f"{n} {label}" for label, n in counts.loc[split].items())
        for split in SPLIT_ORDER
        if split in counts.index and counts.loc[split].max() > UNEVEN * counts.loc[split].min()
    )


def count_left_out(manifest: Manifest) -> int:
    """Number of images that `deduplicate` has left out."""
    excluded = manifest.excluded
    return int(excluded.loc[excluded["reason"] == COPY_REASON, "n"].sum())


def join_copied_groups(table: pd.DataFrame, pairs: Pairs) -> list[str]:
    """The group of each row: its patient (else study, else image), joined by verified copies.

    Two patients with an image that is a copy of the other's are one group, named after the first
    of its members.
    """
    groups = groups_of(table)
    all_names = (groups["unit"] + " " + groups["group"].astype(str)).to_numpy(str)
    names, index = np.unique(all_names, return_inverse=True)
    links = [(int(index[a]), int(index[b])) for a, b in _row_pairs(table, pairs)]
    component = components(len(names), links)
    first = {
        int(number): str(name) for number, name in zip(component[::-1], names[::-1], strict=True)
    }
    return [first[int(number)] for number in component[index]]


def name_pictures(table: pd.DataFrame, pairs: Pairs) -> pd.Series:
    """The path of the first image of each picture that several rows show; NaN in other rows.

    pairs: paths of verified copies; copies of copies show the same picture.
    """
    picture = components(len(table), _row_pairs(table, pairs))
    paths = table["path"].reset_index(drop=True)
    first = paths.groupby(picture).transform("first")
    repeated = pd.Series(picture).duplicated(keep=False)
    return first.where(repeated).set_axis(table.index)


def _row_pairs(table: pd.DataFrame, pairs: Pairs) -> list[tuple[int, int]]:
    """The pairs as row numbers, without those that have an image outside of the table."""
    row_of = {path: row for row, path in enumerate(table["path"])}
    return [(row_of[a], row_of[b]) for a, b in pairs if a in row_of and b in row_of]


def _grouped(table: pd.DataFrame, copies: Pairs | None) -> tuple[pd.DataFrame, str, pd.Series]:
    """The table, its unit and the name of each row's group; copies join groups, as patients."""
    if copies is None:
        return table, *name_groups(groups_of(table))
    names = pd.Series(join_copied_groups(table, copies), index=table.index)
    return table.assign(patient=names), "group", names


def apply_fold(
    manifest: Manifest, n_folds: int, fold: int, copies: Pairs | None = None
) -> Manifest:
    """The manifest with one fold of its train and val images as val, the others as train.

    Folds keep patients (if unknown, studies) together and have a similar mix of labels and
    regions. They are created once and written to `fracnet_folds_<n>.csv` next to the data.
    copies: paths of verified copies, which are then kept together as well, and are all that is
    kept together without patients; the file name then ends in `_deduplicated.csv`.

    Raises UserError if the dataset has no or too few patients or studies, or the file is damaged.
    """
    assert 0 <= fold < n_folds, (fold, n_folds)
    pooled = (manifest.table["split"] != "test").to_numpy()
    table = manifest.table[pooled]
    ungrouped = int((groups_of(table)["unit"] == "image").sum())
    if copies is None and ungrouped:
        raise UserError(
            f"data.folds={n_folds}: {manifest.name} gives no patient or study for {ungrouped} of "
            f"{len(table)} images, so two images of one person could be in both train and val. "
            "Folds need a dataset with groups. Allowed here: data.folds=null, which uses the "
            "dataset's own split, or data.split=deduplicated, whose folds keep verified copies "
            "together."
        )
    table, unit, names = _grouped(table, copies)
    file = SplitFile(
        folder=manifest.root,
        file_name=f"fracnet_folds_{n_folds}{'' if copies is None else '_deduplicated'}.csv",
        title=f"Folds of {manifest.name}",
        columns=(unit, "fold"),
        parts=[str(number) for number in range(n_folds)],
        recipe={"data.folds": n_folds},
    )

    def create() -> dict[str, str]:
        numbers = assign_folds(table, n_folds, FOLD_SEED).astype(str).tolist()
        return dict(zip(names, numbers, strict=True))

    fold_of = file.load_or_create(set(names), create)
    split = manifest.table["split"].to_numpy(dtype=object).copy()
    split[pooled] = np.where([fold_of[name] == str(fold) for name in names], "val", "train")
    note = (
        f"{manifest.name}: cross-validation, fold {fold} of {n_folds} (0 to {n_folds - 1}) "
        f"validates: {counted(int((split == 'val').sum()), 'image')}, listed in {file.file_name}. "
        "The dataset's own split into train and val is not used."
    )
    if copies is not None and ungrouped:
        note += (
            " Patients are unknown, so one may be in several folds. Verified copies are in one "
            "fold; copies that the audit missed may not be."
        )
    return replace(
        manifest,
        table=manifest.table.assign(split=split),
        notes=(*(other for other in manifest.notes if other != manifest.split_note), note),
        split_note=note,
    )


def apply_fraction(
    manifest: Manifest, fraction: float, seed: int, copies: Pairs | None = None
) -> Manifest:
    """The manifest with a share of its train images; the others become `UNUSED`.

    Patients (if unknown, studies, then images) are chosen whole, with a similar mix of labels and
    regions. The share of a smaller fraction is part of that of a larger one with the same seed.
    Rows keep their order, so that all fractions share a cache. copies: paths of verified copies,
    which then count as one group. Raises UserError if a class has no image left.
    """
    train = (manifest.table["split"] == "train").to_numpy()
    table, unit, names = _grouped(manifest.table[train], copies)
    used = nested_share(table, fraction, seed)
    lost = [label for label in manifest.classes if label not in set(table["label"][used])]
    if lost:
        of = ", ".join(f"{label} {int((table['label'] == label).sum())}" for label in lost)
        raise UserError(
            f"data.fraction={fraction:g} leaves {counted(int(used.sum()), 'train image')} of "
            f"{len(table)} and none of some classes ({of} in the whole train split); allowed: a "
            "larger fraction, with at least one image of each class."
        )
    split = manifest.table["split"].to_numpy(dtype=object).copy()
    split[np.flatnonzero(train)[~used]] = UNUSED
    note = (
        f"{manifest.name}: data.fraction={fraction:g} trains on {int(used.sum())} of "
        f"{len(table)} train images, those of {names[used].nunique()} of "
        f"{counted(names.nunique(), unit)}, chosen by seed {seed}; validation and test are whole."
    )
    row = {"split": "train", "reason": f"data.fraction={fraction:g}", "n": int((~used).sum())}
    excluded = pd.DataFrame([*manifest.excluded.to_dict("records"), row])
    return replace(
        manifest,
        table=manifest.table.assign(split=split),
        excluded=excluded,
        notes=(*manifest.notes, note),
    )

"""A split that had to be made: written to a file once, and obeyed ever since.

    # Split of mura. It was made once and is obeyed; delete this file to have another one made.
    # data.val_share=0.1
    # data.split_seed=0
    patient,split
    patient00001,train
    ...

The file lies beside the data, so that whoever uses them has the same split; where the data cannot
be written to, under the cache folder. The lines with "=" are the recipe that made it.

A split without verified copies across its parts, and groups that keep copies together.

The test stays as it is, so that figures can be set beside those of the official split: copies of
its images leave train and val, and copies of val's leave train.

Cross-validation: train and val pooled and dealt out anew to folds; the test stays as it is.

    # Folds of mura. It was made once and is obeyed; delete this file to have another one made.
    # data.folds=5
    patient,fold
    patient00001,3
    ...

The file lies beside the data, or under the cache folder where they cannot be written to.
"""

import csv
import hashlib
import io
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock

from fracnet.data.manifest import Manifest, listed, without_rows
from fracnet.data.splits import folds, groups_of
from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir
from fracnet.utils.text import are, counted

log = logging.getLogger(__name__)

Recipe = Mapping[str, int | float]


@dataclass(frozen=True)
class SplitFile:
    """A table of two columns, group and part, in the folder of a data set.

    folder: of the data. file_name: such as fracnet_split.csv. title: first line of the file.
    columns: their names, the group's first. parts: the values that the second may have.
    recipe: config keys and values that decide the split.
    """

    folder: Path
    file_name: str
    title: str
    columns: tuple[str, str]
    parts: Sequence[str]
    recipe: Recipe

    @property
    def places(self) -> tuple[Path, Path]:
        """Where the file may lie: with the data, or else in the cache, by the data's folder."""
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return self.folder / self.file_name, cache_dir() / "splits" / digest / self.file_name

    def part_of(
        self, groups: Collection[str], make: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """The part of each group: as the file says, which `make` fills where there is none.

        Groups that the file names and the data lack are told in the log. Raises UserError where
        the file was made by another recipe, is damaged, or lacks some of the groups.
        """
        path = self._found() or self._write(make)
        part_of = self._read(path)
        if unknown := sorted(set(groups) - set(part_of)):
            raise UserError(
                f"{path} says nothing of {counted(len(unknown), self.columns[0])} of the data: "
                f"{listed(unknown, len(unknown))}. It was made for other data; delete it to have "
                "a new one made, and compare no results across the two."
            )
        if gone := sorted(set(part_of) - set(groups)):
            log.warning(
                f"{path} names {counted(len(gone), self.columns[0])} that the data lack: "
                f"{listed(gone, len(gone), 3)}."
            )
        return part_of

    def _found(self) -> Path | None:
        return next((path for path in self.places if path.is_file()), None)

    def _write(self, make: Callable[[], Mapping[str, str]]) -> Path:
        part_of = make()
        text = io.StringIO()
        text.write(
            f"# {self.title}. It was made once and is obeyed; delete this file to have another "
            "one made.\n"
        )
        for key, value in self.recipe.items():
            text.write(f"# {key}={value}\n")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(sorted(part_of.items()))
        refusals = []
        for path in self.places:
            try:
                return self._write_first(path, text.getvalue())
            # Read-only, full, ...; a file system that knows no locks is "not implemented".
            except (OSError, NotImplementedError) as error:
                refusals.append(f"{path.parent} ({getattr(error, 'strerror', None) or error})")
        raise UserError(
            f"{self.title}: the file {self.file_name} can be written neither to "
            f"{' nor to '.join(refusals)}. Name a folder for it with the environment variable "
            "FRACNET_CACHE."
        )

    def _write_first(self, path: Path, text: str) -> Path:
        """Write the file whole, unless another process has been quicker: then that one counts."""
        if path != self.places[0]:
            path.parent.mkdir(parents=True, exist_ok=True)
        guard, draft = (path.with_name(f".{path.name}.{end}") for end in ("lock", "part"))
        with FileLock(guard):
            found = self._found()
            if found is None:
                try:
                    draft.write_text(text, encoding="utf-8")
                    os.replace(draft, path)
                except OSError:
                    draft.unlink(missing_ok=True)
                    raise
            guard.unlink(missing_ok=True)  # whoever locks from here on finds the file
        if found:
            return found
        log.info("%s is written to %s and obeyed from now on.", self.title, path)
        return path

    def _read(self, path: Path) -> dict[str, str]:
        recipe: dict[str, str] = {}
        part_of: dict[str, str] = {}
        header = False
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            if line.startswith("#"):
                key, equals, value = line[1:].partition("=")
                if equals:
                    recipe[key.strip()] = value.strip()
                continue
            cells = tuple(next(csv.reader([line])))
            if not header:
                header = True
                valid = cells == self.columns
            else:
                valid = len(cells) == 2 and bool(cells[0]) and cells[1] in self.parts
                valid = valid and part_of.setdefault(*cells) == cells[1]
            if not valid:
                raise self._damaged(path, f"its line {number} is {line!r}")
        if not part_of:
            raise self._damaged(path, "it names no group")
        self._check_recipe(path, recipe)
        return part_of

    def _check_recipe(self, path: Path, held: Mapping[str, str]) -> None:
        try:
            other = [key for key in self.recipe if float(held[key]) != self.recipe[key]]
        except (KeyError, ValueError):
            told = ", ".join(f"# {key}=..." for key in self.recipe)
            raise self._damaged(path, f"it lacks the lines {told}") from None
        if other:
            theirs = " and ".join(f"{key}={held[key]}" for key in other)
            ours = " and ".join(f"{key}={self.recipe[key]}" for key in other)
            raise UserError(
                f"{path} was made with {theirs}, but the config says {ours}. Set {theirs} to keep "
                "this split, or delete the file to have a new one made."
            )

    def _damaged(self, path: Path, why: str) -> UserError:
        return UserError(
            f"{path} is no split file: {why}; expected are the columns {','.join(self.columns)}, "
            f"each {self.columns[0]} once, with one of {', '.join(self.parts)}. Mend it, or delete "
            "it to have a new one made."
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


Pairs = Sequence[tuple[str, str]]
RANK = {"train": 0, "val": 1, "test": 2}
REASON = "verified copy in a later split"


def deduplicated(manifest: Manifest, pairs: Pairs, *, pooled: bool = False) -> Manifest:
    """The manifest without images that have a copy in a later split (train, val, test).

    pairs: paths of verified copies; copies of copies count. pooled: train and val are one part,
    because folds will be dealt from them.
    """
    table = manifest.table
    rank = table["split"].map({**RANK, "val": 0} if pooled else RANK).to_numpy(np.int64)
    cluster = _components(len(table), _rows(table, pairs))
    last = np.zeros(cluster.max(initial=-1) + 1, np.int64)
    np.maximum.at(last, cluster, rank)
    lost = rank < last[cluster]
    note = (
        f"{manifest.name}: data.split=deduplicated, {counted(int(lost.sum()), 'image')} with a "
        f"verified copy in a later split {are(int(lost.sum()))} left out; the test is the official "
        "one."
    )
    rest = without_rows(manifest, np.flatnonzero(lost).tolist(), REASON)
    return replace(rest, notes=(*rest.notes, note))


def n_left_out(manifest: Manifest) -> int:
    """How many images `deduplicated` has left out of it."""
    excluded = manifest.excluded
    return int(excluded.loc[excluded["reason"] == REASON, "n"].sum())


def joined_groups(table: pd.DataFrame, pairs: Pairs) -> list[str]:
    """The group of each row: its patient (else study, else the image), joined by verified copies.

    Two patients of whom one image is a copy of the other's are one group. It is called by the first
    of its members' names.
    """
    groups = groups_of(table)
    named = (groups["unit"] + " " + groups["group"].astype(str)).to_numpy(str)
    names, of = np.unique(named, return_inverse=True)
    links = [(int(of[a]), int(of[b])) for a, b in _rows(table, pairs)]
    component = _components(len(names), links)
    first = {
        int(number): str(name) for number, name in zip(component[::-1], names[::-1], strict=True)
    }
    return [first[int(number)] for number in component[of]]


def _rows(table: pd.DataFrame, pairs: Pairs) -> list[tuple[int, int]]:
    """Pairs of places; those of which one image is not in the table are left out."""
    place = {path: row for row, path in enumerate(table["path"])}
    return [(place[a], place[b]) for a, b in pairs if a in place and b in place]


def _components(n: int, links: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Number of the component of each of n nodes, int64 [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


# Folds are the same for every seed of a run: the file, not the seed, says who is in which.
SEED = 0


def folded(manifest: Manifest, n_folds: int, fold: int, copies: Pairs | None = None) -> Manifest:
    """The manifest with one fold of its train and val images as val, the others as train.

    Folds keep patients (where unknown, studies) together and are alike in labels and regions.
    They are dealt out once and written to `fracnet_folds_<n>.csv` beside the data.
    copies: paths of verified copies, which then are kept together, too, and are all that is kept
    together where there are no patients; the file's name ends in `_deduplicated.csv`.

    Raises:
        UserError: the data set has no patients or studies, or too few; a damaged file.
    """
    assert 0 <= fold < n_folds, (fold, n_folds)
    key = f"data.folds={n_folds}"
    pooled = (manifest.table["split"] != "test").to_numpy()
    table = manifest.table[pooled]
    groups = groups_of(table)
    units = sorted(groups["unit"].unique())
    strangers = "image" in units
    if copies is not None:
        joined = joined_groups(table, copies)
        # Folds are dealt to groups that are called patients, whatever they are here.
        table = table.assign(patient=joined)
        groups = groups.assign(unit="group", group=joined)
        units = ["group"]
    elif strangers:
        n = int((groups["unit"] == "image").sum())
        raise UserError(
            f"{key}: {manifest.name} does not say of {n} of these {len(table)} images to "
            "which patient or study each belongs, so two images of one person could be trained and "
            "validated on. Folds need a data set with groups; allowed here: data.folds=null, "
            "which obeys the split that the data set has, or data.split=deduplicated, whose folds "
            "keep together what an audit has verified as copies."
        )
    named = groups["group"].astype(str)
    if len(units) > 1:  # a study may be called as a patient is
        named = groups["unit"] + " " + named
    file = SplitFile(
        folder=manifest.root,
        file_name=f"fracnet_folds_{n_folds}{'' if copies is None else '_deduplicated'}.csv",
        title=f"Folds of {manifest.name}",
        columns=(units[0] if len(units) == 1 else "group", "fold"),
        parts=[str(number) for number in range(n_folds)],
        recipe={"data.folds": n_folds},
    )

    def make() -> dict[str, str]:
        return dict(zip(named, folds(table, n_folds, SEED).astype(str).tolist(), strict=True))

    fold_of = file.part_of(set(named), make)
    split = manifest.table["split"].to_numpy(dtype=object).copy()
    split[pooled] = np.where([fold_of[group] == str(fold) for group in named], "val", "train")
    note = (
        f"{manifest.name}: cross-validation, fold {fold} of {n_folds} (0 to {n_folds - 1}) "
        f"validates: {counted(int((split == 'val').sum()), 'image')}, as {file.file_name} says. "
        "The split into train and val that the data set comes with does not apply."
    )
    if copies is not None and strangers:
        note += " Patients are unknown: one may lie in several folds, only copies do not."
    return replace(
        manifest,
        table=manifest.table.assign(split=split),
        notes=(*(other for other in manifest.notes if other != manifest.split_note), note),
        split_note=note,
    )

"""A split that had to be made: written to a file once, and obeyed ever since.

    # Split of mura. It was made once and is obeyed; delete this file to have another one made.
    # data.val_share=0.1
    # data.split_seed=0
    patient,split
    patient00001,train
    ...

The file lies beside the data, so that whoever uses them has the same split; where the data cannot
be written to, under the cache folder. The lines with "=" are the recipe that made it.
"""

import csv
import hashlib
import io
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from fracnet.data.manifest import listed
from fracnet.errors import UserError
from fracnet.paths import cache_dir
from fracnet.words import counted

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

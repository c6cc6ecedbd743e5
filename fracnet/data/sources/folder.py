"""Any data set of the user's own: class folders, or a csv that names the images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fracnet.data.manifest import Manifest
from fracnet.data.sources.base import contents, subfolders
from fracnet.data.sources.folder_layouts import Found, read_class_folders, read_listed
from fracnet.data.sources.own_split import OwnSplit
from fracnet.data.splits import SPLITS
from fracnet.errors import UserError
from fracnet.objects import near_miss

COLUMNS = ("path", "label", "split", "patient", "study", "region", "boxes")
# First words of the names that people give to the class without a finding.
NEGATIVE = ("no", "non", "not", "normal", "negative", "neg", "healthy", "without", "0")


@dataclass(kw_only=True)
class Folder(OwnSplit):
    """Reads class folders below `root`, with or without split folders, or a csv.

    csv: file that names the images, in `root` or absolute; None for class folders.
    columns: what -> column of the csv, for path, label, split, patient, study, region and boxes;
        None for the column of that name, where the csv has one.
    class_order: names of the classes; of two, the positive last. None: by name, but where of two
        classes one is called normal, negative, no..., non... or not..., that one comes first.

    Splits that the data have are obeyed; lacking ones are carved (see OwnSplit).
    """

    csv: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    class_order: Sequence[str | int] | None = None

    name: ClassVar[str] = "folder"
    classes: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    licence: ClassVar[str] = "the user's own matter"
    citation: ClassVar[str] = "none"
    groups: ClassVar[str] = "unknown"
    obtain: ClassVar[str] = (
        "Put the images into class folders, such as {root}/fractured and {root}/normal, or, with a "
        "split, {root}/train/fractured, or name a table of them with data.csv=labels.csv."
    )
    phantom: ClassVar[str] = "mura_phantom"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.columns:
            if key not in COLUMNS:
                hint = near_miss(key, COLUMNS)
                raise UserError(f"data.columns.{key}: allowed are {', '.join(COLUMNS)}.{hint}")
        if self.csv is None and (named := [key for key, held in self.columns.items() if held]):
            raise UserError(
                f"data.columns.{named[0]}={self.columns[named[0]]}: columns are those of a csv; "
                "name it too, data.csv=labels.csv."
            )

    def prepare(self) -> None:
        """Only look whether something is there."""
        if not self.folder.is_dir():
            raise self.missing(contents(self.folder))
        if self.csv is None and not subfolders(self.folder):
            raise self.missing(f"no class folders, as {contents(self.folder)}")

    def manifest(self) -> Manifest:
        """All images with a label; makes and writes down the splits that the data lack."""
        self.prepare()
        if self.csv is None:
            found = read_class_folders(self.folder)
        else:
            found = read_listed(self.folder, Path(self.csv).expanduser(), self.columns)
        classes, notes = self._classes(found)
        rows, facts = found.rows, {}
        if lacking := [split for split in SPLITS[1:] if split not in found.splits]:
            whole = [row for row in rows if row.get("split", "train") == "train"]
            split = self.split(whole, self.folder, parts=lacking)
            rest = [row for row in rows if row.get("split", "train") != "train"]
            rows, facts = [*split.rows, *rest], split.facts
            notes += split.notes
        known = {key for key in ("patient", "study") if any(row.get(key) for row in rows)}
        if known and not facts:
            facts = {"groups": f"the column {' and '.join(sorted(known))} of {self.csv}"}
        if not known:
            notes.append(
                f"{self.name}: patients are unknown, so one person may be in train and in test, "
                "and test figures may be too good."
            )
        return self.build(
            rows,
            self.folder,
            excluded=_counted(found.excluded),
            notes=[*found.notes, *notes],
            classes=classes,
            task="binary" if len(classes) == 2 else "multiclass",
            **facts,
        )

    def _classes(self, found: Found) -> tuple[tuple[str, ...], list[str]]:
        """The classes in the order of the logits, and a note on which is positive."""
        names = sorted({row["label"] for row in found.rows})
        where = self.csv or self.folder
        if self.class_order is not None:
            order = tuple(map(str, self.class_order))
            if sorted(order) != names:
                raise UserError(
                    f"data.class_order=[{','.join(order)}]: {where} has the classes "
                    f"{', '.join(names)}; name each once."
                )
            return order, []
        if len(names) < 2:
            raise UserError(
                f"{where} has {len(names)} classes ({', '.join(names) or 'none'}); at least two "
                "are needed. If the class folders lie deeper, point data.root to their parent."
            )
        if len(names) > 2:
            return tuple(names), []
        negative = [name for name in names if _words(name)[0] in NEGATIVE]
        if len(negative) != 1:
            raise UserError(
                f"{where} has two classes, {' and '.join(names)}, and it is not clear which is the "
                f"positive one. Say so, the positive last: data.class_order=[{','.join(names)}] or "
                f"data.class_order=[{','.join(names[::-1])}]."
            )
        positive = next(name for name in names if name not in negative)
        return (negative[0], positive), [
            f"{self.name}: {positive!r} is taken as the positive class, {negative[0]!r} as the "
            "negative one (data.class_order changes it)."
        ]


def _words(name: str) -> list[str]:
    return name.lower().replace("_", " ").replace("-", " ").split() or [name]


def _counted(excluded: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"split": split, "reason": why, "n": n} for (split, why), n in excluded.items()]

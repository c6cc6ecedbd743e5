"""A data set without a split of its own, or without all of it: the lacking parts are carved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from fracnet.data.header_ids import with_header_ids
from fracnet.data.manifest import typed
from fracnet.data.sources.base import Source
from fracnet.data.splitfile import SplitFile
from fracnet.data.splits import carve, groups_of
from fracnet.errors import UserError

SPLIT_FILE = "fracnet_split.csv"


class Split(NamedTuple):
    """rows with their split, notes on it, and what `Source.build` takes as facts."""

    rows: list[dict[str, Any]]
    notes: list[str]
    facts: dict[str, Any]


@dataclass(kw_only=True)
class OwnSplit(Source):
    """A source whose split fracnet makes: once, into a file beside the data, obeyed ever since.

    val_share, test_share: shares of all images that validate and test, in whole groups (patients,
        else studies, else images), alike in labels and regions.
    split_seed: which groups these are.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("val_share", "test_share"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"data.{key}={getattr(self, key)}: it must lie between 0 and 1.")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"data.val_share={self.val_share} and data.test_share={self.test_share} leave "
                "nothing to train on: their sum must be below 1."
            )

    def split(
        self,
        rows: Sequence[Mapping[str, Any]],
        folder: Path,
        parts: Sequence[str] = ("val", "test"),
        together: Callable[[str], str] | None = None,
    ) -> Split:
        """Part rows into train and `parts`.

        rows: with path, label, and region, patient, study where known; ids in DICOM headers are
            known. folder: of the images and of the split file.
        together: from the path of an image without patient and study to a key; images of one key
            are not parted. Asked only when the split is made.

        Raises UserError where a class has too few groups, and as SplitFile does.
        """
        filled, notes, facts = with_header_ids(rows, folder)
        table = typed(pd.DataFrame(filled))
        shares = {part: float(getattr(self, f"{part}_share")) for part in parts}
        groups = groups_of(table)
        units = sorted(groups["unit"].unique())
        named = groups["group"].astype(str)
        if len(units) > 1:  # a study may be called as a patient is
            named = groups["unit"] + " " + named
        unit = units[0] if len(units) == 1 else "group"
        recipe: dict[str, int | float] = {f"data.{part}_share": shares[part] for part in shares}
        file = SplitFile(
            folder=folder,
            file_name=SPLIT_FILE,
            title=f"Split of {self.name}",
            columns=(unit, "split"),
            parts=("train", *parts),
            recipe=recipe | {"data.split_seed": self.split_seed},
        )

        def make() -> dict[str, str]:
            dealt = table.reset_index(drop=True)
            alone = (groups["unit"] == "image").to_numpy()
            if together is not None and alone.any():
                study = dealt["study"].to_numpy(dtype=object).copy()
                study[alone] = [together(path) for path in dealt["path"][alone]]
                dealt = dealt.assign(study=study)
            return dict(zip(named, self._dealt(dealt, shares), strict=True))

        split_of = file.part_of(set(named), make)
        for row, group in zip(filled, named, strict=True):
            row["split"] = split_of[group]
            row.setdefault("patient", None)
            row.setdefault("study", None)
        told = ", ".join(f"{key}={value}" for key, value in file.recipe.items())
        note = f"{self.name}: the split is fracnet's own, by {unit} ({told}), as {SPLIT_FILE} says."
        return Split(filled, [*notes, note], facts)

    def _dealt(self, table: pd.DataFrame, shares: dict[str, float]) -> list[str]:
        split = np.full(len(table), "train", dtype=object)
        left = 1.0
        for part in sorted(shares):  # test, then val from what is left
            free = np.flatnonzero(split == "train")
            split[free[carve(table.iloc[free], shares[part] / left, self.split_seed)]] = part
            left -= shares[part]
        return split.tolist()

"""Predictions of several runs for the same images: checked, and brought into one order."""

from collections.abc import Mapping, Sequence

import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation.predictions import classes_of, clusters_of

# Runs, or images, named in a message.
SHOWN = 3


def align(tables: Mapping[str, pd.DataFrame], split: str) -> dict[str, pd.DataFrame]:
    """The rows of one split of each run, sorted by path.

    Raises:
        UserError: runs that differ in classes or their order, in images, labels, or in whose images
            they are: says which runs, and how many rows. An image that stands twice in a table.
    """
    parts = {name: one_split(name, table, split) for name, table in tables.items()}
    first, reference = next(iter(parts.items()))
    _same_classes(parts)
    _same_images(parts, split)
    clusters = clusters_of(reference)
    for name, part in parts.items():
        wrong = (part["label"] != reference["label"]).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{first} and {name} have different labels for {int(wrong.sum())} of "
                f"{len(reference)} {split} images, the first of them "
                f"{reference['path'].iloc[row]} ({reference['label'].iloc[row]}, "
                f"{part['label'].iloc[row]})."
            )
        if (clusters_of(part).ids != clusters.ids).any():
            raise UserError(
                f"{first} and {name} do not agree on which {split} images belong to one patient or "
                "study (columns patient and study of their predictions.csv), so neither can be "
                "taken for both."
            )
    return parts


def one_split(name: str, table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of a split, sorted by path; `name` is the run's, for messages."""
    part = table[table["split"] == split].sort_values("path").reset_index(drop=True)
    if not len(part):
        raise UserError(f"{name} has no {split} rows in its predictions.")
    twice = part["path"].duplicated()
    if twice.any():
        raise UserError(
            f"{name} has the {split} image {part.loc[twice, 'path'].iloc[0]} more than once in "
            "its predictions."
        )
    return part


def listed(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _same_classes(parts: Mapping[str, pd.DataFrame]) -> None:
    sets: dict[tuple[str, ...], list[str]] = {}
    for name, part in parts.items():
        sets.setdefault(classes_of(part), []).append(name)
    if len(sets) > 1:
        told = (f"{listed(names)}: {', '.join(classes)}" for classes, names in sets.items())
        raise UserError(
            f"The runs have different classes, or another order of them ({'; '.join(told)}). Only "
            "runs of one task can be put side by side."
        )


def _same_images(parts: Mapping[str, pd.DataFrame], split: str) -> None:
    sets: dict[tuple[str, ...], list[str]] = {}
    for name, part in parts.items():
        sets.setdefault(tuple(part["path"]), []).append(name)
    if len(sets) == 1:
        return
    (here, _), (there, others), *_ = sets.items()
    told = (f"{listed(names)}: {len(paths)} rows" for paths, names in sets.items())
    only, missing = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    details = [
        f"{others[0]} {verb} {len(paths)} of the images of {next(iter(parts))}, e.g. {paths[0]}"
        for verb, paths in (("lacks", missing), ("has beside", only))
        if paths
    ]
    raise UserError(
        f"The runs have {len(sets)} different sets of {split} images ({'; '.join(told)}). "
        f"{'; '.join(details)}. Only figures on the same images can be put side by side."
    )

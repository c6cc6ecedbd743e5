"""Groups of images that must not be parted: who is in more than one split."""

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")


def group_overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Groups of a manifest table that have images in more than one split.

    An image's group is its patient where that is known, else its study; images of which neither
    is known are not compared. Study names must be unique over the data set.

    Returns columns unit ("patient" or "study"), group, splits ("train, val", in the order
    train, val, test), n (images of the group), sorted by unit and group; empty if all is well.
    """
    by_patient = table["patient"].notna()
    group = table["patient"].where(by_patient, table["study"])
    known = group.notna()
    flat = pd.DataFrame(
        {
            "unit": np.where(by_patient, "patient", "study")[known],
            "group": group[known].astype(str).to_numpy(),
            "split": table.loc[known, "split"].to_numpy(),
        }
    )
    found = flat.groupby(["unit", "group"], as_index=False).agg(
        splits=("split", lambda held: ", ".join(sorted(held.unique(), key=_order))),
        n=("split", "size"),
        n_splits=("split", "nunique"),
    )
    overlap = found.loc[found["n_splits"] > 1, ["unit", "group", "splits", "n"]]
    return overlap.reset_index(drop=True)


def _order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)

"""The predicted views of a study put together, as a run does it with its own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.predictions import PROB

UNLIKE = "unlike the training images"
UNREAD = "a view cannot be read"
NONE_READ = "no view can be read"

Decide = Callable[[np.ndarray], tuple[Any, Any, list[str]]]
"""From probabilities float64 [n, C] to decisions, whether they are unsure, and why; None for the
first two where validation knew no studies."""


def by_study(
    table: pd.DataFrame, classes: Sequence[str], views: str, decide: Decide
) -> pd.DataFrame:
    """A row for each study of `Predictor.predict`'s rows, where it is known.

    table: rows of images. views: "mean" or "max", how probabilities are put together.

    Columns: study, patient, views (that were read), prob_<class>, decision, unsure, why, unlike and
    unreadable (views that are; a study with one of either is unsure). Without a view that was read
    there is no decision. Decision and unsure are empty where validation knew no studies.
    """
    known = table[table["study"].notna()]
    names = [f"{PROB}{name}" for name in classes]
    groups = known.assign(
        read=known["error"] == "",
        lost=known["error"] != "",
        unlike=known["unlike"].astype(float),  # NaN: not known
    ).groupby(["patient", "study"], sort=False, dropna=False)
    # An unreadable view has no probability, which neither the mean nor the maximum counts.
    found = groups[names].mean()
    if views == "max":
        found[names[1]] = groups[names[1]].max()
        found[names[0]] = 1 - found[names[1]]
    found["views"], found["unreadable"] = groups["read"].sum(), groups["lost"].sum()
    found["unlike"] = groups["unlike"].sum(min_count=1).astype("Int64")
    found = found.reset_index()
    seen = found["views"] > 0
    choice, doubt, why = decide(found.loc[seen, names].to_numpy(dtype=np.float64))
    for name, values in (("decision", choice), ("unsure", doubt), ("why", why)):
        found[name] = pd.Series(values, found.index[seen], dtype=object)
    if doubt is not None:
        # What is wrong with one view may be what the others do not show.
        strange, lost = found["unlike"].fillna(0) > 0, found["unreadable"] > 0
        found["unsure"] = found["unsure"].eq(True) | strange | lost
        words = zip(
            found["why"].where(seen, ""),
            np.where(strange, UNLIKE, ""),
            np.where(lost, np.where(seen, UNREAD, NONE_READ), ""),
            strict=True,
        )
        found["why"] = ["; ".join(filter(None, row)) for row in words]
    told = ["decision", "unsure", "why", "unlike", "unreadable"]
    return found[["study", "patient", "views", *names, *told]]

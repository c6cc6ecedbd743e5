"""A split without verified copies across its parts, and groups that keep copies together.

The test stays as it is, so that figures can be set beside those of the official split: copies of
its images leave train and val, and copies of val's leave train.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data.manifest import Manifest, without_rows
from fracnet.data.splits import groups_of
from fracnet.words import are, counted

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

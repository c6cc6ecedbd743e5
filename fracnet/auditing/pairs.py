"""Pairs of copies in words, in JSON, and in the order in which they are worth looking at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fracnet.auditing.duplicates import Pair, clusters

KINDS: Mapping[str, str] = {
    "same bytes": "the same file",
    "same pixels": "the same pixels",
    "copy": "altered copy",
}


def in_words(pair: Pair) -> str:
    """`altered copy, mirrored, agreement 0.93`."""
    if pair.kind != "copy":
        return KINDS[pair.kind]
    turned = ", mirrored" if pair.mirrored else ""
    return f"{KINDS[pair.kind]}{turned}, agreement {pair.score:.2f}"


def as_json(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Pairs for audit.json; transform maps pixels (x, y) of a to those of b."""
    path, split, label = (table[key].to_numpy(str) for key in ("path", "split", "label"))
    return [
        {
            "a": str(path[pair.a]),
            "b": str(path[pair.b]),
            "rows": [pair.a, pair.b],
            "splits": [str(split[pair.a]), str(split[pair.b])],
            "labels": [str(label[pair.a]), str(label[pair.b])],
            "kind": pair.kind,
            "mirrored": pair.mirrored,
            "score": round(float(pair.score), 4),
            "transform": _plain(pair),
        }
        for pair in pairs
    ]


def _plain(pair: Pair) -> list[list[float]] | None:
    if pair.transform is None:
        return None
    return [[round(float(value), 5) for value in row] for row in pair.transform]


def first_to_show(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs across splits first, then of two labels, then altered ones.

    Among those, one of each cluster before a second one of any.
    """
    split, label = (table[key].to_numpy(str) for key in ("split", "label"))
    cluster = clusters(pairs, len(table))

    def gravity(pair: Pair) -> tuple[bool, bool, bool]:
        return (
            bool(split[pair.a] == split[pair.b]),
            bool(label[pair.a] == label[pair.b]),
            pair.kind != "copy",
        )

    seen: Counter[tuple[Any, ...]] = Counter()
    order = {}
    for place, pair in enumerate(sorted(pairs, key=lambda pair: (pair.a, pair.b))):
        key = (*gravity(pair), int(cluster[pair.a]))
        order[pair.a, pair.b] = (gravity(pair), seen[key], place)
        seen[key] += 1
    return sorted(pairs, key=lambda pair: order[pair.a, pair.b])

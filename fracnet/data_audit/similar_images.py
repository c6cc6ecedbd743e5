"""Images of two splits that a network's features find similar, not found to be copies.

They may show one person, which nobody knows where patients are unknown: the same implant, another
exposure, or the other side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data_audit.findings import Finding, image_detail, image_name
from fracnet.utils.text import counted

LISTED = 24  # pairs that somebody may look at
BLOCK = 512  # images compared with all others at once


@dataclass(frozen=True)
class SimilarPair:
    """Rows a < b of two images not found to be copies; similarity: cosine of centered features."""

    a: int
    b: int
    similarity: float


def similar_across(
    features: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    splits: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
) -> list[SimilarPair]:
    """At most `LISTED` pairs, the most similar first.

    Each image of a pair is the other's most similar one of another split and another group.
    features: float32 [n, F] of rows int64 [n]. splits, groups: of all rows of the manifest; copies
    and images of one patient share a group.
    """
    splits, groups = splits[rows], groups[rows]
    # What all images have in common says nothing.
    centered = features - features.mean(axis=0)
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    best, other = np.full(len(rows), -np.inf), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        own = slice(start, start + BLOCK)
        similarity = centered[own] @ centered.T
        similarity[splits[own, None] == splits] = -np.inf
        similarity[groups[own, None] == groups] = -np.inf
        best[own], other[own] = similarity.max(axis=1), similarity.argmax(axis=1)
    each = np.arange(len(rows))
    mutual = np.flatnonzero((other[other] == each) & (each < other) & np.isfinite(best))
    pairs = []
    for i in mutual[np.argsort(-best[mutual], kind="stable")][:LISTED]:
        a, b = sorted((int(rows[i]), int(rows[other[i]])))
        pairs.append(SimilarPair(a, b, float(best[i])))
    return pairs


def check_similar(table: pd.DataFrame, pairs: Sequence[SimilarPair], model: str) -> list[Finding]:
    """The finding on the most similar pairs; none where there are no pairs."""
    if not pairs:
        return []
    known = table["patient"].notna().to_numpy()
    n_unknown = sum(not (known[pair.a] and known[pair.b]) for pair in pairs)
    return [
        Finding(
            "similar images",
            "hint" if n_unknown else "ok",
            f"{counted(len(pairs), 'pair')} of similar images across splits"
            + (" may show one person." if n_unknown else ", of different patients by their ids."),
            f"By the features of {model}, each is the other's most similar image in another split. "
            "They were not found to be copies, but may show the same implant, another exposure or "
            "the other side. Some pair is always the most similar one, so the list alone does not "
            "show that splits share patients.",
            "Look at them. If two show one person, give them one patient id or move them into one "
            "split.",
            [
                f"{image_name(table, pair.a)} and {image_name(table, pair.b)}: similarity "
                f"{pair.similarity:.2f}"
                for pair in pairs
            ],
            [
                {
                    "a": image_detail(table, pair.a),
                    "b": image_detail(table, pair.b),
                    "patients": [
                        str(table["patient"].iat[row]) if known[row] else None
                        for row in (pair.a, pair.b)
                    ],
                    "similarity": round(pair.similarity, 4),
                }
                for pair in pairs
            ],
        )
    ]

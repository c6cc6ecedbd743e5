"""What tells one data set from another: a hash of its manifest, and its figures for people."""

import hashlib
import os
from collections import Counter
from typing import Any

import numpy as np

from fracnet.data.image_features import FEATURE_NAMES
from fracnet.data.manifest import Manifest, serialize
from fracnet.data.splits import SPLITS

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BLOCK = 4096  # rows at a time, so that memory does not grow with them


def data_fingerprint(manifest: Manifest) -> str:
    """Hash of every row of the manifest: files, splits, labels, shapes, sizes (16 hex digits)."""
    digest = hashlib.sha256()
    for start in range(0, len(manifest.table), BLOCK):
        rows = serialize(manifest.table.iloc[start : start + BLOCK])
        digest.update(rows.to_csv(index=False, header=start == 0, lineterminator="\n").encode())
    return digest.hexdigest()[:16]


def files_digest(manifest: Manifest) -> str:
    """Hash of every file's path and number of bytes (16 hex digits): a copy elsewhere has the same.

    The manifest says nothing of what is in the files; this notices that they were exchanged.
    """
    digest = hashlib.sha256()
    for path in manifest.table["path"]:
        try:
            size = os.stat(os.path.join(manifest.root, path)).st_size
        except OSError:
            size = -1
        digest.update(f"{path}\t{size}\n".encode())
    return digest.hexdigest()[:16]


def fingerprint(manifest: Manifest, features: np.ndarray) -> dict[str, Any]:
    """The figures of a data set, in plain containers.

    features: float64 [N, F], `shortcuts.FEATURE_NAMES` of each row; NaN where a file is unreadable.
    Returns hash (of all rows), images (readable ones), unreadable (how many are not), and of the
    readable ones counts {split: {class: n}} and the quantiles (`QUANTILES`) of width, height
    (pixels), file_size (bytes), mean and standard_deviation (grey levels of the image as it lies
    in the file).
    """
    table = manifest.table
    assert features.shape == (len(table), len(FEATURE_NAMES)), (features.shape, len(table))
    readable = ~np.isnan(features).any(axis=1)
    known, rows = features[readable], table[readable]
    counts = Counter(zip(rows["split"], rows["label"], strict=True))
    names = ("width", "height", "file_size", "mean", "standard_deviation")
    return {
        "hash": data_fingerprint(manifest),
        "images": len(known),
        "unreadable": len(table) - len(known),
        "counts": {
            split: {label: counts[split, label] for label in manifest.classes} for split in SPLITS
        },
        "quantiles": list(QUANTILES),
    } | {name: _quantiles(known[:, FEATURE_NAMES.index(name)]) for name in names}


def _quantiles(values: np.ndarray) -> list[float] | None:
    if not len(values):
        return None
    return [round(float(value), 2) for value in np.quantile(values, QUANTILES)]

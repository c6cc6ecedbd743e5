"""Identify and describe a dataset: hashes of its manifest and files, and summary statistics."""

import hashlib
import os
from collections import Counter
from typing import Any

import numpy as np

from fracnet.data.image_features import SHORTCUT_NAMES
from fracnet.data.manifest import Manifest, serialize
from fracnet.data.splits import SPLITS

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ROWS_PER_BLOCK = 4096  # limits the memory that a large manifest needs


def data_fingerprint(manifest: Manifest) -> str:
    """Hash of every row of the manifest: files, splits, labels, shapes, sizes (16 hex digits)."""
    digest = hashlib.sha256()
    for start in range(0, len(manifest.table), ROWS_PER_BLOCK):
        rows = serialize(manifest.table.iloc[start : start + ROWS_PER_BLOCK])
        digest.update(rows.to_csv(index=False, header=start == 0, lineterminator="\n").encode())
    return digest.hexdigest()[:16]


def files_digest(manifest: Manifest) -> str:
    """Hash of every file's path and size in bytes (16 hex digits); equal for a copy of the data.

    The manifest does not cover file contents; this detects most replaced files.
    """
    digest = hashlib.sha256()
    for path in manifest.table["path"]:
        try:
            size = os.stat(manifest.file(path)).st_size
        except OSError:
            size = -1
        digest.update(f"{path}\t{size}\n".encode())
    return digest.hexdigest()[:16]


def describe_data(manifest: Manifest, features: np.ndarray) -> dict[str, Any]:
    """Summary of a dataset, in plain containers.

    features: float64 [N, F], `SHORTCUT_NAMES` of each row; NaN if the file is unreadable.
    Returns hash (of all rows), images (readable), unreadable, and of the readable ones counts
    {split: {class: n}} and the quantiles (`QUANTILES`) of width, height (pixels), file_size
    (bytes), mean and standard_deviation (grey levels of the image as stored in the file).
    """
    table = manifest.table
    assert features.shape == (len(table), len(SHORTCUT_NAMES)), (features.shape, len(table))
    used = table["split"].isin(SPLITS).to_numpy()  # not what data.fraction leaves out
    table, features = table[used], features[used]
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
    } | {name: _quantiles(known[:, SHORTCUT_NAMES.index(name)]) for name in names}


def _quantiles(values: np.ndarray) -> list[float] | None:
    if not len(values):
        return None
    return [round(float(value), 2) for value in np.quantile(values, QUANTILES)]

"""Translate the labels of one dataset into the classes of a model, by an explicit map."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fracnet.data.manifest import Manifest, without_rows
from fracnet.utils.errors import UserError

KEY = "class_map"

ClassMap = Mapping[str, str | None] | None


def align_labels(
    manifest: Manifest, classes: Sequence[str], class_map: ClassMap, key: str = KEY
) -> Manifest:
    """The manifest with the labels of a model that predicts `classes`.

    class_map: label of the dataset -> class of the model, or None to leave those images out (they
        are counted as excluded). May be None if the dataset has the model's classes.
    key: config key of the map, for messages.

    Raises UserError if a class of the dataset is not mapped, or mapped to none of `classes`. Only a
    dataset with the same class names needs no map; names are never guessed.
    """
    if class_map is None and set(manifest.classes) == set(classes):
        return replace(manifest, classes=tuple(classes))
    mapping: dict[str, str | None] = {str(name): label for name, label in (class_map or {}).items()}
    allowed = ", ".join(classes)
    if unmapped := [name for name in manifest.classes if name not in mapping]:
        example = ", ".join(f"{name}: {name if name in classes else '...'}" for name in unmapped)
        raise UserError(
            f"{key}: {manifest.name} has the {'class' if len(unmapped) == 1 else 'classes'} "
            f"{', '.join(unmapped)}, the model has {allowed}; map each of them, as in "
            f"'{key}={{{example}}}' (null leaves a class out)."
        )
    if unknown := [name for name in mapping if name not in manifest.classes]:
        raise UserError(
            f"{key}: {manifest.name} has no class {unknown[0]!r}; it has "
            f"{', '.join(manifest.classes)}."
        )
    for name, label in mapping.items():
        if label not in (None, *classes):
            raise UserError(
                f"{key}: {name}={label} is not a class of the model; allowed: {allowed} or null."
            )
    for name in (name for name, label in mapping.items() if label is None):
        rows = np.flatnonzero(manifest.table["label"] == name).tolist()
        manifest = without_rows(manifest, rows, f"class {name} left out")
    if manifest.table.empty:
        raise UserError(f"{key} leaves out all classes of {manifest.name}.")
    return replace(
        manifest,
        table=manifest.table.assign(label=manifest.table["label"].map(mapping)),
        classes=tuple(classes),
        task="binary" if len(classes) == 2 else "multiclass",
    )

"""Cross-validation: train and val pooled and dealt out anew to folds; the test stays as it is.

    # Folds of mura. It was made once and is obeyed; delete this file to have another one made.
    # data.folds=5
    patient,fold
    patient00001,3
    ...

The file lies beside the data, or under the cache folder where they cannot be written to.
"""

from dataclasses import replace

import numpy as np

from fracnet.data.deduplicated import Pairs, joined_groups
from fracnet.data.manifest import Manifest
from fracnet.data.splitfile import SplitFile
from fracnet.data.splits import folds, groups_of
from fracnet.errors import UserError
from fracnet.words import counted

# Folds are the same for every seed of a run: the file, not the seed, says who is in which.
SEED = 0


def folded(manifest: Manifest, n_folds: int, fold: int, copies: Pairs | None = None) -> Manifest:
    """The manifest with one fold of its train and val images as val, the others as train.

    Folds keep patients (where unknown, studies) together and are alike in labels and regions.
    They are dealt out once and written to `fracnet_folds_<n>.csv` beside the data.
    copies: paths of verified copies, which then are kept together, too, and are all that is kept
    together where there are no patients; the file's name ends in `_deduplicated.csv`.

    Raises:
        UserError: the data set has no patients or studies, or too few; a damaged file.
    """
    assert 0 <= fold < n_folds, (fold, n_folds)
    key = f"data.folds={n_folds}"
    pooled = (manifest.table["split"] != "test").to_numpy()
    table = manifest.table[pooled]
    groups = groups_of(table)
    units = sorted(groups["unit"].unique())
    strangers = "image" in units
    if copies is not None:
        joined = joined_groups(table, copies)
        # Folds are dealt to groups that are called patients, whatever they are here.
        table = table.assign(patient=joined)
        groups = groups.assign(unit="group", group=joined)
        units = ["group"]
    elif strangers:
        n = int((groups["unit"] == "image").sum())
        raise UserError(
            f"{key}: {manifest.name} does not say of {n} of these {len(table)} images to "
            "which patient or study each belongs, so two images of one person could be trained and "
            "validated on. Folds need a data set with groups; allowed here: data.folds=null, "
            "which obeys the split that the data set has, or data.split=deduplicated, whose folds "
            "keep together what an audit has verified as copies."
        )
    named = groups["group"].astype(str)
    if len(units) > 1:  # a study may be called as a patient is
        named = groups["unit"] + " " + named
    file = SplitFile(
        folder=manifest.root,
        file_name=f"fracnet_folds_{n_folds}{'' if copies is None else '_deduplicated'}.csv",
        title=f"Folds of {manifest.name}",
        columns=(units[0] if len(units) == 1 else "group", "fold"),
        parts=[str(number) for number in range(n_folds)],
        recipe={"data.folds": n_folds},
    )

    def make() -> dict[str, str]:
        return dict(zip(named, folds(table, n_folds, SEED).astype(str).tolist(), strict=True))

    fold_of = file.part_of(set(named), make)
    split = manifest.table["split"].to_numpy(dtype=object).copy()
    split[pooled] = np.where([fold_of[group] == str(fold) for group in named], "val", "train")
    note = (
        f"{manifest.name}: cross-validation, fold {fold} of {n_folds} (0 to {n_folds - 1}) "
        f"validates: {counted(int((split == 'val').sum()), 'image')}, as {file.file_name} says. "
        "The split into train and val that the data set comes with does not apply."
    )
    if copies is not None and strangers:
        note += " Patients are unknown: one may lie in several folds, only copies do not."
    return replace(
        manifest,
        table=manifest.table.assign(split=split),
        notes=(*(other for other in manifest.notes if other != manifest.split_note), note),
        split_note=note,
    )

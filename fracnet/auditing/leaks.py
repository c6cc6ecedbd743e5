"""Checks for leaks: patients, and studies of unknown patients, in several splits."""

from collections import Counter

from fracnet.auditing.findings import Finding, records
from fracnet.data.manifest import Manifest
from fracnet.data.splits import group_overlap
from fracnet.words import counted


def groups(manifest: Manifest) -> Finding:
    """Patients, and studies of unknown patients, that lie in several splits."""
    table = manifest.table
    known = table["patient"].notna() | table["study"].notna()
    if not known.any():
        return Finding(
            "groups",
            "hint",
            "Patients are unknown, so no one can tell whether one lies in several splits.",
            f"Source of groups: {manifest.groups}. Intervals count every image as independent, and "
            "are too narrow where several come from one person.",
        )
    overlap = group_overlap(table)
    rest = "" if known.all() else f" Of {int((~known).sum())} images neither is known."
    if not len(overlap):
        units = {
            unit: table[unit].nunique()
            for unit in ("patient", "study")
            if table[unit].notna().any()
        }
        told = " and ".join(counted(n, unit) for unit, n in units.items())
        return Finding(
            "groups", "ok", f"{told}, none of them in more than one split.", rest.strip()
        )
    parted = Counter(overlap["unit"])
    told = " and ".join(counted(n, str(unit)) for unit, n in parted.items())
    n_images = int(overlap["n"].sum())
    where = Counter(overlap["splits"])
    return Finding(
        "groups",
        "leak",
        f"{told} {'has' if len(overlap) == 1 else 'have'} images in more than one split.",
        f"Their {counted(n_images, 'image')} make test figures too good: a model can know the "
        f"person.{rest}",
        "Split by patient: no group may lie in two splits. Training refuses this split.",
        [f"{counted(n, 'group')} in {splits}" for splits, n in where.most_common()],
        records(overlap),
    )

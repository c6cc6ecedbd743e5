"""Checks of labels: how many of each class, and what has none."""

from fracnet.auditing.findings import Finding, records
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.words import are, counted

UNEVEN = 3.0  # times as many train images of the commonest class as of the rarest
FEW = 10  # test images of a class, below which its figures say little


def balance(manifest: Manifest) -> list[Finding]:
    """How unequal classes are, and whether there are enough of each to say anything."""
    table = manifest.table
    counts = {
        split: [
            int(((table["split"] == split) & (table["label"] == c)).sum()) for c in manifest.classes
        ]
        for split in SPLITS
    }
    found = []
    most, least = max(counts["train"]), min(counts["train"])
    common = manifest.classes[counts["train"].index(most)]
    rare = manifest.classes[counts["train"].index(least)]
    share = most / max(1, sum(counts["train"]))
    text = (
        f"Always naming {common} has an accuracy of {share:.3f} on train. Look at sensitivity and "
        "specificity of each class, not at accuracy alone."
    )
    if least and most / least >= UNEVEN:
        found.append(
            Finding(
                "balance",
                "hint",
                f"{common} has {most / least:.1f} times as many train images as {rare}.",
                text,
                "imbalance=class_weights, or another choice of that group.",
            )
        )
    elif least:
        found.append(Finding("balance", "ok", "Classes are of similar size in train.", text))
    for split in ("val", "test"):
        few = [(c, n) for c, n in zip(manifest.classes, counts[split], strict=True) if n < FEW]
        if few:
            found.append(
                Finding(
                    "balance",
                    "warning" if any(n == 0 for _, n in few) else "hint",
                    f"{counted(len(few), 'class')} {'has' if len(few) == 1 else 'have'} fewer than "
                    f"{FEW} {split} images{'' if len(few) == 1 else ' each'}.",
                    "A sensitivity from so few has an interval tens of points wide.",
                    "",
                    [f"{c}: {counted(n, split + ' image')}" for c, n in few],
                )
            )
    return found


def left_out(manifest: Manifest, n_stopping: int = 0) -> Finding:
    """Images without a label, and others that the source does not offer or training leaves out.

    n_stopping: unreadable files at which training stops, so that they are not left out.
    """
    excluded = manifest.excluded[manifest.excluded["n"] > 0]
    if not len(excluded):
        rest = "; none is left out" if not n_stopping else ""
        return Finding("unlabelled", "ok", f"Every image has a label{rest}.")
    n = int(excluded["n"].sum())
    return Finding(
        "unlabelled",
        "hint",
        f"{counted(n, 'image')} {are(n)} left out before training.",
        "Images without a label are no verified normals; they are not used as such."
        if excluded["reason"].str.contains("label").any()
        else "",
        "",
        [f"{row.split}: {row.n} ({row.reason})" for row in excluded.itertuples()],
        records(excluded),
    )

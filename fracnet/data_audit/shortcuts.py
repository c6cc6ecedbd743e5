"""How well the label can be told from a file's figures, without its picture, and by what.

A forest of trees sees only file size, dimensions, brightness, borders, marks and the like, and is
judged on images of groups that it has not seen. What it reaches, a network can reach too. Some of
these figures (histogram, mean, file size) are made by bone too, but none knows where it lies or
what shape it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fracnet.data.image_features import BINS, BORDERS
from fracnet.data_audit.findings import Finding
from fracnet.data_audit.image_scan import FEATURES
from fracnet.metrics.classification import auc
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.text import limits

if TYPE_CHECKING:
    from fracnet.utils.progress import Progress

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "file size": ("file_size",),
    "dimensions": ("width", "height"),
    "aspect": ("aspect",),
    "bits a pixel": ("bits",),
    "border": tuple(f"{s}_{what}" for s in BORDERS for what in ("mean", "standard_deviation")),
    "mean and contrast": ("mean", "standard_deviation"),
    "histogram": tuple(f"histogram_{i:02d}" for i in range(BINS)),
    "marker area": ("marker_area",),
}
HOW = "file size, brightness and the like alone"
FOLDS = 5
ALL = "all together"

# Lower limits of the area above which it is a hint, a warning. "None" is only said where the upper
# limit is not above the first.
NOTED, STRONG = 0.6, 0.7
TREES = {"all": 100, "family": 30}
SEEN = 4000  # images that a tree is grown from, at most: what it costs is bounded


@dataclass(frozen=True)
class Reached:
    """The area under the ROC curve (macro for several classes) with its 95 % interval."""

    name: str
    auc: float
    low: float | None
    high: float | None
    note: str = ""


def reached(
    features: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    groups: Sequence[str],
    unit: str,
    n_classes: int,
    progress: "Progress",
    workers: int = 1,
) -> list[Reached] | str:
    """What all features reach together, then each family, the best first; or why nothing is said.

    features: float64 [N, F], `looking.FEATURES`; targets: int64 [N] in 0..n_classes - 1; groups:
    what must not be parted, of which `unit` says what they are. Probabilities are those of images
    whose group was held out; their intervals count groups, not images, as independent.
    """
    names, ids = np.unique(np.array(groups, dtype=str), return_inverse=True)
    held = [len(np.unique(ids[targets == c])) for c in range(n_classes)]
    present = [n for n in held if n]
    folds = min(FOLDS, *present) if len(present) > 1 else 0
    if folds < 2:
        return "there are not two classes with images in two groups each"
    fold = _dealt(targets, ids, folds)
    clusters = Clusters(ids.astype(np.int64), len(names), unit)

    def judged(name: str) -> Reached:
        columns = FAMILIES.get(name, FEATURES)
        seen = features[:, [FEATURES.index(column) for column in columns]]
        trees = TREES["family"] if name in FAMILIES else TREES["all"]
        probs = _held_out(seen, targets, fold, n_classes, trees, workers)
        return _measured(name, targets, probs, clusters)

    wanted = (ALL, *FAMILIES)
    first, *rest = [judged(name) for name in progress(wanted, len(wanted), "look for shortcuts")]
    return [first, *sorted(rest, key=lambda one: -one.auc)]


def _dealt(
    targets: npt.NDArray[np.int64], ids: npt.NDArray[np.intp], folds: int
) -> npt.NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(targets), np.int64)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for number, (_, held) in enumerate(dealer.split(targets, targets, ids)):
        fold[held] = number
    return fold


def _held_out(
    seen: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    n_classes: int,
    trees: int,
    workers: int,
) -> npt.NDArray[np.float64]:
    """Probabilities, float64 [N, C], each row's from a forest that has not seen its fold."""
    from sklearn.ensemble import ExtraTreesClassifier

    probs = np.zeros((len(targets), n_classes))
    for number in np.unique(fold):
        held = fold == number
        many = (~held).sum() > SEEN
        forest = ExtraTreesClassifier(
            trees,
            min_samples_leaf=5,
            bootstrap=bool(many),
            max_samples=SEEN if many else None,
            class_weight="balanced",
            n_jobs=workers if many else 1,  # for fewer, threads cost more than they save
            random_state=0,
        )
        forest.fit(seen[~held], targets[~held])
        probs[np.ix_(held, forest.classes_)] = forest.predict_proba(seen[held])
    return probs


def _measured(
    name: str, targets: npt.NDArray[np.int64], probs: npt.NDArray[np.float64], clusters: Clusters
) -> Reached:
    values = auc(targets, probs)
    intervals = auc_intervals(targets, probs, clusters)
    if probs.shape[1] == 2:  # of the positive class
        value, interval = float(values[1]), intervals[1]
    else:
        value, interval = float(np.nanmean(values)), intervals[-1]
    return Reached(name, value, interval.low, interval.high, interval.note)


def finding(found: list[Reached] | str, n_classes: int, unit: str) -> Finding:
    """In words, with the guilty family of features."""
    if isinstance(found, str):
        return Finding("shortcuts", "hint", f"Shortcuts could not be looked for: {found}.")
    together, best = found[0], found[1]
    area = "AUC" if n_classes == 2 else "macro AUC"
    low = together.low if together.low is not None else 0.0
    high = together.high if together.high is not None else 1.0
    text = (
        "A forest of trees that sees file size, dimensions, depth, borders, brightness, histogram "
        f"and bright marks reaches {area} {figure(together)}, each image judged by a forest that "
        f"has not seen its group ({unit}). "
    )
    items = [f"{one.name}: {figure(one)}" for one in found]
    details = [vars(one) for one in found]
    if low > NOTED:
        return Finding(
            "shortcuts",
            "warning" if low > STRONG else "hint",
            f"The label can be told from {HOW}, {area} {figure(together)}; most by {best.name}, "
            f"{figure(best)}.",
            text + "A model can reach as much without knowing the shape of any bone.",
            "Set a model's figures beside the shortcut baseline that each run prints, and test on "
            "images from elsewhere.",
            items,
            details,
        )
    if high > NOTED:
        return Finding(
            "shortcuts",
            "hint",
            f"Whether the label can be told from {HOW} cannot be said from so few images, {area} "
            f"{figure(together)}.",
            text + f"Up to {high:.3f} is possible.",
            "Set a model's figures beside the shortcut baseline that each run prints.",
            items,
            details,
        )
    title = f"The label can hardly be told from {HOW}, {area} {figure(together)}."
    return Finding("shortcuts", "ok", title, text, details=details)


def figure(one: Reached) -> str:
    """`0.812 (0.780-0.840)`."""
    if one.low is None or one.high is None:
        return f"{one.auc:.3f} (no interval)"
    return f"{one.auc:.3f} ({limits(one.low, one.high)})"

"""How well the class can be predicted from simple measurements of a file, without its picture.

For each family of measurements (file size, sharpness, corner marks and the like) a random forest is
evaluated on groups of images that it was not trained on. What it achieves, a network can achieve
too. Each family is judged by itself, because a forest that gets all measurements dilutes the few
that matter; the intervals are corrected for the number of families. Anatomy affects some
measurements (histogram, mean, sharpness), but none of them knows the shape of a bone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedGroupKFold

from fracnet.data.image_features import BORDERS, SHORTCUT_BINS
from fracnet.data_audit.findings import Finding
from fracnet.data_audit.image_scan import FEATURES
from fracnet.data_audit.traces import (
    JPEG_TRACES,
    MARK_TRACES,
    NOISE_TRACES,
    RESAMPLING_TRACES,
    SHARPNESS_TRACES,
    THIN_BORDER_TRACES,
)
from fracnet.metrics.classification import auc
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.progress import Progress
from fracnet.utils.text import limits, list_some

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "corner marks": MARK_TRACES,
    "thin border": THIN_BORDER_TRACES,
    "JPEG quality": ("jpeg_step", *JPEG_TRACES),
    "resampling": RESAMPLING_TRACES,
    "noise": NOISE_TRACES,
    "sharpness": SHARPNESS_TRACES,
    "file size": ("file_size",),
    "dimensions": ("width", "height"),
    "aspect ratio": ("aspect",),
    "bits per pixel": ("bits",),
    "border": tuple(f"{s}_{what}" for s in BORDERS for what in ("mean", "standard_deviation")),
    "mean and contrast": ("mean", "standard_deviation"),
    "histogram": tuple(f"histogram_{i:02d}" for i in range(SHORTCUT_BINS)),
}
ALL = "all measurements together"
FOLDS = 5
TREES = {"all": 100, "family": 50}
MAX_SAMPLES = 4000  # images that a tree is grown from, to bound the cost

# A lower limit of any family's AUC above these is a hint or a warning. "No shortcut" is only
# reported if every upper limit is at most the first.
HINT_LIMIT, WARNING_LIMIT = 0.6, 0.7
MAX_NAMED = 5  # further families that a title names
# Of each interval, so that all of them hold at once in 95 % of data sets (Bonferroni).
FAMILY_LEVEL = 1 - (1 - LEVEL) / (len(FAMILIES) + 1)


@dataclass(frozen=True)
class FamilyScore:
    """The AUC (macro for more than two classes) of a family of features.

    The intervals of all families hold at once, with 95 % confidence.
    """

    name: str
    auc: float
    low: float | None
    high: float | None
    note: str = ""


def score_families(
    features: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    groups: Sequence[str],
    unit: str,
    n_classes: int,
    progress: Progress,
    workers: int = 1,
) -> list[FamilyScore] | str:
    """Scores of each family and of all features together, best first; or why there are none.

    features: float64 [N, F], `FEATURES`; targets: int64 [N] in 0..n_classes - 1; groups: what must
    stay in one fold, and `unit` is what they are. Probabilities come from a forest that was not
    trained on the image's group; intervals treat groups, not images, as independent.
    """
    names, ids = np.unique(np.array(groups, dtype=str), return_inverse=True)
    n_groups = [len(np.unique(ids[targets == c])) for c in range(n_classes)]
    present = [n for n in n_groups if n]
    folds = min(FOLDS, *present) if len(present) > 1 else 0
    if folds < 2:
        return "that needs two classes with images in at least two groups each"
    fold = assign_folds(targets, ids, folds)
    clusters = Clusters(ids.astype(np.int64), len(names), unit)

    def score(name: str) -> FamilyScore:
        columns = FAMILIES.get(name, FEATURES)
        inputs = features[:, [FEATURES.index(column) for column in columns]]
        trees = TREES["family"] if name in FAMILIES else TREES["all"]
        probs = _held_out_probs(inputs, targets, fold, n_classes, trees, workers)
        return _measure(name, targets, probs, clusters)

    tasks = (ALL, *FAMILIES)
    scores = [score(name) for name in progress(tasks, len(tasks), "search for shortcuts")]
    return sorted(scores, key=lambda family: -family.auc)


def assign_folds(
    targets: npt.NDArray[np.int64], ids: npt.NDArray[np.intp], folds: int
) -> npt.NDArray[np.int64]:
    """The fold int64 [N] of each row: groups stay together, classes are spread evenly."""
    fold = np.zeros(len(targets), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for number, (_, rows) in enumerate(splitter.split(targets, targets, ids)):
        fold[rows] = number
    return fold


def _held_out_probs(
    inputs: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    n_classes: int,
    trees: int,
    workers: int,
) -> npt.NDArray[np.float64]:
    """Probabilities float64 [N, C] of each row, from a forest trained on the other folds."""
    probs = np.zeros((len(targets), n_classes))
    for number in np.unique(fold):
        test = fold == number
        many = (~test).sum() > MAX_SAMPLES
        forest = ExtraTreesClassifier(
            trees,
            min_samples_leaf=5,
            bootstrap=bool(many),
            max_samples=MAX_SAMPLES if many else None,
            class_weight="balanced",
            n_jobs=workers if many else 1,  # with fewer images, threads cost more than they save
            random_state=0,
        )
        forest.fit(inputs[~test], targets[~test])
        probs[np.ix_(test, forest.classes_)] = forest.predict_proba(inputs[test])
    return probs


def _measure(
    name: str, targets: npt.NDArray[np.int64], probs: npt.NDArray[np.float64], clusters: Clusters
) -> FamilyScore:
    values = auc(targets, probs)
    intervals = auc_intervals(targets, probs, clusters, FAMILY_LEVEL)
    if probs.shape[1] == 2:  # of the positive class
        value, interval = float(values[1]), intervals[1]
    else:
        value, interval = float(np.nanmean(values)), intervals[-1]
    return FamilyScore(name, value, interval.low, interval.high, interval.note)


def check_shortcuts(scores: list[FamilyScore] | str, n_classes: int, unit: str) -> Finding:
    """Which families of measurements predict the class, or that too few images show it."""
    if isinstance(scores, str):
        return Finding("shortcuts", "hint", f"Could not search for shortcuts: {scores}.")
    area = area_name(n_classes)
    items = [f"{score.name}: {format_score(score)}" for score in scores]
    details = [vars(score) for score in scores]
    text = (
        f"For each of {len(scores)} sets of measurements, a random forest was evaluated on groups "
        f"({unit}) that it was not trained on. The 95 % intervals hold for all sets at once. "
    )
    advice = (
        "Compare a model's metrics with the shortcut baseline that each run prints, and test on "
        "images from another source."
    )
    for severity, limit in (("warning", WARNING_LIMIT), ("hint", HINT_LIMIT)):
        telling = [score for score in scores if score.low is not None and score.low > limit]
        families = [score for score in telling if score.name != ALL]
        if not telling:
            continue
        first, *others = families or telling
        alone = " alone" if families else ""
        title = f"The class can be predicted from {first.name}{alone}, {area} {format_score(first)}"
        if others:
            names = (f"{score.name}, {format_score(score)}" for score in others)
            title += f"; also from {list_some(names, len(others), MAX_NAMED)}"
        return Finding(
            "shortcuts",
            severity,
            f"{title}.",
            text + "A model can achieve as much without knowing the shape of any bone.",
            advice,
            items,
            details,
        )
    unclear = [score for score in scores if score.high is None or score.high > HINT_LIMIT]
    if unclear:
        title = (
            "There are too few images to tell whether the class can be predicted from file size, "
            f"sharpness, marks and the like: {area} {format_score(unclear[0])} from "
            f"{unclear[0].name}."
        )
        possible = list_some((score.name for score in unclear), len(unclear), len(unclear))
        text += f"An AUC above {HINT_LIMIT} is possible for {possible}."
        return Finding("shortcuts", "hint", title, text, advice, items, details)
    title = (
        "The class can hardly be predicted from file size, sharpness, marks and the like: no "
        f"{area} above {max(score.high for score in scores if score.high is not None):.3f} is "
        "plausible."
    )
    return Finding("shortcuts", "ok", title, text, details=details)


def area_name(n_classes: int) -> str:
    """What the AUC is called for so many classes."""
    return "AUC" if n_classes == 2 else "macro AUC"


def format_score(score: FamilyScore) -> str:
    """`0.812 (0.780-0.840)`."""
    if score.low is None or score.high is None:
        return f"{score.auc:.3f} (no interval)"
    return f"{score.auc:.3f} ({limits(score.low, score.high)})"

"""What is done about classes of unequal size; by the train split alone, and to nothing else.

none               every image once an epoch
class_weights      every image once; the loss counts rare classes more
oversample         every class as often as the largest
undersample        every class as rarely as the smallest
augment_minority   every image once; all classes but the largest are augmented by a pipeline of
                   their own
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fracnet.data.augment import Augment, build_augment
from fracnet.data.sampling import EpochSampler, Oversampler, Undersampler

METHODS = ("none", "class_weights", "oversample", "undersample", "augment_minority")


class AugmentByClass:
    """Calls one of two pipelines; a function of its arguments alone, as `Augment` is."""

    def __init__(self, ordinary: Augment, strong: Augment, is_minority: np.ndarray) -> None:
        """`is_minority`: bool [rows of the manifest], true where `strong` is due."""
        self.ordinary = ordinary
        self.strong = strong
        self.is_minority = is_minority

    def __call__(
        self, image: np.ndarray, *, seed: int, epoch: int, row: int, copy: int = 0
    ) -> np.ndarray:
        """Augment uint8 [H, W] -> uint8 [H, W]."""
        augment = self.strong if self.is_minority[row] else self.ordinary
        return augment(image, seed=seed, epoch=epoch, row=row, copy=copy)


class Imbalance:
    """One of the methods, ready to be asked for its sampler, its augmentation and its weights."""

    def __init__(self, config: Mapping[str, Any] | None, image_size: int) -> None:
        """`config`: {method} and, for augment_minority alone, {transforms}, as conf/imbalance.

        Raises UserError for transforms that do not work on an image of `image_size` squared.
        """
        config = config or {"method": "none"}
        self.method = str(config["method"])
        assert self.method in METHODS, self.method
        self.strong: Augment | None = None
        if self.method == "augment_minority":
            self.strong = build_augment(config["transforms"], "imbalance.transforms")
            self.strong.check(image_size)

    def sampler(self, rows: np.ndarray, targets: np.ndarray, seed: int) -> EpochSampler:
        """Draws of the train split: `rows` int64 [N] of the manifest, `targets` int64 [N]."""
        if self.method == "oversample":
            return Oversampler(rows, targets, seed)
        if self.method == "undersample":
            return Undersampler(rows, targets, seed)
        return EpochSampler(rows, seed, shuffle=True)

    def augment(
        self, ordinary: Augment, train_rows: np.ndarray, targets: np.ndarray
    ) -> Augment | AugmentByClass:
        """The pipeline for training; `targets` int64 of all rows, `train_rows` those to count."""
        if self.strong is None:
            return ordinary
        counts = np.bincount(targets[train_rows], minlength=int(targets.max()) + 1)
        return AugmentByClass(ordinary, self.strong, (counts < counts.max())[targets])

    def weights(self, counts: np.ndarray) -> list[float] | None:
        """One factor a class for the loss, or None; `counts` int [C] of the train split."""
        return class_weights(counts).tolist() if self.method == "class_weights" else None

    def epoch_counts(self, counts: np.ndarray) -> npt.NDArray[np.int64]:
        """Images of each class that one epoch shows, int64 [C]; `counts` of the train split."""
        pick = {"oversample": counts.max(), "undersample": counts.min()}
        return np.full(len(counts), pick[self.method]) if self.method in pick else counts

    def in_words(self, counts: np.ndarray, classes: tuple[str, ...]) -> str:
        """The method and what it does, in one line."""
        match self.method:
            case "class_weights":
                pairs = zip(classes, class_weights(counts), strict=True)
                does = "factors in the loss: " + ", ".join(f"{c} {w:.3g}" for c, w in pairs)
            case "oversample":
                does = "every class as often as the largest, copies augmented differently"
            case "undersample":
                does = "every class as rarely as the smallest, another choice each epoch"
            case "augment_minority":
                fewer = [c for c, n in zip(classes, counts, strict=True) if n < counts.max()]
                does = "transforms of their own for " + (", ".join(fewer) or "no class: all equal")
            case _:
                return self.method
        return f"{self.method}: {does}"


def class_weights(counts: np.ndarray) -> npt.NDArray[np.float64]:
    """n / (C n_c), float64 [C]: every class counts alike in the sum, and the mean factor is 1.

    `counts`: int [C], images of each class in the train split, none of them 0. (King and Zeng
    2001; the "balanced" weights of scikit-learn.)
    """
    assert (counts > 0).all(), counts
    return np.asarray(counts.sum() / (len(counts) * counts), dtype=np.float64)

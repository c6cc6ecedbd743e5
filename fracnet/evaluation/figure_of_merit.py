"""One figure of merit, chosen by name, as a function of rows that count any number of times.

Most are functions of sums over rows (a confusion matrix, a sum of losses): then a resample of
clusters, or a swap of two models within them, costs one product of small matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fracnet.config.instantiate import near_miss
from fracnet.evaluation.summary import Estimate, Summary
from fracnet.metrics import classification
from fracnet.metrics.classification import LOSSES, OVERALL, PER_CLASS
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import RESAMPLES, bootstrap
from fracnet.utils.errors import UserError

BY_CLASS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sensitivity": classification.sensitivity,
    "specificity": classification.specificity,
    "precision": classification.precision,
    "npv": classification.npv,
    "f1": classification.f1,
}
OF_MATRIX: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": classification.accuracy,
    "balanced_accuracy": classification.balanced_accuracy,
    "kappa": classification.kappa,
    "mcc": classification.mcc,
}

ROW_LOSSES = {"brier": classification.brier_rows, "log_loss": classification.log_loss_rows}

AREAS = {"auc": classification.auc, "average_precision": classification.average_precision}

CLOSED_FORM = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")

# Resampling adds error that the debiasing does not know of, so its differences cannot be judged.
WITHOUT_DIFFERENCES = ("calibration_error",)
NAMES = tuple(name for name in (*OVERALL, *PER_CLASS) if name not in WITHOUT_DIFFERENCES)


@dataclass(frozen=True)
class Sample:
    """What one model said of some rows: `target`, `predicted` int64[N], `prob` float64[N, C]."""

    target: np.ndarray
    prob: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Figure:
    """A figure of merit; `index` is the class whose figure it is, None for all classes at once."""

    name: str
    n_classes: int
    index: int | None = None
    of: str | None = None

    @property
    def title(self) -> str:
        """In words: `macro AUC`, `sensitivity (wrist)`."""
        words = self.name.replace("_", " ")
        for short in ("auc", "mcc", "npv"):
            words = words.replace(short, short.upper())
        return words if self.of is None else f"{words} ({self.of})"

    @property
    def larger_is_better(self) -> bool:
        """False for losses."""
        return self.name not in LOSSES

    @property
    def base(self) -> str:
        """The name without `macro_`."""
        return self.name.removeprefix("macro_")

    @property
    def is_area(self) -> bool:
        """Whether it is an area under the ROC curve, which has a variance of its own."""
        return self.base == "auc"

    @property
    def is_share(self) -> bool:
        """Whether it is the share of right decisions among rows that the truth alone selects."""
        return self.name in ("accuracy", "sensitivity", "specificity")

    @property
    def of_decisions(self) -> bool:
        """Whether it depends on the classes named alone, and not on probabilities."""
        return self.additive and self.name not in ROW_LOSSES

    def cases(self, target: np.ndarray) -> int:
        """Rows that it rests on: of a class the cases, the others, or the fewer of both."""
        if self.index is None:
            return len(target)
        own = int((target == self.index).sum())
        if self.name == "sensitivity":
            return own
        return len(target) - own if self.name == "specificity" else min(own, len(target) - own)

    @property
    def from_0_to_1(self) -> bool:
        """Whether it lies between 0 and 1, as all but losses and chance-corrected figures do."""
        return self.larger_is_better and self.name not in ("kappa", "mcc")

    @property
    def closed_form(self) -> bool:
        """Whether `summarize` makes its interval without resampling."""
        return self.is_area or self.base in CLOSED_FORM

    @property
    def additive(self) -> bool:
        """Whether it is a function of sums over rows."""
        return self.base not in AREAS

    def parts(self, sample: Sample) -> np.ndarray:
        """What each row adds to the sums, float64[N, K]."""
        assert self.additive, self.name
        if self.name in ROW_LOSSES:
            losses = ROW_LOSSES[self.name](sample.target, sample.prob)
            return np.column_stack([np.ones(len(losses)), losses])
        cell = sample.target * self.n_classes + sample.predicted
        return np.asarray(cell[:, None] == np.arange(self.n_classes**2), dtype=np.float64)

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """The figure, [...], from sums of `parts`, [..., K]; NaN where undefined."""
        if self.name in ROW_LOSSES:
            return np.asarray(sums[..., 1] / sums[..., 0])
        matrix = sums.reshape(*sums.shape[:-1], self.n_classes, self.n_classes)
        if self.name in OF_MATRIX:
            return OF_MATRIX[self.name](matrix)
        return self._pick(BY_CLASS[self.base](matrix))

    def value(self, sample: Sample) -> float:
        """The figure of a sample; NaN where undefined."""
        if self.additive:
            return float(self.of_sums(self.parts(sample).sum(axis=0)))
        return float(self._pick(AREAS[self.base](sample.target, sample.prob)))

    def weighted(self, sample: Sample, weights: np.ndarray) -> np.ndarray:
        """The figure for rows that count `weights` float64[B, N] times, float64[B]."""
        if self.additive:
            return self.of_sums(weights @ self.parts(sample))
        return self._pick(AREAS[self.base](sample.target, sample.prob, weights))

    def resampled(
        self, sample: Sample, clusters: Clusters, resamples: int = RESAMPLES, seed: int = 0
    ) -> np.ndarray:
        """Values in resamples of whole clusters, float64[resamples]; one seed, one draw."""
        if not self.additive:
            return bootstrap(
                lambda weights: self.weighted(sample, weights)[:, None],
                clusters,
                resamples=resamples,
                seed=seed,
            )[:, 0]
        sums = cluster_sums(self.parts(sample), clusters)
        each = Clusters(np.arange(clusters.count), clusters.count, clusters.unit)
        return bootstrap(
            lambda weights: self.of_sums(weights @ sums)[:, None],
            each,
            resamples=resamples,
            seed=seed,
        )[:, 0]

    def estimate(self, summary: Summary) -> Estimate:
        """The figure with its interval, out of all of a run's."""
        if self.index is None:
            return summary.metrics[self.name]
        found = getattr(summary.per_class[self.index], self.name)
        assert isinstance(found, Estimate), self.name
        return found

    def _pick(self, values: np.ndarray) -> np.ndarray:
        return (
            classification.macro(values)
            if self.index is None
            else np.asarray(values[..., self.index])
        )


def cluster_sums(parts: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Sums of `parts` [N, K] over the rows of each cluster, float64[G, K]."""
    sums = np.zeros((clusters.count, parts.shape[1]))
    np.add.at(sums, clusters.ids, parts)
    return sums


def figure_of(name: str, classes: tuple[str, ...], of: str | None = None) -> Figure:
    """The figure that config key `metric` names; `of` a class, for a figure of one class.

    With two classes `of` is the positive one unless told otherwise. Raises `UserError`.
    """
    if name in WITHOUT_DIFFERENCES:
        raise UserError(
            f"metric={name} cannot be compared: resampling adds errors that its correction does "
            "not know of, so no interval of a difference would hold. brier and log_loss measure "
            "calibration together with discrimination."
        )
    if name not in NAMES:
        raise UserError(
            f"metric={name} is not known; allowed: {', '.join(NAMES)}.{near_miss(name, NAMES)}"
        )
    if name in OVERALL:
        if of is not None:
            allowed = ", ".join(PER_CLASS)
            raise UserError(f"of={of} goes with the figure of one class ({allowed}), not {name}.")
        return Figure(name, len(classes))
    if of is None and len(classes) > 2:
        raise UserError(
            f"metric={name} is the figure of one class: say which, of=<class>, or take "
            f"{'the macro average' if f'macro_{name}' in NAMES else 'another'}; "
            f"classes: {', '.join(classes)}."
        )
    chosen = classes[-1] if of is None else of
    if chosen not in classes:
        raise UserError(
            f"of={of} is no class of these runs; classes: {', '.join(classes)}."
            f"{near_miss(str(of), classes)}"
        )
    return Figure(name, len(classes), classes.index(chosen), chosen)

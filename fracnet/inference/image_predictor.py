"""From images to a table of predictions, with the decisions that validation has chosen.

Imports no torch, so that an exported model predicts without it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.aggregation import combine_views
from fracnet.evaluation.conformal import is_uncertain, uncertainty_reasons
from fracnet.evaluation.decisions import decide_classes
from fracnet.evaluation.predictions import PROB, safe_log
from fracnet.inference.inputs import (
    Frame,
    Given,
    LoadedImage,
    Original,
    read_images,
    resolve_images,
)
from fracnet.metrics.classification import log_odds

OOD_REASON = "out of distribution"
LOG_ODDS = "log_odds"
UNREADABLE_VIEW = "a view cannot be read"
NO_READABLE_VIEW = "no view can be read"


@dataclass(frozen=True)
class Scores:
    """What a model gives for n images.

    images: preprocessed, uint8 [n, S, S]. logits: raw, float64 [n, C]. ood: scores float64 [n],
    None without an OOD reference. class_maps: class activation maps float32 [n, C, h, w], None
    where the model gives none by itself.
    """

    images: np.ndarray
    logits: np.ndarray
    ood: np.ndarray | None
    class_maps: np.ndarray | None = None


Look = Callable[[Sequence[np.ndarray]], Scores]
Decide = Callable[[np.ndarray, np.ndarray], tuple[Any, Any, list[str]]]
"""From probabilities and log-odds float64 [n, C] to decisions, whether they are uncertain, and the
reasons; None for the first two where validation has no studies."""


@dataclass(frozen=True)
class Batch:
    """One batch of images; `table` has a row for each, in order, including unreadable ones.

    images: uint8 [n, S, S] and choices: int64 [n], of the readable ones. originals, class_maps
    (`Scores`): likewise, where requested or given.
    """

    table: pd.DataFrame
    images: np.ndarray
    choices: np.ndarray
    originals: Sequence[Original] = ()
    class_maps: np.ndarray | None = None


class ImagePredictor(ABC):
    """Predicts classes of new images. Research use only.

    path: of the run or the exported model. classes: in the order of the logits. decisions: the
    content of the run's decisions.json. levels: for "image" and, where validation has studies,
    "study": the threshold, the limits of `uncertain` and their effect on the run's own test rows
    (`conformal.limits_by_level`). ood_description: of the OOD reference, or None. image_size,
    batch_size: pixels per side after preprocessing, and images at a time. why_no_heatmaps: a
    clause, "" where there are heatmaps. frame: `Preprocess.frame` of the preprocessing.
    """

    path: Path
    decisions: Mapping[str, Any]
    classes: tuple[str, ...]
    levels: Mapping[str, Any]
    ood_description: Mapping[str, Any] | None
    image_size: int
    batch_size: int
    why_no_heatmaps: str
    frame: Frame

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess | None:
        """What is applied to images as they are read; None where the model itself does it."""

    @abstractmethod
    def _look(self) -> Look:
        """What turns images as `preprocess` leaves them into scores."""

    @abstractmethod
    def heatmaps(self, batch: Batch) -> list[np.ndarray]:
        """Of the decided class of each readable image, float32 [S, S] of at least 0: with a maximum
        of 1, or 0 everywhere. Only where `why_no_heatmaps` is empty."""

    def predict(
        self, images: Path | str | np.ndarray | Sequence[Path | str | np.ndarray]
    ) -> pd.DataFrame:
        """A row for each image, in the order given; see `_table` for the columns.

        images: one or several of: paths of files, folders, patterns or tables as `input=` accepts
            them; grey arrays [H, W], uint8 unchanged, others stretched from their own minimum to
            maximum; black low, white high.

        `.attrs["notes"]` of the table has sentences on skipped files. A file that cannot be read
        has a row with the reason in `error`. Raises UserError for any other input, a path that does
        not exist, and an array that is not a grey image.
        """
        given, notes = resolve_images(images)
        tables = [batch.table for batch in self.batches(given)]
        table = pd.concat(tables, ignore_index=True) if tables else self._table([])
        table.attrs["notes"] = notes
        return table

    def batches(
        self, given: Iterable[Given], workers: int = 0, originals: bool = False
    ) -> Iterator[Batch]:
        """The images in batches of the run's own size, read ahead by `workers` threads (0: auto).

        originals: keep the images before preprocessing as well.

        Memory is bounded by a few batches, whatever the number of images.
        """
        size = self.batch_size
        workers = workers or len(os.sched_getaffinity(0))
        look = self._look()
        frame = self.frame if originals else None
        waiting: list[LoadedImage] = []
        ahead = max(size, 2 * workers)
        for image in read_images(given, self.preprocess, workers, ahead, frame):
            waiting.append(image)
            if len(waiting) == size:
                yield self._batch(waiting, look)
                waiting = []
        if waiting:
            yield self._batch(waiting, look)

    def studies(self, table: pd.DataFrame) -> pd.DataFrame:
        """A row for each known study of `predict`'s rows; see `by_study` for the columns."""
        return by_study(
            table, self.classes, self.decisions["views"], partial(self._decided, "study")
        )

    def _batch(self, loaded: list[LoadedImage], look: Look) -> Batch:
        readable = [item.image for item in loaded if item.image is not None]
        if not readable:
            empty = np.empty((0, self.image_size, self.image_size), np.uint8)
            return Batch(self._table(loaded), empty, np.empty(0, np.int64))
        scores = look(readable)
        logits = scores.logits / self.decisions["temperature"]
        prob, score = softmax(logits, axis=1), log_odds(logits)
        choices = decide_classes(prob, self.levels["image"]["cut"], score)
        originals = [item.original for item in loaded if item.original is not None]
        table = self._table(loaded, prob, score, scores.ood)
        return Batch(table, scores.images, choices, originals, scores.class_maps)

    def _table(
        self,
        loaded: list[LoadedImage],
        prob: np.ndarray | None = None,
        score: np.ndarray | None = None,
        ood_score: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """A row per image: path, patient, study, likeliest, prob_<class> (calibrated), log_odds (of
        the second of two classes, calibrated), decision (at the run's operating point; the
        likeliest of more than two classes), uncertain and reason, ood_score (1 is the limit) and
        ood, error ("" where the image was read)."""
        table = pd.DataFrame(
            {
                "path": [item.path for item in loaded],
                "patient": [item.patient for item in loaded],
                "study": [item.study for item in loaded],
            },
            dtype=object,
        )
        if prob is None or score is None:
            prob = score = np.empty((0, len(self.classes)))
        columns: dict[str, Any] = {"likeliest": np.array(self.classes)[prob.argmax(axis=1)]}
        columns |= {f"{PROB}{name}": prob[:, c] for c, name in enumerate(self.classes)}
        if len(self.classes) == 2:
            columns[LOG_ODDS] = score[:, 1]
        columns["decision"], uncertain, why = self._decided("image", prob, score)
        ood = ood_score > 1 if ood_score is not None else np.zeros(len(prob), dtype=bool)
        columns["uncertain"] = uncertain | ood
        columns["reason"] = [
            "; ".join(filter(None, (reason, OOD_REASON if flag else "")))
            for reason, flag in zip(why, ood, strict=True)
        ]
        columns["ood_score"] = ood_score if ood_score is not None else np.full(len(prob), np.nan)
        columns["ood"] = ood if ood_score is not None else np.full(len(prob), None)
        readable = [place for place, item in enumerate(loaded) if item.image is not None]
        for name, values in columns.items():
            numeric = name.startswith(PROB) or name in (LOG_ODDS, "ood_score")
            column = np.full(len(loaded), np.nan if numeric else None, float if numeric else object)
            column[readable] = values
            table[name] = column
        table["error"] = [item.error for item in loaded]
        return table

    def _decided(
        self, level: str, prob: np.ndarray, score: np.ndarray
    ) -> tuple[Any, Any, list[str]]:
        """Names of the decided classes, which are uncertain, and why; None where unknown."""
        if level not in self.levels:
            return None, None, [""] * len(prob)
        cut, limits = self.levels[level]["cut"], self.levels[level]["limits"]
        choice = decide_classes(prob, cut, score)
        uncertain = is_uncertain(prob, choice, limits)
        why = uncertainty_reasons(prob, choice, uncertain, limits)
        return np.array(self.classes, dtype=object)[choice], uncertain, why


def by_study(
    table: pd.DataFrame, classes: Sequence[str], views: str, decide: Decide
) -> pd.DataFrame:
    """A row for each known study of `ImagePredictor.predict`'s rows.

    table: rows of images. views: "mean" or "max", how the views' probabilities are combined.

    Columns: study, patient, views (readable ones), prob_<class>, log_odds (of the second of two
    classes), decision, uncertain, reason, ood and unreadable (numbers of views; a study with one of
    either is uncertain). Without a readable view there is no decision. Decision and uncertain are
    empty where validation has no studies.
    """
    known = table[table["study"].notna()]
    names = [f"{PROB}{name}" for name in classes]
    groups = known.assign(
        readable=known["error"] == "",
        unreadable=known["error"] != "",
        ood=known["ood"].astype(float),  # NaN: not known
    ).groupby(["patient", "study"], sort=False, dropna=False)
    studies = pd.DataFrame(index=groups.size().index, columns=names, dtype=float)
    # An unreadable view has no probability, which neither the mean nor the maximum counts.
    seen = (known["error"] == "").to_numpy()
    score = np.empty((0, len(names)))
    if seen.any():
        prob = known.loc[seen, names].to_numpy(dtype=np.float64)
        logits = safe_log(prob)
        if LOG_ODDS in known:
            odds = known.loc[seen, LOG_ODDS].to_numpy(dtype=np.float64)
            logits = np.column_stack([np.zeros(len(odds)), odds])
        numbers, group = np.unique(groups.ngroup().to_numpy()[seen], return_inverse=True)
        prob, logits = combine_views(prob, logits, group, views)
        studies.iloc[numbers] = prob
        score = log_odds(logits)
    studies["views"], studies["unreadable"] = groups["readable"].sum(), groups["unreadable"].sum()
    studies["ood"] = groups["ood"].sum(min_count=1).astype("Int64")
    studies = studies.reset_index()
    readable = studies["views"] > 0
    if LOG_ODDS in known:
        studies.loc[readable, LOG_ODDS] = score[:, 1]
        names.append(LOG_ODDS)
    prob = studies.loc[readable, [f"{PROB}{name}" for name in classes]].to_numpy(dtype=np.float64)
    choice, is_uncertain, why = decide(prob, score)
    for name, values in (("decision", choice), ("uncertain", is_uncertain), ("reason", why)):
        studies[name] = pd.Series(values, studies.index[readable], dtype=object)
    if is_uncertain is not None:
        # What is wrong with one view may be what the others do not show.
        ood, incomplete = studies["ood"].fillna(0) > 0, studies["unreadable"] > 0
        studies["uncertain"] = studies["uncertain"].eq(True) | ood | incomplete
        all_reasons = zip(
            studies["reason"].where(readable, ""),
            np.where(ood, OOD_REASON, ""),
            np.where(incomplete, np.where(readable, UNREADABLE_VIEW, NO_READABLE_VIEW), ""),
            strict=True,
        )
        studies["reason"] = ["; ".join(filter(None, row)) for row in all_reasons]
    flags = ["decision", "uncertain", "reason", "ood", "unreadable"]
    return studies[["study", "patient", "views", *names, *flags]]

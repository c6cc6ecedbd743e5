"""A finished run, ready for new images: its model, and what validation has chosen for it.

The predicted views of a study put together, as a run does it with its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from fracnet.data.manifest import read_table
from fracnet.data.preprocess import Preprocess, build_preprocess
from fracnet.evaluation.conformal import DEFAULT_ERROR, by_level, decided, reasons, uncertain
from fracnet.evaluation.predictions import PROB, check
from fracnet.inference.inputs import Decoded, Given, decoded, meant
from fracnet.models.inference import Seen, watched
from fracnet.models.ood import Look
from fracnet.runs.checkpoint import load_classical, load_classifier, read_config
from fracnet.runs.evaluate_run import frozen
from fracnet.runs.ood_reference import kept
from fracnet.runs.run_folder import RunFolder, tell
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.progress import no_progress

UNLIKE = "unlike the training images"
UNREAD = "a view cannot be read"
NONE_READ = "no view can be read"

Decide = Callable[[np.ndarray], tuple[Any, Any, list[str]]]
"""From probabilities float64 [n, C] to decisions, whether they are uncertain, and why; None for the
first two where validation knew no studies."""


def by_study(
    table: pd.DataFrame, classes: Sequence[str], views: str, decide: Decide
) -> pd.DataFrame:
    """A row for each study of `Predictor.predict`'s rows, where it is known.

    table: rows of images. views: "mean" or "max", how probabilities are put together.

    Columns: study, patient, views (that were read), prob_<class>, decision, uncertain, why, unlike and
    unreadable (views that are; a study with one of either is uncertain). Without a view that was read
    there is no decision. Decision and uncertain are empty where validation knew no studies.
    """
    known = table[table["study"].notna()]
    names = [f"{PROB}{name}" for name in classes]
    groups = known.assign(
        read=known["error"] == "",
        lost=known["error"] != "",
        unlike=known["unlike"].astype(float),  # NaN: not known
    ).groupby(["patient", "study"], sort=False, dropna=False)
    # An unreadable view has no probability, which neither the mean nor the maximum counts.
    found = groups[names].mean()
    if views == "max":
        found[names[1]] = groups[names[1]].max()
        found[names[0]] = 1 - found[names[1]]
    found["views"], found["unreadable"] = groups["read"].sum(), groups["lost"].sum()
    found["unlike"] = groups["unlike"].sum(min_count=1).astype("Int64")
    found = found.reset_index()
    seen = found["views"] > 0
    choice, doubt, why = decide(found.loc[seen, names].to_numpy(dtype=np.float64))
    for name, values in (("decision", choice), ("uncertain", doubt), ("why", why)):
        found[name] = pd.Series(values, found.index[seen], dtype=object)
    if doubt is not None:
        # What is wrong with one view may be what the others do not show.
        strange, lost = found["unlike"].fillna(0) > 0, found["unreadable"] > 0
        found["uncertain"] = found["uncertain"].eq(True) | strange | lost
        words = zip(
            found["why"].where(seen, ""),
            np.where(strange, UNLIKE, ""),
            np.where(lost, np.where(seen, UNREAD, NONE_READ), ""),
            strict=True,
        )
        found["why"] = ["; ".join(filter(None, row)) for row in words]
    told = ["decision", "uncertain", "why", "unlike", "unreadable"]
    return found[["study", "patient", "views", *names, *told]]


CAUTION = (
    "Research use only, not a medical device: these rows are the output of an experiment and no "
    "diagnosis of anyone."
)


@dataclass(frozen=True)
class Batch:
    """Images that were looked at together; `table` has a row each, in order, with those that
    cannot be read. `images` uint8 [n, S, S] and `choices` int64 [n] are of the readable ones."""

    table: pd.DataFrame
    images: np.ndarray
    choices: np.ndarray


class Predictor:
    """Predicts classes of new images as a finished run would. Research use only.

    folder: of the run. classes: in the order of the logits. levels: for "image" and, where
    validation knows them, "study", the threshold, the limits of `uncertain` and what they do on the
    run's own test rows (`uncertain.by_level`). novelty: None for a run without novelty.npz.
    """

    def __init__(
        self,
        run: Path | str,
        *,
        trust: bool = False,
        error: float = DEFAULT_ERROR,
        device: str = "auto",
    ) -> None:
        """Read a run folder; nothing outside fracnet, timm and torch is built unless `trust`.

        Raises UserError for a folder that is no finished run, is not to be trusted, or whose
        decisions are not as validation has left them.
        """
        folder = RunFolder(Path(run).expanduser().resolve())
        told = tell(folder)
        self.folder, self.config = folder, read_config(folder, trust)
        rows = read_table(folder.predictions)
        check(rows)
        self.decisions = frozen(folder.decisions, rows[rows["split"] == "val"], told.options)
        self.classes: tuple[str, ...] = tuple(self.decisions["classes"])
        self.levels = by_level(rows, self.decisions, error)
        self.novelty = kept(folder, self.config)
        self.device = _device(device)
        self.classical = self.config.model.fit == "classical"
        self._model: Any = (
            load_classical(folder, self.config)
            if self.classical
            else load_classifier(folder, trust)
        )

    @property
    def preprocess(self) -> Preprocess:
        """The run's own preparation of an image."""
        steps = self.config.preprocess.model_dump().get("steps", ())
        return build_preprocess(steps, self.config.image_size)

    @property
    def model(self) -> Any:
        """The network (`Classifier`), or the model that was fitted in one go."""
        return self._model

    def predict(
        self, images: Path | str | np.ndarray | Sequence[Path | str | np.ndarray]
    ) -> pd.DataFrame:
        """A row for each image, in the order given; see `rows` for the columns.

        images: one or several of: paths of files, folders, patterns or tables as `input=` takes
            them; grey arrays [H, W], uint8 as they are, others stretched from their own minimum to
            maximum; black low, white high.

        `.attrs["notes"]` of the table has sentences on files that were left out. Raises UserError
        for what is neither, a path that is not there, and an array that is no grey image. A file
        that cannot be read has a row with the reason under `error`.
        """
        given, notes = meant(images)
        tables = [batch.table for batch in self.batches(given)]
        table = pd.concat(tables, ignore_index=True) if tables else self._table([], None, None)
        table.attrs["notes"] = notes
        return table

    def batches(self, given: Iterable[Given], workers: int = 0) -> Iterator[Batch]:
        """The images in batches of the run's own size, read ahead by `workers` threads (0: auto).

        Memory is bounded by some batches, whatever the number of images.
        """
        size = self.config.data.batch_size
        workers = workers or _cores()
        look = self._look()
        waiting: list[Decoded] = []
        for one in decoded(given, self.preprocess, workers, ahead=max(size, 2 * workers)):
            waiting.append(one)
            if len(waiting) == size:
                yield self._batch(waiting, look)
                waiting = []
        if waiting:
            yield self._batch(waiting, look)

    def studies(self, table: pd.DataFrame) -> pd.DataFrame:
        """A row for each study of `predict`'s rows, where it is known: its views put together.

        See `views.by_study` for the columns.
        """
        return by_study(
            table, self.classes, self.decisions["views"], partial(self._decided, "study")
        )

    def _look(self) -> Look:
        """A function from uint8 [n, S, S] to logits and features."""
        if not self.classical:
            return watched(self._model, self.device)

        def look(images: np.ndarray) -> Seen:
            return np.asarray(self._model.logits(images, np.arange(len(images)), no_progress)), None

        return look

    def _batch(self, seen: list[Decoded], look: Look) -> Batch:
        readable = [one.image for one in seen if one.image is not None]
        if not readable:
            side = self.config.image_size
            nothing = np.empty((0, side, side), np.uint8)
            return Batch(self._table(seen, None, None), nothing, np.empty(0, np.int64))
        images = np.stack(readable)
        logits, features = look(images)
        prob = softmax(logits / self.decisions["temperature"], axis=1)
        novelty = self.novelty.scores(images, features) if self.novelty else None
        choices = decided(prob, self.levels["image"]["threshold"])
        return Batch(self._table(seen, prob, novelty), images, choices)

    def _table(
        self, seen: list[Decoded], prob: np.ndarray | None, novelty: np.ndarray | None
    ) -> pd.DataFrame:
        """A row an image: path, patient, study, likeliest, prob_<class> (calibrated), decision (at
        the frozen operating point; the likeliest of more than two classes), uncertain and why,
        novelty (1 is the limit) and unlike, error ("" where the image was read)."""
        good = np.array([one.image is not None for one in seen], dtype=bool)
        table = pd.DataFrame(
            {
                "path": [one.path for one in seen],
                "patient": [one.patient for one in seen],
                "study": [one.study for one in seen],
            },
            dtype=object,
        )
        if prob is None:
            prob = np.empty((0, len(self.classes)))
        places = np.flatnonzero(good)
        columns: dict[str, Any] = {"likeliest": np.array(self.classes)[prob.argmax(axis=1)]}
        columns |= {f"{PROB}{name}": prob[:, c] for c, name in enumerate(self.classes)}
        columns["decision"], doubt, why = self._decided("image", prob)
        unlike = novelty > 1 if novelty is not None else np.zeros(len(prob), dtype=bool)
        columns["uncertain"] = doubt | unlike
        columns["why"] = [
            "; ".join(filter(None, (reason, UNLIKE if flag else "")))
            for reason, flag in zip(why, unlike, strict=True)
        ]
        columns["novelty"] = novelty if novelty is not None else np.full(len(prob), np.nan)
        columns["unlike"] = unlike if novelty is not None else np.full(len(prob), None)
        for name, values in columns.items():
            numbers = name.startswith(PROB) or name == "novelty"
            held = np.full(len(seen), np.nan if numbers else None, float if numbers else object)
            held[places] = values
            table[name] = held
        table["error"] = [one.error for one in seen]
        return table

    def _decided(self, level: str, prob: np.ndarray) -> tuple[Any, Any, list[str]]:
        """Names of the classes decided on, which are uncertain, and why; None where unknown."""
        if level not in self.levels:
            return None, None, [""] * len(prob)
        threshold, limits = self.levels[level]["threshold"], self.levels[level]["limits"]
        choice = decided(prob, threshold)
        doubt = uncertain(prob, choice, limits)
        why = reasons(prob, choice, doubt, limits)
        return np.array(self.classes, dtype=object)[choice], doubt, why


def _device(asked: str) -> str:
    """As torch calls it; UserError for one that is not there."""
    if asked == "gpu" and not torch.cuda.is_available():
        raise UserError("device=gpu: this machine has none; allowed: auto, cpu.")
    return "cuda" if accelerator(asked) == "gpu" else "cpu"


def _cores() -> int:
    return len(os.sched_getaffinity(0))

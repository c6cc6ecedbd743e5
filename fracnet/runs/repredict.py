"""Predict again with a finished run's model: another dataset, or its own images in more views."""

import filecmp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.config.commands import EvaluateCommand
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.audit_record import find_audit
from fracnet.data.class_map import KEY, ClassMap, align_labels
from fracnet.data.datamodule import mark_copies
from fracnet.data.datasets.base import Dataset
from fracnet.data.datasets.folder import Folder
from fracnet.data.fingerprint import data_fingerprint
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import limit_opencv_threads
from fracnet.data.manifest import Manifest, without_rows
from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.predictions import COPIES, NEVER, Predictions, assemble
from fracnet.runs.checkpoint import Logits, load_model, load_run_data
from fracnet.runs.evaluate_run import NewPredictions
from fracnet.runs.find_runs import FinishedRun
from fracnet.runs.run_folder import (
    RunFolder,
    read_baselines,
    read_config,
    read_mapping,
    read_predictions,
    read_run_metadata,
)
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

COMPARED_FILES = 20
"""Files whose bytes are compared: equal names and sizes alone may be a convention."""


@dataclass(frozen=True)
class ExternalImages:
    """Another dataset's test images, prepared for a model.

    test: its test split in the classes of the model, without unreadable files; row i is image i.
    images: uint8 [n, S, S]. fingerprint: of the whole dataset.
    """

    test: Manifest
    images: np.ndarray
    fingerprint: str


def predict_again(
    run: RunFolder, command: EvaluateCommand, progress: Progress[Any] = no_progress
) -> NewPredictions:
    """Predict again as an evaluate command requests.

    Raises UserError for a run, data or classes that do not allow it.
    """
    metadata = read_run_metadata(run)  # reports a folder without predictions first
    config = read_config(run, command.trust)
    logits = load_model(run, config, command.trust, command.tta)
    external = None
    if command.on_other_data:
        dataset: Dataset = build(command.data, "data")
        external = predict_external(run, config, dataset, command.class_map, logits, progress)
        if not command.tta:
            return external
        metadata = external.metadata
    predictions = _own_images(run, config, command.tta, logits, progress)
    metadata = replace(metadata, notes=(*metadata.notes, tta_note(command.tta)))
    if external is None:
        return NewPredictions(predictions, metadata, read_baselines(run), includes_validation=True)
    parts = [predictions.split("val").table, external.predictions.split("test").table]
    predictions = Predictions(pd.concat(parts, ignore_index=True))
    return NewPredictions(predictions, metadata, external.baselines, includes_validation=True)


def with_tta(
    run: FinishedRun, tta: Sequence[str], trust: bool, progress: Progress[Any] = no_progress
) -> FinishedRun:
    """A run with the predictions of its own images in more views.

    Raises UserError for a run, data or views that do not allow it.
    """
    config = read_config(run.folder, trust)
    logits = load_model(run.folder, config, trust, tta)
    return replace(run, predictions=_own_images(run.folder, config, tta, logits, progress))


def _own_images(
    run: RunFolder, config: Config, tta: Sequence[str], logits: Logits, progress: Progress[Any]
) -> Predictions:
    data = load_run_data(run, config, f"tta={list(tta)}")
    rows = np.concatenate([data.rows("val"), data.rows("test")])
    new_logits = logits(data.cache.images, rows, progress)
    return Predictions(assemble(data.table.iloc[rows], data.classes, new_logits))


def tta_note(tta: Sequence[str]) -> str:
    """What test-time augmentation does, in a sentence."""
    return f"Test-time augmentation: mean probability of the image and its {', '.join(tta)}."


def predict_external(
    run: RunFolder,
    config: Config,
    dataset: Dataset,
    class_map: ClassMap,
    logits: Logits,
    progress: Progress[Any] = no_progress,
) -> NewPredictions:
    """The run's validation rows, which keep choosing, with another dataset's test images.

    Only that dataset's test images are read; they are preprocessed as the run's own were. Raises
    UserError where data or classes do not match.
    """
    own = read_predictions(run)
    classes, val = own.classes, own.split("val").table
    opened = open_test(dataset, read_manifest(dataset), classes, class_map, config)
    test, name, rows = opened.test, opened.test.name, opened.test.table
    metadata = read_run_metadata(run)
    new_logits = logits(opened.images, np.arange(len(rows)), progress)
    # In the run's own dataset equal names are the same people; that is refused later on.
    if not _is_own(run, config, dataset, opened.fingerprint, list(val["path"])):
        if name == metadata.data:
            place = re.sub(r"[^\w.-]+", "-", dataset.folder.name).strip("-.")
            name = f"{name}-{place or 'other'}"
        rows = with_distinct_ids(rows, val, name)
    notes = [
        f"External test: {len(rows)} images of {name}; the model and every choice are those of the "
        f"run {run.path.name}.",
        "The shortcut baseline is not shown: it would need the run's training images.",
        *(note for note in test.notes if note != test.split_note),
    ]
    table = pd.concat([val, assemble(rows, classes, new_logits)], ignore_index=True)
    predictions = Predictions(table)
    metadata = replace(metadata, data=name, notes=tuple(notes), cited=())
    baselines = _majority(run, rows, classes)
    return NewPredictions(predictions, metadata, baselines, includes_validation=False)


def read_manifest(dataset: Dataset) -> Manifest:
    """The whole dataset; raises UserError for missing or faulty data."""
    dataset.prepare()
    manifest = dataset.manifest()
    manifest.check()
    return manifest


def open_test(
    dataset: Dataset,
    manifest: Manifest,
    classes: Sequence[str],
    class_map: ClassMap,
    config: Config,
    key: str = KEY,
) -> ExternalImages:
    """The test split of a dataset with aligned labels, preprocessed as the run's own images.

    manifest: of the whole dataset. key: of the class map, for messages. Raises UserError for labels
    that cannot be aligned, and for unreadable files unless the dataset skips them.
    """
    aligned = align_labels(manifest, classes, class_map, key)
    is_test = aligned.table["split"] == "test"
    if not is_test.any():
        raise UserError(f"{manifest.name} has no test image of the classes {', '.join(classes)}.")
    test = replace(aligned, table=aligned.table[is_test].reset_index(drop=True))
    limit_opencv_threads()
    preprocess = Preprocess(config.preprocess.model_dump().get("steps", ()), config.image_size)
    cache = ImageCache.open_or_build(test, preprocess, on_bad_file=dataset.on_bad_file)
    test = without_rows(test, cache.bad, "unreadable file")  # like the rows of the cache
    table = mark_copies(test.table, np.arange(len(test.table)), cache, find_audit(manifest))
    return ExternalImages(replace(test, table=table), cache.images, data_fingerprint(manifest))


def _is_own(
    run: RunFolder, config: Config, dataset: Dataset, fingerprint: str, paths: Sequence[str]
) -> bool:
    """Whether a dataset is the one that the run was trained on, possibly a copy elsewhere.

    paths: files of the run's own dataset, relative to its root.
    """
    if dataset.name != read_run_metadata(run).data:
        return False
    if not isinstance(dataset, Folder):
        return True  # the name identifies the content
    # Any folder of images is named `folder`: the path must match, or the rows and the files.
    root = Path(config.data.root).expanduser().resolve()
    if root == dataset.folder:
        return True
    provenance = read_mapping(run.provenance)
    own = (provenance.get("data_fingerprint"), (provenance.get("data") or {}).get("dataset"))
    if fingerprint not in own:
        return False
    readable = [path for path in paths if (root / path).is_file()][:COMPARED_FILES]
    pairs = ((root / path, dataset.folder / path) for path in readable)
    return all(right.is_file() and filecmp.cmp(left, right, shallow=False) for left, right in pairs)


def with_distinct_ids(rows: pd.DataFrame, others: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of the dataset `name` with ids that differ from those of another dataset's rows.

    Where a path, patient or study is in both, all ids of that column become `<name>:<id>`: two
    datasets often number their patients alike without sharing any.
    """
    rows = rows.copy()
    for column in ("path", "patient", "study", COPIES):
        if column not in rows or column not in others:
            continue
        known = rows[column].notna()
        if set(rows.loc[known, column].astype(str)) & set(others[column].dropna().astype(str)):
            rows.loc[known, column] = f"{name}:" + rows.loc[known, column].astype(str)
    return rows


def _majority(run: RunFolder, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Predictions]:
    """The run's majority baseline, which gives every image the same prevalences."""
    stored = read_baselines(run).get("majority")
    if stored is None:
        return {}
    prevalence = stored.probabilities[0]
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(prevalence), NEVER)
    table = assemble(rows, classes, np.tile(logits, (len(rows), 1)))
    return {"majority": Predictions(table)}


def check_external_test(config: Config, classes: Sequence[str]) -> None:
    """Raise UserError where the other dataset is missing, unreadable or has other classes.

    Its images are preprocessed, so that an unreadable one is reported before the training.
    """
    node = config.data.test_on
    if node is None:
        for key in ("test_root", "class_map"):
            if (value := getattr(config.data, key)) is not None:
                raise UserError(f"data.{key}={value} has no effect without data.test_on.")
        return
    assert isinstance(node, Mapping)
    dataset = build(node, "data.test_on")
    try:
        manifest = read_manifest(dataset)
    except UserError as error:
        message = f"data.test_on: {_with_test_keys(str(error))}{_alternative(dataset)}"
        raise type(error)(message) from error
    open_test(dataset, manifest, classes, config.data.class_map, config, "data.class_map")


def _with_test_keys(message: str) -> str:
    """The message with the keys of the other dataset: a dataset names the keys of training."""
    message = message.replace("data.root", "data.test_root")
    return re.sub(
        r"phantoms: .*\bdata=(\w+) model.pretrained=false", r"phantoms: data.test_on=\1", message
    )


def _alternative(dataset: Dataset) -> str:
    """How to test on a dataset that needs keys which data.test_on does not accept."""
    if dataset.name != "folder":
        return ""
    return (
        "\nWith data.test_on, only data.test_root, data.class_map and data.on_bad_file describe "
        "the other dataset. If it needs data.csv, data.columns or data.class_order, test after the "
        f"training:\npython -m fracnet.evaluate run=<run folder> data=folder "
        f"data.root={dataset.folder} data.csv=..."
    )

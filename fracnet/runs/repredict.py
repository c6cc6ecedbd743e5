"""A finished run's model, shown the test images of another data set."""

import filecmp
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.config.instantiate import build
from fracnet.config.schema import Config, EvaluateCommand
from fracnet.data.class_map import KEY, ClassMap, align
from fracnet.data.datasets.base import Source
from fracnet.data.datasets.folder import Folder
from fracnet.data.fingerprint import data_fingerprint
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import single_threaded
from fracnet.data.manifest import Manifest, read_table, without_rows
from fracnet.data.preprocess import build_preprocess
from fracnet.evaluation.baselines import NEVER
from fracnet.evaluation.predictions import PROB, assemble, classes_of
from fracnet.runs.checkpoint import Logits, load_model, own_data, read_config
from fracnet.runs.run_folder import Remade, RunFolder, mapping, read_baselines, tell
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

LOOKED_AT = 20
"""Files whose bytes are compared: rows may be equal where names and sizes are a habit."""


@dataclass(frozen=True)
class Opened:
    """Another data set's test images, as a model is shown them.

    test: its test split in the classes of the model, without unreadable files; row i is image i.
    fingerprint: of the whole set, as its source has it.
    """

    test: Manifest
    images: np.ndarray
    fingerprint: str


def read_all(source: Source) -> Manifest:
    """The whole data set; raises UserError for data that are missing or faulty."""
    source.prepare()
    full = source.manifest()
    full.check()
    return full


def open_test(
    source: Source,
    full: Manifest,
    classes: Sequence[str],
    class_map: ClassMap,
    config: Config,
    key: str = KEY,
) -> Opened:
    """The test split of a data set, its labels aligned, its images prepared as the run's own.

    full: all that the source has. key: of the class map, for messages. Raises UserError for labels
    that cannot be aligned, and for unreadable files unless the source leaves them out.
    """
    aligned = align(full, classes, class_map, key)
    here = aligned.table["split"] == "test"
    if not here.any():
        raise UserError(f"{full.name} has no test image of the classes {', '.join(classes)}.")
    test = replace(aligned, table=aligned.table[here].reset_index(drop=True))
    single_threaded()
    preprocess = build_preprocess(
        config.preprocess.model_dump().get("steps", ()), config.image_size
    )
    cache = ImageCache.open_or_build(test, preprocess, on_bad_file=source.on_bad_file)
    test = without_rows(test, cache.bad, "unreadable file")  # as the rows of the cache are
    return Opened(test, cache.images, data_fingerprint(full))


def on_other_data(
    run: RunFolder,
    config: Config,
    source: Source,
    class_map: ClassMap,
    logits: Logits,
    progress: Progress[Any] = no_progress,
) -> Remade:
    """The run's validation rows, which keep choosing, with another data set's test images.

    Only that set's test images are read, and prepared as the run's own were. Raises UserError
    where data or classes do not fit.
    """
    own = read_table(run.predictions)
    classes = classes_of(own)
    opened = open_test(source, read_all(source), classes, class_map, config)
    test = opened.test
    told, val = tell(run), own[own["split"] == "val"]
    found = logits(opened.images, np.arange(len(test.table)), progress)
    name, rows = test.name, test.table
    # Of the run's own data set equal names are the same people, which is refused later on.
    if not _is_own(run, config, source, opened.fingerprint, list(val["path"])):
        if name == told.data:
            name = f"{name}-{_plain(source.folder.name)}"
        rows = told_apart(rows, val, name)
    notes = [
        f"External test: {len(test.table)} images of {name}; the model and every choice are "
        f"those of the run {run.path.name}.",
        "The shortcut baseline is not shown: it would need the images that the run was trained on.",
        *(note for note in test.notes if note != test.split_note),
    ]
    table = pd.concat([val, assemble(rows, classes, found)], ignore_index=True)
    told = replace(told, data=name, notes=tuple(notes), cited=())
    return Remade(table, told, _majority(run, rows, classes), validation_too=False)


def _is_own(
    run: RunFolder, config: Config, source: Source, fingerprint: str, paths: Sequence[str]
) -> bool:
    """Whether a data set is the one that the run was trained on, be it a copy elsewhere.

    paths: files of the run's own, relative to its root.
    """
    if source.name != tell(run).data:
        return False
    if not isinstance(source, Folder):
        return True  # the name says what it holds
    # `folder` is the name of anybody's images: the place must be the same, or rows and files.
    root = Path(config.data.root).expanduser().resolve()
    if root == source.folder:
        return True
    made = mapping(run.provenance)
    if fingerprint not in (made.get("data_fingerprint"), (made.get("data") or {}).get("source")):
        return False
    there = [path for path in paths if (root / path).is_file()][:LOOKED_AT]
    return all(_same_bytes(root / path, source.folder / path) for path in there)


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _plain(name: str) -> str:
    """A folder's name as part of another one's, and of ids."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "other"


def told_apart(rows: pd.DataFrame, others: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of the data set `name`, whose ids are not those of other rows of another data set.

    Where a path, patient or study is in both, all ids of that column become `<name>:<id>`: two data
    sets number their patients alike without having one in common.
    """
    rows = rows.copy()
    for column in ("path", "patient", "study"):
        there = rows[column].notna()
        if set(rows.loc[there, column].astype(str)) & set(others[column].dropna().astype(str)):
            rows.loc[there, column] = f"{name}:" + rows.loc[there, column].astype(str)
    return rows


def _majority(
    run: RunFolder, rows: pd.DataFrame, classes: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """The run's majority baseline, which gives the same prevalences whatever the image."""
    stored = read_baselines(run).get("majority")
    if stored is None or stored.empty:
        return {}
    prevalence = stored[[f"{PROB}{name}" for name in classes]].to_numpy(dtype=np.float64)[0]
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(prevalence), NEVER)
    return {"majority": assemble(rows, classes, np.tile(logits, (len(rows), 1)))}


def remake(
    run: RunFolder, command: EvaluateCommand, progress: Progress[Any] = no_progress
) -> Remade:
    """Predict again as an evaluate command asks.

    Raises UserError for a run, data or classes that do not allow it.
    """
    tell(run)  # a folder without predictions is told first
    config = read_config(run, command.trust)
    logits = load_model(run, config, command.trust, command.tta)
    if command.elsewhere:
        source: Source = build(command.data, "data")
        found = on_other_data(run, config, source, command.class_map, logits, progress)
        if not command.tta:
            return found
        table, notes = in_more_views(run, config, command.tta, logits, progress)
        both = pd.concat([table[table["split"] == "val"], found.test()], ignore_index=True)
        told = replace(found.told, notes=(*found.told.notes, *notes))
        return replace(found, table=both, told=told, validation_too=True)
    table, notes = in_more_views(run, config, command.tta, logits, progress)
    own = tell(run)
    told = replace(own, notes=(*own.notes, *notes))
    return Remade(table, told, read_baselines(run), validation_too=True)


def in_more_views(
    run: RunFolder,
    config: Config,
    tta: Sequence[str],
    logits: Logits,
    progress: Progress[Any] = no_progress,
) -> tuple[pd.DataFrame, list[str]]:
    """Predictions of the run's own val and test images, and what to know of them.

    Raises UserError where the data are no longer those of the run.
    """
    data = own_data(run, config, f"tta={list(tta)}")
    rows = np.concatenate([data.rows("val"), data.rows("test")])
    found = logits(data.cache.images, rows, progress)
    note = f"Test-time augmentation: mean probability of the image and its {', '.join(tta)}."
    return assemble(data.manifest.table.iloc[rows], data.classes, found), [note]

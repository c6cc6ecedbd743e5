"""The network in 8 bits: static quantization, and what it costs in the run's metrics."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from fracnet.data.image_io import read_grey
from fracnet.evaluation.comparison import Candidate, Difference, Member, compare
from fracnet.evaluation.decisions import calibrate, cut_of, decide_rows
from fracnet.evaluation.predictions import Predictions, align, assemble
from fracnet.inference.onnx_model import OnnxModel
from fracnet.inference.predictor import Predictor
from fracnet.onnx_export.build_model import build_model, write_model
from fracnet.onnx_export.golden import golden_images, pack
from fracnet.onnx_export.report import Quantization
from fracnet.runs.checkpoint import load_run_data
from fracnet.runs.run_folder import read_predictions
from fracnet.utils.progress import Progress, no_progress

MAX_CALIBRATION = 200
FLOAT, INT8 = "float32", "int8"


class _Images(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._left: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image as the network's input."""
        image = next(self._left, None)
        return None if image is None else {"network_image": image[None, None]}


def quantized(network: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """The network with weights and activations of 8 bits (QDQ).

    images: uint8 [n, S, S], preprocessed, of validation: their ranges scale the activations.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, prepared, after = (Path(folder, f"{name}.onnx") for name in "abc")
        onnx.save(network, before)
        quant_pre_process(before, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            after,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(after)


def calibration_rows(rows: np.ndarray) -> np.ndarray:
    """At most `MAX_CALIBRATION` of validation's rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // MAX_CALIBRATION))]


def quantize_run(
    predictor: Predictor, path: Path, margin: float, progress: Progress[Any] = no_progress
) -> Quantization:
    """Write the run in 8 bits to `path`, and compare its metrics on test with the run's.

    Raises UserError where the data have changed since the run.
    """
    data = load_run_data(predictor.folder, predictor.config, "quantize=int8")
    chosen = data.cache.images[calibration_rows(data.rows("val"))]
    model, metadata = build_model(predictor, lambda network: quantized(network, chosen))
    images = golden_images()
    write_model(model, path, metadata, "")
    # The answers of this file, not of the run: they show whether another machine repeats them.
    write_model(model, path, metadata, pack(images, map(OnnxModel(path).run, images)))

    exported = OnnxModel(path)
    rows = np.concatenate([data.rows("val"), data.rows("test")])
    table = data.table.iloc[rows]
    files = [data.manifest.file(name) for name in table["path"]]
    logits = [
        exported.run(read_grey(file))["logits"] for file in progress(files, len(files), "int8")
    ]
    now = Predictions(assemble(table, predictor.classes, np.stack(logits)))
    return _costs(predictor, read_predictions(predictor.folder), now, margin, len(chosen))


def _costs(
    predictor: Predictor, original: Predictions, now: Predictions, margin: float, calibrated_on: int
) -> Quantization:
    """Differences between the predictions of the run and those in 8 bits."""
    temperature = predictor.decisions["temperature"]
    cut = cut_of(predictor.decisions, "image")
    tables = {FLOAT: calibrate(original, temperature), INT8: calibrate(now, temperature)}
    flipped = 0
    for split in ("val", "test"):
        pair = align(tables, split)
        flipped += int((decide_rows(pair[FLOAT], cut) != decide_rows(pair[INT8], cut)).sum())
    candidates = [Candidate(name, (Member(name, rows, cut),)) for name, rows in tables.items()]
    # Of two classes, those of the second, which is the default.
    prefix = "" if len(predictor.classes) == 2 else "macro_"
    fewest = int(np.bincount(now.split("test").targets, minlength=len(predictor.classes)).min())
    changes = {}
    for name in ("macro_auc", f"{prefix}sensitivity", f"{prefix}specificity"):
        result = compare(candidates, name, reference=FLOAT, margin=margin)
        changes[name] = _with_bound(result.models[0], fewest, margin)
    return Quantization(changes, margin, flipped, len(now), calibrated_on)


def _with_bound(change: Difference, n: int, margin: float) -> Difference:
    """A change of 0 without an interval, because no decision changed, gets an exact one.

    n: test images of the smallest class. If a larger share than the bound changed, one of n images
    would have, with a probability of 97.5 % (Clopper and Pearson 1934, Biometrika 26:404).
    """
    if change.low is not None or change.value != 0 or not n:
        return change
    bound = float(1 - 0.025 ** (1 / n))
    return replace(change, low=-bound, high=bound, within=bound <= margin)

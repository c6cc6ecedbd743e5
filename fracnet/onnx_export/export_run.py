"""Export a finished run as one ONNX file, which is written only if it answers as the run does."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.data.image_io import read_grey
from fracnet.evaluation.predictions import PROB
from fracnet.inference.batch_predict import check_output_free
from fracnet.inference.inputs import Given, InputFile
from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.inference.predictor import Predictor
from fracnet.onnx_export.benchmark import measure
from fracnet.onnx_export.build_model import build_model, write_model
from fracnet.onnx_export.golden import Comparison, Outputs, compare_golden, golden_images, pack
from fracnet.onnx_export.quantize import quantize_run
from fracnet.onnx_export.report import RUNTIME, Export, report_text
from fracnet.runs.checkpoint import load_run_data
from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.utils.errors import UserError
from fracnet.utils.files import atomic_folder
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.result_files import MODEL_FILE


def open_predictor(folder: RunFolder, out: Path, trust: bool, error: float) -> Predictor:
    """The run as a predictor; UserError for a run that is not trusted, and for `out` with files."""
    check_output_free(out)
    return Predictor(folder.path, trust=trust, error=error, device="cpu")


def export_run(
    predictor: Predictor,
    out: Path,
    *,
    compare: bool = True,
    benchmark: bool = True,
    margin: float | None = None,
    extra: Callable[[OnnxPredictor, Path], None] | None = None,
    progress: Progress[Any] = no_progress,
) -> Export:
    """Write model.onnx, report.md and requirements.txt into the new folder `out`.

    compare: compare with the run over all validation and test images. benchmark: measure latency
    and memory against PyTorch. margin: also write model_int8.onnx, if AUC, sensitivity and
    specificity on test change by less. extra: writes more into the folder of a
    proven model.

    Raises UserError, and writes nothing, for what cannot be exported, data that have changed since
    the run, and a model that does not answer as the run does.
    """
    images = golden_images()
    expected = list(expected_outputs(predictor, images))  # before anything else uses the model
    model, metadata = build_model(predictor)
    with atomic_folder(out, overwrite=False) as work:
        path = work / MODEL_FILE
        write_model(model, path, metadata, pack(images, expected))
        exported = OnnxPredictor(path, error=predictor.levels["image"]["limits"].error)
        golden = compare_golden(exported, "Nothing was exported")
        compared = compare_images(exported, predictor, progress) if compare else None
        if compared:
            compared.require("Nothing was exported")
        int8 = None
        if margin is not None:
            small = work / "model_int8.onnx"
            int8 = quantize_run(predictor, small, margin, progress)
            fast = measure(small, predictor) if benchmark else None
            int8 = replace(int8, speed=fast, megabytes=small.stat().st_size / 1e6)
            if int8.outside:
                small.unlink()
        speed = measure(path, predictor) if benchmark else None
        megabytes = path.stat().st_size / 1e6
        result = Export(out, metadata, golden, compared, speed, megabytes, int8)
        (work / "report.md").write_text(report_text(result), encoding="utf-8")
        (work / "requirements.txt").write_text("\n".join(RUNTIME) + "\n", encoding="utf-8")
        write_json(work / "metadata.json", metadata)
        if extra:
            extra(exported, work)
    return result


def expected_outputs(predictor: Predictor, given: Iterable[Given]) -> Iterator[Outputs]:
    """What the run gives for each readable image, by the names of the graph's outputs."""
    place = {name: np.int64(c) for c, name in enumerate(predictor.classes)}
    for batch in predictor.batches(given):
        readable = batch.table[batch.table["error"] == ""]
        for image, (_, row) in zip(batch.images, readable.iterrows(), strict=True):
            yield {
                "preprocessed": image,
                "probabilities": np.array([row[f"{PROB}{name}"] for name in predictor.classes]),
                "ood_score": np.float64(row["ood_score"]),
                "decision": place[row["decision"]],
                "uncertain": np.bool_(row["uncertain"]),
                "ood": np.bool_(row["ood"] or False),
            }


def compare_images(
    exported: OnnxPredictor, predictor: Predictor, progress: Progress[Any] = no_progress
) -> Comparison:
    """The exported model against the run over all validation and test images of the run.

    Raises UserError where the data have changed since the run.
    """
    data = load_run_data(predictor.folder, predictor.config, "compare=true")
    rows = np.concatenate([data.rows("val"), data.rows("test")])
    names = [str(name) for name in data.manifest.table["path"].iloc[rows]]
    files = [data.manifest.file(name) for name in names]
    expected = expected_outputs(predictor, map(InputFile, files))
    comparison = Comparison()
    pairs = zip(names, files, expected, strict=True)
    for name, file, outputs in progress(pairs, len(files), "comparing"):
        comparison.add(name, exported.model.run(read_grey(file)), outputs, exported.levels)
    return comparison


def compare_run(
    exported: OnnxPredictor, run: str, trust: bool, progress: Progress[Any] = no_progress
) -> Comparison:
    """`compare_images` with a run; UserError for another run's file and for wrong answers.

    A quantized file may differ; its golden cases are its own.
    """
    error, held = exported.levels["image"]["limits"].error, exported.model.metadata
    predictor = Predictor(run, trust=trust, error=error, device="cpu")
    theirs, ours = held["decisions"]["sha256"], predictor.decisions["sha256"]
    if theirs != ours:
        raise UserError(
            f"{exported.path} holds other operating points (SHA-256 {theirs[:12]}...) than "
            f"run={predictor.path} ({ours[:12]}...): export the run again."
        )
    if held["checkpoint_sha256"] != predictor.checkpoint_sha256:
        raise UserError(
            f"{exported.path} was exported from another checkpoint than that of "
            f"run={predictor.path}: export the run again."
        )
    comparison = compare_images(exported, predictor, progress)
    if not held["quantized"]:
        comparison.require(f"run={predictor.path}")
    return comparison


def print_export(export: Export) -> None:
    """Print what was compared and measured, and the files."""
    print(f"Golden cases: {export.golden.describe()}.")
    if export.images:
        print(f"Validation and test: {export.images.describe()}.")
    print(f"Class activation map: {export.metadata['class_map']}.")
    if export.speed:
        times = export.speed.times
        print(
            "One core, milliseconds per image: "
            + ", ".join(f"{name} {values[1]:.1f}" for name, values in times.items())
            + f" (medians; {export.speed.ratio:.2f} times as fast)."
        )
    if export.int8:
        print(f"{export.int8.describe()}.")
        if export.int8.speed:
            print(f"In 8 bits {export.int8.speed.ratio:.2f} times as fast as PyTorch.")
    print(f"\n{export.metadata['intended_use']}\n\nFolder: {export.folder}")
    for path in sorted(export.folder.iterdir()):
        print(f"  {path.name}{'/index.html' if path.is_dir() else ''}")

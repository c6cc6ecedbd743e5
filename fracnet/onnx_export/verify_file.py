"""Check an exported model without torch: its hashes and its golden cases."""

from pathlib import Path

from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.onnx_export.golden import compare_golden
from fracnet.runs.run_folder import RunFolder, read_trusted_config


def open_verified(path: str) -> OnnxPredictor:
    """The exported model, after its golden cases; prints their outcome.

    Raises UserError for a changed file and for wrong answers.
    """
    exported = OnnxPredictor(path, error=None)
    golden = compare_golden(exported.model, exported.levels)
    golden.require(f"{path}, golden cases")
    print(f"Golden cases: {golden.describe()}.")
    return exported


def open_run(run: str, trust: bool) -> RunFolder:
    """The folder of a run; UserError for one that is missing or not trusted."""
    folder = RunFolder.open(Path(run).expanduser().resolve())
    read_trusted_config(folder, trust)
    return folder

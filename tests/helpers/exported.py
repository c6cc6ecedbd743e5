"""Untrained networks for tests of the ONNX export, and exported files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from helpers.command import run_command
from helpers.predicting import Silent

from fracnet.export import export
from fracnet.inference.onnx_model import METADATA
from fracnet.models.classifier import Classifier
from fracnet.onnx_export.build_model import write_model

TIMM, CNN = "fracnet.models.backbones.timm_backbone", "fracnet.models.cnn"
SIDE = 64


def classifier(target: str, name: str | None) -> Classifier:
    """A network of three classes; name: of a timm model."""
    torch.manual_seed(0)
    own = {"name": name, "pretrained": False} if name else {"image_size": SIDE}
    model = {"_target_": target, "normalize": "imagenet", **own}
    optim = {"_target_": "torch.optim.SGD", "lr": 0.1}
    return Classifier(model, ["normal", "abnormal", "other"], optim).eval()


def export_views(run: Path, folder: Path) -> Path:
    """The model.onnx that the command writes into the folder."""
    arguments = [f"run={run}", f"out={folder}", "benchmark=false"]
    result = run_command(export, "export", arguments, Silent())  # type: ignore[arg-type]
    assert result.code == 0, result.err
    return folder / "model.onnx"


def rewritten(exported: Path, path: Path, change: Callable[[onnx.ModelProto, dict], None]) -> Path:
    """A copy with a change and a fresh hash, as somebody who knows the format could write it."""
    model = onnx.load(exported)
    stored = {p.key: p.value for p in model.metadata_props}
    metadata = json.loads(stored[METADATA])
    change(model, metadata)
    write_model(model, path, metadata, stored["fracnet_golden"])
    return path


def other_weights(model: onnx.ModelProto, metadata: dict) -> None:
    """A change for `rewritten`: one class becomes more likely."""
    (bias,) = (t for t in model.graph.initializer if t.data_type == 1 and t.dims == [2])
    values = onnx.numpy_helper.to_array(bias) + np.array([0.5, 0], np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))

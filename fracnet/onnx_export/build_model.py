"""One ONNX model of everything between a decoded image and a run's decision."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fracnet.evaluation.summary import plain
from fracnet.inference.onnx_model import (
    CLASS_MAP,
    FORMAT,
    GOLDEN,
    HASH,
    METADATA,
    NO_HASH,
    hash_place,
    levels_to_plain,
)
from fracnet.inference.predictor import Predictor
from fracnet.onnx_export.graph import IR_VERSION, OPSET, Graph
from fracnet.onnx_export.network import network_model, why_no_map
from fracnet.onnx_export.ood_graph import ood_score
from fracnet.onnx_export.preprocess_graph import check_exportable, preprocess, to_uint8
from fracnet.runs.run_folder import code_version, read_mapping
from fracnet.utils.errors import UserError

USE = (
    "Research use only, not a medical device: never for diagnosis, triage or any other decision "
    "about a patient."
)
F64, I64 = np.float64, np.int64
ALL = np.array([-1])


def build_model(
    predictor: Predictor, change: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model and its metadata, without golden cases and hash.

    change: makes the network, uint8 [1, 1, S, S] to logits, a quantized one.

    Inputs: `image` uint16 [H, W]; `bits` int64, 8 for an image of 8 bits, which stays as it is, and
    16 for a deeper one, which is stretched from its own minimum..maximum to 0..255. Outputs:
    those of `golden`, `logits` float32 [C] and, where it is exact, `class_map` float32 [C, h, w].

    Raises UserError, by name, for what cannot be exported.
    """
    if predictor.classical:
        raise UserError(
            f"run={predictor.path}: {predictor.config.model.target} is not a network, and only "
            "networks can be exported."
        )
    steps, side = predictor.preprocess.steps, predictor.image_size
    check_exportable(steps)
    no_map = why_no_map(predictor.model, side)
    network = network_model(predictor.model, side, with_map=not no_map)
    network = change(network) if change else network

    g = Graph()
    image = preprocess(g, to_uint8(g, "image", "bits"), steps, side)
    outputs: dict[str, tuple[str, Any, list[Any]]] = {
        "preprocessed": (image, np.uint8, [side, side])
    }
    batch = g.Unsqueeze(image, np.array([0, 1]))
    g.nodes.append(onnx.helper.make_node("Identity", [batch], ["network_image"]))
    g.nodes += network.graph.node
    n = len(predictor.classes)
    outputs |= _decided(g, predictor, image)
    if not no_map:
        outputs[CLASS_MAP] = (g.Squeeze("network_maps", np.array([0])), np.float32, [n, "h", "w"])
    for name, (value, _, _) in outputs.items():
        g.nodes.append(onnx.helper.make_node("Identity", [value], [name]))
    model = g.model(
        [("image", np.uint16, ["height", "width"]), ("bits", I64, [])],
        [(name, dtype, shape) for name, (_, dtype, shape) in outputs.items()],
    )
    model.graph.initializer.extend(network.graph.initializer)
    model.producer_name, model.producer_version = "fracnet", code_version()["fracnet"]
    onnx.checker.check_model(model)
    return model, _metadata(predictor, no_map) | {"quantized": change is not None}


def _decided(g: Graph, predictor: Predictor, image: str) -> dict[str, tuple[str, Any, list[Any]]]:
    """Scores, decision and flags, as `ImagePredictor` computes them from logits."""
    n, level = len(predictor.classes), predictor.levels["image"]
    raw = g.Reshape("network_logits", ALL)
    logits = g.Div(g.cast(raw, F64), F64(predictor.decisions["temperature"]))
    prob = g.Softmax(logits, axis=0)
    if level["cut"] is None:
        decision = g.ArgMax(prob, axis=0, keepdims=0)
    else:
        odds = g.Sub(g.Gather(logits, I64(1)), g.Gather(logits, I64(0)))
        decision = g.cast(g.Greater(odds, F64(level["cut"])), I64)
    possible = g.cast(g.GreaterOrEqual(prob, np.asarray(level["limits"].values, F64)), I64)
    single = g.Equal(g.ReduceSum(possible, keepdims=0), I64(1))
    confident = g.And(single, g.Equal(g.Gather(possible, decision), I64(1)))
    score, ood = g.constant(F64(np.nan)), g.constant(np.array(False))
    if predictor.ood is not None:
        scores = ood_score(g, image, "network_features", predictor.ood, predictor.image_size)
        score = g.Squeeze(scores, np.array([0]))
        ood = g.Greater(score, F64(1))
    return {
        "logits": (raw, np.float32, [n]),
        "probabilities": (prob, F64, [n]),
        "ood_score": (score, F64, []),
        "decision": (decision, I64, []),
        "uncertain": (g.Or(g.Not(confident), ood), np.bool_, []),
        "ood": (ood, np.bool_, []),
    }


def _metadata(predictor: Predictor, no_map: str) -> dict[str, Any]:
    folder = predictor.folder
    provenance, fit = read_mapping(folder.provenance), read_mapping(folder.fit)
    content = {
        "format": FORMAT,
        "intended_use": USE,
        "classes": list(predictor.classes),
        "decisions": dict(predictor.decisions),
        "levels": levels_to_plain(predictor.levels),
        "ood": predictor.ood_description,
        "image_size": predictor.image_size,
        "preprocess": predictor.preprocess.steps,
        # Of a quantized network, the map is that of its own logits up to their rounding.
        CLASS_MAP: (no_map and f"none: {no_map}")
        or "exact: its mean is the logit without the bias of its class",
        "model": predictor.config.model.target,
        "run": folder.path.name,
        "checkpoint_sha256": predictor.checkpoint_sha256,
        "data": (fit.get("data") or {}).get("name"),
        "data_license": (fit.get("data") or {}).get("license"),
        "license": "code: MIT; weights: as the licenses of the training data and of the pretrained "
        "weights allow",
        "data_fingerprint": provenance.get("data_fingerprint"),
        "code": code_version(),
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return dict(plain(content))


def write_model(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, Any], golden: str
) -> None:
    """Write the file with its metadata, and with its own hash at the end."""
    texts = {
        METADATA: json.dumps(metadata, allow_nan=False, sort_keys=True),
        GOLDEN: golden,
        HASH: NO_HASH,
    }
    onnx.helper.set_model_props(model, texts)
    content = model.SerializeToString(deterministic=True)
    place, digest = hash_place(content), hashlib.sha256(content).hexdigest()
    path.write_bytes(content[:place] + digest.encode() + content[place + len(NO_HASH) :])

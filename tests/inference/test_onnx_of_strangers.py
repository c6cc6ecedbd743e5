"""model.onnx from somebody else: with every hash right and anything else wrong, one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fracnet.evaluation.decisions import seal
from fracnet.inference.onnx_model import (
    GOLDEN,
    HASH,
    METADATA,
    NO_HASH,
    OnnxPredictor,
    file_hashes,
    hash_place,
)
from fracnet.utils.errors import UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DECISIONS = seal({"classes": ["normal", "abnormal"], "temperature": 1.0})


def write_model(path: Path, metadata: Any, external: str = "") -> Path:
    """A model that gives its image, with these metadata and the hash of itself."""
    make, tensor = onnx.helper, onnx.TensorProto
    nodes, weights = [make.make_node("Identity", ["image"], ["preprocessed"])], []
    if external:
        weight = tensor(name="w", data_type=tensor.FLOAT, dims=[2], data_location=tensor.EXTERNAL)
        weight.external_data.add(key="location", value=external)
        nodes.append(make.make_node("Identity", ["w"], ["logits"]))
        weights = [weight]
    ends = [
        make.make_tensor_value_info(name, tensor.UINT16, ["h", "w"])
        for name in ("image", "preprocessed")
    ]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    for key, value in ((METADATA, json.dumps(metadata)), (GOLDEN, ""), (HASH, NO_HASH)):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    content = path.read_bytes()
    place = hash_place(content)
    digest = file_hashes(path)[1].encode()
    path.write_bytes(content[:place] + digest + content[place + len(digest) :])
    return path


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "AttributeError"),
        ({"format": 1}, "'decisions'"),
        ({"format": 1, "decisions": []}, "TypeError"),
        ({"format": 1, "decisions": {"classes": ["a"]}}, "'sha256'"),
        ({"format": 1, "decisions": DECISIONS}, "'levels'"),
        ({"format": 1, "decisions": DECISIONS, "levels": {"image": {}}}, "'limits'"),
    ],
)
def test_metadata_that_lack_something_are_one_sentence(
    metadata: Any, reason: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "model.onnx", metadata)
    with pytest.raises(UserError, match=f"model.onnx cannot be read .*{reason}"):
        OnnxPredictor(path)


@pytest.mark.parametrize("place", ["../secret", "{folder}/secret", "link"])
def test_weights_outside_of_the_file_s_folder_are_not_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model/link").symlink_to(tmp_path / "secret")
    external = place.format(folder=tmp_path)
    path = write_model(tmp_path / "model/model.onnx", {"format": 1}, external)
    with pytest.raises(UserError, match="cannot be read as an exported model"):
        OnnxPredictor(path)

"""The network of a run as ONNX nodes, by torch's exporter."""

import logging
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from fracnet.models.classifier import Classifier
from fracnet.models.inference import feature_head, pooled_features
from fracnet.onnx_export.graph import OPSET

SAMPLES = 4


class _Outputs(nn.Module):
    """uint8 [1, 1, S, S] to logits, the head's input [1, F], and maybe class maps [1, C, h, w]."""

    def __init__(self, model: Classifier, with_map: bool) -> None:
        super().__init__()
        self.model, self.with_map = model, with_map
        self.head = feature_head(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        inputs: list[Tensor] = []
        hook = self.head and self.head.register_forward_pre_hook(
            lambda _, args: inputs.append(args[0])
        )
        logits = self.model(images)
        if hook:
            hook.remove()
        features = (pooled_features(inputs[0]),) if inputs else ()
        if not self.with_map:
            return (logits, *features)
        backbone: Any = self.model.backbone
        assert isinstance(self.head, nn.Linear)
        maps = backbone.forward_features(self.model.input(images))
        # Without the bias, which says nothing about a place.
        weighted = nn.functional.conv2d(maps, self.head.weight[..., None, None])
        return (logits, *features, weighted)


def why_no_map(model: Classifier, image_size: int) -> str:
    """Why the network has no exact class activation map; "" where it has.

    It is exact where the logits are the mean over positions of a map of their own: a linear head
    on globally averaged features. Whether that holds is tried on random images.
    """
    model.eval()  # in training mode its statistics would follow the images
    head, backbone = feature_head(model), model.backbone
    if type(head) is not nn.Linear or not hasattr(backbone, "forward_features"):
        return "its head is not one linear layer on the mean of a feature map"
    images = torch.randint(0, 256, (SAMPLES, 1, image_size, image_size), dtype=torch.uint8)
    with torch.no_grad():
        maps = backbone.forward_features(model.input(images))  # type: ignore[operator]
        if maps.ndim != 4 or maps.shape[1] != head.in_features:
            return "its head does not see the mean of a feature map"
        logits, means = model(images), head(maps.mean(dim=(2, 3)))
    if not torch.allclose(logits, means, rtol=1e-4, atol=1e-4):
        return "other layers lie between the mean of its feature map and its head"
    return ""


def network_model(model: Classifier, image_size: int, with_map: bool) -> onnx.ModelProto:
    """The network for one image: `network_image` uint8 [1, 1, S, S] to its outputs.

    `network_logits` float32 [1, C]; `network_features` float32 [1, F] where the head is known;
    `network_maps` float32 [1, C, h, w] with `with_map`.
    """
    outputs = _Outputs(model.eval().cpu(), with_map).eval()
    example = torch.zeros((1, 1, image_size, image_size), dtype=torch.uint8)
    names = ["logits", *(["features"] if outputs.head else []), *(["maps"] if with_map else [])]
    names = [f"network_{name}" for name in names]
    for name in ("onnxscript", "onnx_ir"):  # a line for each optimization
        logging.getLogger(name).setLevel(logging.WARNING)
    with torch.no_grad(), warnings.catch_warnings():
        # Of torch's own code, on deprecated parts of itself.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            outputs, (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["network_image"], output_names=names,
        )  # fmt: skip
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto

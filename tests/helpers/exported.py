"""Untrained networks for tests of the ONNX export."""

import torch

from fracnet.models.classifier import Classifier

TIMM, CNN = "fracnet.models.backbones.timm_backbone", "fracnet.models.cnn"
SIDE = 64


def classifier(target: str, name: str | None) -> Classifier:
    """A network of three classes; name: of a timm model."""
    torch.manual_seed(0)
    own = {"name": name, "pretrained": False} if name else {"image_size": SIDE}
    model = {"_target_": target, "normalize": "imagenet", **own}
    optim = {"_target_": "torch.optim.SGD", "lr": 0.1}
    return Classifier(model, ["normal", "abnormal", "other"], optim).eval()

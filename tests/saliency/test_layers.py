"""The layer to explain is found in every shipped network, and in transformers."""

from typing import Any, cast

import pytest
import timm
import torch
from helpers.models import TinyNet
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from fracnet.config.instantiate import build
from fracnet.saliency.cam import find_layer
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

SHIPPED = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "vgg16": "features",
    "densenet121": "features",
    "efficientnet_b0": "bn2",
    "efficientnet_lite0": "bn2",
    "convnext_tiny": "stages",
    "custom_cnn": "features",
    "mura_cnn": "features",
}
WITHOUT_MAPS = {"hog_logistic", "timm"}  # no network; any network
SMALL_VIT: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
}


class Mixed(nn.Module):
    """Dense layers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 32 * 32, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(images.flatten(1)).relu())
        return logits


def vit(**settings: Any) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL_VIT, **settings)


def test_all_shipped_networks_are_known_here() -> None:
    names = {path.stem for path in (config_dir() / "model").glob("*.yaml")}
    assert names - WITHOUT_MAPS == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_last_map_of_a_shipped_network_is_found(name: str) -> None:
    with initialize_config_dir(str(config_dir())):
        node = compose("train", [f"model={name}", "image_size=64"]).model
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))
    own = ("normalize", "freeze", "head_dropout", "fit")
    plain = {key: value for key, value in plain.items() if key not in own}
    for key, value in (("pretrained", False), ("image_size", 64)):
        plain |= {key: value} if key in plain else {}
    backbone = build(plain, "model", num_classes=3)
    found = find_layer(backbone, size=64)
    assert found.name == SHIPPED[name]
    assert found.grid[0] == found.grid[1] >= 2
    assert found.reshape is None
    assert found.module is dict(backbone.named_modules())[found.name]


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: vit(), "blocks.1.norm1"),
        (lambda: vit(global_pool="avg"), "blocks"),
        (lambda: vit(class_token=True, reg_tokens=3), "blocks.1.norm1"),
    ],
    ids=["class token", "mean of patches", "registers"],
)
def test_tokens_of_patches_become_maps_in_the_order_of_the_image(made: Any, name: str) -> None:
    backbone = made()
    found = find_layer(backbone, size=32)
    assert (found.name, found.grid) == (name, (4, 4))
    assert found.reshape is not None
    prefix = backbone.num_prefix_tokens
    tokens = torch.zeros(1, prefix + 16, 5)
    tokens[0, prefix + 4 * 1 + 2, 3] = 1  # second row, third column
    maps = found.reshape(tokens)
    assert maps.shape == (1, 5, 4, 4)
    assert maps[0, 3, 1, 2] == 1
    assert maps.sum() == 1


def test_channels_of_a_swin_transformer_come_first() -> None:
    backbone = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=3,
        img_size=64,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
    )
    found = find_layer(backbone, size=64)
    assert found.grid == (8, 8)
    assert found.reshape is not None
    assert found.reshape(torch.zeros(2, 8, 8, 24)).shape == (2, 24, 8, 8)


def test_a_named_layer_is_taken() -> None:
    backbone = timm.create_model("resnet18", num_classes=3)
    found = find_layer(backbone, "layer2.0", size=64)
    assert found.module is backbone.get_submodule("layer2.0")
    assert found.grid == (8, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layer5", r"explain\.layer=layer5: that layer of ResNet is not there; allowed: .*layer4"),
        ("fc", r"explain\.layer=fc: .* puts out no map"),
        ("layr2", r"Did you mean 'layer2'\?"),
    ],
)
def test_a_name_that_will_not_do_is_answered_with_those_that_will(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_layer(timm.create_model("resnet18", num_classes=3), name, size=64)


def test_a_network_without_maps_is_told_by_the_key() -> None:
    with pytest.raises(UserError, match=r"explain\.layer=null: in Mixed no layer .* explain=none"):
        find_layer(Mixed(), size=32)


def test_tokens_that_are_not_in_the_order_of_the_image_are_refused() -> None:
    backbone = timm.create_model(
        "hiera_tiny_224", num_classes=3, img_size=(64, 64), embed_dim=8, stages=(1, 1, 1, 1)
    )
    with pytest.raises(UserError, match=r"explain\.layer=null: in Hiera no layer"):
        find_layer(backbone, size=64)


def test_the_network_is_left_as_it_was() -> None:
    backbone = TinyNet(3, dropout=0.5).train()
    backbone.head.eval()
    before = torch.random.get_rng_state()
    find_layer(backbone, size=32)
    assert backbone.training
    assert not backbone.head.training
    assert not any(module._forward_hooks for module in backbone.modules())
    assert all(weight.grad is None for weight in backbone.parameters())
    assert torch.equal(before, torch.random.get_rng_state())

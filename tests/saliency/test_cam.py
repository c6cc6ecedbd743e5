"""Heatmaps show the evidence for a class at a suitable layer, and leave the model unchanged."""

from typing import Any, cast, get_args

import numpy as np
import pytest
import timm
import torch
from helpers.models import ADAM, TINY, TinyNet
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from fracnet.config.instantiate import build
from fracnet.config.schema import Method
from fracnet.models.classifier import OWN_KEYS, Classifier
from fracnet.models.feature_maps import find_layer
from fracnet.saliency.cam import CAM_METHODS, Settings, heatmaps
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

SIZE = 48
TIMM = {"pretrained": False, "normalize": "half"}


def classifier(node: dict[str, Any]) -> Classifier:
    torch.manual_seed(0)
    return Classifier(node, ["normal", "abnormal"], ADAM)


def quadrants() -> Classifier:
    return classifier({"_target_": "helpers.saliency.Quadrants", "normalize": "half"})


def noise(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size), np.uint8)


def backbone_of(model: Classifier) -> Any:
    """The backbone; mypy does not know its parts."""
    return model.backbone


def maps_of(model: Classifier, images: np.ndarray, classes: np.ndarray, **how: Any) -> np.ndarray:
    return np.concatenate(list(heatmaps(model, images, classes, Settings(**how))))


@pytest.mark.parametrize("method", CAM_METHODS)
def test_each_map_has_the_size_of_its_image_and_a_maximum_of_1(method: str) -> None:
    images = noise(5)
    model = classifier(TINY)
    batches = list(heatmaps(model, images, np.zeros(5, np.int64), Settings(method, batch_size=2)))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    maps = np.concatenate(batches)
    assert maps.shape == images.shape
    assert maps.dtype == np.float32
    assert (maps >= 0).all()
    highest = maps.max(axis=(1, 2))
    assert set(highest) in ({1.0}, {0.0, 1.0})


@pytest.mark.parametrize("method", CAM_METHODS)
def test_a_map_does_not_depend_on_the_other_images_of_its_batch(method: str) -> None:
    images, model = noise(3), classifier(TINY)
    classes = np.array([0, 1, 0])
    whole = np.concatenate(list(heatmaps(model, images, classes, Settings(method))))
    single = np.concatenate(list(heatmaps(model, images, classes, Settings(method, batch_size=1))))
    np.testing.assert_allclose(whole, single, atol=1e-4)


def test_the_map_follows_the_requested_class() -> None:
    images = np.full((2, SIZE, SIZE), 255, np.uint8)
    maps = maps_of(quadrants(), images, np.array([0, 1]), method="hirescam", layer="weigh")
    first, last = np.s_[2 : SIZE // 2 - 2], np.s_[SIZE // 2 + 2 : -2]
    for heat, quadrant, other in ((maps[0], first, last), (maps[1], last, first)):
        assert (heat[quadrant, quadrant] == 1).all()
        assert not heat[other, other].any()


def test_eigencam_ignores_the_class() -> None:
    images, model = noise(2), classifier(TINY)
    first, second = (maps_of(model, images, np.full(2, c), method="eigencam") for c in (0, 1))
    np.testing.assert_array_equal(first, second)
    first, second = (maps_of(model, images, np.full(2, c)) for c in (0, 1))
    assert not np.array_equal(first, second)


def test_grad_cam_follows_its_paper() -> None:
    """ReLU of the sum of channels, each by its mean gradient; here at the size of the image."""
    model, images = quadrants(), noise(1)
    bright = backbone_of(model).conv(model.input(torch.from_numpy(images)[:, None])).relu()[0]
    inputs = bright.detach().requires_grad_()
    half = SIZE // 2
    inputs[0, :half, :half].sum().div(SIZE * SIZE).backward()
    assert inputs.grad is not None
    expected = (inputs.grad.mean(dim=(1, 2), keepdim=True) * inputs.detach()).sum(dim=0).relu()
    result = maps_of(model, images, np.array([0]), layer="weigh")[0]
    np.testing.assert_allclose(result, (expected / expected.max()).numpy(), atol=1e-6)


def test_without_evidence_for_the_class_the_map_is_empty() -> None:
    model = quadrants()
    with torch.no_grad():
        backbone_of(model).head.weight.neg_()
    for method in ("gradcam", "hirescam", "gradcam++"):
        result = maps_of(model, noise(2), np.array([0, 1]), method=method, layer="weigh")
        assert not result.any(), method


def test_a_flat_map_stays_flat() -> None:
    """The minimum is not shifted to 0: that would amplify rounding errors to a pattern."""
    model = classifier({"_target_": "helpers.saliency.WholeImage", "normalize": "half"})
    result = maps_of(model, np.full((1, SIZE, SIZE), 200, np.uint8), np.array([0]))
    np.testing.assert_allclose(result, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet10t", {}),
        (
            "vit_tiny_patch16_224",
            {"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        ),
        (
            "swin_tiny_patch4_window7_224",
            {
                "img_size": 48,
                "window_size": 3,
                "embed_dim": 12,
                "depths": (1, 1),
                "num_heads": (1, 2),
            },
        ),
    ],
    ids=["resnet", "vit", "swin"],
)
def test_networks_of_every_kind_have_maps(name: str, settings: dict[str, Any]) -> None:
    model = classifier({"_target_": "timm.create_model", "model_name": name, **TIMM, **settings})
    for method in CAM_METHODS:
        result = maps_of(model, noise(6), np.arange(6) % 2, method=method)
        assert result.any(), method
        assert all(len(np.unique(heat.round(4))) > 10 for heat in result if heat.any()), method


def test_a_map_follows_the_image_through_a_transformer() -> None:
    """A spot that moves by patches moves the map with it: tokens stay in their places."""
    settings = {"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    node = {"_target_": "timm.create_model", "model_name": "vit_tiny_patch16_224"}
    model = classifier(node | TIMM | settings | {"pos_embed": "none"})
    images = np.zeros((2, SIZE, SIZE), np.uint8)
    images[0, 8:16, 32:40] = noise(1, 8)[0]
    images[1, 32:40, 8:16] = noise(1, 8)[0]
    maps = maps_of(model, images, np.array([0, 0]), method="eigencam")
    places = [np.unravel_index(heat.argmax(), heat.shape) for heat in maps]
    assert [(int(y) // 8, int(x) // 8) for y, x in places] == [(1, 4), (4, 1)]


def test_the_model_is_left_as_it_was() -> None:
    model = classifier(TINY | {"dropout": 0.5}).train()
    backbone_of(model).head.eval()
    backbone_of(model).convolution.weight.requires_grad_(False)
    backbone_of(model).head.weight.grad = torch.ones_like(backbone_of(model).head.weight)
    modes = [module.training for module in model.modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in heatmaps(model, noise(4), np.zeros(4, np.int64), Settings(batch_size=2)):
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_hooks for module in model.modules())
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert (backbone_of(model).head.weight.grad == 1).all()
    assert backbone_of(model).convolution.weight.grad is None
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_heatmaps_work_under_no_grad() -> None:
    model, images, classes = classifier(TINY), noise(2), np.array([0, 1])
    expected = maps_of(model, images, classes)
    with torch.no_grad():
        np.testing.assert_array_equal(maps_of(model, images, classes), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(maps_of(model, images, classes), expected)


def test_a_layer_whose_output_is_changed_in_place_afterwards_is_read_before() -> None:
    model = classifier({"_target_": "helpers.saliency.Negative", "normalize": "half"})
    dark = np.zeros((1, SIZE, SIZE), np.uint8)
    result = maps_of(model, dark, np.array([0]), method="hirescam", layer="conv")
    np.testing.assert_array_equal(result, 1)


def test_a_mistyped_method_lists_the_available_ones() -> None:
    with pytest.raises(UserError, match=r"explain\.method=gradcm .*hirescam.*mean 'gradcam'"):
        next(heatmaps(classifier(TINY), noise(1), np.zeros(1, np.int64), Settings("gradcm")))


def test_no_images_have_no_maps() -> None:
    assert list(heatmaps(classifier(TINY), noise(0), np.zeros(0, np.int64))) == []


def test_the_config_allows_exactly_the_available_methods() -> None:
    assert get_args(Method) == (*CAM_METHODS, "localization", "auto")


SHIPPED = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "vgg16": "features",
    "densenet121": "features",
    "efficientnet_b0": "bn2",
    "efficientnet_lite0": "bn2",
    "efficientnet_lite1": "bn2",
    "efficientnet_lite2": "bn2",
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


def test_all_shipped_networks_are_tested() -> None:
    names = {path.stem for path in (config_dir() / "model").glob("*.yaml")}
    assert names - WITHOUT_MAPS == set(SHIPPED)


@pytest.mark.usefixtures("quick_weights")
@pytest.mark.parametrize("name", SHIPPED)
def test_the_last_map_of_a_shipped_network_is_detected(name: str) -> None:
    with initialize_config_dir(str(config_dir())):
        node = compose("train", [f"model={name}", "image_size=64"]).model
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))
    own = (*OWN_KEYS, "fit")
    plain = {key: value for key, value in plain.items() if key not in own and value is not None}
    if "backbones" in plain["_target_"]:
        plain["pretrained"] = False
    if "image_size" in plain:
        plain["image_size"] = 64
    backbone = build(plain, "model", num_classes=3)
    result = find_layer(backbone, size=64)
    assert result.name == SHIPPED[name]
    assert result.grid[0] == result.grid[1] >= 2
    assert result.reshape is None
    assert result.module is dict(backbone.named_modules())[result.name]


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: vit(), "blocks.1.norm1"),
        (lambda: vit(global_pool="avg"), "blocks"),
        (lambda: vit(class_token=True, reg_tokens=3), "blocks.1.norm1"),
    ],
    ids=["class token", "mean of patches", "registers"],
)
def test_tokens_of_patches_become_maps_in_the_order_of_the_image(create: Any, name: str) -> None:
    backbone = create()
    result = find_layer(backbone, size=32)
    assert (result.name, result.grid) == (name, (4, 4))
    assert result.reshape is not None
    prefix = backbone.num_prefix_tokens
    tokens = torch.zeros(1, prefix + 16, 5)
    tokens[0, prefix + 4 * 1 + 2, 3] = 1  # second row, third column
    maps = result.reshape(tokens)
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
    result = find_layer(backbone, size=64)
    assert result.grid == (8, 8)
    assert result.reshape is not None
    assert result.reshape(torch.zeros(2, 8, 8, 24)).shape == (2, 24, 8, 8)


def test_a_named_layer_is_used() -> None:
    backbone = timm.create_model("resnet18", num_classes=3)
    result = find_layer(backbone, "layer2.0", size=64)
    assert result.module is backbone.get_submodule("layer2.0")
    assert result.grid == (8, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer5", r"explain\.layer=layer5: ResNet has no such layer; allowed: .*layer4"),
        ("fc", r"explain\.layer=fc: the output of that layer of ResNet is not a map"),
        ("layr2", r"Did you mean 'layer2'\?"),
    ],
)
def test_an_unusable_layer_lists_the_usable_ones(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layer(timm.create_model("resnet18", num_classes=3), name, size=64)


def test_a_network_without_maps_is_an_error_that_names_the_key() -> None:
    with pytest.raises(UserError, match=r"explain\.layer=null: Mixed has no layer .* explain=none"):
        find_layer(Mixed(), size=32)


def test_tokens_that_are_not_in_the_order_of_the_image_are_refused() -> None:
    backbone = timm.create_model(
        "hiera_tiny_224", num_classes=3, img_size=(64, 64), embed_dim=8, stages=(1, 1, 1, 1)
    )
    with pytest.raises(UserError, match=r"explain\.layer=null: Hiera has no layer"):
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

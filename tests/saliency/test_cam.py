"""Heatmaps say where the evidence for a class is, and leave the model alone."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers.models import ADAM, TINY

from fracnet.config.schema import Method
from fracnet.models.classifier import Classifier
from fracnet.saliency.cam import METHODS, heatmaps
from fracnet.utils.errors import UserError

SIZE = 48
TIMM = {"pretrained": False, "normalize": "half"}


def classifier(node: dict[str, Any]) -> Classifier:
    torch.manual_seed(0)
    return Classifier(node, ["normal", "abnormal"], ADAM)


def quadrants() -> Classifier:
    return classifier({"_target_": "helpers.seeing.Quadrants", "normalize": "half"})


def noise(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size), np.uint8)


def inside(model: Classifier) -> Any:
    """The backbone, whose parts mypy cannot know."""
    return model.backbone


def of(model: Classifier, images: np.ndarray, classes: np.ndarray, **how: Any) -> np.ndarray:
    return np.concatenate(list(heatmaps(model, images, classes, **how)))


@pytest.mark.parametrize("method", METHODS)
def test_each_map_has_the_size_of_its_image_and_1_at_its_highest_place(method: str) -> None:
    images = noise(5)
    model = classifier(TINY)
    batches = list(heatmaps(model, images, np.zeros(5, np.int64), method=method, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    maps = np.concatenate(batches)
    assert maps.shape == images.shape
    assert maps.dtype == np.float32
    assert (maps >= 0).all()
    highest = maps.max(axis=(1, 2))
    assert set(highest) in ({1.0}, {0.0, 1.0})


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_the_other_images_of_its_batch(method: str) -> None:
    images, model = noise(3), classifier(TINY)
    classes = np.array([0, 1, 0])
    whole = np.concatenate(list(heatmaps(model, images, classes, method=method)))
    single = np.concatenate(list(heatmaps(model, images, classes, method=method, batch_size=1)))
    np.testing.assert_allclose(whole, single, atol=1e-4)


def test_the_class_that_is_asked_for_decides_where_the_map_is() -> None:
    images = np.full((2, SIZE, SIZE), 255, np.uint8)
    maps = of(quadrants(), images, np.array([0, 1]), method="hirescam", layer="weigh")
    first, last = np.s_[2 : SIZE // 2 - 2], np.s_[SIZE // 2 + 2 : -2]
    for heat, own, other in ((maps[0], first, last), (maps[1], last, first)):
        assert (heat[own, own] == 1).all()
        assert not heat[other, other].any()


def test_eigencam_knows_no_class() -> None:
    images, model = noise(2), classifier(TINY)
    one, other = (of(model, images, np.full(2, c), method="eigencam") for c in (0, 1))
    np.testing.assert_array_equal(one, other)
    one, other = (of(model, images, np.full(2, c)) for c in (0, 1))
    assert not np.array_equal(one, other)


def test_grad_cam_is_what_its_paper_says() -> None:
    """ReLU of the sum of channels, each by its mean gradient; here at the size of the image."""
    model, images = quadrants(), noise(1)
    bright = inside(model).look(model.input(torch.from_numpy(images)[:, None])).relu()[0]
    seen = bright.detach().requires_grad_()
    half = SIZE // 2
    seen[0, :half, :half].sum().div(SIZE * SIZE).backward()
    assert seen.grad is not None
    expected = (seen.grad.mean(dim=(1, 2), keepdim=True) * seen.detach()).sum(dim=0).relu()
    found = of(model, images, np.array([0]), layer="weigh")[0]
    np.testing.assert_allclose(found, (expected / expected.max()).numpy(), atol=1e-6)


def test_where_nothing_speaks_for_the_class_there_is_no_map() -> None:
    model = quadrants()
    with torch.no_grad():
        inside(model).head.weight.neg_()
    for method in ("gradcam", "hirescam", "gradcam++"):
        found = of(model, noise(2), np.array([0, 1]), method=method, layer="weigh")
        assert not found.any(), method


def test_a_flat_map_stays_flat() -> None:
    """The least value is not moved to 0: that would make a pattern of rounding errors."""
    model = classifier({"_target_": "helpers.seeing.AllOver", "normalize": "half"})
    found = of(model, np.full((1, SIZE, SIZE), 200, np.uint8), np.array([0]))
    np.testing.assert_allclose(found, 1, atol=1e-5)


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
    for method in METHODS:
        found = of(model, noise(6), np.arange(6) % 2, method=method)
        assert found.any(), method
        assert all(len(np.unique(heat.round(4))) > 10 for heat in found if heat.any()), method


def test_a_map_follows_the_image_through_a_transformer() -> None:
    """A spot that moves by patches moves the map with it: tokens lie where their patches lay."""
    settings = {"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    node = {"_target_": "timm.create_model", "model_name": "vit_tiny_patch16_224"}
    model = classifier(node | TIMM | settings | {"pos_embed": "none"})
    images = np.zeros((2, SIZE, SIZE), np.uint8)
    images[0, 8:16, 32:40] = noise(1, 8)[0]
    images[1, 32:40, 8:16] = noise(1, 8)[0]
    maps = of(model, images, np.array([0, 0]), method="eigencam")
    places = [np.unravel_index(heat.argmax(), heat.shape) for heat in maps]
    assert [(int(y) // 8, int(x) // 8) for y, x in places] == [(1, 4), (4, 1)]


def test_the_model_is_left_as_it_was() -> None:
    model = classifier(TINY | {"dropout": 0.5}).train()
    inside(model).head.eval()
    inside(model).convolution.weight.requires_grad_(False)
    inside(model).head.weight.grad = torch.ones_like(inside(model).head.weight)
    modes = [module.training for module in model.modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in heatmaps(model, noise(4), np.zeros(4, np.int64), batch_size=2):
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_hooks for module in model.modules())
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert (inside(model).head.weight.grad == 1).all()
    assert inside(model).convolution.weight.grad is None
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_it_works_where_gradients_are_off() -> None:
    model, images, classes = classifier(TINY), noise(2), np.array([0, 1])
    expected = of(model, images, classes)
    with torch.no_grad():
        np.testing.assert_array_equal(of(model, images, classes), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(of(model, images, classes), expected)


def test_a_layer_whose_output_is_changed_in_place_afterwards_is_read_before() -> None:
    model = classifier({"_target_": "helpers.seeing.Negative", "normalize": "half"})
    dark = np.zeros((1, SIZE, SIZE), np.uint8)
    found = of(model, dark, np.array([0]), method="hirescam", layer="look")
    np.testing.assert_array_equal(found, 1)


def test_a_method_that_is_mistyped_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"explain\.method=gradcm .*hirescam.*mean 'gradcam'"):
        next(heatmaps(classifier(TINY), noise(1), np.zeros(1, np.int64), method="gradcm"))


def test_no_images_have_no_maps() -> None:
    assert list(heatmaps(classifier(TINY), noise(0), np.zeros(0, np.int64))) == []


def test_the_config_allows_the_methods_that_there_are() -> None:
    assert get_args(Method) == METHODS

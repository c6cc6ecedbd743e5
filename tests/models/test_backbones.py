"""Backbones: the published parameter count, weights from a file, and no silent random start."""

from pathlib import Path

import pytest
import timm
import torch

from fracnet.models.backbones import timm_backbone
from fracnet.models.classifier import Classifier
from fracnet.models.cnn import CustomCNN
from fracnet.utils.errors import UserError


def test_custom_cnn_has_the_published_number_of_parameters() -> None:
    model = CustomCNN(num_classes=6, image_size=224)
    assert sum(p.numel() for p in model.parameters()) == 51_776_774


def test_custom_cnn_maps_images_of_its_size_to_logits() -> None:
    model = CustomCNN(num_classes=6, image_size=50).eval()
    assert model(torch.zeros(2, 3, 50, 50)).shape == (2, 6)


def test_custom_cnn_starts_with_zero_biases_and_kaiming_weights() -> None:
    torch.manual_seed(0)
    first = CustomCNN(num_classes=6, image_size=32).features[0]
    assert isinstance(first, torch.nn.Conv2d)
    assert first.bias is not None
    assert not first.bias.any()
    bound = (6 / (32 * 9)) ** 0.5  # uniform, gain sqrt(2), fan out = 32 filters of 3x3
    assert 0.95 * bound < first.weight.abs().max() <= bound


def test_custom_cnn_refuses_an_image_that_pooling_would_use_up() -> None:
    with pytest.raises(UserError, match="image_size=8 is too small"):
        CustomCNN(num_classes=6, image_size=8)


def test_an_unknown_timm_name_suggests_a_similar_one() -> None:
    with pytest.raises(UserError, match=r"model.name=resnet_18 .*Did you mean 'resnet18'"):
        timm_backbone("resnet_18", num_classes=6)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_local_weights_are_loaded_all_but_the_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    stored = timm.create_model("resnet18", num_classes=1000).state_dict()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(stored, path)
    else:
        from safetensors.torch import save_file

        save_file(stored, path)
    loaded = timm_backbone("resnet18", num_classes=6, weights=str(path)).state_dict()
    for name, value in loaded.items():
        if name.startswith("fc."):
            assert value.shape[0] == 6
        else:
            assert torch.equal(value, stored[name]), name


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_a_new_classifier_starts_as_any_linear_layer(name: str) -> None:
    head = timm_backbone(name, num_classes=6, pretrained=False).get_classifier()  # type: ignore[operator]
    bound = head.in_features**-0.5
    assert 0.9 * bound < head.weight.abs().max() <= bound


def test_a_classifier_that_fits_the_weights_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    stored = timm.create_model("resnet18", num_classes=1000).state_dict()
    torch.save(stored, path)
    loaded = timm_backbone("resnet18", num_classes=1000, weights=str(path))
    assert torch.equal(loaded.state_dict()["fc.weight"], stored["fc.weight"])


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(UserError, match=r"does not hold weights of model.name=resnet50"):
        timm_backbone("resnet50", num_classes=6, weights=str(path))


def test_a_pickle_that_is_more_than_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    torch.save({"state_dict": print}, path)
    with pytest.raises(UserError, match=r"model.weights=.*code.pth"):
        timm_backbone("resnet18", num_classes=6, weights=str(path))


def test_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        timm_backbone("resnet18", num_classes=6, weights=str(tmp_path / "none.pth"))


def test_a_failed_weight_download_names_both_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        timm_backbone("resnet18", num_classes=6, pretrained=True)
    for part in ("model.name=resnet18", "model.weights=", "model.pretrained=false"):
        assert part in str(caught.value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.ckpt of a six-class ResNet-18, as a run leaves it."""
    torch.manual_seed(2)
    node = {"_target_": "fracnet.models.backbones.timm_backbone", "name": "resnet18"}
    node |= {"pretrained": False, "normalize": "half"}
    classes = ["elbow", "fingers", "forearm", "humerus", "shoulder", "wrist"]
    model = Classifier(node, classes, {"_target_": "torch.optim.Adam", "lr": 0.1})
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    return path


def test_a_runs_checkpoint_gives_all_its_weights(checkpoint: Path) -> None:
    loaded = timm_backbone("resnet18", num_classes=6, weights=str(checkpoint)).state_dict()
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, value in loaded.items():
        assert torch.equal(value, stored[f"backbone.{name}"]), name


def test_a_checkpoint_of_another_number_of_classes_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint of 6 classes \(elbow.*this task has 2"):
        timm_backbone("resnet18", num_classes=2, weights=str(checkpoint))


def test_a_checkpoint_of_another_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold weights of model.name=resnet50"):
        timm_backbone("resnet50", num_classes=6, weights=str(checkpoint))

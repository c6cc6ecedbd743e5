"""Detection of the head, and dropout before it."""

import pytest
import timm
import torch
from helpers.models import TINY, TinyNet
from torch import nn

from fracnet.models.backbones import DropoutLinear, add_head_dropout, find_heads
from fracnet.models.classifier import Classifier
from fracnet.models.cnn import CustomCNN
from fracnet.utils.errors import UserError


def test_the_head_is_timms_classifier_or_the_last_linear_layer() -> None:
    resnet = timm.create_model("resnet18", num_classes=3)
    assert find_heads(resnet, "k") == [resnet.fc]
    custom = CustomCNN(num_classes=3, image_size=16)
    assert find_heads(custom, "k") == [custom.head[-1]]


def test_both_heads_of_a_distilled_transformer_are_detected() -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)
    assert find_heads(model, "k") == [model.head, model.head_dist]


@pytest.mark.parametrize(
    "model", [nn.Conv2d(3, 2, 1), timm.create_model("resnet18", num_classes=0)]
)
def test_a_model_without_a_head_is_refused_by_the_key_that_needs_one(model: nn.Module) -> None:
    with pytest.raises(UserError, match=r"model.freeze=backbone needs the model's head"):
        find_heads(model, "model.freeze=backbone")


def test_head_dropout_drops_features_in_training_alone() -> None:
    torch.manual_seed(0)
    model = TinyNet(num_classes=3, width=64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(2, 3, 16, 16)
    plain = model.eval()(images)
    add_head_dropout(model, 0.5)
    assert isinstance(model.head, DropoutLinear)
    torch.testing.assert_close(model.eval()(images), plain)
    assert model.state_dict().keys() == before.keys(), "a checkpoint loads with and without it"

    model.train()
    features = torch.rand(1, 64)
    outputs = torch.stack([model.head(features)[0] for _ in range(2000)])
    assert outputs.std(dim=0).min() > 0.01
    whole = nn.functional.linear(features, model.head.weight, model.head.bias)[0]
    torch.testing.assert_close(outputs.mean(dim=0), whole, atol=0.05, rtol=0)


def test_a_head_that_is_not_linear_takes_no_dropout() -> None:
    model = timm.create_model("resnetv2_50x1_bit", num_classes=3)
    with pytest.raises(UserError, match=r"model.head_dropout=0.5: the head of .* is a Conv2d"):
        add_head_dropout(model, 0.5)


def test_checkpoint_with_head_dropout_gives_the_same_network() -> None:
    optim = {"_target_": "torch.optim.Adam", "lr": 0.1}
    model = Classifier(TINY | {"head_dropout": 0.3, "freeze": 2}, ["a", "b"], optim)
    rebuilt = Classifier(**model.hparams)
    assert isinstance(rebuilt.backbone.head, DropoutLinear)
    rebuilt.load_state_dict(model.state_dict())

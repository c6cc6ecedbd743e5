"""Detection of the head, and dropout before it."""

import numpy as np
import pytest
import timm
import torch
from helpers.models import ADAM, TINY, TinyNet
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fracnet.models.classifier import Classifier
from fracnet.models.cnn import CustomCNN
from fracnet.models.fitted_heads import fit_head
from fracnet.models.heads import (
    SMOOTHING,
    TEMPERATURE,
    DropoutLinear,
    KnnHead,
    MlpHead,
    find_heads,
    set_head,
)
from fracnet.utils.errors import UserError
from fracnet.utils.progress import no_progress


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
    set_head(model, {"head_dropout": 0.5}, 3)
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
    with pytest.raises(UserError, match=r"model.head_dropout=0.5 needs one linear .* has a Conv2d"):
        set_head(model, {"head_dropout": 0.5}, 3)


def test_checkpoint_with_head_dropout_gives_the_same_network() -> None:
    optim = {"_target_": "torch.optim.Adam", "lr": 0.1}
    model = Classifier(TINY | {"head_dropout": 0.3, "freeze": 2}, ["a", "b"], optim)
    rebuilt = Classifier(**model.hparams)
    assert isinstance(rebuilt.backbone.head, DropoutLinear)
    rebuilt.load_state_dict(model.state_dict())


def features(seed: int, n: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Blobs around a center per class, float32 [n, 8], and their targets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    centers = np.random.default_rng(0).normal(size=(classes, 8))
    return (centers[targets] + rng.normal(size=(n, 8))).astype(np.float32), targets


def fitted(kind: str, **more: object) -> Classifier:
    node = TINY | {"width": 8, "head": kind, "freeze": "backbone", **more}
    model = Classifier(node, ["a", "b", "c"], ADAM)
    fit_head(model.backbone, node, features(1), features(2), None, no_progress)
    return model


def test_a_fitted_logistic_head_is_scikit_learns_in_the_network() -> None:
    head = fitted("logistic", head_C=[0.1]).backbone.head
    assert type(head) is nn.Linear
    (x, y), (x_val, _) = features(1), features(2)
    whole = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x, y)
    found = head(torch.from_numpy(x_val)).log_softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found, whole.predict_log_proba(x_val), atol=1e-3)


def test_validation_chooses_the_number_of_neighbors_that_vote_by_similarity() -> None:
    model = fitted("knn", head_k=[1, 9, 500])
    (head,) = find_heads(model.backbone, "k")
    assert isinstance(head, KnnHead)
    (x, y), (x_val, _) = features(1), features(2)
    k = int(head.neighbors)
    assert k in (9, 60), "one neighbor is too sure of itself, and there are no more than 60"
    votes = KNeighborsClassifier(
        k, metric="cosine", weights=lambda far: np.exp(-far / TEMPERATURE)
    ).fit(x, y)
    found = head(torch.from_numpy(x_val)).exp().numpy()
    expected = (1 - SMOOTHING) * votes.predict_proba(x_val) + SMOOTHING / 3
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["knn", "mlp", "logistic"])
def test_a_checkpoint_gives_the_same_network_with_each_head(kind: str) -> None:
    model = Classifier(TINY | {"head": kind}, ["a", "b"], ADAM)
    if kind != "mlp":
        model = fitted(kind, head_k=[5], head_C=[1.0])
    again = Classifier(**model.hparams)
    again.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(again.eval()(images), model.eval()(images))
    assert find_heads(again.backbone, "k") == [again.backbone.head]


def test_pooling_by_average_and_maximum_doubles_the_features() -> None:
    resnet = timm.create_model("resnet18", num_classes=3)
    set_head(resnet, {"pool": "avgmax", "head": "mlp", "head_hidden": 7}, 3)
    (head,) = find_heads(resnet, "k")
    assert isinstance(head, MlpHead)
    assert (head[0].in_features, head[0].out_features) == (1024, 7)
    assert resnet(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(UserError, match=r"model.pool=avgmax: TinyNet has no such pooling"):
        set_head(TinyNet(3), {"pool": "avgmax"}, 3)
    with pytest.raises(UserError, match=r"model.head=knn needs one linear layer"):
        set_head(timm.create_model("resnetv2_50x1_bit", num_classes=3), {"head": "knn"}, 3)

"""Losses against their formulas, with class weights and label smoothing."""

import math

import pytest
import torch

from fracnet.models.losses import CrossEntropy, Focal, make_loss
from fracnet.utils.errors import UserError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.1, -0.2], [-3.0, 4.0, 1.0]], dtype=torch.float64)
TARGET = torch.tensor([0, 2, 0])
CLASSES = ["elbow", "fingers", "wrist"]


def written_out(gamma: float, smoothing: float, weight: list[float]) -> float:
    """The focal loss in plain arithmetic."""
    total = norm = 0.0
    for row, truth in zip(LOGITS.tolist(), TARGET.tolist(), strict=True):
        scale = sum(math.exp(z) for z in row)
        for c, z in enumerate(row):
            p = math.exp(z) / scale
            q = (1 - smoothing if c == truth else 0.0) + smoothing / 3
            total += weight[c] * q * (1 - p) ** gamma * -math.log(p)
        norm += weight[truth]
    return total / norm


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1.0, 2.5, 0.25]])
def test_focal_loss_matches_its_formula(
    gamma: float, smoothing: float, weight: list[float] | None
) -> None:
    loss = Focal(gamma=gamma, label_smoothing=smoothing, weight=weight)(LOGITS, TARGET)
    assert float(loss) == pytest.approx(written_out(gamma, smoothing, weight or [1, 1, 1]))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, [1.0, 2.5, 0.25]])
def test_focal_loss_without_focus_is_torchs_cross_entropy_and_so_is_ours(
    smoothing: float, weight: list[float] | None
) -> None:
    tensor = None if weight is None else torch.tensor(weight)
    expected = torch.nn.CrossEntropyLoss(tensor, label_smoothing=smoothing)(LOGITS.float(), TARGET)
    for loss in (
        Focal(gamma=0, label_smoothing=smoothing, weight=weight),
        CrossEntropy(label_smoothing=smoothing, weight=weight),
    ):
        torch.testing.assert_close(loss(LOGITS.float(), TARGET), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_slope_where_the_model_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_class_weights_follow_the_device_but_not_the_checkpoint() -> None:
    loss = Focal(weight=[1.0, 2.0])
    assert not loss.state_dict()
    assert [name for name, _ in loss.named_buffers()] == ["weight"]


FOCAL = {"_target_": "fracnet.models.losses.Focal", "gamma": 1.5}


def test_class_weights_reach_the_loss() -> None:
    loss = make_loss(FOCAL, CLASSES, [1.0, 2.0, 3.0])
    assert isinstance(loss, Focal)
    assert loss.gamma == 1.5
    assert loss.weight is not None
    assert loss.weight.tolist() == [1, 2, 3]
    assert make_loss(FOCAL, CLASSES, None).weight is None


@pytest.mark.parametrize(
    ("node", "weights", "message"),
    [
        ({"weight": [1.0, 2.0]}, None, r"loss.weight=\[1.0, 2.0\] has 2 .* 3 classes \(elbow"),
        (
            {"weight": [1.0, 2.0, 3.0]},
            [1.0, 1.0, 1.0],
            "imbalance=class_weights sets class weights too",
        ),
        ({"label_smoothing": 1.0}, None, "loss.label_smoothing=1.0 .*less than 1"),
        ({"gama": 1.0}, None, "loss.gama=1.0 is not an argument .*Did you mean 'gamma'"),
    ],
)
def test_a_wrong_loss_is_named(
    node: dict[str, object], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_loss(FOCAL | node, CLASSES, weights)

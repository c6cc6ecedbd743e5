"""Learning rates of head and backbone, schedules over both, and the L1 penalty."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fitting import HEADLESS, fit_tiny
from helpers.models import ADAM, TINY
from lightning.pytorch import Callback
from torch import nn

from fracnet.models.classifier import Classifier, l1_penalty, make_optimizer
from fracnet.utils.errors import UserError

CLASSES = ["a", "b", "c"]
SLOW = ADAM | {"lr": 0.1, "backbone_lr_factor": 0.1, "l1": 0.0, "weight_decay": 0.01}


def test_a_single_learning_rate_gives_one_parameter_group() -> None:
    model = Classifier(TINY, CLASSES, ADAM | {"backbone_lr_factor": 1.0, "l1": 0.0})
    (group,) = make_optimizer(model.hparams["optim"], model, model.backbone).param_groups
    assert len(group["params"]) == len(list(model.parameters()))


def test_the_head_is_the_first_group_and_every_weight_is_in_exactly_one() -> None:
    model = Classifier(TINY, CLASSES, SLOW)
    optimizer = make_optimizer(SLOW, model, model.backbone)
    head, rest = optimizer.param_groups
    assert (head["lr"], rest["lr"]) == (0.1, pytest.approx(0.01))
    assert head["weight_decay"] == rest["weight_decay"] == 0.01
    assert {id(p) for p in head["params"]} == {id(p) for p in model.backbone.head.parameters()}
    both = [id(p) for p in head["params"] + rest["params"]]
    assert sorted(both) == sorted(id(p) for p in model.parameters())


class Rates(Callback):
    """Rates of both groups in each epoch."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


SCHEDULES = "torch.optim.lr_scheduler."


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"_target_": SCHEDULES + "CosineAnnealingLR", "T_max": 4}, [1, 0.8536, 0.5, 0.1464]),
        (
            {"_target_": SCHEDULES + "CosineAnnealingWarmRestarts", "T_0": 2},
            [1, 0.5, 1, 0.5],
        ),
        # A threshold that no loss passes: a tenth of the rate after every epoch but the first two.
        (
            {"_target_": SCHEDULES + "ReduceLROnPlateau", "patience": 0, "threshold": 0.99},
            [1, 1, 0.1, 0.01],
        ),
    ],
)
def test_a_schedule_scales_both_rates_alike(
    tmp_path: Path, schedule: dict[str, Any], expected: list[float]
) -> None:
    rates = Rates()
    fit_tiny(Classifier(TINY, CLASSES, SLOW, schedule), tmp_path, epochs=4, callbacks=[rates])
    for (head, rest), factor in zip(rates.seen, expected, strict=True):
        assert head == pytest.approx(0.1 * factor, rel=1e-3)
        assert rest == pytest.approx(0.01 * factor, rel=1e-3)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_slow_backbone_moves_less(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    node = {"_target_": f"torch.optim.{name}", "lr": 0.01, "backbone_lr_factor": 1e-6}
    model = Classifier(TINY, CLASSES, node)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    fit_tiny(model, tmp_path, epochs=2)
    move = {k: float((v - start[k]).abs().max()) for k, v in model.state_dict().items()}
    assert move["backbone.head.weight"] > 100 * move["backbone.convolution.weight"] > 0


def test_l1_counts_kernels_and_matrices_that_are_trained() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 1))
    for weight in model.parameters():
        nn.init.constant_(weight, -3.0)
    assert l1_penalty(model).item() == 3 * (2 + 2)
    model[0].requires_grad_(False)
    assert l1_penalty(model).item() == 3 * 2
    model.requires_grad_(False)
    assert l1_penalty(model).item() == 0


def test_l1_is_part_of_the_training_loss_and_not_of_the_validation_loss(tmp_path: Path) -> None:
    figures = {}
    for l1 in (0.0, 0.5):
        torch.manual_seed(0)
        # A rate this small leaves the weights as they are.
        model = Classifier(TINY, CLASSES, ADAM | {"lr": 1e-12, "l1": l1})
        expected = 0.5 * l1_penalty(model).item()
        figures[l1] = fit_tiny(model, tmp_path / str(l1), epochs=1).callback_metrics
    gain = float(figures[0.5]["train/loss"] - figures[0.0]["train/loss"])
    assert gain == pytest.approx(expected, rel=1e-4)
    assert float(figures[0.5]["val/loss"]) == pytest.approx(float(figures[0.0]["val/loss"]))


def test_l1_makes_weights_smaller(tmp_path: Path) -> None:
    sizes = []
    for l1 in (0.0, 1.0):
        torch.manual_seed(0)
        model = Classifier(TINY, CLASSES, ADAM | {"l1": l1})
        fit_tiny(model, tmp_path / str(l1), epochs=5)
        sizes.append(l1_penalty(model).item())
    assert sizes[1] < 0.8 * sizes[0]


def test_validation_loss_is_plain_cross_entropy_for_any_training_loss(tmp_path: Path) -> None:
    groups = []
    focal = {"_target_": "fracnet.models.losses.Focal", "gamma": 3.0, "label_smoothing": 0.2}
    for loss, weights in ((None, None), (focal, [1.0, 5.0, 0.1])):
        torch.manual_seed(0)
        model = Classifier(TINY, CLASSES, ADAM | {"lr": 1e-12}, None, loss, weights)
        metrics = fit_tiny(model, tmp_path, epochs=1).callback_metrics
        groups.append((float(metrics["val/loss"]), float(metrics["train/loss"])))
    assert groups[0][0] == pytest.approx(groups[1][0])
    assert abs(groups[0][1] - groups[1][1]) > 0.1


def test_a_separate_backbone_rate_needs_a_head() -> None:
    with pytest.raises(UserError, match=r"optim.backbone_lr_factor=0.1 needs the model's head"):
        Classifier(HEADLESS, CLASSES, SLOW)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_torch_optimizers_use_the_fused_step_by_default(name: str) -> None:
    model = Classifier(TINY, CLASSES, ADAM)
    node = {"_target_": f"torch.optim.{name}", "lr": 0.1}

    def fused(node: dict[str, Any], **how: Any) -> Any:
        return make_optimizer(node, model, model.backbone, **how).defaults["fused"]

    assert fused(node) is True
    assert fused(node | {"fused": False}) is False
    assert fused(node | {"foreach": True}) is None or name == "SGD"
    assert not fused(node, fuse=False)


def test_an_optimizer_without_a_fused_step_is_unchanged() -> None:
    model = Classifier(TINY, CLASSES, ADAM)
    node = {"_target_": "torch.optim.RMSprop", "lr": 0.1}
    assert "fused" not in make_optimizer(node, model, model.backbone).defaults


def test_the_fused_and_the_default_step_agree() -> None:
    weights = []
    for fuse in (True, False):
        torch.manual_seed(0)
        model = Classifier(TINY, CLASSES, ADAM)
        optimizer = make_optimizer(ADAM, model, model.backbone, fuse=fuse)
        images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
        for _ in range(3):
            optimizer.zero_grad()
            model.eval()(images).square().sum().backward()
            optimizer.step()
        weights.append([weight.detach().clone() for weight in model.parameters()])
    for left, right in zip(*weights, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


WARMUP = {"_target_": "fracnet.models.schedules.warmup_cosine", "total_steps": "auto"}
STEP_LR = {"_target_": SCHEDULES + "StepLR", "step_size": 2}


@pytest.mark.parametrize(
    ("node", "steps"),
    [
        ({"_target_": SCHEDULES + "OneCycleLR", "max_lr": 0.1, "total_steps": "auto"}, 6),
        ({"_target_": SCHEDULES + "CyclicLR", "base_lr": 0.1, "max_lr": 1.0}, 6),
        (WARMUP, 6),
        (WARMUP | {"interval": "epoch"}, 2),
        (STEP_LR, 2),
        (STEP_LR | {"interval": "step"}, 6),
    ],
)
def test_a_schedule_made_for_steps_is_stepped_with_the_optimizer(
    node: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    """Its YAML need not name the interval: Lightning alone would step it once an epoch."""
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    trainer = fit_tiny(Classifier(TINY, CLASSES, sgd, node), tmp_path, epochs=2)
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == steps  # two epochs of three batches


def test_rates_fall_by_stage_from_the_head_to_the_stem() -> None:
    """ResNet-18: the head, four stages, the stem."""
    node = {"_target_": "fracnet.models.backbones.timm_backbone", "name": "resnet18"}
    node |= {"pretrained": False, "normalize": "weights"}
    optim = ADAM | {"lr": 0.1, "layer_decay": 0.5}
    model = Classifier(node, CLASSES, optim)
    optimizer = make_optimizer(optim, model, model.backbone)
    rate_of = {
        weight: group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    rates = {name: rate_of[weight] for name, weight in model.backbone.named_parameters()}
    assert len(rate_of) == len(list(model.parameters()))
    assert optimizer.param_groups[0]["lr"] == rates["fc.bias"] == 0.1
    for stage, depth in (("layer4.0.conv1", 1), ("layer1.1.bn2", 4), ("conv1", 5)):
        assert rates[f"{stage}.weight"] == pytest.approx(0.1 * 0.5**depth), stage


def test_both_factors_of_the_rate_multiply_in_any_network() -> None:
    optim = SLOW | {"layer_decay": 0.5}
    model = Classifier(HEADLESS | {"_target_": "helpers.fitting.NormNet"}, CLASSES, optim)
    head, rest = make_optimizer(optim, model, model.backbone).param_groups
    assert (head["lr"], rest["lr"]) == (0.1, pytest.approx(0.01))  # too small for two stages

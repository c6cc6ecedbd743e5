"""The optimiser over a model's weights: rates of their own for backbone and head, and L1."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fracnet.models.heads import find_heads
from fracnet.objects import build, locate

OWN_KEYS = ("backbone_lr_factor", "l1")


# Other ways to take a step, of which torch allows one: a user who names one has chosen.
WAYS = ("fused", "foreach", "capturable", "differentiable")


def make_optimiser(
    node: Mapping[str, Any], module: nn.Module, backbone: nn.Module, *, fuse: bool = True
) -> torch.optim.Optimizer:
    """The optimiser that `optim._target_` names.

    Where `optim.backbone_lr_factor` is not 1 there are two groups of weights: first the head's
    with `optim.lr`, then all others with `optim.lr` times the factor. Everything else, weight
    decay and schedule too, holds for both. Frozen weights are in it as well: they have no
    gradient, so they stay until they are thawed.

    Args:
        node: `_target_`, its arguments, and the keys of fracnet's own.
        module: all that is trained.
        backbone: the part of it that maps images to logits.
        fuse: take a step in one pass over the weights, where torch's optimiser can: on a CPU
            that takes about a third of the time of Adam's usual step.
    """
    arguments = {key: value for key, value in node.items() if key not in OWN_KEYS}
    if fuse and _can_be_fused(arguments, module):
        arguments["fused"] = True
    factor = float(node.get("backbone_lr_factor", 1.0))
    if factor == 1.0:
        optimiser: torch.optim.Optimizer = build(arguments, "optim", module.parameters())
        return optimiser
    heads = find_heads(backbone, f"optim.backbone_lr_factor={factor}")
    head = {id(weight): weight for layer in heads for weight in layer.parameters()}
    rest = [weight for weight in module.parameters() if id(weight) not in head]
    groups = [{"params": list(head.values())}, {"params": rest, "lr": node["lr"] * factor}]
    optimiser = build(arguments, "optim", groups)
    return optimiser


def _can_be_fused(arguments: Mapping[str, Any], module: nn.Module) -> bool:
    target = str(arguments["_target_"])
    if not target.startswith("torch.optim.") or any(way in arguments for way in WAYS):
        return False
    on = {(weight.device.type, weight.is_floating_point()) for weight in module.parameters()}
    known = inspect.signature(locate(target, "optim")).parameters
    return "fused" in known and on <= {("cpu", True), ("cuda", True)}


def l1_penalty(module: nn.Module) -> Tensor:
    """Sum of the absolute weights that are being trained, as a scalar on their device.

    Matrices and convolution kernels count; biases, the scales of normalisation layers and
    frozen weights do not.
    """
    parts = [w.abs().sum() for w in module.parameters() if w.requires_grad and w.ndim >= 2]
    return torch.stack(parts).sum() if parts else torch.zeros(())

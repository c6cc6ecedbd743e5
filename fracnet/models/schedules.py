"""Learning rates: by layer, and over time: the schedule of a config, warm-up before a cosine."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fracnet.config.instantiate import build
from fracnet.models.backbones import find_stages
from fracnet.models.heads import find_heads

EVERY_STEP = (
    "fracnet.models.schedules.warmup_cosine",
    "torch.optim.lr_scheduler.CyclicLR",
    "torch.optim.lr_scheduler.OneCycleLR",
)
"""Schedules that are stepped with the optimizer unless `interval` says otherwise."""
LIGHTNING_KEYS = ("interval", "frequency", "monitor", "total_steps")
REHEARSAL_STEPS = 1000
"""Stands for `total_steps: auto` where no training is attached."""


def rate_factors(node: Mapping[str, Any], backbone: nn.Module) -> dict[nn.Parameter, float]:
    """What the rate of each weight below the head is multiplied by; {} where all have one rate.

    `backbone_lr_factor` times `layer_decay` to the power of the number of stages between the
    weight and the head (Bao et al., 2022, arXiv:2106.08254).
    Raises UserError for a network without a known head.
    """
    factor, decay = (float(node.get(key, 1.0)) for key in ("backbone_lr_factor", "layer_decay"))
    if factor == decay == 1.0:
        return {}
    key = "backbone_lr_factor" if factor != 1.0 else "layer_decay"
    heads = find_heads(backbone, f"optim.{key}={node[key]}")
    head = {weight for layer in heads for weight in layer.parameters()}
    stages = find_stages(backbone)
    depth = {weight: stages[name] for name, weight in backbone.named_parameters()}
    last = max(depth.values())
    return {
        weight: factor * decay ** (last - n) for weight, n in depth.items() if weight not in head
    }


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: Annotated[int, Field(ge=1)],
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.01,
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> LambdaLR:
    """Linear warm-up from `start_factor` to 1, then a cosine down to `end_factor`, times the rate.

    total_steps: steps of the whole run. warmup: the share of them that warms up.
    """
    rising = max(1, round(warmup * total_steps)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return start_factor + (1 - start_factor) * step / rising
        progress = min(1.0, (step - rising) / max(1, total_steps - rising))
        return end_factor + (1 - end_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def interval_of(node: Mapping[str, Any]) -> str:
    """When a schedule is stepped: `epoch` or `step`.

    Lightning steps every schedule once an epoch by default, which would silently stretch
    one that is made for steps.
    """
    by_default = "step" if node["_target_"] in EVERY_STEP else "epoch"
    return str(node.get("interval") or by_default)


def build_schedule(
    node: Mapping[str, Any], optimizer: Optimizer, total_steps: int = REHEARSAL_STEPS
) -> dict[str, Any]:
    """The schedule that `scheduler._target_` names, as Lightning's `lr_scheduler` dictionary.

    total_steps: how often the schedule is stepped in the whole run; `total_steps: auto` takes it.
    """
    arguments = {key: value for key, value in node.items() if key not in LIGHTNING_KEYS}
    if node.get("total_steps") is not None:
        steps = node["total_steps"]
        arguments["total_steps"] = total_steps if steps == "auto" else steps
    groups = optimizer.param_groups
    if isinstance(arguments.get("max_lr"), float | int) and len(groups) > 1:
        # A single max_lr would undo optim.backbone_lr_factor.
        first = groups[0]["lr"]
        arguments["max_lr"] = [arguments["max_lr"] * group["lr"] / first for group in groups]
    return {
        "scheduler": build(arguments, "scheduler", optimizer),
        "interval": interval_of(node),
        "frequency": node.get("frequency", 1),
        "monitor": f"val/{node.get('monitor', 'loss')}",
    }

"""Losses on logits, with class weights and label smoothing.

Training minimizes the chosen loss. The logged validation loss, which selects the checkpoint, is
always the plain cross-entropy, so that runs with different losses compare.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fracnet.config.instantiate import build
from fracnet.utils.errors import UserError

Smoothing = Annotated[float, Field(ge=0, lt=1)]
Gamma = Annotated[float, Field(ge=0)]

# Keeps the slope of (1 - p)^gamma finite for a gamma below 1 where p has rounded to 1.
SMALLEST = 1e-12


class _Weighted(nn.Module):
    """Holds the class weights on the device, outside the checkpoint's weights."""

    weight: Tensor | None

    def __init__(self, label_smoothing: float, weight: Sequence[float] | None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        values = None if weight is None else torch.tensor(weight, dtype=torch.float32)
        self.register_buffer("weight", values, persistent=False)


class CrossEntropy(_Weighted):
    """Cross-entropy of logits float [N, C] and targets int64 [N], as a scalar.

    label_smoothing: share of the target's probability that is spread evenly over all classes.
    weight: one weight per class; the mean over the batch is weighted by those of its targets.
    """

    def __init__(
        self, label_smoothing: Smoothing = 0.0, weight: Sequence[float] | None = None
    ) -> None:
        super().__init__(label_smoothing, weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch."""
        return functional.cross_entropy(
            logits, target, self.weight, label_smoothing=self.label_smoothing
        )


class Focal(_Weighted):
    """Focal loss (Lin et al., 2017, arXiv:1708.02002) of logits [N, C] and targets int64 [N].

    The loss of an image is sum over c of w_c q_c (1 - p_c)^gamma (-log p_c), where p is the
    softmax, q the smoothed target and w the class weight; the batch's is the sum of those over
    the sum of its targets' weights. With gamma = 0 this is `CrossEntropy`.

    gamma: how strongly an easy image is downweighted; 2 in the paper. label_smoothing: as in
    `CrossEntropy`. weight: one weight per class (alpha in the paper).
    """

    def __init__(
        self,
        gamma: Gamma = 2.0,
        label_smoothing: Smoothing = 0.0,
        weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__(label_smoothing, weight)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch."""
        log_p = logits.log_softmax(dim=1)
        classes = logits.shape[1]
        weight = log_p.new_ones(classes) if self.weight is None else self.weight
        truth = functional.one_hot(target, classes).to(log_p.dtype)
        smooth = truth * (1 - self.label_smoothing) + self.label_smoothing / classes
        missed = (-torch.expm1(log_p)).clamp_min(SMALLEST)  # 1 - p without loss of digits
        each = -(weight * smooth * missed.pow(self.gamma) * log_p).sum(dim=1)
        return each.sum() / weight[target].sum()


def make_loss(
    node: Mapping[str, Any], classes: Sequence[str], class_weights: Sequence[float] | None
) -> nn.Module:
    """The loss that `loss._target_` names, with `class_weights`, if any, as its `weight`.

    Raises UserError for a wrong argument, or not one weight per class.
    """
    extra: dict[str, Any] = {} if class_weights is None else {"weight": list(class_weights)}
    given = node.get("weight")
    if given is not None and extra:
        raise UserError(
            f"loss.weight={given}, but imbalance=class_weights sets class weights too; "
            "allowed: one of the two."
        )
    if isinstance(given, list) and len(given) != len(classes):
        raise UserError(
            f"loss.weight={given} has {len(given)} weights; allowed: one for each of the "
            f"{len(classes)} classes ({', '.join(classes)})."
        )
    loss: nn.Module = build(node, "loss", **extra)
    return loss

"""The auxiliary head that learns where the fracture is, and of which class: `loss.localization`.

A 1x1 convolution on a late feature map of any backbone gives each cell a logit of being annotated,
and logits of the classes. They are trained towards the annotated polygons and boxes at the
resolution of that map, and inside these towards the class of the image. So the features below the
head, which the classifier shares, must tell a fracture from what surrounds it, and that of one part
from that of its neighbor. Predictions do not use the head.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fracnet.models.feature_maps import find_layer
from fracnet.utils import network
from fracnet.utils.errors import UserError

AUTO_WEIGHT = 4.0
"""Of the loss, for `loss.localization=auto` (experiments/localization_loss)."""
STRIDE = 16
"""Pixels per cell at most, where the network has such a layer. At 32, the usual last stride, a cell
is larger than most fractures."""


class Cells(NamedTuple):
    """What the head predicts: for each cell the logit of being annotated, float32 [N, h, w], and
    those of the classes, float32 [N, C, h, w]."""

    annotated: Tensor
    classes: Tensor


class Localizer(nn.Module):
    """`Cells` of the last feature map of a backbone whose cells are fine enough.

    Use it as a context around a call of the backbone, and call it afterwards:

        with localizer.watch(backbone):
            logits = backbone(images)
        cells = localizer()

    The backbone is left unchanged; its hook exists only inside the context.
    """

    def __init__(self, backbone: nn.Module, image_size: int, classes: int, key: str) -> None:
        """image_size: S of the backbone's images [N, 3, S, S]. classes: their number. key: of the
        config, for messages.

        Raises UserError for a backbone without a feature map.
        """
        super().__init__()
        kind = type(backbone).__name__
        try:
            try:
                layer = find_layer(backbone, size=image_size, cells=image_size // STRIDE)
            except UserError:
                layer = find_layer(backbone, size=image_size)
        except UserError as error:
            raise UserError(
                f"{key} needs a layer whose output is a map of the image, but {kind} has none; "
                "allowed with it: loss.localization=0."
            ) from error
        except Exception as error:  # the network may be the user's own and raise anything
            raise UserError(
                f"{key}: {kind} fails on images of image_size={image_size}: "
                f"{network.clause(error)}."
            ) from error
        self.layer = layer.name
        self.grid = layer.grid
        self._reshape = layer.reshape
        self._features: Tensor | None = None
        self.head = nn.Conv2d(layer.channels, 1 + classes, kernel_size=1)

    def watch(self, backbone: nn.Module) -> torch.utils.hooks.RemovableHandle:
        """A context within which calls of the backbone keep its feature map for this head."""
        return backbone.get_submodule(self.layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._features = output if self._reshape is None else self._reshape(output)

    def forward(self) -> Cells:
        """Of the images that the backbone has just processed."""
        features, self._features = self._features, None
        assert features is not None, "the backbone was not called within `watch`"
        logits: Tensor = self.head(features).float()
        return Cells(logits[:, 0], logits[:, 1:])


def localization_loss(cells: Cells, maps: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of cells against maps and of the classes inside, a scalar; 0 if none is known.

    The positive and the negative cells of an image have the same total weight (Xie and Tu 2015,
    arXiv:1504.06375): an annotation covers a few per cent of an image. The cross-entropy of the
    classes, the mean over what is annotated, is added.

    maps: share of each cell that is annotated, in 255ths: uint8 [N, g, g], at any resolution.
    known: bool [N], images whose map is known; the others do not count. target: int64 [N].
    """
    annotated, classes = cells
    height, width = annotated.shape[-2:]
    share = functional.adaptive_avg_pool2d(maps[:, None].float() / 255, (height, width))[:, 0]
    everywhere = target[:, None, None].expand(-1, height, width)
    wrong_class = functional.cross_entropy(classes, everywhere, reduction="none")

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return (weights * values).sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp_min(1e-6)

    positive = mean(functional.softplus(-annotated), share)
    negative = mean(functional.softplus(annotated), 1 - share)
    # A map without an annotation has negative cells alone.
    marked = share.sum(dim=(1, 2)) > 0
    each = torch.where(marked, (positive + negative) / 2 + mean(wrong_class, share), negative)
    # Not indexed: every weight takes part in every step, as data-parallel training requires.
    return (each * known).sum() / known.sum().clamp_min(1)


def localization_scores(cells: Tensor, maps: Tensor) -> Tensor:
    """Pointing game and energy of each image, float32 [N, 2]; NaN where nothing is annotated.

    As in `fracnet.saliency.localization`, at the resolution of the maps: whether the maximum of the
    probabilities lies in a cell of which at least half is annotated (or as much as of any), and the
    share of their sum inside. cells: logits float [N, h, w] of being annotated. maps: as for
    `localization_loss`.
    """
    maps = maps.float() / 255
    heat = functional.interpolate(
        cells.sigmoid()[:, None], size=maps.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0]
    flat, truth = heat.flatten(1), maps.flatten(1)
    most = truth.max(dim=1, keepdim=True).values
    marked = truth >= most.clamp(max=0.5)
    hit = marked.gather(1, flat.argmax(dim=1, keepdim=True))[:, 0].float()
    energy = (flat * truth).sum(dim=1) / flat.sum(dim=1).clamp_min(1e-12)
    scores = torch.stack([hit, energy], dim=1)
    return torch.where(most > 0, scores, torch.full_like(scores, np.nan))


def check_method(
    method: str, layer: str | None, localizer: Localizer | None, group: str = "explain."
) -> None:
    """Raise UserError for heatmaps of the head (method `localization`) that it cannot give.

    layer: that was asked for; the head has its own. group: of the keys, for messages.
    """
    if method != "localization":
        return
    if localizer is None:
        raise UserError(
            f"{group}method={method} needs a network that was trained with loss.localization=; "
            "allowed: gradcam, hirescam, gradcam++, eigencam."
        )
    if layer is not None:
        raise UserError(
            f"{group}layer={layer}: {group}method={method} has a layer of its own; allowed with "
            f"it: {group}layer=null."
        )

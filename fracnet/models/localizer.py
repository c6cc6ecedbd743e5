"""The auxiliary head that is trained to say where the fracture is: `loss.localization`.

A 1x1 convolution on a late feature map of any backbone gives one logit per cell. It is trained
towards the annotated polygons and boxes at the resolution of that map, so that the features below
it, which the classifier shares, must tell a fracture from what surrounds it. Predictions do not use
it.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fracnet.models.feature_maps import find_layer
from fracnet.utils import network
from fracnet.utils.errors import UserError

STRIDE = 16
"""Pixels per cell at most, where the network has such a layer. At 32, the usual last stride, a cell
is larger than most fractures."""


class Localizer(nn.Module):
    """Logits [N, h, w] of the last feature map [N, C, h, w] of a backbone with fine enough cells.

    Use it as a context around a call of the backbone, and call it afterwards:

        with localizer.watch(backbone):
            logits = backbone(images)
        cells = localizer()

    The backbone is left unchanged; its hook exists only inside the context.
    """

    def __init__(self, backbone: nn.Module, image_size: int, key: str) -> None:
        """image_size: S of the backbone's images [N, 3, S, S]. key: of the config, for messages.

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
        self.head = nn.Conv2d(layer.channels, 1, kernel_size=1)

    def watch(self, backbone: nn.Module) -> torch.utils.hooks.RemovableHandle:
        """A context within which calls of the backbone keep its feature map for this head."""
        return backbone.get_submodule(self.layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._features = output if self._reshape is None else self._reshape(output)

    def forward(self) -> Tensor:
        """Logits float32 [N, h, w] of the images that the backbone has just processed."""
        features, self._features = self._features, None
        assert features is not None, "the backbone was not called within `watch`"
        cells: Tensor = self.head(features)[:, 0].float()
        return cells


def localization_loss(cells: Tensor, maps: Tensor, known: Tensor) -> Tensor:
    """Balanced cross-entropy of cells against maps, as a scalar; 0 if no image is known.

    The positive and the negative cells of an image have the same total weight (Xie and Tu 2015,
    arXiv:1504.06375): an annotation covers a few per cent of an image.

    Args:
        cells: logits float [N, h, w].
        maps: share of each cell that is annotated, in 255ths: uint8 [N, g, g], at any resolution.
        known: bool [N], images whose map is known; the others do not count.
    """
    height, width = cells.shape[-2:]
    share = functional.adaptive_avg_pool2d(maps[:, None].float() / 255, (height, width))[:, 0]
    inside, outside = share.sum(dim=(1, 2)), (1 - share).sum(dim=(1, 2))
    positive = (share * functional.softplus(-cells)).sum(dim=(1, 2)) / inside.clamp_min(1e-6)
    negative = ((1 - share) * functional.softplus(cells)).sum(dim=(1, 2)) / outside.clamp_min(1e-6)
    # A map without an annotation has negative cells alone.
    each = torch.where(inside > 0, (positive + negative) / 2, negative)
    # Not indexed: every weight takes part in every step, as data-parallel training requires.
    return (each * known).sum() / known.sum().clamp_min(1)


def localization_scores(cells: Tensor, maps: Tensor) -> Tensor:
    """Pointing game and energy of each image, float32 [N, 2]; NaN where nothing is annotated.

    As in `fracnet.saliency.localization`, at the resolution of the maps: whether the maximum of the
    probabilities lies in a cell of which at least half is annotated (or as much as of any), and the
    share of their sum inside.

    Args:
        cells: logits float [N, h, w].
        maps: as for `localization_loss`.
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

"""Heatmaps of the evidence for a class: Grad-CAM and its relatives, by the package grad-cam.

Sources: Grad-CAM, Selvaraju et al. 2017 (ICCV); HiResCAM, Draelos and Carin 2020
(arXiv 2011.08891); Grad-CAM++, Chattopadhay et al. 2018 (WACV); Eigen-CAM, Muhammad and Yeasin
2020 (IJCNN), which ignores the class.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor, nn

from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import Layer, eval_mode, find_layer
from fracnet.models.localizer import check_method
from fracnet.saliency.drawing import upsample
from fracnet.saliency.methods import LOCALIZATION, METHOD_NAMES
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import near_miss

CAM_METHODS = tuple(name for name in METHOD_NAMES if name != LOCALIZATION)


@dataclass(frozen=True)
class Settings:
    """How heatmaps are made.

    method: one of `METHOD_NAMES`. layer: of the backbone; None: as `find_layer` finds it. The
    method `LOCALIZATION` has its own. batch_size: images at a time. device: to compute on, such as
    "cuda". progress: shows the batches.
    """

    method: str = "gradcam"
    layer: str | None = None
    batch_size: int = 16
    device: str = "cpu"
    progress: Progress[Any] = no_progress


DEFAULTS = Settings()


def heatmaps(
    model: Classifier, images: np.ndarray, classes: np.ndarray, settings: Settings = DEFAULTS
) -> Iterator[np.ndarray]:
    """Heatmaps of images, batch by batch in their order: float32 [b, S, S].

    Each is at least 0 with a maximum of 1, or 0 everywhere if nothing in the image supports the
    class. Negative evidence is cut off; the minimum is not shifted to 0. After the last batch the
    model is unchanged; between batches as well, except for its device.

    Args:
        model: with its input layer.
        images: uint8 [n, S, S], as the cache holds them.
        classes: int64 [n], the class to explain in each image.

    Raises:
        UserError: an unknown method, or a layer that cannot be found.
    """
    method, batch_size = settings.method, settings.batch_size
    if method not in METHOD_NAMES:
        raise UserError(
            f"explain.method={method} is not allowed; allowed: {', '.join(METHOD_NAMES)}."
            f"{near_miss(method, METHOD_NAMES)}"
        )
    assert len(images) == len(classes), (len(images), len(classes))
    if not len(images):
        return
    explained = None
    if method == LOCALIZATION:
        check_method(method, None, model.localizer)
    else:
        explained = find_layer(model.backbone, settings.layer, size=images.shape[-1])
    starts = range(0, len(images), batch_size)
    with _on_device(model, settings.device):
        for start in settings.progress(starts, len(starts), "heatmaps"):
            batch = slice(start, start + batch_size)
            if explained is None:
                yield _localization_maps(model, images[batch])
            else:
                yield _batch_heatmaps(model, explained, images[batch], classes[batch], method)


def _localization_maps(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Heatmaps float32 [b, S, S] of the auxiliary head for images uint8 [b, S, S]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None]
    with eval_mode(model), torch.inference_mode():
        _, cells = model.logits_and_cells(pixels.to(next(model.parameters()).device))
    assert cells is not None
    return np.stack(
        [upsample(cell, images.shape[-1]) for cell in cells.annotated.sigmoid().cpu().numpy()]
    )


def _batch_heatmaps(
    model: Classifier, layer: Layer, images: np.ndarray, classes: np.ndarray, method: str
) -> np.ndarray:
    """Heatmaps float32 [b, S, S] of images uint8 [b, S, S] for classes int64 [b]; see `heatmaps`.

    layer: of `model.backbone`, found for images of this size. model: on its device.
    """
    targets = [ClassifierOutputTarget(int(index)) for index in classes]
    with _frozen(model), _gradients_from(layer.module) as copy_output:
        # Created between the two hooks of `_gradients_from`.
        cam = _CAM_CLASSES[method](model, [layer.module], layer.reshape)
        try:
            copy_output()
            with torch.inference_mode(False), torch.enable_grad():
                pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None]
                coarse = cam(pixels.to(next(model.parameters()).device), targets)
        finally:
            cam.activations_and_grads.release()
    return np.stack([upsample(heat, images.shape[-1]) for heat in coarse])


class _Coarse(BaseCAM):
    """Gives the map at the layer's resolution, cut off at 0, without the package's scaling.

    That shifts the minimum of each map to 0, and so makes a strong map out of a flat one.
    """

    def compute_cam_per_layer(self, images: Tensor, targets: Any, smooth: bool) -> np.ndarray:
        recorded = self.activations_and_grads
        (activations,) = recorded.activations
        gradients = recorded.gradients[0].numpy() if recorded.gradients else None
        cam = self.get_cam_image(images, None, targets, activations.numpy(), gradients, smooth)
        return np.maximum(cam, 0)

    def aggregate_multi_layers(self, maps: np.ndarray) -> np.ndarray:
        return maps


class _SignedEigenCAM(_Coarse, EigenCAM):
    """A principal component has no sign: the side that reaches further becomes positive."""

    def get_cam_image(
        self, images: Any, layer: Any, targets: Any, activations: Any, *rest: Any
    ) -> np.ndarray:
        return np.asarray(get_2d_projection_with_sign_correction(activations))


_CAM_CLASSES: dict[str, type[BaseCAM]] = {
    "gradcam": type("GradCAM", (_Coarse, GradCAM), {}),
    "hirescam": type("HiResCAM", (_Coarse, HiResCAM), {}),
    "gradcam++": type("GradCAMPlusPlus", (_Coarse, GradCAMPlusPlus), {}),
    "eigencam": _SignedEigenCAM,
}


@contextmanager
def _on_device(model: nn.Module, device: str) -> Iterator[None]:
    """The model on that device, then back on its own."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of weights; then modes, flags and gradients as before."""
    before = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    with eval_mode(model):
        model.requires_grad_(False)
        try:
            yield
        finally:
            for weight, flag, gradient in before:
                weight.requires_grad_(flag)
                weight.grad = gradient


@contextmanager
def _gradients_from(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Gradients start at that layer's output: nothing before it is stored or recomputed.

    Yields a function to call once grad-cam has registered its hooks: whatever follows the layer
    then works on a copy, because it may change its input in place.
    """
    hooks = [module.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())]

    def copy_output() -> None:
        hooks.append(module.register_forward_hook(lambda _, __, output: output.clone()))

    try:
        yield copy_output
    finally:
        for hook in hooks:
            hook.remove()

"""Heatmaps of what speaks for a class: Grad-CAM and its relatives, by the package grad-cam.

Sources: Grad-CAM, Selvaraju et al. 2017 (ICCV); HiResCAM, Draelos and Carin 2020
(arXiv 2011.08891); Grad-CAM++, Chattopadhay et al. 2018 (WACV); Eigen-CAM, Muhammad and Yeasin
2020 (IJCNN), which knows no class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fracnet.errors import UserError
from fracnet.explaining.layers import Layer, find_layer
from fracnet.models.modes import evaluating
from fracnet.models.module import Classifier
from fracnet.objects import near_miss
from fracnet.progress import Show, unseen

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM

METHODS = ("gradcam", "hirescam", "gradcam++", "eigencam")


def heatmaps(
    model: Classifier,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    show: Show[Any] = unseen,
) -> Iterator[np.ndarray]:
    """Heatmaps of images, batch after batch in their order: float32 [b, S, S].

    Each is 0 or more and 1 at its highest place, or 0 everywhere where nothing in the image speaks
    for the class. Negative evidence is cut off; the least value is not moved to 0. After the last
    batch the model is as it was; between two as well, but for the device.

    Args:
        model: with its input layer.
        images: uint8 [n, S, S], as the cache holds them.
        classes: int64 [n], whose evidence to show in each.
        method: one of `METHODS`.
        layer: of the backbone; None: as `find_layer` finds it.
        batch_size: images at a time.
        device: where to, such as "cuda".
        show: told of the batches.

    Raises:
        UserError: an unknown method, or a layer that cannot be found.
    """
    check_method(method)
    assert len(images) == len(classes), (len(images), len(classes))
    if not len(images):
        return
    found = find_layer(model.backbone, layer, size=images.shape[-1])
    starts = range(0, len(images), batch_size)
    with _at(model, device):
        for start in show(starts, len(starts), "heatmaps"):
            batch = slice(start, start + batch_size)
            yield one_batch(model, found, images[batch], classes[batch], method)


def check_method(method: str, key: str = "explain.method") -> None:
    """Raise UserError for a method that is none of `METHODS`."""
    if method not in METHODS:
        raise UserError(
            f"{key}={method} is not allowed; allowed: {', '.join(METHODS)}."
            f"{near_miss(method, METHODS)}"
        )


def one_batch(
    model: Classifier,
    layer: Layer,
    images: np.ndarray,
    classes: np.ndarray,
    method: str,
) -> np.ndarray:
    """Heatmaps float32 [b, S, S] of images uint8 [b, S, S] for classes int64 [b]; see `heatmaps`.

    layer: of `model.backbone`, found for images of this size.
    model: on the device where the work is to be done.
    """
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(of)) for of in classes]
    with _as_it_was(model), _graph_from(layer.module) as from_here_on:
        # Made between the two hooks of `_graph_from`.
        cam = _kinds()[method](model, [layer.module], layer.reshape)
        try:
            from_here_on()
            with torch.inference_mode(False), torch.enable_grad():
                pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None]
                coarse = cam(pixels.to(next(model.parameters()).device), targets)
        finally:
            cam.activations_and_grads.release()
    return np.stack([_fine(one, images.shape[-1]) for one in coarse])


def _fine(coarse: np.ndarray, size: int) -> np.ndarray:
    """A map float32 [h, w] of 0 and more, at the size of the image, its highest value 1."""
    assert np.isfinite(coarse).all(), "a heatmap that is no numbers"
    highest = coarse.max()
    if not highest > 0:
        return np.zeros((size, size), np.float32)
    # Twice: without the first, the smallest of maps would be lost to the range of floats.
    scaled = np.asarray(coarse / highest, dtype=np.float32)
    fine = np.asarray(cv2.resize(scaled, (size, size), interpolation=cv2.INTER_LINEAR))
    return np.asarray(fine / fine.max(), dtype=np.float32)


@cache
def _kinds() -> "dict[str, type[BaseCAM]]":
    """The package's classes by our names. Imported late: the package takes seconds to load."""
    from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction

    class Coarse:
        """Gives the map as the layer has it, cut off at 0; the package's own scaling is left out.

        That moves the least value of each map to 0, and so makes a strong map of a flat one.
        """

        def compute_cam_per_layer(self, images: Tensor, targets: Any, smooth: bool) -> np.ndarray:
            seen = cast("BaseCAM", self).activations_and_grads
            (activations,) = seen.activations
            gradients = seen.gradients[0].numpy() if seen.gradients else None
            cam = cast("BaseCAM", self).get_cam_image(
                images, None, targets, activations.numpy(), gradients, smooth
            )
            return np.maximum(cam, 0)

        def aggregate_multi_layers(self, maps: np.ndarray) -> np.ndarray:
            return maps

    class SignedEigenCAM(EigenCAM):
        """A principal component has no sign: here the side that reaches further is positive."""

        def get_cam_image(
            self, images: Any, layer: Any, targets: Any, activations: Any, *rest: Any
        ) -> np.ndarray:
            return np.asarray(get_2d_projection_with_sign_correction(activations))

    parts = {
        "gradcam": GradCAM,
        "hirescam": HiResCAM,
        "gradcam++": GradCAMPlusPlus,
        "eigencam": SignedEigenCAM,
    }
    return {name: type(kind.__name__, (Coarse, kind), {}) for name, kind in parts.items()}


@contextmanager
def _at(model: nn.Module, device: str) -> Iterator[None]:
    """The model on that device, and then back where it was."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights; then modes, flags and gradients as before."""
    before = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    with evaluating(model):
        model.requires_grad_(False)
        try:
            yield
        finally:
            for weight, flag, gradient in before:
                weight.requires_grad_(flag)
                weight.grad = gradient


@contextmanager
def _graph_from(module: nn.Module) -> Iterator[Any]:
    """Gradients begin at that layer's output: nothing before it is kept or gone through again.

    Hands over a function to call once grad-cam has put its hooks there: what comes after the layer
    then works on a copy, since it may change its input in place.
    """
    hooks = [module.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())]

    def from_here_on() -> None:
        hooks.append(module.register_forward_hook(lambda _, __, output: output.clone()))

    try:
        yield from_here_on
    finally:
        for hook in hooks:
            hook.remove()

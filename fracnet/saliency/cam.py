"""Heatmaps of the evidence for a class: Grad-CAM and its relatives, by the package grad-cam.

Sources: Grad-CAM, Selvaraju et al. 2017 (ICCV); HiResCAM, Draelos and Carin 2020
(arXiv 2011.08891); Grad-CAM++, Chattopadhay et al. 2018 (WACV); Eigen-CAM, Muhammad and Yeasin
2020 (IJCNN), which ignores the class.

The explained layer is by default the last one whose output is a map of the image. `find_layer`
finds it by watching a backbone process noise, so any architecture works, including a user's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import cv2
import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor, nn

from fracnet.config.instantiate import near_miss
from fracnet.models.classifier import Classifier
from fracnet.models.inference import eval_mode
from fracnet.saliency.methods import METHOD_NAMES
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

Reshape = Callable[[Tensor], Tensor]
CAM_METHODS = tuple(METHOD_NAMES)
HEADS = {"head", "pre_logits", "classifier", "fc", "global_pool", "attn_pool"}
"""Parts of a backbone behind which an output no longer maps the image alone."""
PASS_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Softmax)
"""Layers that pass on the output of another layer."""
MAX_LISTED = 12


@dataclass(frozen=True)
class Layer:
    """A layer of a backbone, by its name in `named_modules()`.

    reshape: from its output to maps [N, C, h, w]; None if it already has that shape.
    grid: h and w for images of the size that it was found with.
    """

    name: str
    module: nn.Module
    reshape: Reshape | None
    grid: tuple[int, int]


@dataclass(frozen=True)
class _LayerOutput:
    """What a layer put out for two images. prefix: number of tokens before those of the patches."""

    name: str
    module: nn.Module
    output: Tensor
    grid: tuple[int, int]
    prefix: int | None
    channels_last: bool

    def layer(self) -> Layer:
        reshape: Reshape | None = None
        if self.prefix is not None:
            reshape = _TokensToMaps(self.prefix)
        elif self.channels_last:
            reshape = _channels_first
        return Layer(self.name, self.module, reshape, self.grid)


def find_layer(
    backbone: nn.Module, name: str | None = None, *, size: int = 224, key: str = "explain.layer"
) -> Layer:
    """The layer `name` of a backbone, or the last one that puts out a map of the image.

    The tokens of a transformer's patches must still affect the logits, which they no longer do
    after the last attention to a class token. Attention itself is skipped: its parts are keys and
    values, not features. The backbone is left unchanged.

    Args:
        backbone: maps float32 [N, 3, S, S] to logits.
        name: as in `backbone.named_modules()`.
        size: S, which networks with dense layers fix.
        key: of the config, for messages.

    Raises:
        UserError: there is no such layer, or none that puts out a map; the message lists those
            that do.
    """
    outputs, logits, names = _record_outputs(backbone, size)
    kind = type(backbone).__name__
    if name is not None:
        for output in outputs:
            if output.name == name:
                return output.layer()
        problem = (
            f"the output of that layer of {kind} is not a map of the image, or it runs repeatedly"
            if name in names
            else f"{kind} has no such layer"
        )
        raise UserError(f"{key}={name}: {problem};{_allowed_text(outputs, name)}")
    # Tokens out of the image's order, as Hiera's are.
    reordered = past_tokens = hasattr(backbone, "unroll")
    for output in reversed(outputs):
        parts = output.name.split(".")
        attention = any("attn" in part or "attention" in part for part in parts)
        if attention or not HEADS.isdisjoint(parts) or isinstance(output.module, PASS_THROUGH):
            continue
        if output.prefix is None and not past_tokens:
            return output.layer()
        if output.prefix is not None:
            if not reordered and _affects_logits(output, logits):
                return output.layer()
            past_tokens = True  # what comes before all tokens is the image cut into patches
    raise UserError(
        f"{key}=null: {kind} has no layer whose output is a map of the image;"
        f"{_allowed_text(outputs)}"
    )


def _record_outputs(backbone: nn.Module, size: int) -> tuple[list[_LayerOutput], Tensor, set[str]]:
    """Layers that put out one map of the image, in the order of their calls; logits; all names."""
    names = {module: name for name, module in backbone.named_modules() if name}
    outputs: list[tuple[nn.Module, Tensor]] = []
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(output, Tensor):
            outputs.append((module, output))

    weight = next(backbone.parameters())
    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with eval_mode(backbone), torch.inference_mode(False), torch.enable_grad():
            noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
            logits = backbone(noise.to(weight.device).requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    prefix = getattr(backbone, "num_prefix_tokens", None)
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    maps = [
        _as_map(names[module], module, output, prefix, channels_last)
        for module, output in outputs
        if calls[module] == 1 and len(output) == len(noise)
    ]
    return [output for output in maps if output is not None], logits, set(names.values())


def _as_map(
    name: str, module: nn.Module, output: Tensor, prefix: int | None, channels_last: bool
) -> _LayerOutput | None:
    """The output, if it is a map of a square image with more than one cell."""
    shape = output.shape
    if output.ndim == 4:
        last = shape[1] == shape[2] and (channels_last or shape[2] != shape[3])
        if not last and shape[2] != shape[3]:
            return None
        side, prefix = int(shape[2]), None
    elif output.ndim == 3:
        prefix = _prefix_length(int(shape[1]), prefix)
        if prefix is None:
            return None
        side, last = isqrt(int(shape[1]) - prefix), True
    else:
        return None
    return _LayerOutput(name, module, output, (side, side), prefix, last) if side >= 2 else None


def _prefix_length(tokens: int, known: int | None) -> int | None:
    """How many tokens come before a square of patches; None if there is no such number."""
    # Some models add the class token only before their last blocks.
    for prefix in range(9) if known is None else (known, 0):
        if tokens > prefix and isqrt(tokens - prefix) ** 2 == tokens - prefix:
            return prefix
    return None


class _TokensToMaps:
    """Maps [N, C, h, h] of tokens [N, prefix + h * h, C]."""

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix

    def __call__(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self.prefix :]
        side = isqrt(patches.shape[1])
        return patches.transpose(1, 2).unflatten(2, (side, side))


def _channels_first(output: Tensor) -> Tensor:
    """[N, C, h, w] of [N, h, w, C]."""
    return output.permute(0, 3, 1, 2)


def _affects_logits(output: _LayerOutput, logits: Tensor) -> bool:
    """Whether the logits depend on the patches of that output."""
    # Weighted: if the logits of all classes move together, their difference shows nothing.
    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    (gradient,) = torch.autograd.grad(
        (logits * weights).sum(), output.output, retain_graph=True, allow_unused=True
    )
    return gradient is not None and bool(gradient[:, output.prefix :].any())


def _allowed_text(outputs: list[_LayerOutput], name: str = "") -> str:
    """The end of a message: the layers that can be named, the last ones first."""
    names = [o.name for o in reversed(outputs) if not isinstance(o.module, PASS_THROUGH)]
    if not names:
        return " no layer's output is one, so there can be no heatmaps: explain=none."
    # Whole stages before their single layers.
    listed = sorted(names, key=lambda layer: layer.count("."))[:MAX_LISTED]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f" allowed: {', '.join(listed)}{more}.{near_miss(name, names) if name else ''}"


def heatmaps(
    model: Classifier,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    progress: Progress[Any] = no_progress,
) -> Iterator[np.ndarray]:
    """Heatmaps of images, batch by batch in their order: float32 [b, S, S].

    Each is at least 0 with a maximum of 1, or 0 everywhere if nothing in the image supports the
    class. Negative evidence is cut off; the minimum is not shifted to 0. After the last batch the
    model is unchanged; between batches as well, except for its device.

    Args:
        model: with its input layer.
        images: uint8 [n, S, S], as the cache holds them.
        classes: int64 [n], the class to explain in each image.
        method: one of `CAM_METHODS`.
        layer: of the backbone; None: as `find_layer` finds it.
        batch_size: images at a time.
        device: to compute on, such as "cuda".
        progress: shows the batches.

    Raises:
        UserError: an unknown method, or a layer that cannot be found.
    """
    if method not in CAM_METHODS:
        raise UserError(
            f"explain.method={method} is not allowed; allowed: {', '.join(CAM_METHODS)}."
            f"{near_miss(method, CAM_METHODS)}"
        )
    assert len(images) == len(classes), (len(images), len(classes))
    if not len(images):
        return
    explained = find_layer(model.backbone, layer, size=images.shape[-1])
    starts = range(0, len(images), batch_size)
    with _on_device(model, device):
        for start in progress(starts, len(starts), "heatmaps"):
            batch = slice(start, start + batch_size)
            yield _batch_heatmaps(model, explained, images[batch], classes[batch], method)


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
    return np.stack([_upsample(heat, images.shape[-1]) for heat in coarse])


def _upsample(coarse: np.ndarray, size: int) -> np.ndarray:
    """A map float32 [h, w] of at least 0, at the size of the image and with a maximum of 1."""
    assert np.isfinite(coarse).all(), "a heatmap with infinite or missing values"
    maximum = coarse.max()
    if not maximum > 0:
        return np.zeros((size, size), np.float32)
    # Twice: without the first, the smallest of maps would be lost to the range of floats.
    scaled = np.asarray(coarse / maximum, dtype=np.float32)
    fine = np.asarray(cv2.resize(scaled, (size, size), interpolation=cv2.INTER_LINEAR))
    return np.asarray(fine / fine.max(), dtype=np.float32)


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

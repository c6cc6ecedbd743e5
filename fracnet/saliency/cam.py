"""Heatmaps of what speaks for a class: Grad-CAM and its relatives, by the package grad-cam.

Sources: Grad-CAM, Selvaraju et al. 2017 (ICCV); HiResCAM, Draelos and Carin 2020
(arXiv 2011.08891); Grad-CAM++, Chattopadhay et al. 2018 (WACV); Eigen-CAM, Muhammad and Yeasin
2020 (IJCNN), which knows no class.

The layer whose output is explained: the last one that still is a map of the image.

It is found by watching a backbone work on an image of noise, so that any architecture will do,
a user's own too, as long as one of its layers puts out a map.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import isqrt
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fracnet.config.instantiate import near_miss
from fracnet.models.classifier import Classifier
from fracnet.models.inference import evaluating
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM

Reshape = Callable[[Tensor], Tensor]

# A map that is made here on the way to the logits is no longer one of the image alone.
HEADS = {"head", "pre_logits", "classifier", "fc", "global_pool", "attn_pool"}

# They pass on what another layer has made.
PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Softmax)
SHOWN = 12


@dataclass(frozen=True)
class Layer:
    """A layer of a backbone, by its name in `named_modules()`.

    reshape: from its output to maps [N, C, h, w]; None where it is that already.
    grid: h and w for the images that it was found with.
    """

    name: str
    module: nn.Module
    reshape: Reshape | None
    grid: tuple[int, int]


@dataclass(frozen=True)
class _Seen:
    """What a layer has put out for two images. prefix: tokens before those of the patches."""

    name: str
    module: nn.Module
    output: Tensor
    grid: tuple[int, int]
    prefix: int | None
    last: bool  # channels are the last axis

    def layer(self) -> Layer:
        h, w = self.grid
        reshape: Reshape | None = None
        if self.prefix is not None:
            reshape = _Tokens(self.prefix)
        elif self.last:
            reshape = _channels_first
        return Layer(self.name, self.module, reshape, (h, w))


def find_layer(
    backbone: nn.Module, name: str | None = None, *, size: int = 224, key: str = "explain.layer"
) -> Layer:
    """The layer `name` of a backbone; None: the last that is a map of the image.

    Of a transformer's tokens those of the patches must still reach the logits: behind a class
    token's last attention they do not. Attention itself is passed over, for its parts are keys and
    values and no features. The backbone is left as it was.

    Args:
        backbone: maps float32 [N, 3, S, S] to logits.
        name: as in `backbone.named_modules()`.
        size: S, which networks with dense layers fix.
        key: of the config, for messages.

    Raises:
        UserError: there is no such layer, or none that puts out a map; the message names those
            that do.
    """
    maps, logits, names = _watch(backbone, size)
    kind = type(backbone).__name__
    if name is not None:
        for seen in maps:
            if seen.name == name:
                return seen.layer()
        why = "puts out no map of the image, or more than one" if name in names else "is not there"
        raise UserError(f"{key}={name}: that layer of {kind} {why};{_allowed(maps, name)}")
    lost = _is_scattered(backbone)
    for seen in reversed(maps):
        parts = seen.name.split(".")
        within = any("attn" in part or "attention" in part for part in parts)
        if within or not HEADS.isdisjoint(parts) or isinstance(seen.module, PASSING):
            continue
        if seen.prefix is None and not lost:
            return seen.layer()
        if seen.prefix is not None:
            if not _is_scattered(backbone) and _reaches(seen, logits):
                return seen.layer()
            lost = True  # what comes before all tokens is the image cut to patches
    raise UserError(
        f"{key}=null: in {kind} no layer was found that puts out a map of the image;"
        f"{_allowed(maps)}"
    )


def _watch(backbone: nn.Module, size: int) -> tuple[list[_Seen], Tensor, set[str]]:
    """Layers that put out one map of the image, in the order in which they did; logits; names."""
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
        with evaluating(backbone), torch.inference_mode(False), torch.enable_grad():
            noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
            logits = backbone(noise.to(weight.device).requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    known = getattr(backbone, "num_prefix_tokens", None)
    last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    found = [
        _seen(names[module], module, output, known, last)
        for module, output in outputs
        if calls[module] == 1 and len(output) == len(noise)
    ]
    return [seen for seen in found if seen is not None], logits, set(names.values())


def _seen(
    name: str, module: nn.Module, output: Tensor, known: int | None, last: bool
) -> _Seen | None:
    """What the output is, if it is a map of a square image with more than one cell."""
    shape = output.shape
    if output.ndim == 4:
        behind = shape[1] == shape[2] and (last or shape[2] != shape[3])
        if not behind and shape[2] != shape[3]:
            return None
        side, prefix = int(shape[2]), None
    elif output.ndim == 3:
        found = _prefix(int(shape[1]), known)
        if found is None:
            return None
        prefix, side, behind = found, isqrt(int(shape[1]) - found), True
    else:
        return None
    if side < 2:
        return None
    return _Seen(name, module, output, (side, side), prefix, behind)


def _prefix(tokens: int, known: int | None) -> int | None:
    """How many of the tokens come before a square of patches; None where that cannot be."""
    # Some models add the class token only before their last blocks.
    for prefix in range(9) if known is None else (known, 0):
        if tokens > prefix and isqrt(tokens - prefix) ** 2 == tokens - prefix:
            return prefix
    return None


class _Tokens:
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


def _is_scattered(backbone: nn.Module) -> bool:
    """Whether tokens are not in the order of the image, as Hiera's are not."""
    return hasattr(backbone, "unroll")


def _reaches(seen: _Seen, logits: Tensor) -> bool:
    """Whether the logits depend on the patches of that output."""
    # Weighed: where the logits of all classes move together, their difference says nothing.
    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    (gradient,) = torch.autograd.grad(
        (logits * weights).sum(), seen.output, retain_graph=True, allow_unused=True
    )
    return gradient is not None and bool(gradient[:, seen.prefix :].any())


def _allowed(maps: list[_Seen], name: str = "") -> str:
    """The end of a message: what may be named, the last layers first."""
    names = [seen.name for seen in reversed(maps) if not isinstance(seen.module, PASSING)]
    if not names:
        return " none of its layers does, so there are no heatmaps of it: explain=none."
    # Whole stages before the single layers in them.
    listed = sorted(names, key=lambda one: one.count("."))[:SHOWN]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" allowed: {', '.join(listed)}{more}.{near_miss(name, names) if name else ''}"


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
    progress: Progress[Any] = no_progress,
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
        progress: told of the batches.

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
        for start in progress(starts, len(starts), "heatmaps"):
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

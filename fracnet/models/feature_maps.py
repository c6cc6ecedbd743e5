"""Feature maps inside a backbone: the layer whose output maps the image, for any architecture.

`find_layer` finds it by watching a backbone process noise, so a user's own network works as well.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isqrt

import torch
from torch import Tensor, nn

from fracnet.utils.errors import UserError
from fracnet.utils.text import near_miss

Reshape = Callable[[Tensor], Tensor]
HEADS = {"head", "pre_logits", "classifier", "fc", "global_pool", "attn_pool"}
"""Parts of a backbone behind which an output no longer maps the image alone."""
PASS_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Softmax)
"""Layers that pass on the output of another layer."""
MAX_LISTED = 12


@dataclass(frozen=True)
class Layer:
    """A layer of a backbone, by its name in `named_modules()`.

    reshape: from its output to maps [N, C, h, w]; None if it already has that shape.
    grid: h and w for images of the size that it was found with. channels: C.
    """

    name: str
    module: nn.Module
    reshape: Reshape | None
    grid: tuple[int, int]
    channels: int


@dataclass(frozen=True)
class _Output:
    """What a layer put out for two images. prefix: number of tokens before those of the patches."""

    layer: Layer
    output: Tensor
    prefix: int | None


def find_layer(
    backbone: nn.Module,
    name: str | None = None,
    *,
    size: int = 224,
    cells: int = 2,
    key: str = "explain.layer",
) -> Layer:
    """The layer `name` of a backbone, or the last one that puts out a map of the image.

    The tokens of a transformer's patches must still affect the logits, which they no longer do
    after the last attention to a class token. Attention itself is skipped: its parts are keys and
    values, not features. The backbone is left unchanged.

    backbone: maps float32 [N, 3, S, S] to logits. name: as in `backbone.named_modules()`. size: S,
    which networks with dense layers fix. cells: the fewest cells per side of the last map; does not
    concern a named layer. key: of the config, for messages.

    Raises UserError that lists the layers with a map, if there is no such layer or none has one.
    """
    outputs, logits, names = _record_outputs(backbone, size)
    kind = type(backbone).__name__
    if name is not None:
        for output in outputs:
            if output.layer.name == name:
                return output.layer
        problem = (
            f"the output of that layer of {kind} is not a map of the image, or it runs repeatedly"
            if name in names
            else f"{kind} has no such layer"
        )
        raise UserError(f"{key}={name}: {problem};{_allowed_text(outputs, name)}")
    # Tokens out of the image's order, as Hiera's are.
    reordered = past_tokens = hasattr(backbone, "unroll")
    for output in reversed(outputs):
        layer = output.layer
        parts = layer.name.split(".")
        attention = any("attn" in part or "attention" in part for part in parts)
        if attention or not HEADS.isdisjoint(parts) or isinstance(layer.module, PASS_THROUGH):
            continue
        if layer.grid[0] < cells:
            continue
        if output.prefix is None and not past_tokens:
            return layer
        if output.prefix is not None:
            if not reordered and _affects_logits(output, logits):
                return layer
            past_tokens = True  # what comes before all tokens is the image cut into patches
    raise UserError(
        f"{key}=null: {kind} has no layer whose output is a map of the image;"
        f"{_allowed_text(outputs)}"
    )


def _record_outputs(backbone: nn.Module, size: int) -> tuple[list[_Output], Tensor, set[str]]:
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
) -> _Output | None:
    """The output, if it is a map of a square image with more than one cell."""
    shape = output.shape
    reshape: Reshape | None = None
    if output.ndim == 4:
        last = shape[1] == shape[2] and (channels_last or shape[2] != shape[3])
        if not last and shape[2] != shape[3]:
            return None
        side, channels, prefix = shape[2], shape[-1 if last else 1], None
        reshape = _channels_first if last else None
    elif output.ndim == 3:
        prefix = _prefix_length(shape[1], prefix)
        if prefix is None:
            return None
        side, channels = isqrt(shape[1] - prefix), shape[2]
        reshape = partial(_tokens_to_maps, prefix=prefix)
    else:
        return None
    layer = Layer(name, module, reshape, (side, side), channels)
    return _Output(layer, output, prefix) if side >= 2 else None


def _prefix_length(tokens: int, known: int | None) -> int | None:
    """How many tokens come before a square of patches; None if there is no such number."""
    # Some models add the class token only before their last blocks.
    for prefix in range(9) if known is None else (known, 0):
        if tokens > prefix and isqrt(tokens - prefix) ** 2 == tokens - prefix:
            return prefix
    return None


def _tokens_to_maps(tokens: Tensor, prefix: int) -> Tensor:
    """[N, C, h, h] of tokens [N, prefix + h * h, C]."""
    patches = tokens[:, prefix:]
    side = isqrt(patches.shape[1])
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _channels_first(output: Tensor) -> Tensor:
    """[N, C, h, w] of [N, h, w, C]."""
    return output.permute(0, 3, 1, 2)


def _affects_logits(output: _Output, logits: Tensor) -> bool:
    """Whether the logits depend on the patches of that output."""
    # Weighted: if the logits of all classes move together, their difference shows nothing.
    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    (gradient,) = torch.autograd.grad(
        (logits * weights).sum(), output.output, retain_graph=True, allow_unused=True
    )
    return gradient is not None and bool(gradient[:, output.prefix :].any())


def _allowed_text(outputs: list[_Output], name: str = "") -> str:
    """The end of a message: the layers that can be named, the last ones first."""
    layers = [output.layer for output in reversed(outputs)]
    names = [layer.name for layer in layers if not isinstance(layer.module, PASS_THROUGH)]
    if not names:
        return " no layer's output is one, so there can be no heatmaps: explain=none."
    # Whole stages before their single layers.
    listed = sorted(names, key=lambda layer: layer.count("."))[:MAX_LISTED]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f" allowed: {', '.join(listed)}{more}.{near_miss(name, names) if name else ''}"


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The whole model in evaluation mode; afterwards each layer in its mode of before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

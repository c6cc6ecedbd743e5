"""The layer whose output is explained: the last one that still is a map of the image.

It is found by watching a backbone work on an image of noise, so that any architecture will do,
a user's own too, as long as one of its layers puts out a map.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

from fracnet.errors import UserError
from fracnet.models.modes import evaluating
from fracnet.objects import near_miss

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

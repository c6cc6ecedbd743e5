"""A network loses its weights, block by block from the head down (Adebayo et al. 2018).

arXiv:1810.03292, cascading randomisation. What is new is drawn so that signals keep their size on
the way through: a network of vanishing or exploding signals would make maps of nothing, and those
differ from any map for a reason that says nothing.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fracnet.models.modes import evaluating
from fracnet.models.module import Classifier

# Containers such as layer4, blocks and features are taken apart into what they hold.
DEPTH = 2
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Stage:
    """Blocks that lose their weights together. name: of the one nearest to the image.

    modules: those that hold the weights themselves.
    """

    name: str
    modules: tuple[nn.Module, ...]


def stages_of(backbone: nn.Module, images: Tensor, most: int = 6) -> list[Stage]:
    """All weights of a backbone in `most` stages at most, in the order in which they are lost.

    The head alone is first; the blocks below it are shared out evenly. Blocks are ordered by when
    they were reached with `images` float [N, 3, S, S], so the order in which a class lists its
    layers does not matter; what was not reached is in the last stage.
    """
    order = _reached(backbone, images)
    blocks: dict[str, list[nn.Module]] = {}
    for name, module in sorted(_holders(backbone), key=lambda pair: -order.get(pair[1], -1)):
        blocks.setdefault(".".join(name.split(".")[:DEPTH]), []).append(module)
    names = list(blocks)
    below = names[1:]
    parts = min(most - 1, len(below))
    cuts = [round(k * len(below) / parts) for k in range(parts + 1)] if parts else []
    groups = [names[:1], *(below[a:b] for a, b in pairwise(cuts))]
    return [
        Stage(group[-1] or "input", tuple(module for name in group for module in blocks[name]))
        for group in groups
    ]


def randomise(stage: Stage, generator: torch.Generator) -> None:
    """Draws new weights in place.

    Matrices and kernels: normal, mean 0, variance 2 / fan-in (He et al. 2015, arXiv:1502.01852).
    Scales of normalisations 1, all biases 0. Other weights, such as embeddings of places: normal
    with the mean and deviation that they had.
    """
    with torch.no_grad():
        for module in stage.modules:
            for name, weight in module.named_parameters(recurse=False):
                if name == "bias":
                    weight.zero_()
                elif isinstance(module, LINEAR) and name == "weight":
                    deviation = math.sqrt(2 / weight[0].numel())
                    weight.copy_(_normal(weight, generator) * deviation)
                elif "Norm" in type(module).__name__ and name == "weight":
                    weight.fill_(1.0)
                else:
                    spread, middle = weight.std(correction=0), weight.mean()
                    weight.copy_(_normal(weight, generator) * spread + middle)


def renormalise(model: Classifier, lost: Sequence[Stage], images: Sequence[Tensor]) -> None:
    """Batch normalisation in lost stages takes its statistics anew, from batches [b, 1, S, S].

    Means and variances of lost weights would not fit the new ones; what is nearer to the image than
    any lost weight keeps its own. No label is looked at.
    """
    modules = [module for stage in lost for module in stage.modules]
    norms = [module for module in modules if isinstance(module, BATCH_NORMS)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        try:
            for batch in images:
                model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Whatever is done to weights and buffers within is undone at the end."""
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(kept)


def _normal(weight: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU: the same on every device.
    return torch.randn(weight.shape, generator=generator).to(weight)


def _holders(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with weights of their own, by name."""
    return [
        (name, module)
        for name, module in backbone.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


def _reached(backbone: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """When each module with weights was first called, counted from 0."""
    order: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(module, len(order))

    hooks = [module.register_forward_pre_hook(note) for _, module in _holders(backbone)]
    try:
        with evaluating(backbone), torch.no_grad():
            backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return order

"""What a run folder from elsewhere may have built: nothing of other packages unless asked.

Whoever rebuilds a run's model calls the classes that its files name. So that opening a folder is
not running a stranger's program, those must be models, losses or data sources of fracnet, timm or
torch; `trust=true` is for runs with classes of one's own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fracnet.errors import UserError
from fracnet.objects import locate

ALLOWED = (
    "fracnet.data.sources",
    "fracnet.models",
    "timm.create_model",
    "timm.models",
    "torch.nn",
    "torch.optim",
    "torchvision.models",
)
# Arguments by which timm reads files: with older versions that runs what a pickle says.
FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "hf_hub_id")
# Never built when a run is taken up again, so it may name what it likes.
UNUSED = ("augment", "imbalance", "hydra")


def check_trust(config: Mapping[str, Any], trust: bool, where: str) -> None:
    """Raise UserError for a `_target_` outside `ALLOWED`, unless `trust`.

    config: plain containers, a run's config or the hyper-parameters of its checkpoint.
    where: the file that holds it.
    """
    if trust:
        return
    for key, target in named(config):
        if not _known(target, key):
            raise UserError(
                f"{where}: {key}._target_={target} is not fracnet's, timm's or torch's, and would "
                "be run to rebuild the model; allowed without a question are classes of "
                f"{', '.join(ALLOWED)}. If you know where the run comes from: trust=true."
            )
    for key, name in files(config):
        raise UserError(
            f"{where}: {key}.{name} names a file that would be read to rebuild the model; allowed "
            "without a question is none. If you know where the run comes from: trust=true."
        )


def named(config: Any) -> Iterator[tuple[str, str]]:
    """Every `_target_` in a config with the key that holds it."""
    for key, node in _nodes(config):
        if "_target_" in node:
            yield key, str(node["_target_"])


def files(config: Any) -> Iterator[tuple[str, str]]:
    """Every argument of `FILES` in a config that has a value, with the key that holds it."""
    for key, node in _nodes(config):
        yield from ((key, str(name)) for name, value in node.items() if name in FILES and value)


def _nodes(node: Any, key: str = "") -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping from a node downwards, with its key; without what is never built."""
    if isinstance(node, Mapping):
        yield key, node
        for name, value in node.items():
            if key or name not in UNUSED:
                yield from _nodes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            yield from _nodes(value, f"{key}[{place}]")


def _known(target: str, key: str) -> bool:
    if not _within(target):
        return False
    # The path alone proves nothing: a module of fracnet's holds what it imports as well.
    found = locate(target, key)
    where = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if target == "timm.create_model":
        return True
    if not _within(where):
        return False
    return where.startswith("fracnet.") or _makes_a_part(found)


def _makes_a_part(found: Any) -> bool:
    """Whether it is a network, an optimiser or a schedule, or a function listed as making one."""
    import timm
    from torch import nn, optim
    from torchvision import models

    if isinstance(found, type):
        return issubclass(found, nn.Module | optim.Optimizer | optim.lr_scheduler.LRScheduler)
    name = getattr(found, "__name__", "")
    return bool(timm.is_model(name)) or name in models.list_models()


def _within(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED)

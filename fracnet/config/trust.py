"""What a run folder from somebody else may build: networks, losses, optimizers, datasets.

Opening a run calls the classes that its config and checkpoint name. So that opening a folder never
runs a stranger's program, each part of the config may name only what that part needs. `trust=true`
lifts the rule for runs with classes of one's own.
"""

import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from omegaconf import OmegaConf

from fracnet.config.instantiate import locate, mappings
from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir, config_dir, write_atomically


@dataclass(frozen=True)
class Rule:
    """What one part of a config may name, besides fracnet's own classes in conf/.

    names: these. prefixes: packages, of whose classes those that are derived from one of `bases`
    and defined below the module `home`. functions: also those that build a network.
    """

    kind: str
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    home: str = ""
    functions: bool = False

    def accepts(self, target: Any) -> bool:
        """Whether a class of the right packages is of the right kind; a Lambda calls anything."""
        if not isinstance(target, type) or target.__name__ == "Lambda":
            return self.functions and _builds_a_network(target)
        bases = tuple(cast(type, locate(base, base)) for base in self.bases)
        return target.__module__.startswith(self.home) and issubclass(target, bases)


def _builds_a_network(target: Any) -> bool:
    """Whether timm or torchvision lists a function as building a network."""
    name = getattr(target, "__name__", "")
    if getattr(target, "__module__", "").startswith("timm."):
        return name == "create_model" or bool(locate("timm.is_model", "model")(name))
    return name in locate("torchvision.models.list_models", "model")()


_TRANSFORMS = Rule(
    "an albumentations transform",
    prefixes=("albumentations.",),
    bases=("albumentations.BasicTransform", "albumentations.core.composition.BaseCompose"),
)
RULES: Mapping[str, Rule] = {
    "model": Rule(
        "a network of fracnet, timm or torch",
        prefixes=("timm.create_model", "timm.models.", "torch.nn.", "torchvision.models."),
        bases=("torch.nn.Module",),
        functions=True,
    ),
    "loss": Rule(
        "a loss of fracnet or torch",
        prefixes=("torch.nn.",),
        bases=("torch.nn.Module",),
    ),
    "optim": Rule(
        "an optimizer of torch",
        prefixes=("torch.optim.",),
        bases=("torch.optim.Optimizer",),
    ),
    "scheduler": Rule(
        "a learning-rate scheduler of fracnet or torch",
        prefixes=("torch.optim.lr_scheduler.",),
        bases=("torch.optim.lr_scheduler.LRScheduler",),
    ),
    "data": Rule("a dataset of fracnet"),
    "augment": _TRANSFORMS,
    "imbalance": _TRANSFORMS,
    "metrics": Rule(
        "a classification metric of torchmetrics",
        prefixes=("torchmetrics.",),
        bases=("torchmetrics.Metric",),
        home="torchmetrics.classification.",  # those of text and pictures download models,
    ),
    "callbacks": Rule(
        "a callback of Lightning that reads and writes no files",
        names=(
            "lightning.pytorch.callbacks.DeviceStatsMonitor",
            "lightning.pytorch.callbacks.LearningRateMonitor",
            "lightning.pytorch.callbacks.StochasticWeightAveraging",
            "lightning.pytorch.callbacks.Timer",
        ),
    ),
    "logger": Rule("a logger exactly as conf/logger has it"),
    "pruning": Rule(
        "a pruner of Optuna",
        prefixes=("optuna.pruners.",),
        bases=("optuna.pruners.BasePruner",),
    ),
}

# Built by training alone; a run that is only read may name any transform.
ONLY_TRAINING = ("augment", "imbalance")
# Hydra's own part of a config is never read from a run folder.
IGNORED = ("hydra",)
# Arguments by which timm and torchvision read files or download.
FILE_ARGUMENTS = (
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "hf_hub_id",
    "cache_dir",
    "weights_backbone",
)
# Model names that timm resolves outside its own registry.
REMOTE = ("hf-hub:", "hf_hub:", "local-dir:", "://")
ADVICE = "If you know where the run comes from, add trust=true."


def check_trust(
    config: Mapping[str, Any], trust: bool, path: str, *, training: bool = False
) -> None:
    """Refuse a config that names anything but what its parts need, unless `trust`.

    config: plain containers, of a run's config or its checkpoint. path: the file that holds it, for
    the message. training: whether a training will be resumed, which also builds the augmentation.
    """
    if trust:
        return
    config = _without_shipped_loggers(config, path)
    ignored = IGNORED if training else (*IGNORED, *ONLY_TRAINING)
    for part, value in config.items():
        if part not in ignored:
            for key, node in mappings(value, str(part)):
                _check_node(key, node, RULES.get(str(part)), path)


def upload_seal(run_id: str, entity: Any, project: Any) -> str:
    """What shows later that this user has let a run upload there: nobody else has the key."""
    path = cache_dir() / "upload.key"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, secrets.token_hex(32))
        path.chmod(0o600)
    place = json.dumps([run_id, entity, project])
    return hmac.new(path.read_bytes(), place.encode(), "sha256").hexdigest()


def _without_shipped_loggers(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The config without loggers as fracnet ships them; others could write to any file or host."""
    shipped: dict[str, Any] = {}
    for file in sorted((config_dir() / "logger").glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        shipped |= content
    given = config.get("logger")
    if not isinstance(given, Mapping):
        return dict(config)
    others = {k: v for k, v in given.items() if k not in shipped or v != shipped[k]}
    wandb = others.get("wandb")
    for key, value in wandb.items() if isinstance(wandb, Mapping) else ():
        if key not in shipped["wandb"]:
            raise UserError(
                f"{path}: logger.wandb.{key}={value} would be passed to wandb.init; allowed "
                f"without trust: {', '.join(shipped['wandb'])}. {ADVICE}"
            )
    return {**config, "logger": others}


def _check_node(key: str, node: Mapping[Any, Any], rule: Rule | None, path: str) -> None:
    if "_target_" in node:
        target = str(node["_target_"])
        if rule is None or not _allowed(target, key, rule):
            allowed = rule.kind if rule else "nothing"
            raise UserError(
                f"{path}: {key}._target_={target} would be called to rebuild the run; allowed "
                f"without trust: {allowed}. {ADVICE}"
            )
    for name, value in node.items():
        remote = isinstance(value, str) and any(mark in value.lower() for mark in REMOTE)
        if (name in FILE_ARGUMENTS and value) or (remote and key.split(".")[0] == "model"):
            raise UserError(
                f"{path}: {key}.{name}={value} names a file or an address that would be read to "
                f"rebuild the run; allowed without trust: none. {ADVICE}"
            )


@lru_cache
def _own_targets(part: str) -> frozenset[str]:
    """fracnet's own classes and functions for a part of a config: those that conf/ names."""
    files = (config_dir() / part).glob("*.yaml")
    texts = [file.read_text(encoding="utf-8") for file in files]
    return frozenset(re.findall(r"^ *_target_: (fracnet\.\S+)", "\n".join(texts), re.MULTILINE))


def _allowed(target: str, key: str, rule: Rule) -> bool:
    if target in rule.names or target in _own_targets(re.split(r"[.\[]", key)[0]):
        return True
    if not any(target == prefix or target.startswith(prefix) for prefix in rule.prefixes):
        return False
    # The path alone proves nothing: a module also holds what it imports from elsewhere.
    located = locate(target, key)
    package = target.split(".")[0]
    return getattr(located, "__module__", "").split(".")[0] == package and rule.accepts(located)

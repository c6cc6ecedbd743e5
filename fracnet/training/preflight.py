"""Classes that a config names, looked up where nothing is run for it: before any data are had.

A download or a drawing may take an hour, and the imports of torch and timm take seconds: a mistyped
name must wait for neither. What cannot be told here for sure is told by `rehearsal.check_targets`,
once the imports are made anyway.

A model, its optimizer and its schedule tried once: no fault waits for the first epoch.
"""

import copy
import importlib.machinery
import math
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from fracnet.config.instantiate import locate, near_miss
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier, validation_figures
from fracnet.utils import network
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

OWN = ("fracnet", "timm", "torch", "torchvision")
"""Packages that are imported sooner or later whatever the config says."""

# A module that has one of these may hold names that its text does not.
DYNAMIC = r"import \*|__getattr__|globals|setattr|exec\(|vars\(|__dict__|sys\.modules"
TIMM = "fracnet.models.backbones.timm_backbone"


def check_names(config: Config) -> None:
    """Raise UserError for a class that is not there, and an unknown model of timm's.

    No module of the user's is imported.
    """
    for key, target in _named(config):
        _check_target(target, key)
    name = str(config.model.plain().get("name"))
    if config.model.target == TIMM and not _in_timm(name.split(".")[0]):
        from fracnet.models.backbones import check_name

        check_name(name)


def _named(config: Config) -> Iterator[tuple[str, str]]:
    """Every `_target_` that training calls, with its key, but for that of the data."""
    for key in ("model", "optim", "loss", "scheduler"):
        if (node := getattr(config, key)) is not None:
            yield key, node.target
    for key in ("augment", "imbalance"):
        transforms = getattr(config, key).model_dump(by_alias=True).get("transforms") or []
        for place, node in enumerate(transforms):
            if isinstance(node, dict) and "_target_" in node:
                yield f"{key}.transforms[{place}]", str(node["_target_"])


def _check_target(target: str, key: str) -> None:
    module, _, name = target.rpartition(".")
    if not module or module in sys.modules:
        locate(target, key)
        return
    missing, spec = _found(module)
    holder, _, outer = missing.rpartition(".")
    if holder and re.search(rf"^class {outer}\b", _text(_found(holder)[1]) or "", re.MULTILINE):
        raise UserError(
            f"{key}._target_={target}: {outer} is a class of module {holder}, and a class within "
            "a class cannot be named; allowed: package.module.Class."
        )
    if missing:
        raise UserError(
            f"{key}._target_={target}: there is no module '{missing}'; allowed: "
            "an importable package.module.Class (the current folder is searched as well)."
        )
    text = _text(spec)
    if text is None or re.search(rf"\b{re.escape(name)}\b", text):
        return
    if target.split(".")[0] in OWN:
        locate(target, key)
    elif not re.search(DYNAMIC, text):
        defined = re.findall(r"^(?:class|def)\s+(\w+)", text, re.MULTILINE)
        raise UserError(
            f"{key}._target_={target}: module {module} has no '{name}'.{near_miss(name, defined)}"
        )


def _found(module: str) -> tuple[str, Any]:
    """The first part that is certainly not there ("" for none), and the spec of the module.

    Packages on the way are not imported, unlike by `importlib.util.find_spec`. One of the user's
    may make up parts of itself as it is imported, which is none of the finders' knowledge; that is
    so rare that it is no reason to let the usual mistake wait. The spec is None where it cannot be
    told.
    """
    spec: Any = None
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        name = ".".join(parts[:n])
        where = None if n == 1 else spec.submodule_search_locations
        if name in sys.modules:
            spec = sys.modules[name].__spec__
        elif n > 1 and where is None:
            return name, None
        else:
            try:
                spec = _asked(name, where if where is None else list(where))
            except KeyError:  # a finder that looks for the parent among what is imported
                return "", None
        if spec is None:
            return name, None
    return "", spec


def _asked(name: str, where: list[str] | None) -> Any:
    """What the first finder that knows the module says of it; None where none does."""
    for finder in sys.meta_path:
        if finder is importlib.machinery.PathFinder and where is not None:
            spec: Any = _in_folders(name, where)
        else:
            spec = finder.find_spec(name, where) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def _in_folders(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """As `PathFinder`, which fails at a folder without `__init__.py` in one not yet imported."""
    parts: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        parts += (spec.submodule_search_locations or []) if spec is not None else []
    if not parts:
        return None
    made = ModuleSpec(name, None, is_package=True)
    made.submodule_search_locations = parts
    return made


def _text(spec: Any) -> str | None:
    """What stands in the module's file; None where that is no Python text, or not known."""
    if spec is None or spec.origin is None:
        return None
    if not spec.origin.endswith(tuple(importlib.machinery.SOURCE_SUFFIXES)):
        return None
    path = Path(spec.origin)  # within a zip it is no file
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _in_timm(name: str) -> bool:
    """Whether a function of timm's models is called so."""
    _, spec = _found("timm.models")
    if spec is None or not spec.submodule_search_locations:
        return False
    head = f"def {name}("
    files = (p for folder in spec.submodule_search_locations for p in Path(folder).glob("*.py"))
    return any(head in path.read_text(encoding="utf-8", errors="replace") for path in files)


def check_targets(config: Config) -> None:
    """Raise UserError where a class that the config names is not there to be imported.

    Before the images are decoded, which can take an hour.
    """
    nodes = {"model": config.model, "optim": config.optim, "loss": config.loss}
    if config.scheduler is not None:
        nodes["scheduler"] = config.scheduler
    for key, node in nodes.items():
        locate(node.target, key)


def check_figures(config: Config, data: RadiographData) -> None:
    """Raise UserError where a figure that chooses cannot be computed on the validation split."""
    targets = data.manifest.targets()[data.rows("val")]
    # Whether a figure is defined depends on the truth alone.
    level = np.full((len(targets), len(data.classes)), 1 / len(data.classes))
    figures = {"loss": 0.0} | validation_figures(targets, level)
    chosen = {"objective": config.objective}
    if config.model.fit == "gradient":
        chosen["callbacks.best.metric"] = config.callbacks.best.metric
        if config.callbacks.early_stopping is not None:
            chosen["callbacks.early_stopping.metric"] = config.callbacks.early_stopping.metric
    wrong = [f"{key}={name}" for key, name in chosen.items() if math.isnan(figures[name])]
    if wrong:
        defined = [name for name, value in figures.items() if not math.isnan(value)]
        held = [data.classes[c] for c in sorted(set(targets.tolist()))]
        raise UserError(
            f"{' and '.join(wrong)} cannot be computed on the validation split, whose "
            f"{counted(len(targets), 'image')} {'is' if len(targets) == 1 else 'are all'} of the "
            f"class {', '.join(held)}; allowed with it: {', '.join(defined)}."
        )


def rehearse(model: Classifier, config: Config) -> None:
    """Build the optimizer and push two black images through, without learning or drawing anything.

    Raises:
        UserError: a backbone that cannot take images of this size or gives another number of
            logits, or that cannot train on a batch of one image where that is asked for, or
            arguments that the optimizer or the schedule does not take.
    """
    size, wanted = config.image_size, len(model.classes)
    was_training = model.training
    try:
        with torch.inference_mode():
            logits = model.eval()(torch.zeros(2, 1, size, size, dtype=torch.uint8))
    except UserError:
        raise
    # The network may be anybody's, and so may what it raises.
    except Exception as error:
        raise UserError(
            f"the model ({config.model.target}) fails on images of image_size={size}: "
            f"{network.clause(error)}."
        ) from error
    finally:
        model.train(was_training)
    if tuple(logits.shape) != (2, wanted):
        raise UserError(
            f"the model ({config.model.target}) gives logits of shape {tuple(logits.shape)} for "
            f"two images; allowed: (2, {wanted}), one logit for each of {', '.join(model.classes)}."
        )
    if config.data.batch_size == 1:
        _try_one_image(model, config)
    try:
        model.configure_optimizers()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"optim or scheduler has an argument that it does not take: {network.clause(error)}."
        ) from error


def _try_one_image(model: Classifier, config: Config) -> None:
    """Batch normalization cannot train on one value a channel, which is all it may then see."""
    normalized = any(isinstance(layer, _NormBase) for layer in model.backbone.modules())
    if not normalized or config.model.freeze == "backbone":  # keeps the statistics it came with
        return
    size = config.image_size
    twin = copy.deepcopy(model.backbone).train()  # since a pass in training changes statistics
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            twin(model.input(torch.zeros(1, 1, size, size, dtype=torch.uint8)))
    except Exception as error:
        raise UserError(
            f"data.batch_size=1: the model ({config.model.target}) has batch normalization and "
            f"cannot train on one image of image_size={size}: {network.clause(error)}. Allowed: "
            "data.batch_size=2 and more, or model.freeze=backbone."
        ) from error

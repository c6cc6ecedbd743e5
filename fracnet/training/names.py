"""Classes that a config names, looked up where nothing is run for it: before any data are had.

A download or a drawing may take an hour, and the imports of torch and timm take seconds: a mistyped
name must wait for neither. What cannot be told here for sure is told by `rehearsal.check_targets`,
once the imports are made anyway.
"""

import importlib.machinery
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from fracnet.config import Config
from fracnet.errors import UserError
from fracnet.objects import locate, near_miss

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

"""The classes and functions that a config names by `_target_`: that they exist, and take its keys.

They are looked up in the source text of their modules, without running any of the user's code, and
without the imports of torch and timm, which take seconds. What cannot be decided so passes here and
is decided where the class is built.
"""

import ast
import importlib.machinery
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from fracnet.config.instantiate import locate, mappings, no_module, no_name, not_an_argument
from fracnet.config.schema import Config
from fracnet.utils.errors import UserError

SHIPPED = ("fracnet", "timm", "torch", "torchvision")
"""Packages that every training imports sooner or later."""
# A module with one of these may define names that its text does not show.
DYNAMIC = r"import \*|__getattr__|globals|setattr|exec\(|vars\(|__dict__|sys\.modules"
OWN_KEYS = {
    "model": (
        "fit", "pretrained", "normalize", "freeze",
        "pool", "head", "head_hidden", "head_C", "head_k", "head_dropout",
    ),
    "optim": ("backbone_lr_factor", "layer_decay", "l1"),
    "scheduler": ("interval", "frequency", "monitor", "total_steps"),
    "loss": ("localization",),
    "metrics": ("mode",),
}  # fmt: skip
"""Keys of a group that are no arguments of its `_target_`."""
MOST_STEPS = 10
"""Imports and base classes that are followed from a name to its definition."""


def named_targets(config: Config) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Key, `_target_` and its arguments, of every node that a training builds but the data."""
    plain = config.model_dump(by_alias=True, exclude_unset=True)
    groups = ("model", "optim", "loss", "scheduler", "augment", "imbalance", "callbacks")
    for group in (*groups, "metrics", "logger", "trainer", "pruning"):
        for key, node in mappings(plain.get(group), group):
            if "_target_" in node:
                own = ("_target_", *OWN_KEYS.get("metrics" if group == "metrics" else key, ()))
                yield key, str(node["_target_"]), {k: v for k, v in node.items() if k not in own}


def check_targets(config: Config) -> None:
    """Raise UserError for a class that does not exist, or a key that it certainly does not take."""
    for key, target, given in named_targets(config):
        check_target(target, key)
        if not any(name.startswith("_") for name in given):  # for Hydra's `instantiate`
            check_keys(target, key, given)


def check_target(target: str, key: str) -> None:
    """Raise UserError where it is certain that the dotted path `target` names nothing."""
    module, _, name = target.rpartition(".")
    missing, spec = _find_module(module) if module else ("", None)
    if not module or module in sys.modules:
        locate(target, key)
        return
    parent, _, child = missing.rpartition(".")
    if parent and re.search(rf"^class {child}\b", _source(_find_module(parent)[1]) or "", re.M):
        raise UserError(
            f"{key}._target_={target}: {child} is a class of module {parent}, and a class inside "
            "a class cannot be named; allowed: package.module.Class."
        )
    if missing:
        raise no_module(target, key, missing)
    text = _source(spec)
    if text is None or re.search(rf"\b{re.escape(name)}\b", text):
        return
    if target.split(".")[0] in SHIPPED:
        locate(target, key)
    elif not re.search(DYNAMIC, text):
        raise no_name(target, key, _bound_in(text))


def arguments_of(target: str) -> tuple[str, ...]:
    """Names of the arguments of a function or class, read from the text; () where that fails."""
    function = _definition(target)
    return () if function is None else _names(function)


def check_keys(target: str, key: str, given: Mapping[str, Any]) -> None:
    """Raise UserError for a key that the class or function `target` certainly does not take.

    Certain is what stands in an undecorated definition without `*` and `**`.
    """
    function = _definition(target)
    if function is None or function.decorator_list:
        return
    if function.args.kwarg is not None or function.args.vararg is not None:
        return
    allowed = _names(function)[1 if key in ("optim", "scheduler") else 0 :]
    if unknown := [name for name in given if name not in allowed]:
        name = unknown[0]
        raise UserError(not_an_argument(f"{key}.{name}", given[name], target, allowed))


def _names(function: ast.FunctionDef) -> tuple[str, ...]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return tuple(argument.arg for argument in arguments if argument.arg != "self")


def _definition(target: str, steps: int = MOST_STEPS) -> ast.FunctionDef | None:
    """The definition of a function, or of the `__init__` of a class; None where it is not plain.

    Follows imports of a name and first base classes.
    """
    module, _, name = target.rpartition(".")
    spec = _find_module(module)[1] if module and steps else None
    text = _source(spec)
    if text is None:
        return None
    try:
        body = _parsed(text).body
    except (SyntaxError, ValueError):  # the import says where
        return None
    node = next((n for n in reversed(body) if name in _bound_by(n)), None)  # the last one holds
    if isinstance(node, ast.FunctionDef):
        return node
    if isinstance(node, ast.ClassDef):
        return _initializer(node, module, steps)
    if isinstance(node, ast.ImportFrom):
        alias = next(a for a in node.names if (a.asname or a.name) == name)
        return _definition(f"{_imported_from(node, module, spec)}.{alias.name}", steps - 1)
    return None


def _bound_in(text: str) -> list[str]:
    """All names that the text of a module may bind; none where it is not Python."""
    try:
        return sorted(_bound_by(_parsed(text)))
    except (SyntaxError, ValueError):
        return []


def _bound_by(node: ast.AST) -> set[str]:
    """All names that a statement may bind."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(node, definitions):
        return {node.name}
    inner = list(ast.walk(node))
    names = {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {n.name for n in inner if isinstance(n, definitions)}
    return names | {n.asname or n.name for n in inner if isinstance(n, ast.alias)}


@lru_cache(maxsize=100)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _initializer(node: ast.ClassDef, module: str, steps: int) -> ast.FunctionDef | None:
    """`__init__` of a class, or of its only base."""
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
    others = [each for each in node.body if not isinstance(each, ast.FunctionDef)]
    if node.decorator_list or node.keywords or "__new__" in methods:
        return None
    if any("__init__" in _bound_by(each) for each in others):
        return None
    if "__init__" in methods:
        return methods["__init__"]
    base = node.bases[0] if len(node.bases) == 1 else None
    return _definition(f"{module}.{base.id}", steps - 1) if isinstance(base, ast.Name) else None


def _imported_from(node: ast.ImportFrom, module: str, spec: Any) -> str:
    """The full name of the module in `from ... import`."""
    if not node.level:
        return str(node.module)
    parts = module.split(".")
    if spec.submodule_search_locations is None:
        parts = parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _find_module(module: str) -> tuple[str, Any]:
    """The first part that certainly does not exist ("" for none), and the spec of the module.

    Unlike `importlib.util.find_spec`, imports no parent package. The spec is None where it cannot
    be determined.
    """
    spec: Any = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            spec = sys.modules[name].__spec__
        elif spec is not None:
            spec = _find_in_folders(name, spec.submodule_search_locations or ())
        else:
            try:
                spec = importlib.util.find_spec(name)
            except KeyError:  # a finder that expects the parent among the imported modules
                return "", None
        if spec is None:
            return name, None
    return "", spec


def _find_in_folders(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """As `PathFinder`, which fails at a namespace folder in a parent that is not imported yet."""
    portions: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec is not None else []
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _source(spec: Any) -> str | None:
    """The text of the module's file; None where that is not Python text, or unknown."""
    if spec is None or spec.origin is None:
        return None
    if not spec.origin.endswith(tuple(importlib.machinery.SOURCE_SUFFIXES)):
        return None
    path = Path(spec.origin)  # inside a zip it is not a file
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

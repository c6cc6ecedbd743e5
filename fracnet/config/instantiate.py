"""Build objects from config nodes: `_target_` is the class, the other keys its arguments.

Hydra's own `instantiate` does this too; this one answers a wrong key with the allowed ones.
"""

import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fracnet.config.fields import refusal
from fracnet.utils.errors import UserError
from fracnet.utils.text import as_typed, near_miss


def is_timm_model(name: str) -> bool:
    """Whether a module of timm.models defines a function of this name; timm is not imported."""
    spec = importlib.util.find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    files = (path for folder in folders or () for path in Path(folder, "models").glob("*.py"))
    head = f"def {name}("
    return any(head in path.read_text(encoding="utf-8", errors="replace") for path in files)


def mappings(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping from a config node downwards, with its key."""
    if isinstance(node, Mapping):
        yield key, node
        for name, value in node.items():
            yield from mappings(value, f"{key}.{name}")
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            yield from mappings(value, f"{key}[{place}]")


def no_module(target: str, key: str, missing: str | None) -> UserError:
    """The error of a `_target_` in a module of which a part is missing."""
    return UserError(
        f"{key}._target_={target}: there is no module '{missing}'; allowed: "
        "an importable package.module.Class (the current folder is searched as well)."
    )


def no_name(target: str, key: str, names: Iterable[str]) -> UserError:
    """The error of a `_target_` that its module does not have. names: what it has."""
    module, _, name = target.rpartition(".")
    return UserError(
        f"{key}._target_={target}: module {module} has no '{name}'.{near_miss(name, names)}"
    )


def locate(target: str, key: str) -> Callable[..., Any]:
    """Import the class or function with the dotted path `target`.

    key: where the config names it, for messages. Raises UserError if it does not exist.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UserError(
            f"{key}._target_={target} is not a dotted path; allowed: package.module.Class."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise no_module(target, key, error.name) from error
    if not hasattr(module, name):
        raise no_name(target, key, vars(module))
    located = getattr(module, name)
    if not callable(located):
        raise UserError(f"{key}._target_={target} is not a class or function.")
    return typing.cast(Callable[..., Any], located)


def build(config: Mapping[str, Any], key: str, *args: Any, **extra: Any) -> Any:
    """Call `config["_target_"]` with the config's other keys and `extra`.

    config: a plain mapping. key: where it stands in the config, for messages. args, extra: what the
    program adds; it overrides the config.

    Raises UserError where the target does not exist, or does not accept one of the keys.
    """
    target = str(config["_target_"])
    function = locate(target, key)
    arguments = {name: value for name, value in config.items() if name != "_target_"} | extra
    try:
        inspect.signature(function).bind(*args, **arguments)
    except TypeError as error:
        parameters = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ][len(args) :]
        unknown = [name for name in arguments if name not in parameters]
        if not unknown:
            raise UserError(f"{key}: {target} does not accept these arguments: {error}.") from error
        name = unknown[0]
        raise UserError(
            not_an_argument(f"{key}.{name}", arguments[name], target, parameters)
        ) from error
    if target.startswith("fracnet."):
        arguments |= _converted(
            function, {k: v for k, v in arguments.items() if k not in extra}, key
        )
    try:
        return function(*args, **arguments)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {target} rejected its arguments: {error}") from error


def not_an_argument(key: str, value: Any, target: str, allowed: Sequence[str]) -> str:
    """The sentence that refuses `key=value`, because `target` takes other arguments."""
    near = near_miss(key.rpartition(".")[2], allowed)
    what = f"{key}={as_typed(value)}"
    return f"{what} is not an argument of {target}; allowed: {', '.join(allowed)}.{near}"


def _converted(function: Callable[..., Any], arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """The arguments converted to the types that fracnet's own signature declares."""
    hints = typing.get_type_hints(
        function.__init__ if inspect.isclass(function) else function, include_extras=True
    )
    converted = {}
    for name, value in arguments.items():
        try:
            converted[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = [key, name, *(str(part) for part in fault["loc"])]
            if place[-1] == "[key]":
                what = f"the key {fault['input']} of {'.'.join(place[:-2])}"
            else:
                what = f"{'.'.join(place)}={as_typed(fault['input'])}"
            raise UserError(refusal(what, fault["type"], fault["msg"])) from error
    return converted

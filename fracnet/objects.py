"""Make an object from a config node: `_target_` is the class, the other keys its arguments.

Hydra's own `instantiate` does this too; this one answers a wrong key with the allowed ones and
keeps in one place the decision of what a config may call.
"""

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fracnet.config import refusal
from fracnet.errors import UserError


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no allowed word is near."""
    found = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


def locate(target: str, key: str) -> Callable[..., Any]:
    """The class or function with the dotted path `target`; `key` is where the config names it."""
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UserError(
            f"{key}._target_={target} is not a dotted path; allowed: package.module.Class."
        )
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}._target_={target}: there is no module '{error.name}'; allowed: "
            "an importable package.module.Class (the current folder is searched as well)."
        ) from error
    except AttributeError as error:
        names = vars(importlib.import_module(module_name))
        raise UserError(
            f"{key}._target_={target}: module {module_name} has no '{name}'."
            + near_miss(name, names)
        ) from error
    if not callable(found):
        raise UserError(f"{key}._target_={target} is not a class or function.")
    return found


def build(config: Mapping[str, Any], key: str, *args: Any, **extra: Any) -> Any:
    """Call `config["_target_"]` with the config's other keys and `extra`.

    Args:
        config: plain mapping (no OmegaConf node), with `_target_`.
        key: where it stands in the config, for messages.
        args: positional arguments that come from the program.
        extra: keyword arguments that come from the program; they win over the config's.

    Raises:
        UserError: the target cannot be found, or does not take one of the keys.
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
        fault = (
            f"{key}.{unknown[0]}={arguments[unknown[0]]} is not taken by {target}"
            if unknown
            else f"{key}: {target} was called wrongly ({error})"
        )
        hint = near_miss(unknown[0], parameters) if unknown else ""
        raise UserError(f"{fault}; allowed: {', '.join(parameters)}.{hint}") from error
    if target.startswith("fracnet."):
        arguments |= _checked(function, {k: v for k, v in arguments.items() if k not in extra}, key)
    try:
        return function(*args, **arguments)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {target} refused its arguments: {error}") from error


def _checked(function: Callable[..., Any], arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """The arguments converted to the types that fracnet's own signature declares."""
    hints = typing.get_type_hints(
        function.__init__ if inspect.isclass(function) else function, include_extras=True
    )
    checked = {}
    for name, value in arguments.items():
        try:
            checked[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join([key, name, *(str(part) for part in fault["loc"])])
            raise UserError(
                refusal(f"{place}={fault['input']}", fault["type"], fault["msg"])
            ) from error
    return checked

"""Make an object from a config node: `_target_` is the class, the other keys its arguments.

Hydra's own `instantiate` does this too; this one answers a wrong key with the allowed ones and
keeps in one place the decision of what a config may call.

What a run folder from elsewhere may have built: nothing of other packages unless asked.

Whoever rebuilds a run's model calls the classes that its files name. So that opening a folder is
not running a stranger's program, those must be models, losses or data sources of fracnet, timm or
torch; `trust=true` is for runs with classes of one's own.
"""

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fracnet.config.schema import refusal
from fracnet.utils.errors import UserError


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


ALLOWED = (
    "fracnet.data.datasets",
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
    """Whether it is a network, an optimizer or a schedule, or a function listed as making one."""
    import timm
    from torch import nn, optim
    from torchvision import models

    if isinstance(found, type):
        return issubclass(found, nn.Module | optim.Optimizer | optim.lr_scheduler.LRScheduler)
    name = getattr(found, "__name__", "")
    return bool(timm.is_model(name)) or name in models.list_models()


def _within(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED)

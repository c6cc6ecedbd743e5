"""Answers to a mistyped command line: what is wrong, what is allowed, what was probably meant."""

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from fracnet.config.fields import refusal
from fracnet.config.instantiate import is_timm_model
from fracnet.config.overrides import (
    OPEN_GROUPS,
    is_readable,
    listed_texts,
    not_a_name,
    shell_quoted,
)
from fracnet.utils.files import choices_of, config_dir
from fracnet.utils.text import as_clause, near_miss, number_in, one_line

PACKAGE = Path(__file__).parents[1]
ASSIGNMENT = re.compile(r"[+~]*[\w./@-]+=")
# Typographic dashes and quotation marks, and those of a keyboard.
KEYBOARD_SIGNS = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u201c\u201d", "------''\"\""
)
# What a key or group was called before version 0.2.
RENAMED = {
    "enhance": "preprocess",
    "model.normalise": "model.normalize",
    "evaluation.operating": "evaluation.operating_point",
    "operating": "operating_point",
    "unsure": "confident_errors",
    "of": "class_name",
    "label_errors": "features",
    "data.unlabelled": "data.unlabeled",
    **{
        f"logger.{key}": f"logger.wandb.{key}"
        for key in ("mode", "project", "entity", "group", "name", "tags", "images", "timeout")
    },
}
# Common names of a key in other frameworks.
ALIASES = {
    "arch": "model",
    "architecture": "model",
    "backbone": "model",
    "bs": "data.batch_size",
    "dataset": "data",
    "device": "trainer.accelerator",
    "dropout": "model.head_dropout",
    "epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "img_size": "image_size",
    "learning_rate": "optim.lr",
    "optimizer": "optim",
    "size": "image_size",
    "wd": "optim.weight_decay",
    "workers": "data.num_workers",
}
# Keys of the data that any dataset has.
PHANTOM_KEYS = tuple(
    f"data.{key}" for key in ("batch_size", "num_workers", "folds", "fold", "fraction")
)


def explain_error(
    error: BaseException, config_name: str, arguments: Sequence[str], *, in_python: bool = False
) -> str:
    """Hydra's or OmegaConf's error in one paragraph, with what is allowed and the near miss.

    config_name: name of the command and of its YAML file. arguments: what the user typed.
    in_python: as arguments of a function such as `fracnet.fit`.
    """
    message = one_line(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return _explain_choice(error)
    if unknown := re.search(
        r"Could not (override|delete)(?: from config\.)? '([\w./@-]+)'", message
    ):
        return _explain_key(
            unknown[2], config_name, arguments, "~" if unknown[1] == "delete" else "", error
        )
    if existing := re.search(
        r"(?:already at '|Multiple values for |config groups is not supported: '\+*)"
        r"([\w@/]+(?:\.\w+)*)",
        message,
    ):
        typed = next((a for a in arguments if a.lstrip("+").startswith(f"{existing[1]}=")), "")
        return f"'{existing[1]}' exists already; type '{typed.lstrip('+')}'."
    if message.startswith("Error merging override "):
        typed = message.removeprefix("Error merging override ").removeprefix("++")
        return _explain_merge(typed, error.__cause__)
    if ambiguous := re.match(r"Ambiguous value for argument '([^']*)'", message):
        argument = ambiguous[1]
        key, _, value = argument.partition("=")
        multirun = "use fracnet.sweep" if in_python else "add -m"
        in_sweep = f", for one job per value {multirun}" if config_name == "train" else ""
        return (
            f"'{argument}' has a comma. For several values type "
            f"{shlex.quote(f'{key}=[{value}]')}, for one value with a comma in it "
            f"{shell_quoted(argument)}{in_sweep}."
        )
    if choice := re.search(r"Could not load '([\w/]+)/([\w-]+)'", message):
        return _not_a_choice(choice[1], choice[2], _choices(choice[1], arguments))
    override = getattr(error, "override", None)
    if override and override.removeprefix("++") in arguments:  # of `add_open_keys`
        override = override.removeprefix("++")
    plain = str(override or "").translate(KEYBOARD_SIGNS)
    if override and plain != override and (plain.startswith("-") or is_readable(plain)):
        return (
            f"Could not read '{override}': it contains typographic dashes or quotes, probably "
            f"pasted from a word processor. Type: {shlex.quote(plain)}"
        )
    if override and (joined := _joined(override, arguments)):
        return f"Could not read '{override}'. Write it as one word: {joined}"
    if override and override.endswith(",") and ASSIGNMENT.match(override):
        whole = override.rstrip(",")
        if is_readable(whole):
            return f"Could not read '{override}': it ends in a comma. Type: {shlex.quote(whole)}"
    if override and ASSIGNMENT.match(override):
        key, _, value = override.partition("=")
        if value.startswith("{") or (value.startswith("[") and not value.endswith("]")):
            return (
                f"Could not read '{override}'. Lists are written '{key}=[a, b]' and mappings "
                f"'{key}={{name: value, name: value}}', in quotes if they have spaces."
            )
        return (
            f"Could not read '{override}'. Values with spaces or special characters must be "
            f"quoted. Try: {shell_quoted(override, asks_for_multirun(arguments))}"
        )
    if override:
        meant = "" if override.startswith("-") else _as_overrides(config_name, arguments)
        hint = f" Did you mean {meant}?" if meant else ""
        return (
            f"'{override}' is not an override; allowed: key=value, group=choice, ~key, "
            f"+key=value.{hint}"
        )
    return message


def _explain_merge(typed: str, cause: BaseException | None) -> str:
    """Why a key cannot have the value. cause: OmegaConf's error."""
    text = str(cause or "").split("\n")[0]
    if "incompatible container types" in text:
        is_list = getattr(cause, "object_type", None) is list
        return refusal(typed, "list_type" if is_list else "dict_type", text)
    return refusal(typed, "", as_clause(text) or "its value has another type")


def _joined(failed: str, arguments: Sequence[str]) -> str:
    """One word for the shell of those that `failed` was torn from: `optim.lr = 1, 2`, `x={a: 1}`.

    "" if it was not torn, or Hydra could not read the word either.
    """
    groups: list[list[str]] = []  # the word as one, then its parts
    for word in arguments:
        start = groups[-1][0] if groups else ""
        is_open = any(start.count(left) > start.count(right) for left, right in ("{}", "[]"))
        torn = start.endswith(("=", ",")) or word.startswith(("=", ","))
        follows = is_open or (torn and not word.startswith("-"))
        if start and follows and not ASSIGNMENT.match(word):
            groups[-1] = [f"{start}{' ' if is_open else ''}{word}", *groups[-1][1:], word]
        else:
            groups.append([word, word])
    for joined, *parts in groups:
        if failed in parts and len(parts) > 1:
            lacks_comma = re.search(r"[^,{\s]\s+\w+: ", joined)  # {a: 1 b: 2}
            complete = is_readable(joined) and not joined.endswith("=") and not lacks_comma
            return shlex.quote(joined) if complete else ""
    return ""


def _as_overrides(config_name: str, arguments: Sequence[str]) -> str:
    """The overrides that words without `=` probably stand for; "" where nothing is close."""
    words = [word for word in arguments if "=" not in word and not word.startswith("-")]
    if config_name in ("compare", "ensemble"):
        return shlex.quote(f"runs={_one_or_list(words)}")
    if config_name == "train":
        meant = _meant(words[0], _composed(config_name, ())) if len(words) == 2 else ""
        if meant:
            return f"{meant}={words[1]}"
        choices = {path.stem: path.parent.name for path in config_dir().glob("*/*.yaml")}
        return " ".join(f"{choices[word]}={word}" for word in words if word in choices)
    runs = [word for word in words if Path(word, "config.yaml").is_file()]
    others = [word for word in words if word not in runs]
    if config_name == "predict" and others:
        given = [f"run={run}" for run in runs[:1]]
        return " ".join([*given, shlex.quote(f"input={_one_or_list(others)}")])
    if config_name == "audit":
        is_dataset = (config_dir() / "data" / f"{words[0]}.yaml").is_file()
        return f"data={words[0]}" if is_dataset else f"data=folder data.root={words[0]}"
    key = "table" if words[0].endswith(".csv") else "run"
    return f"{key}={words[0]}"


def _one_or_list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"[{','.join(words)}]"


def explain_option(option: str, value: str, config_name: str) -> str:
    """The answer to `--epochs 5`, which is not one of Hydra's options."""
    name, _, given = option.lstrip("-").partition("=")
    key = _meant(name.replace("-", "_"), _composed(config_name, ()))
    value = given or (value if not value.startswith("-") else "")
    hint = f" Did you mean '{key}={value or '...'}'?" if key else ""
    return f"'{option}' is not an option; overrides are written key=value, without dashes.{hint}"


def phantom_command(phantom: str) -> str:
    """How to do on phantoms what the current command does on data that are missing.

    The whole command where Hydra runs one, otherwise the overrides.
    """
    config: Any = HydraConfig.instance().cfg
    hydra = config and config.hydra
    name = str(hydra.job.config_name or hydra.job.name) if hydra else "train"
    new = [f"data={phantom}", *(["model.pretrained=false"] if name == "train" else [])]
    if not hydra:
        return " ".join(new)
    dropped = {"data", "model.pretrained", "model.weights"} if name == "train" else {"data"}
    overrides = [
        shlex.quote(override.removeprefix("++" if key.split(".")[0] in OPEN_GROUPS else ""))
        for override in hydra.overrides.task
        if (key := override.lstrip("+~").partition("=")[0]) not in dropped
        and (not key.startswith("data.") or key in PHANTOM_KEYS)
    ]
    folders = [
        f"--config-dir {shlex.quote(str(source.path))}"
        for source in hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    return " ".join([f"python -m fracnet.{name}", *folders, *overrides, *new])


def asks_for_multirun(arguments: Sequence[str]) -> bool:
    """Whether `-m` is given; Hydra also accepts prefixes of `--multirun` and a key of its own."""
    exact = ("-m", "hydra.mode=MULTIRUN")
    return any(a in exact or (len(a) > 2 and "--multirun".startswith(a)) for a in arguments)


def _explain_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    return _not_a_choice(group, choice, sorted(error.options or ()))


def explain_group(arguments: Sequence[str]) -> str:
    """What is wrong with `logger=null`, `debug=true` or `=1`, on which Hydra fails, or ""."""
    if arguments and arguments[0].startswith("="):
        return f"'{arguments[0]}' has no key before its '='; allowed: key=value, group=choice."
    for argument in arguments:
        match = re.match(r"\+*(\w+)=", argument)
        folder = config_dir() / (match[1] if match else "")
        if match and folder.is_dir() and (value := not_a_name(argument)):
            options = _choices(match[1], arguments)
            return _not_a_choice(match[1], value, options, none=value != "true")
    return ""


def _choices(group: str, arguments: Sequence[str]) -> list[str]:
    """The choices of a group, those in folders of the user's own included."""
    folders = (config_dir(), *_own_folders(arguments))
    return sorted({choice for folder in folders for choice in choices_of(folder / group)})


def _not_a_choice(group: str, choice: str, options: Sequence[str], none: bool = False) -> str:
    """none: whether the choice `none` is probably meant."""
    same = [option for option in options if option.lower() == choice.lower()]
    hint = f" Did you mean '{same[0]}'?" if same else near_miss(choice, options)
    if group == "model" and not same and is_timm_model(choice.lower()):
        hint = f" Did you mean 'model=timm model.name={choice.lower()}'?"
    if none and "none" in options:
        hint = " Did you mean 'none'?"
    return (
        f"{group}={choice} is not one of the choices of '{group}'; "
        f"allowed: {', '.join(options)}.{hint}"
    )


def explain_config_name(config_name: str, arguments: Sequence[str]) -> str:
    """What is wrong with `--config-name` of another command, or of no config at all; or ""."""
    if _option_values(arguments, "--config-path", "-cp"):
        return ""
    for name in _option_values(arguments, "--config-name", "-cn"):
        name = name.removesuffix(".yaml")
        folders = (config_dir(), *_own_folders(arguments))
        group, _, choice = name.rpartition("/")
        if name != config_name and (config_dir() / f"{name}.yaml").is_file():
            what = f"a choice of the group '{group}'; type: {group}={choice}"
            if not group:
                is_command = (PACKAGE / f"{name}.py").is_file()
                module = f"; type: python -m fracnet.{name}" if is_command else ""
                what = f"the config of another command{module}"
            return f"--config-name={name} is {what}"
        if not any((folder / f"{name}.yaml").is_file() for folder in folders):
            own = {path.stem for folder in folders[1:] for path in folder.glob("*.yaml")}
            allowed = [config_name, *sorted(own)]
            return (
                f"--config-name={name}: there is no such config; allowed: {', '.join(allowed)}, "
                f"or one in a folder of yours that --config-dir names.{near_miss(name, allowed)}"
            )
    return ""


def explain_added(config_name: str, arguments: Sequence[str]) -> str:
    """What is wrong with `+key=` and `++key=`, which Hydra adds to a config whatever their name.

    "" where nothing is certain: a class may have arguments that no YAML lists.
    """
    added = [match[1] for a in arguments if (match := re.match(r"\++([\w.-]+)=", a))]
    folders = (config_dir(), *_own_folders(arguments))
    keys = [key for key in added if not any((folder / key).is_dir() for folder in folders)]
    root = _composed(config_name, arguments) if keys else None
    for key in keys:
        *parents, name = key.split(".")
        node, parents = _descend(root, parents)
        if not isinstance(node, DictConfig) or (name in node and not parents):
            continue
        first = key.split(".")[0]
        closed = "_target_" not in node and first not in OPEN_GROUPS
        close = difflib.get_close_matches(name, [str(k) for k in node], n=1, cutoff=0.6)
        if first not in ("hydra", "resumed") and (
            node is root or (closed and close and not parents)
        ):
            return _explain_key(key, config_name, arguments)
    return ""


def _explain_key(
    key: str,
    config_name: str,
    arguments: Sequence[str],
    sign: str = "",
    error: BaseException | None = None,
) -> str:
    """Why there is no such key. sign: `~` of a key to be deleted. error: Hydra's."""
    if key in RENAMED:
        return f"The key '{key}' is now called '{RENAMED[key]}'."
    root = None if "." in key else _config_of(error)
    if root is None:
        root = _composed(config_name, arguments, with_hydra=key.startswith("hydra."))
    node, parts = _descend(root, key.split("."))
    known = key.removesuffix(".".join(parts))
    if not parts and isinstance(node, DictConfig):
        names = ", ".join(str(name) for name in node)
        cause = re.match(r"Key '(.+?)' is not in struct", str(error and error.__cause__))
        wrong = f"the key '{cause[1]}', which" if cause else "a key that"
        return f"'{key}' was given {wrong} it does not have; allowed under it: {names}."
    if not isinstance(node, DictConfig):
        known = known.rstrip(".")
        return f"Cannot override '{key}': '{known}' holds a plain value.{_choices_with(key)}"
    allowed = sorted(str(name) for name in node if name != "_target_")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", parts[-1]).replace("-", "_")  # maxEpochs
    name = next((key for key in allowed if key.lower() == name.lower()), name)
    longer = [key for key in allowed if key.startswith(name)] if known else []
    close = longer or (difflib.get_close_matches(name, allowed, n=1, cutoff=0.6) if known else [])
    typed = (a.lstrip("+").partition("=") for a in arguments)
    value = next((value for name, _, value in typed if name == key), "")
    exact = "" if longer else _exact(name, root, unique=bool(known), value=value)
    near = f"{known}{close[0]}" if close else ""
    meant = exact or (near if known else _meant(name, root))
    hint = "" if exact else _choices_with(key)
    deleted = f" Did you mean '~{meant}'?" if meant else ""
    target = str(node.get("_target_", "fracnet."))
    if not (hint or meant or sign or target.startswith("fracnet.")):  # ours list all theirs
        hint = f" To pass it to {target}: +{key}={value or '...'}"
    return (
        f"There is no key '{known}{parts[0]}'; allowed"
        f"{f' under {known[:-1]!r}' if known else ''}: {', '.join(allowed)}."
        f"{deleted if sign else hint or _did_you_mean(meant, value)}"
    )


def _descend(node: Any, names: list[str]) -> tuple[Any, list[str]]:
    """The deepest node of the config on the path of the names, and the names that are left."""
    for place, name in enumerate(names):
        if not isinstance(node, DictConfig) or name not in node:
            return node, names[place:]
        node = node._get_node(name)
    return node, []


def _choices_with(key: str) -> str:
    """A hint to the other choices of a group that have the key `group.name`; "" without one."""
    group, _, name = key.partition(".")
    line = re.compile(rf"^ *{re.escape(name)}:", re.MULTILINE)
    files = sorted((config_dir() / group).glob("*.yaml")) if name else ()
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    owners = {choice for choice, text in texts.items() if line.search(text)}
    bases = re.compile(rf"^(defaults: \[|  - )({'|'.join(owners)})(@|\]|$)", re.MULTILINE)
    owners |= {choice for choice, text in texts.items() if owners and bases.search(text)}
    if not 0 < len(owners) < len(texts):
        return ""
    return f" It is a key of {group}={', '.join(sorted(owners))}."


def _did_you_mean(key: str, value: str) -> str:
    """A hint with the value that was given, unless that is no choice of the group `key`."""
    if not key:
        return ""
    folder = config_dir() / key
    if folder.is_dir() and not (folder / f"{value}.yaml").is_file():
        return f" Did you mean '{key}' ({', '.join(choices_of(folder))})?"
    return f" Did you mean '{key}={value}'?"


def _config_of(error: BaseException | None) -> DictConfig | None:
    """The config that lacks a key of its own; to compose it again takes half a second."""
    root = getattr(error and error.__cause__, "parent_node", None)
    if not isinstance(root, DictConfig) or root._get_parent() is not None:
        return None  # of a mapping for a group, the group
    OmegaConf.set_struct(root, False)
    root.pop("hydra", None)
    return root


def _composed(
    config_name: str, arguments: Sequence[str], *, with_hydra: bool = False
) -> DictConfig:
    """The config with the groups that the arguments choose, their own folders included."""
    GlobalHydra.instance().clear()
    folders = _own_folders(arguments)
    groups = [
        argument
        for argument in arguments
        if re.fullmatch(r"\w+=\w+", argument)
        and any((f / argument.split("=")[0]).is_dir() for f in (config_dir(), *folders))
    ]
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"]
    with initialize_config_dir(str(config_dir())):
        try:
            return compose(config_name, [*search, *groups], return_hydra_config=with_hydra)
        except HydraException:  # groups of another command
            return compose(config_name, search, return_hydra_config=with_hydra)


def _own_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of `--config-dir` and `hydra.searchpath=`."""
    folders = _option_values(arguments, "--config-dir", "-cd")
    for argument in arguments:
        if argument.lstrip("+").startswith("hydra.searchpath="):
            folders += [
                text.removeprefix("file://")
                for text in listed_texts(argument)
                if not text.startswith("pkg://")
            ]
    return [Path(folder).resolve() for folder in folders]


def _option_values(arguments: Sequence[str], *names: str) -> list[str]:
    """The values of an option, written `--name value` or `--name=value`."""
    pieces = [piece for argument in arguments for piece in argument.split("=", 1)]
    return [b for a, b in pairwise(pieces) if a in names]


def _exact(name: str, config: DictConfig, *, unique: bool, value: str = "") -> str:
    """The key with an alias or the last part `name`, the shortest one; "" for none.

    unique: also "" for several. value: what it was given, which excludes keys that hold a number
    and were given a word, or reverse.
    """
    keys = dict(_keys(config))
    alias = ALIASES.get(name)
    if alias and alias in keys:
        return alias
    same = [key for key, leaf in keys.items() if leaf == name]
    same = [key for key in same if _suits(value, OmegaConf.select(config, key))] or same
    return "" if not same or (unique and len(same) > 1) else min(same, key=len)


def _suits(value: str, current: Any) -> bool:
    """Whether a value that was typed may replace the current one: a word a text."""
    is_number = number_in(value) is not None
    return not value or current is None or is_number == isinstance(current, int | float)


def _meant(name: str, config: DictConfig) -> str:
    """The key that `name` probably means: an alias, the same name elsewhere, or a close one."""
    keys = dict(_keys(config))
    if exact := _exact(name, config, unique=True):
        return exact
    cutoff = 0.7 if len(name) > 3 else 0.6  # `rnu`
    top = difflib.get_close_matches(name, [str(key) for key in config], n=1, cutoff=cutoff)
    if top:
        return top[0]
    close = difflib.get_close_matches(name, sorted(set(keys.values())), n=1, cutoff=0.85)
    return next(key for key, leaf in keys.items() if leaf == close[0]) if close else ""


def _keys(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key below a node, dotted, with its last part."""
    for name in node:
        key = f"{prefix}{name!s}"
        yield key, str(name)
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _keys(child, f"{key}.")

"""`--help`: the command's text, its groups, and every key with its value and its meaning.

The meanings are the comments beside the keys in conf/, so that there is one place to write them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from fracnet.utils.files import choices_of, config_dir

COLUMN = 40  # where a comment starts, unless the value is longer
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>(?: +[^#\n]*)?)(?:# ?(?P<text>.*))?$")


def help_page(config_name: str, overrides: list[str]) -> str:
    """The help text of a command, for the groups that the overrides choose."""
    with initialize_config_dir(str(config_dir())):
        config = compose(config_name, overrides, return_hydra_config=True)
    choices = {
        str(group): str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if not str(group).startswith("hydra") and choice not in (None, "null")
    }
    template = str(OmegaConf.to_container(config.hydra.help, resolve=False)["template"])  # type: ignore[index,call-overload]
    with open_dict(config):
        del config["hydra"]
    text = template.replace("$APP_CONFIG_GROUPS", _groups())
    return text.replace(
        "$CONFIG", annotated(OmegaConf.to_yaml(config), _meanings(config_name, choices))
    )


def annotated(text: str, meanings: Mapping[str, str]) -> str:
    """YAML text with the meaning of each key, by dotted name, behind its value."""
    lines = []
    for line, key in _keyed(text):
        meaning = meanings.get(key)
        lines.append(f"{line:<{COLUMN - 2}}  # {meaning}" if meaning else line)
    return "\n".join(lines) + "\n"


def _groups() -> str:
    lines = []
    for folder in sorted(path for path in config_dir().iterdir() if path.is_dir()):
        if folder.name != "hydra":
            lines.append(f"{folder.name}: {', '.join(choices_of(folder))}")
    return "\n".join(lines) + "\n"


def _meanings(config_name: str, choices: Mapping[str, str]) -> dict[str, str]:
    meanings = _comments(config_dir() / f"{config_name}.yaml", "")
    for group, choice in choices.items():
        meanings |= _of_choice(config_dir() / group, choice, group)
    return meanings


def _of_choice(folder: Path, choice: str, group: str) -> dict[str, str]:
    """Comments of a group's file, and of the files of the group that it builds on."""
    path = folder / f"{choice}.yaml"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    meanings: dict[str, str] = {}
    for base in (yaml.safe_load(text) or {}).get("defaults", ()):
        name = str(base).partition("@")[0]
        if name not in ("_self_", choice):
            meanings |= _of_choice(folder, name, group)
    prefix = "" if "@package _global_" in text else f"{group}."
    return meanings | _comments(path, prefix)


def _comments(path: Path, prefix: str) -> dict[str, str]:
    """The comment beside each key of a YAML file, by dotted name, with its further lines."""
    comments: dict[str, str] = {}
    last = ""
    for line, key in _keyed(path.read_text(encoding="utf-8")):
        match, further = _LINE.match(line), re.match(r" +# ?(.*)", line)
        if match:
            last = f"{prefix}{key}" if match["text"] else ""
            comments |= {last: match["text"].strip()} if last else {}
        elif further and last:
            comments[last] += f" {further[1].strip()}"
    return comments


def _keyed(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the dotted name of the key that it holds; "" for other lines."""
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            yield line, ""
            continue
        indent = len(match["indent"])
        path = [*(item for item in path if item[0] < indent), (indent, match["key"])]
        yield line, ".".join(name for _, name in path)

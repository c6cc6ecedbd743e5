"""Compositions of fracnet's config without repeating what earlier ones have done."""

import pickle
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig

from fracnet.utils.files import config_dir

FIXED = (str(config_dir()), str(Path(__file__).parents[1] / "user_conf"))
"""Folders of configs that no test changes: conf/, and what tests give as `--config-dir`."""


def compose_quickly(replace: Callable[[Any, str, Any], None]) -> None:
    """Let Hydra read each file of conf/, and merge the same files, once.

    Hydra changes what it has read and merged, so each composition gets a copy of its own; what it
    does with the values on the command line it does each time. With any folder of configs besides
    FIXED nothing is kept, because tests write such files. `replace` sets an attribute.
    """
    _read_each_file_once(replace)
    _merge_the_same_files_once(replace)


def compose_defaults() -> None:
    """Compose the config of a training without overrides, so that its files have been read."""
    with initialize_config_dir(str(config_dir())):
        compose("train")


def _read_each_file_once(replace: Callable[[Any, str, Any], None]) -> None:
    (source,) = (s for s in Plugins.instance().discover(ConfigSource) if s.scheme() == "file")
    read: dict[tuple[str, str, str], bytes] = {}
    load = source.load_config

    def load_once(self: Any, config_path: str) -> ConfigResult:
        if self.path not in FIXED:
            return load(self, config_path)
        key = self.provider, self.path, config_path
        if key not in read:
            read[key] = pickle.dumps(load(self, config_path))
        result: ConfigResult = pickle.loads(read[key])
        return result

    replace(source, "load_config", load_once)


def _merge_the_same_files_once(replace: Callable[[Any, str, Any], None]) -> None:
    lists: dict[Any, DefaultsList] = {}
    merged: dict[Any, bytes] = {}
    create = config_loader_impl.create_defaults_list
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    groups = {path.name for folder in FIXED for path in Path(folder).iterdir() if path.is_dir()}

    def create_once(
        repo: IConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        prepend_hydra: bool,
        skip_missing: bool,
    ) -> DefaultsList:
        # All others set values, which change nothing about the files that are merged.
        choices = [
            o
            for o in overrides_list
            if o.is_delete() or "/" in o.key_or_group or o.key_or_group in groups
        ]
        sources = _sources(repo)
        if not sources:
            return create(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        lines = tuple(str(o.input_line) for o in choices)
        key = sources, config_name, lines, prepend_hydra, skip_missing
        if key not in lists:
            lists[key] = create(repo, config_name, choices, prepend_hydra, skip_missing)
        known = lists[key]
        values = {str(o.input_line) for o in known.config_overrides}
        of_all = [
            o
            for o in overrides_list
            if not o.is_sweep_override() and (o not in choices or str(o.input_line) in values)
        ]
        return replaced(known, config_overrides=of_all)

    def merge_once(
        self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        sources = _sources(repo)
        if not sources:
            return merge(self, defaults, repo)
        key = sources, tuple(map(repr, defaults))
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, defaults, repo))
        config: DictConfig = pickle.loads(merged[key])
        return config

    replace(config_loader_impl, "create_defaults_list", create_once)
    replace(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)


def _sources(repo: IConfigRepository) -> tuple[Any, ...]:
    """Where configs come from; empty if one is a folder whose files may change."""
    sources = tuple((s.provider, s.scheme(), s.path) for s in repo.get_sources())
    if any(scheme == "file" and path not in FIXED for _, scheme, path in sources):
        return ()
    # Plugins that are imported later add schemas of their own.
    return (*sources, len(str(ConfigStore.instance().repo.keys())))

"""Compositions of fracnet's config without reading the same YAML files each time."""

import pickle
from collections.abc import Callable
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource

from fracnet.utils.files import config_dir


def parse_each_file_once(replace: Callable[[Any, str, Any], None]) -> None:
    """Let Hydra read each file of conf/ once; `replace` sets an attribute.

    Hydra changes what it has read, so each composition gets a copy of its own. Other folders, whose
    files tests write, are read each time.
    """
    (source,) = (s for s in Plugins.instance().discover(ConfigSource) if s.scheme() == "file")
    read: dict[str, bytes] = {}
    load = source.load_config

    def load_once(self: Any, config_path: str) -> ConfigResult:
        if self.path != str(config_dir()) or self.provider != "main":
            return load(self, config_path)
        if config_path not in read:
            read[config_path] = pickle.dumps(load(self, config_path))
        result: ConfigResult = pickle.loads(read[config_path])
        return result

    replace(source, "load_config", load_once)

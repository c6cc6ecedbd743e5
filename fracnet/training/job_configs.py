"""The configs of a sweep's jobs, most of which differ in the values of a few keys alone.

Hydra takes a tenth of a second to compose one. Here it composes one for each choice of groups, and
sets the values in copies of it, as it does itself at the end of a composition.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

OF_SWEEP = ("hydra", "launcher", "sweeper")
"""Keys whose values Hydra compares with those of the sweep."""


class JobConfigs:
    """Composes the configs of jobs, as Hydra does in a sweep."""

    def __init__(self) -> None:
        self._load = GlobalHydra.instance().config_loader().load_sweep_config
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: Sequence[str]
    ) -> DictConfig:
        """What Hydra's method of this name returns, and the errors that it raises."""
        texts = list(sweep_overrides)
        try:
            values = [parsed for text in texts if _sets_a_value(parsed := _parsed(text))]
            others = tuple(text for text in texts if _parsed(text) not in values)
            if others not in self._bases:
                self._bases[others] = self._load(master_config, list(others))
            config = copy.deepcopy(self._bases[others])
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except (HydraException, OmegaConfBaseException):  # such as a key that does not exist
            return self._load(master_config, texts)
        config.hydra.overrides.task = texts
        return config

    def replace_hydras(self) -> None:
        """From here on Hydra composes the configs of the jobs in this process so."""
        loader: Any = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = self.load_sweep_config


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([text])
    return override


def _sets_a_value(override: Override) -> bool:
    """Whether it sets a key, other than the choice of a group, and nothing else."""
    key = str(override.key_or_group)
    if override.type != OverrideType.CHANGE or override.package or key.split(".")[0] in OF_SWEEP:
        return False
    return "." in key or not GlobalHydra.instance().config_loader().get_group_options(key)

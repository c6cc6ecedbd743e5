"""The configs of a sweep's jobs: which there are, composed, and checked before the first job.

Most differ in the values of a few keys alone. Hydra takes a tenth of a second to compose one. Here
it composes one for each choice of groups, and sets the values in copies of it, as it does itself at
the end of a composition.
"""

import math
import pickle
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # it has no public name
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fracnet.config import hydra_cli
from fracnet.config.checks import check
from fracnet.config.fields import resolved
from fracnet.config.search import parsed_overrides, sweep_overrides
from fracnet.config.targets import check_targets

OF_SWEEP = ("hydra", "launcher", "sweeper")
"""Keys whose values Hydra compares with those of the sweep."""


class JobConfigs:
    """Composes the configs of jobs, as Hydra does in a sweep."""

    def __init__(self) -> None:
        self._load = GlobalHydra.instance().config_loader().load_sweep_config
        self._bases: dict[tuple[str, ...], bytes] = {}
        """Pickled, because that copies a config in a sixth of the time of `deepcopy`."""

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: Sequence[str]
    ) -> DictConfig:
        """What Hydra's method of this name returns, and the errors that it raises."""
        texts = list(sweep_overrides)
        try:
            values = [parsed for text in texts if _sets_a_value(parsed := _parsed(text))]
            others = tuple(text for text in texts if _parsed(text) not in values)
            # Before Hydra 1.4, the composition also writes down the overrides themselves.
            if not hydra_cli.HYDRA_1_4 or not all(
                _chooses_a_group(_parsed(text)) for text in others
            ):
                return self._load(master_config, texts)
            if others not in self._bases:
                self._bases[others] = pickle.dumps(self._load(master_config, list(others)))
            config: DictConfig = pickle.loads(self._bases[others])
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except (HydraException, OmegaConfBaseException):  # such as a key that does not exist
            return self._load(master_config, texts)
        config.hydra.overrides.task = texts
        return config

    def checked(self, config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
        """The config of one job as plain containers. Raises UserError for one that is not allowed.

        config: of the sweep.
        """
        job = self.load_sweep_config(config, overrides)
        with open_dict(job):
            del job["hydra"]
        plain = resolved(job)
        check_targets(check(plain))
        return plain

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
    if "extend_list(" in str(override.input_line):
        return False
    return "." in key or not GlobalHydra.instance().config_loader().get_group_options(key)


def _chooses_a_group(override: Override) -> bool:
    """Whether it chooses from a group, which no order of overrides changes."""
    key, plain = str(override.key_or_group), override.type == OverrideType.CHANGE
    return plain and not override.package and "." not in key and isinstance(override.value(), str)


def planned_jobs(config: DictConfig) -> list[list[str]]:
    """Overrides of each job of a grid; [] for a sweeper that chooses them by earlier results."""
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return []
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(sweep_overrides(config.hydra))
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in jobs]


def search_configs(config: DictConfig, configs: JobConfigs) -> list[dict[str, Any]]:
    """What each job of a search costs at most, as a config; empty where nobody can know.

    Raises UserError for a swept value that no job may have. Each value is checked with the first
    values of the other keys, of whole numbers both ends; other samples are checked by their jobs.
    """
    if "n_trials" not in config.sweeper:
        return []  # another sweeper of Hydra's, with a grammar of its own
    swept: dict[str, list[str]] = {}
    base: dict[str, str] = {}
    for override in parsed_overrides(config):
        text = str(override.input_line)
        key = text.partition("=")[0]
        if override.is_choice_sweep() or override.is_range_sweep():
            swept[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_interval_sweep():
            ends: Any = override.value()
            if isinstance(ends.start, int) and isinstance(ends.end, int):
                swept[key] = [f"{key}={ends.start}", f"{key}={ends.end}"]
        else:
            base[key] = text
    base |= {key: options[0] for key, options in swept.items()}
    jobs = [base, *(base | {key: o} for key, options in swept.items() for o in options)]
    checked = [configs.checked(config, [*job.values()]) for job in jobs]
    number = config.sweeper.n_trials
    if config.sweeper.sampler == "grid":
        number = min(number, math.prod(map(len, swept.values())))
    return [max(checked, key=lambda job: int(job["trainer"]["max_epochs"]))] * number

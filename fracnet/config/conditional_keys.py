"""Keys that a search has only where other keys have certain values: momentum with SGD.

Hydra's Optuna plugin imports this before it opens its study; nothing else does.
"""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf import DictConfig
from optuna import logging

logging.set_verbosity(logging.WARNING)  # its lines about studies say nothing that a user needs


def add_conditional(config: DictConfig, trial: Any) -> None:
    """Let an Optuna trial choose the keys of `search.only_if` whose conditions it fulfils.

    Called after it has chosen all other keys. A key that the command line sets is not chosen.
    """
    given = {override.partition("=")[0].lstrip("+~") for override in config.hydra.overrides.task}
    known = {**trial.user_attrs, **trial.params}
    rules = (config.get("search") or {}).get("only_if") or {}
    for key, rule in rules.items():
        conditions = {name: value for name, value in rule.items() if name != "values"}
        if key in given or any(str(known.get(n)) != str(v) for n, v in conditions.items()):
            continue
        (override,) = OverridesParser.create().parse_overrides([f"{key}={rule['values']}"])
        trial._suggest(key, create_optuna_distribution_from_override(override))

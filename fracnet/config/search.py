"""What a sweeper searches: samplers by name, directions of objectives, and checks before a search.

Hydra's Optuna plugin does the search. Imports nothing heavy.
"""

import os
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fracnet.config.fields import mode
from fracnet.config.schema import objectives_of
from fracnet.utils.errors import UserError, is_installed
from fracnet.utils.text import near_miss

PLUGIN = "hydra_plugins.hydra_optuna_sweeper"
SAMPLERS: Mapping[str, Mapping[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "warn_independent_sampling": False},
    "grid": {"_target_": "optuna.samplers.GridSampler", "_partial_": True},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler"},
    "gp": {"_target_": "optuna.samplers.GPSampler"},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "warn_independent_sampling": False},
}
PACKAGES = {"cmaes": "cmaes"}
"""What a sampler needs besides Optuna."""


def sampler(name: Any, seed: Any, resumed: Any) -> dict[str, Any]:
    """The node of a sampler; {} for a name that `check_search` refuses.

    resumed: the folder of a search that is led through its jobs again, or None.
    """
    own = {**SAMPLERS.get(str(name), {}), "seed": seed}
    if resumed is None or "_partial_" in own:  # a grid does not depend on results
        return own
    recorded = "fracnet.training.recorded_sampler.RecordedSampler"
    return {"_target_": recorded, "sampler": own, "sweep": resumed}


def directions(objective: Any, metrics: Any) -> Any:
    """`maximize` or `minimize` for each objective; a list for several. metrics: the user's own."""
    own = metrics or {}
    each = [
        {"min": "minimize", "max": "maximize"}[str((own.get(name) or {}).get("mode", mode(name)))]
        for name in map(str, objectives_of(_plain(objective)))
    ]
    return each if len(each) > 1 else each[0]


def jobs_at_once(jobs: Any, cpus_per_job: Any) -> int:
    """How many jobs of a sweep run at once on this machine; `auto`: as many as its cores allow."""
    if jobs != "auto":
        return int(jobs)
    return max(1, len(os.sched_getaffinity(0)) // max(1, int(cpus_per_job)))


def chosen_at_once(jobs: Any, launcher: Any) -> int:
    """How many jobs a sampler chooses before it sees their results."""
    if jobs != "auto":
        return int(jobs)
    options = _plain(launcher) or {}
    if options.get("name", "serial") == "serial":
        return 1
    return jobs_at_once(options.get("jobs", "auto"), options.get("cpus_per_job", 1))


def check_search(config: DictConfig) -> None:
    """Raise UserError, before the first job, for a sweeper that cannot search as configured."""
    try:
        overrides = parsed_overrides(config)
    except HydraException:
        return  # whatever reads them next reports it, with the command line at hand
    intervals = [override for override in overrides if override.is_interval_sweep()]
    name = str(config.sweeper.get("name"))
    if config.pruning is not None and not is_installed("optuna"):
        raise UserError(
            "pruning needs a package that is not installed: pip install 'fracnet[optuna]'"
        )
    if name == "grid":
        own = str(config.hydra.sweeper._target_).endswith(".BasicSweeper")
        if own and intervals:
            raise UserError(
                f"{intervals[0].input_line} has no list of values, so sweeper=grid cannot try them "
                "all; allowed: sweeper=optuna, sweeper=random, or values such as 1e-4,1e-3."
            )
        return
    if not is_installed(PLUGIN):
        raise UserError(
            f"sweeper={name} needs packages that are not installed: pip install 'fracnet[optuna]'"
        )
    sampler_name, n = str(config.sweeper.sampler), config.sweeper.n_trials
    if sampler_name not in SAMPLERS:
        raise UserError(
            f"sweeper.sampler={sampler_name} is not a sampler; allowed: {', '.join(SAMPLERS)}."
            f"{near_miss(sampler_name, list(SAMPLERS))}"
        )
    package = PACKAGES.get(sampler_name)
    if package and not is_installed(package):
        raise UserError(
            f"sweeper.sampler={sampler_name} needs a package that is not installed: "
            f"pip install {package}"
        )
    if type(n) is not int or n < 1:
        raise UserError(f"sweeper.n_trials={n} is not allowed: a number of jobs, 1 or more.")
    if sampler_name == "grid" and intervals:
        raise UserError(
            f"{intervals[0].input_line} has no list of values, so sweeper.sampler=grid cannot try "
            "them all; allowed: another sampler, or values such as choice(1e-4, 1e-3)."
        )
    for override in intervals:
        line, interval = override.input_line, override.value()
        if not interval.start < interval.end:
            raise UserError(f"{line}: the first number must be smaller than the second.")
        if "log" in interval.tags and not interval.start > 0:
            raise UserError(f"{line}: a log scale begins above 0.")
    if sampler_name in ("cmaes", "gp") and len(objectives_of(_plain(config.objective))) > 1:
        raise UserError(
            f"sweeper.sampler={sampler_name} searches for one objective; allowed for several: tpe, "
            "nsgaii, random, grid, qmc."
        )
    if not config.hydra.sweeper.params and not any(
        override.is_sweep_override() for override in overrides
    ):
        raise UserError(
            f"sweeper={name} has nothing to choose from; name a space, e.g. search=fine_tuning, or "
            "values, e.g. 'optim.lr=tag(log, interval(1e-5, 1e-2))'."
        )


def sweep_overrides(hydra: Mapping[str, Any]) -> list[str]:
    """The overrides of a sweep: of a named space, then of the command line. hydra: its config."""
    params = (hydra["sweeper"] or {}).get("params") or {}
    return [*(f"{key}={value}" for key, value in params.items()), *hydra["overrides"]["task"]]


def parsed_overrides(config: DictConfig) -> list[Any]:
    """What is swept, parsed; a key of the command line replaces that of a named space."""
    parsed = OverridesParser.create().parse_overrides(sweep_overrides(config.hydra))
    return list({override.get_key_element(): override for override in parsed}.values())


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

"""What runs the jobs of a sweep: which launchers there are, and what each needs."""

import importlib.util

from omegaconf import DictConfig

from fracnet.utils.errors import UserError

OWN_PROCESS = ("joblib", "ray", "slurm")
"""Launchers whose jobs are processes of their own."""
PACKAGES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}


def check_launcher(config: DictConfig) -> None:
    """Raise UserError for a launcher that is not installed, or options that it cannot fulfil."""
    name = str(config.launcher.name)
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        raise UserError(
            f"launcher={name} needs packages that are not installed: pip install 'fracnet[{name}]'"
        )

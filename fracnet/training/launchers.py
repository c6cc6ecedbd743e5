"""What runs the jobs of a sweep: which launchers there are, and what each needs."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field

from fracnet.config.fields import Count, Fixed, Real, resolved, validated, word_or_number
from fracnet.utils.errors import UserError, is_installed
from fracnet.utils.text import counted, override_value

Whole = Annotated[int, Field(strict=True, ge=0)]


class Serial(Fixed):
    """One job after the other, in the process of the sweep."""

    name: Literal["serial"]
    cpus_per_job: Count | None = None
    jobs: Literal[1] = 1


class Joblib(Fixed):
    """Options of launcher=joblib."""

    name: Literal["joblib"]
    jobs: Annotated[
        Literal["auto"] | int, word_or_number(("auto",), "auto or a number of jobs, 1 or more")
    ]
    cpus_per_job: Count


class Ray(Fixed):
    """Options of launcher=ray."""

    name: Literal["ray"]
    cpus_per_job: Annotated[Real, Field(gt=0)]
    gpus_per_job: Annotated[Real, Field(ge=0)]
    address: Annotated[str, Field(min_length=1)]


class Slurm(Fixed):
    """Options of launcher=slurm."""

    name: Literal["slurm"]
    partition: str | None
    time: Count
    memory: Count | None
    cpus_per_job: Count
    gpus_per_job: Whole
    array: Count
    requeue: Whole
    options: dict[str, Any]


KINDS: dict[str, type[Fixed]] = {"serial": Serial, "joblib": Joblib, "ray": Ray, "slurm": Slurm}
CONNECT_SECONDS = 5.0
ONLY_CHOOSE = ("account", "constraint", "exclude", "nodelist", "partition", "qos", "reservation")
"""Options of sbatch that say where a job runs, and for whom."""
PACKAGES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
"""What each launcher needs whose jobs are processes of their own."""


def kind_of(options: Mapping[str, Any]) -> Any:
    """The class of a launcher's options, by its name; UserError for an unknown one."""
    if kind := KINDS.get(str(options.get("name"))):
        return kind
    raise UserError(f"launcher.name={options.get('name')}: choose with launcher=serial.")


def check_launcher(config: DictConfig) -> None:
    """Raise UserError for a launcher that is not installed, or options that it cannot fulfil.

    config: of a sweep. A launcher that is not one of fracnet's is Hydra's to check.
    """
    plain = resolved(config.launcher)
    name = validated(kind_of(plain), plain, "launcher").name
    if name in PACKAGES and not is_installed(PACKAGES[name]):
        raise UserError(
            f"launcher={name} needs packages that are not installed: pip install 'fracnet[{name}]'"
        )
    if name == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "launcher=slurm: this machine has no sbatch; start the sweep on a login node of the "
            "cluster."
        )
    if name == "joblib" or (name == "ray" and plain["address"] == "local"):
        _check_machine(plain)
    if name == "ray":
        _check_address(str(plain["address"]))


def needs_trust(options: Mapping[str, Any]) -> str:
    """The options, from a stranger's plan, by which a launcher could run any code; "" for none.

    Raises UserError for a launcher that there is not.
    """
    validated(kind_of(options), options, "launcher")
    # Slurm's options and partition become lines of a script; Ray unpickles what a cluster sends.
    unsafe = {}
    if options.get("address", "local") not in ("local", "auto"):
        unsafe["address"] = options["address"]
    given = options.get("options", {})
    if any(key not in ONLY_CHOOSE or not _is_plain(value) for key, value in given.items()):
        unsafe["options"] = given
    if not _is_plain(options.get("partition") or ""):
        unsafe["partition"] = options["partition"]
    return ", ".join(f"launcher.{key}={override_value(value)}" for key, value in unsafe.items())


def _is_plain(value: Any) -> bool:
    """Whether a value adds nothing to a line of a script but a word."""
    return isinstance(value, str | int) and bool(re.fullmatch(r"[\w.,:+-]*", str(value)))


def _check_address(address: str) -> None:
    """Raise UserError where no Ray cluster answers; Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"launcher.address={address}: no Ray cluster answers there ({error}); allowed: local, "
            "auto, host:6379, ray://host:10001."
        ) from error


def _check_machine(plain: dict[str, Any]) -> None:
    """Raise UserError for more cores or GPUs a job than this machine has."""
    cores = len(os.sched_getaffinity(0))
    if plain["cpus_per_job"] > cores:
        raise UserError(
            f"launcher.cpus_per_job={plain['cpus_per_job']}: this machine has "
            f"{counted(cores, 'core')}, so no job could start."
        )
    if wanted := plain.get("gpus_per_job", 0):
        import torch  # seconds, for a launcher of jobs on GPUs alone

        gpus = torch.cuda.device_count()
        if wanted > gpus:
            raise UserError(
                f"launcher.gpus_per_job={wanted}: this machine has {counted(gpus, 'GPU')}, so no "
                "job could start."
            )


def wait_for_slurm(sweep: Path) -> None:
    """Wait until no job of the sweep is in Slurm's queue any more.

    submitit raises for the first job that was lost, while others still run.
    """
    folders = [path for path in sweep.glob("**/slurm/*_*") if path.is_dir()]
    arrays = {path.name.partition("_")[0] for path in folders}
    while arrays:
        command = ["squeue", "--noheader", f"--jobs={','.join(sorted(arrays))}"]
        queue = subprocess.run(command, capture_output=True, text=True)
        if queue.returncode or not queue.stdout.strip():
            return
        time.sleep(5)

"""What W&B hears when a run opens: who it is, what it was made from, and what not to store."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fracnet.config import Config
from fracnet.training.run_folder import RunFolder, write_json
from fracnet.training.tracking.naming import Job, flat
from fracnet.training.tracking.privacy import Scrubber

# Not a word on the screen, and nothing of the machine but what stands in the config.
SILENT = {
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "label_disable": True,
    "host": "",
    "program": "",
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "use_dot_wandb": False,
}
FLUSH = 1.0  # seconds until a row is in the file, where a killed run leaves it
MADE_FROM = ("command", "seed", "data_fingerprint", "device", "code", "python", "packages")


@dataclass(frozen=True)
class Identity:
    """What a run stays when it is resumed; tracking.json keeps it, on this machine alone."""

    id: str
    salt: str  # of the hashes that stand for patients and studies
    name: str
    group: str | None
    in_sweep: bool
    choices: dict[str, str]
    overrides: list[str]

    @classmethod
    def of(cls, folder: RunFolder) -> "Identity":
        """The stored one, or that of the job under way, which is stored."""
        path = folder.path / "tracking.json"
        if path.is_file():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        job = Job.current()
        new = cls(
            secrets.token_hex(4),
            secrets.token_hex(16),
            job.name,
            job.group,
            job.sweep is not None,
            dict(job.choices),
            list(job.overrides),
        )
        write_json(path, asdict(new))
        return new


def opening(
    config: Config, plain: Mapping[str, Any], folder: RunFolder, identity: Identity
) -> dict[str, Any]:
    """The first message to the process that runs wandb; nothing in it is private."""
    logger = config.logger
    known = [config.data.model_dump().get("root"), config.data_dir, folder.path]
    scrub = Scrubber([path for path in known if path]).scrub
    provenance = json.loads(folder.provenance.read_text(encoding="utf-8"))
    described = {**flat(plain), **identity.choices, "overrides": identity.overrides}
    made_from = {key: provenance[key] for key in MADE_FROM if key in provenance}
    return {
        "mode": logger.mode,
        "config": scrub(described | flat(made_from, "provenance.")),
        "run": {
            "id": identity.id,
            "dir": str(folder.path),
            "project": logger.project,
            "entity": logger.entity,
            "group": scrub(logger.group or identity.group),
            "name": scrub(logger.name or identity.name),
            "tags": scrub(logger.tags),
            "job_type": "train",
            "resume": "allow",
        },
        "settings": {
            **SILENT,
            "init_timeout": logger.timeout,
            "x_service_wait": logger.timeout,
            "finish_timeout": logger.timeout,
            "x_transaction_log_flush_interval": FLUSH,
        },
    }

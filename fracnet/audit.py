"""`python -m fracnet.audit`: what is wrong with a data set, before anything is trained on it."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.schema import AuditCommand, validated, without_training
from fracnet.data_audit.page import _tell
from fracnet.data_audit.run_audit import _leave, _listed, _own_folder, _ready

if TYPE_CHECKING:
    pass

FAILED = 2  # exit code from `fail_on` on


def audit(cfg: DictConfig) -> None:
    """Audit a data set; write a page and a JSON, and say on the screen what was found.

    Raises:
        UserError: a fault in the command, data that cannot be had or of which no image can be
            read, a folder that cannot be written.
        SystemExit: with code 2, after all is written, where a finding is as grave as `fail_on`.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(AuditCommand, without_training(plain))

    from fracnet.config.instantiate import build

    source = build(command.data.plain(), "data")
    source.prepare()
    manifest, fault = _listed(source)

    from fracnet.data_audit.findings import rank
    from fracnet.data_audit.page import write
    from fracnet.data_audit.run_audit import audit as look
    from fracnet.data_audit.run_audit import unlisted
    from fracnet.utils.progress import progress_bar

    folder = Path(command.out or _own_folder(source, manifest)).expanduser().resolve()
    made = _ready(folder)
    try:
        if manifest is not None:
            found = look(
                manifest,
                on_bad_file=command.data.on_bad_file,
                progress=partial(progress_bar, visible=command.progress_bar),
                workers=command.workers or len(os.sched_getaffinity(0)),
            )
        else:
            assert fault is not None
            found = unlisted(source, fault)
        write(found, folder, command.pictures)
    except BaseException:
        _leave(made)
        raise
    _tell(found, folder)
    if command.fail_on is not None and rank(found.severity) >= rank(command.fail_on):
        print(
            f"fracnet: the audit's worst finding is {found.severity}, and fail_on="
            f"{command.fail_on}.",
            file=sys.stderr,
        )
        sys.exit(FAILED)


if __name__ == "__main__":
    hydra_cli.run(audit, "audit", instead="name one data set")

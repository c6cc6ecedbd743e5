"""`python -m fracnet.audit`: what is wrong with a data set, before anything is trained on it."""

import hashlib
import os
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli
from fracnet.auditing.command import AuditCommand, without_training
from fracnet.config import validated
from fracnet.errors import DataFault, UserError
from fracnet.words import counted

if TYPE_CHECKING:
    from fracnet.auditing.whole import Audited
    from fracnet.data.manifest import Manifest
    from fracnet.data.sources.base import Source

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

    from fracnet.objects import build

    source = build(command.data.plain(), "data")
    source.prepare()
    manifest, fault = _listed(source)

    from fracnet.auditing.findings import rank
    from fracnet.auditing.whole import audit as look
    from fracnet.auditing.whole import unlisted
    from fracnet.auditing.writing import write
    from fracnet.progress import shown

    folder = Path(command.out or _own_folder(source, manifest)).expanduser().resolve()
    made = _ready(folder)
    try:
        if manifest is not None:
            found = look(
                manifest,
                on_bad_file=command.data.on_bad_file,
                show=partial(shown, visible=command.progress_bar),
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


def _listed(source: "Source") -> "tuple[Manifest | None, DataFault | None]":
    """The table of images, or what is wrong with the data that there can be none."""
    try:
        return source.manifest(), None
    except DataFault as fault:
        return None, fault


def _own_folder(source: "Source", manifest: "Manifest | None") -> Path:
    """Where an audit goes that is told no place: by the data, or by where they lie."""
    from fracnet.data.fingerprint import data_fingerprint

    if manifest is not None:
        name, told = manifest.name, data_fingerprint(manifest)
    else:
        place = hashlib.sha256(str(source.folder).encode()).hexdigest()[:8]
        name, told = source.name, f"unlisted-{place}"
    return Path("audits", re.sub(r"[^-\w.]+", "-", name) + f"-{told}")


def _ready(folder: Path) -> list[Path]:
    """Make the folder before the work, not after it; those that were made, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={folder} cannot be made: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"out={folder} cannot be written to.")
    return made


def _leave(made: list[Path]) -> None:
    """Take away the folders that were made for nothing; another audit may be using them."""
    for path in made:
        try:
            path.rmdir()
        except OSError:
            return  # no longer empty


def _tell(found: "Audited", folder: Path) -> None:
    from rich.console import Console

    from fracnet.auditing.findings import by_severity
    from fracnet.auditing.verdict import CAUTION
    from fracnet.data.splits import SPLITS
    from fracnet.report.console import RESEARCH_ONLY, say

    console = Console(highlight=False)
    about = found.fingerprint
    if found.looked:
        held = {split: sum(about["counts"][split].values()) for split in SPLITS}
        counts = ", ".join(f"{n} {split}" for split, n in held.items() if n)
        say(console, f"{found.manifest.name}: {counted(about['images'], 'image')} ({counts})")
        if n_bad := about["unreadable"]:
            say(console, f"{counted(n_bad, 'more file')}, which cannot be read")
        say(console, f"fingerprint {about['hash']}\n")
    else:
        say(console, f"{found.manifest.name} in {found.manifest.root}\n")
    say(console, found.verdict[0] + "\n", style="bold")
    for finding in by_severity(found.findings):
        start = f"{finding.severity:9}"
        # What is wrong with a set that cannot be trained on stands in the text alone.
        told = f"{finding.title} {finding.text}" if finding.check == "table" else finding.title
        wrapped = textwrap.fill(
            told, console.width, initial_indent=start, subsequent_indent=" " * len(start)
        )
        say(console, wrapped)
    say(console, f"\n{CAUTION}")
    say(console, RESEARCH_ONLY)
    # Not by way of the console, which would break a long path in two.
    print(f"\npage    {folder / 'index.html'}\njson    {folder / 'audit.json'}", flush=True)


if __name__ == "__main__":
    cli.run(audit, "audit", multirun=False, instead="name one data set")

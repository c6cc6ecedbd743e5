"""`python -m fracnet.audit`: find out what is wrong with a dataset before training on it."""

import os
import sys
from functools import partial
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.checks import check
from fracnet.config.commands import AuditCommand
from fracnet.config.fields import resolved, validated
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.progress import progress_bar
from fracnet.utils.result_files import AUDIT, check_no_results
from fracnet.utils.text import near_miss, quoted

FAILED = 2  # exit code if a finding reaches `fail_on`


def audit(cfg: DictConfig) -> None:
    """Audit a dataset, write a page and a JSON file, and print the findings.

    Raises:
        UserError: a mistake in the command, missing data or data without a readable image, a
            folder that cannot be written to.
        SystemExit: with code 2, after everything is written, if a finding reaches `fail_on`.
    """
    command = validated(AuditCommand, cfg)

    training = None if command.features is None else training_config(command, command.features)

    # Imported late: --help and typos need not wait for them.
    from fracnet.data_audit import findings, page, run_audit

    dataset = build(command.data.plain(), "data")
    dataset.prepare()
    try:
        manifest, fault = dataset.manifest(), None
    except DataFault as error:
        manifest, fault = None, error

    out = command.out or run_audit.default_folder(dataset, manifest)
    folder = Path(out).expanduser().resolve()
    check_no_results(folder, AUDIT)
    created = run_audit.create_folder(folder)
    typed = hydra_cli.typed_command("audit")
    try:
        if fault is not None:
            result = run_audit.audit_without_images(dataset, fault, command=typed)
        else:
            network = None
            if training is not None:
                from fracnet.runs.build import frozen_features  # torch; other audits need none

                compute = partial(frozen_features, training, dataset, command.progress_bar)
                network = run_audit.NamedFeatures(str(command.features), compute)
            result = run_audit.run_audit(
                manifest,
                on_bad_file=command.data.on_bad_file,
                progress=partial(progress_bar, visible=command.progress_bar),
                workers=command.workers or len(os.sched_getaffinity(0)),
                network=network,
                command=typed,
            )
        page.write_report(result, folder, command.pictures)
    except BaseException:
        run_audit.remove_empty_folders(created)
        raise

    page.print_findings(result, folder)
    rank = findings.rank
    if command.fail_on is not None and rank(result.severity) >= rank(command.fail_on):
        print(
            f"fracnet: the audit's worst finding is {result.severity}, and fail_on="
            f"{command.fail_on}.",
            file=sys.stderr,
        )
        sys.exit(FAILED)


def training_config(command: AuditCommand, name: str) -> Config:
    """The config of a training with the network `name` on these data.

    Raises UserError for a network that is not among the choices of `model=`.
    """
    choices = sorted(GlobalHydra.instance().config_loader().get_group_options("model"))
    if name not in choices:
        raise UserError(
            f"features={name} is not a choice of model=; allowed: {', '.join(choices)}."
            f"{near_miss(name, choices)}"
        )
    data = HydraConfig.get().runtime.choices["data"]
    overrides = [f"data={data}", f"model={name}", "model.freeze=backbone"]
    overrides += [f"data_dir={quoted(command.data_dir)}", f"data.root={quoted(command.data.root)}"]
    return check(resolved(compose("train", overrides)))


if __name__ == "__main__":
    hydra_cli.run(audit, "audit", instead="name one dataset")

"""`python -m fracnet.dashboard`: builds the W&B workspace of a project."""

from pathlib import Path

from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.commands import DashboardCommand
from fracnet.config.fields import validated
from fracnet.utils.errors import UserError, is_installed
from fracnet.utils.result_files import DASHBOARD, check_no_results


def dashboard(cfg: DictConfig) -> None:
    """Write the workspace's specification, and send it unless the machine is offline.

    Raises UserError for an error in the command, no sweep or package, or a refusal by W&B.
    """
    command = validated(DashboardCommand, cfg)
    if not is_installed("wandb_workspaces"):
        raise UserError(
            "this command needs a package that is not installed: pip install 'fracnet[dashboard]'"
        )

    from fracnet.runs import workspace

    check_no_results(hydra_cli.output_dir(), DASHBOARD)
    swept = workspace.swept_of(Path(command.folder).expanduser()) if command.folder else None
    built = workspace.build_workspace(command, swept)
    path = workspace.write_specification(built, hydra_cli.output_dir())
    print(f"Specification: {path}")
    if reason := workspace.why_offline(command.send):
        print(f"Not sent: {reason}. To send it, run `wandb login`, then this command again online.")
        return
    print(f"Workspace: {workspace.send(built)}")


if __name__ == "__main__":
    hydra_cli.run(dashboard, "dashboard")

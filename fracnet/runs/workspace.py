"""The W&B workspace of a project, as code: sections and panels over what the runs log.

Names are those of `training.loggers` and `training.logged_results`. The library is
wandb-workspaces, of the extra `fracnet[dashboard]`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from requests.utils import get_netrc_auth
from wandb_workspaces.reports.v2.interface import WeavePanelSummaryTable

from fracnet.config.commands import DashboardCommand
from fracnet.config.fields import mode, split_metric
from fracnet.runs.run_folder import read_mapping, write_json
from fracnet.utils.errors import UserError
from fracnet.utils.result_files import SWEEP_FILE, WORKSPACE_FILE

ALWAYS = ("model", "data", "optim", "scheduler", "augment", "seed")
"""Keys of the parallel coordinates where no sweep says what was swept."""
SPLITS = ("test", "val")
LOGARITHMIC = ("lr", "weight_decay", "l1")


@dataclass(frozen=True)
class Swept:
    """Name, swept keys and objectives of a sweep."""

    name: str
    keys: tuple[str, ...]
    objectives: tuple[str, ...]


def swept_of(folder: Path) -> Swept:
    """The swept keys of a sweep; UserError for a folder without sweep.json."""
    content = read_mapping(folder / SWEEP_FILE)
    if "swept" not in content:
        raise UserError(
            f"folder={folder} is not the folder of a sweep: it has no sweep.json. If its jobs have "
            f"ended, python -m fracnet.sweep {folder} writes it."
        )
    pareto = list((content.get("pareto") or {}).get("better") or ())
    objectives = pareto or list(content["objectives"])
    return Swept(folder.resolve().name, tuple(content["swept"]), tuple(objectives))


def build_workspace(command: DashboardCommand, swept: Swept | None = None) -> workspaces.Workspace:
    """The workspace that the command asks for; nothing is sent.

    swept: the sweep whose runs are shown; None for all runs of the project.
    """
    metric = command.metric
    larger = mode(metric) == "max"
    set_keys = [f"set/{key.replace('.', '/')}" for key in (swept.keys if swept else ())]
    keys = dict.fromkeys([*(set_keys or ALWAYS), *command.keys])
    objectives = dict.fromkeys([*(swept.objectives if swept else ()), metric])
    filters = f"Config('sweep_name') = '{swept.name}'" if swept else ""
    return workspaces.Workspace(
        entity=command.entity or os.environ.get("WANDB_ENTITY") or "",
        project=command.project,
        name=command.name,
        auto_generate_panels=True,  # whatever else is logged, below
        settings=workspaces.WorkspaceSettings(group_by_prefix="first", x_axis="epoch"),
        sections=[
            _section("Test metrics with 95 % intervals", _estimates(metric)),
            _section(
                "Metrics of each class",
                [WeavePanelSummaryTable(table_name=f"{split}/per_class") for split in SPLITS],
            ),
            _section("What was swept", _swept(list(keys), list(objectives))),
            _section("Confusion matrices", [_confusion_matrix(split) for split in SPLITS]),
            _section("Curves by epoch", _curves(metric)),
            _section(
                "Examples",
                [reports.MediaBrowser(media_keys=[f"{split}/example_images"]) for split in SPLITS],
            ),
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=filters,
            order=[workspaces.Ordering(workspaces.Summary(f"val/{metric}"), ascending=not larger)],
            groupby=[workspaces.Metric("Group")] if swept and "seed" in swept.keys else [],
            pinned_columns=[
                "run:displayName",
                "summary:status",
                f"summary:val/{metric}",
                f"summary:repeats/val/{metric}_mean",
                f"summary:repeats/val/{metric}_sd",
                *(f"config:{key}" for key in keys),
            ],
        ),
    )


def _section(name: str, panels: Sequence[Any]) -> workspaces.Section:
    return workspaces.Section(name=name, panels=list(panels), is_open=True)


def _estimates(metric: str) -> list[Any]:
    """Value and both ends of its interval, one bar each, of the metrics that matter most."""
    names = dict.fromkeys(["macro_sensitivity", "macro_specificity", "macro_auc", metric])
    panels = []
    for name in names:
        for split in SPLITS:
            bars = [f"{split}/{name}{end}" for end in ("", "_low", "_high")]
            panels.append(
                reports.BarPlot(
                    title=f"{split}: {_words(name)}, 95 % interval",
                    metrics=[reports.SummaryMetric(bar) for bar in bars],
                    line_titles={
                        bars[0]: "estimate",
                        bars[1]: "lower limit",
                        bars[2]: "upper limit",
                    },
                )
            )
    return panels


def _swept(keys: Sequence[str], objectives: Sequence[str]) -> list[Any]:
    """Parallel coordinates from the swept keys to the metrics, and the importance of the keys."""
    columns = [
        reports.ParallelCoordinatesPlotColumn(
            reports.Config(key),
            display_name=key.removeprefix("set/").replace("/", "."),
            log=key.rpartition("/")[2] in LOGARITHMIC or None,
        )
        for key in keys
    ]
    columns += [
        reports.ParallelCoordinatesPlotColumn(
            reports.SummaryMetric(f"val/{name}"), inverted=mode(name) == "min" or None
        )
        for name in objectives
    ]
    panels: list[Any] = [
        reports.ParallelCoordinatesPlot(columns=columns, title="Swept keys and validation metrics"),
        reports.ParameterImportancePlot(with_respect_to=f"val/{objectives[-1]}"),
    ]
    if len(objectives) > 1:
        panels.append(
            reports.ScatterPlot(
                title="Objectives against each other",
                x=reports.SummaryMetric(f"val/{objectives[0]}"),
                y=reports.SummaryMetric(f"val/{objectives[1]}"),
            )
        )
    return panels


def _confusion_matrix(split: str) -> Any:
    """Drawn from the tables that the runs log."""
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": f"{split}/confusion_matrix_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={role: role for role in ("Actual", "Predicted", "nPredictions")},
        chart_strings={"title": f"{split}: confusion matrix"},
    )


def _curves(metric: str) -> list[Any]:
    names = dict.fromkeys(["train/loss", "val/loss", f"val/{metric}", "train/lr"])
    return [reports.LinePlot(title=name, x="epoch", y=[name]) for name in names]


def _words(name: str) -> str:
    level, base = split_metric(name)
    return base.replace("_", " ") if level == "image" else f"{base.replace('_', ' ')} of {level}"


def specification(built: workspaces.Workspace) -> dict[str, object]:
    """What `send` would send, as plain containers."""
    view = built._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entity": view.entity, "project": view.project, "name": view.display_name, "spec": spec}


def write_specification(built: workspaces.Workspace, folder: Path) -> Path:
    """Write workspace.json; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / WORKSPACE_FILE, specification(built))
    return folder / WORKSPACE_FILE


def why_offline(send: bool) -> str:
    """Why the workspace is not sent; "" where it is."""
    if not send:
        return "send=false"
    if os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun", "disabled"):
        return f"WANDB_MODE={os.environ['WANDB_MODE']} is set"
    address = str(wandb.setup().settings.base_url)
    if not os.environ.get("WANDB_API_KEY") and get_netrc_auth(address) is None:
        return f"this machine has no key for {address}"
    return ""


def send(built: workspaces.Workspace) -> str:
    """Send the workspace to W&B; its address. Raises UserError where W&B refuses it."""
    try:
        if not built.entity:
            built.entity = str(wandb.Api().default_entity)
        return str(built.save().url)
    # Everything, on purpose: whatever the library, the network or the server raises, the
    # specification is written, and the message says what happened.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"W&B did not take the workspace ({type(error).__name__}: {lines[0]}). The project "
            f"{built.project} must exist there, with a run in it."
        ) from error

"""The file by which a folder is known as the results of a command; none replaces another's."""

from collections.abc import Collection
from pathlib import Path

from fracnet.utils.errors import UserError

PLAN_FILE = "plan.json"
"""What a sweep is to run; see `training.sweep_plan`."""
SWEEP_FILE = "sweep.json"
COMPARISON_FILE = "comparison.json"
AUDIT_FILE = "audit.json"
PREDICTION_FILE = "predictions.json"
WORKSPACE_FILE = "workspace.json"
MODEL_FILE = "model.onnx"
TRACKING = "tracking.json"
"""What loggers need to resume a run; stays on this machine."""

RUN, SWEEP, EVALUATION, COMPARISON = "a run", "a sweep", "an evaluation", "a comparison"
AUDIT, DASHBOARD = "an audit", "a dashboard"
KINDS = {
    "config.yaml": RUN,
    "provenance.json": RUN,
    PLAN_FILE: SWEEP,
    SWEEP_FILE: SWEEP,
    "metrics.json": EVALUATION,
    COMPARISON_FILE: COMPARISON,
    AUDIT_FILE: AUDIT,
    PREDICTION_FILE: "a prediction",
    WORKSPACE_FILE: DASHBOARD,
    MODEL_FILE: "an exported model",
}
"""What a folder with such a file is."""
COMMON_NAMES = ("config.yaml", "metrics.json", MODEL_FILE)
"""Those that files of the user's own often have; a sweep writes none of them."""


def check_no_results(
    out: Path, own: str = "", key: str = "out", ignored: Collection[str] = ()
) -> None:
    """Raise UserError for a folder that seems to hold results, which would be replaced.

    own: the kind of results that may be replaced. key: names the folder in the command. ignored:
    names of files that say nothing here.
    """
    for name, kind in KINDS.items():
        if kind != own and name not in ignored and (out / name).exists():
            raise UserError(f"{key}={out} holds {name}, as {kind} does; name another folder.")

"""Tables, charts and images as wandb wants them; used in the process that runs wandb alone."""

import io
from collections.abc import Sequence
from typing import Any

# Charts that the W&B site draws from a table: its name there, and column for each role.
CHARTS = {
    "roc": (
        "wandb/area-under-curve/v0",
        {"x": "false positive rate", "y": "sensitivity", "class": "class"},
    ),
    "precision_recall": (
        "wandb/area-under-curve/v0",
        {"x": "recall", "y": "precision", "class": "class"},
    ),
    "confusion_matrix": (
        "wandb/confusion_matrix/v1",
        {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
    ),
}


def log_media(run: Any, content: dict[str, Any]) -> None:
    """Log `tables` {key: (columns, rows)}, drawn as charts where W&B has one, and pictures.

    `images` are {key: [(caption, pixels)]}, `figures` {key: content of a PNG file}.
    """
    import wandb
    from PIL import Image

    shown: dict[str, Any] = {}
    for key, (columns, rows) in content["tables"].items():
        chart = CHARTS.get(key.rpartition("/")[2])
        if chart is None:
            shown[key] = table(run, key, columns, rows)
            continue
        name, roles = chart
        titles = {"title": key, "x-axis-title": roles.get("x"), "y-axis-title": roles.get("y")}
        shown[key] = wandb.plot_table(
            name,
            table(run, f"{key}_table", columns, rows),  # the key under which W&B looks for it
            roles,
            {role: title for role, title in titles.items() if title},
        )
    for key, images in content["images"].items():
        shown[key] = [wandb.Image(pixels, caption=caption) for caption, pixels in images]
    for key, content_of_file in content["figures"].items():
        shown[key] = wandb.Image(Image.open(io.BytesIO(content_of_file)))
    run.log(shown)


def table(run: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A wandb.Table stored as a file of the run.

    Bound by hand: a table that is not bound yet is also uploaded as an artifact, and the manifest
    of an artifact holds the local path of every file.
    """
    import wandb

    made = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    made.bind_to_run(run, key, run.step)
    return made

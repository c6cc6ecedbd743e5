"""A data module over the tiny dataset."""

from pathlib import Path

from helpers.tiny import PUBLISHED, RESIZE, TinyDataset

from fracnet.data.datamodule import RadiographData


def tiny_data(root: Path, **settings: object) -> RadiographData:
    """A data module over a tiny dataset, 32 pixels, batches of 4, published augmentation."""
    keys = ("on_bad_file", "truncate", "counts")
    dataset_settings = {key: settings.pop(key) for key in keys if key in settings}
    defaults = {"image_size": 32, "batch_size": 4, "seed": 3, "progress": False}
    return RadiographData(
        TinyDataset(root=str(root), **dataset_settings),  # type: ignore[arg-type]
        {"steps": list(RESIZE)},
        {"transforms": list(PUBLISHED)},
        **(defaults | settings),  # type: ignore[arg-type]
    )

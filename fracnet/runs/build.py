"""The data and the network that a config names: for whoever trains a run or takes one up again.

Light to import: data that cannot be had are told of before the imports that take seconds.
"""

from typing import TYPE_CHECKING

from fracnet.config.instantiate import build
from fracnet.config.schema import Config

if TYPE_CHECKING:
    from fracnet.data.datamodule import RadiographData
    from fracnet.data.datasets.base import Source
    from fracnet.models.classifier import Classifier


def source_from(config: Config) -> "Source":
    """The data source, before it has looked for a file."""
    source: Source = build(config.data.source(), "data")
    return source


def data_from(config: Config, source: "Source | None" = None) -> "RadiographData":
    """The data as training sees them; call `prepare_data` or `setup` before anything else.

    source: where it has been made already.
    """
    import torch

    from fracnet.data.datamodule import RadiographData, loader_workers

    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    workers = loader_workers(
        config.data.num_workers, on_gpu=on_gpu, processes=config.trainer.devices
    )
    return RadiographData(
        source=source or source_from(config),
        preprocess=config.preprocess.model_dump(),
        augment=config.augment.model_dump(),
        imbalance=config.imbalance.model_dump(),
        image_size=config.image_size,
        batch_size=config.data.batch_size,
        num_workers=workers,
        seed=config.seed,
        folds=config.data.folds,
        fold=config.data.fold,
        split=config.data.split,
    )


def classifier_from(
    config: Config, data: "RadiographData", *, fetch_weights: bool = True
) -> "Classifier":
    """The untrained network for the classes of `data`, which must be set up.

    Its weights are drawn from torch's global stream, unless the config names others. With
    `fetch_weights` False those are not looked for: a checkpoint will bring them.
    Raises UserError for a model, optimizer, schedule or loss that cannot be made.
    """
    import torch

    from fracnet.models.classifier import Classifier, without_weights

    node = config.model.plain()
    model = Classifier(
        model=node if fetch_weights else without_weights(node),
        classes=data.classes,
        optim=config.optim.plain(),
        scheduler=config.scheduler.plain() if config.scheduler else None,
        loss=config.loss.plain(),
        class_weights=data.class_weights(),
    )
    if config.trainer.channels_last:
        # Convolutions follow the memory format of their weights, whatever that of the input.
        model.to(memory_format=torch.channels_last)
    return model

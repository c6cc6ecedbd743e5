"""The dataset, the data and the network that a config names, for new and for finished runs."""

import json
from dataclasses import replace

import numpy as np
import torch

from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.annotations import AnnotationMaps
from fracnet.data.datamodule import RadiographData, loader_workers
from fracnet.data.datasets.base import Dataset
from fracnet.models.classifier import Classifier, without_weights
from fracnet.models.features import NetworkFeatures, why_whole
from fracnet.utils.errors import UserError


def data_from(config: Config, dataset: Dataset | None = None) -> RadiographData:
    """The data as training sees them; call `prepare_data` or `setup` before anything else.

    dataset: where it exists already.
    """
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    workers = loader_workers(
        config.data.num_workers,
        on_gpu=on_gpu,
        processes=config.trainer.processes // config.trainer.num_nodes,  # on this machine
    )
    return RadiographData(
        dataset=dataset or build(config.data.plain(), "data"),
        preprocess=config.preprocess.model_dump(),
        augment={"transforms": config.augment.transforms},
        imbalance=config.imbalance.model_dump(),
        image_size=config.image_size,
        batch_size=config.data.batch_size,
        num_workers=workers,
        seed=config.seed,
        folds=config.data.folds,
        fold=config.data.fold,
        split=config.data.split,
        fraction=config.data.fraction,
        localize=config.loss.localization not in (0, "auto"),
        key=json.dumps(
            [
                config.data.model_dump(exclude={"batch_size", "num_workers"}),
                config.preprocess.model_dump(),
                config.image_size,
                config.seed if config.data.fraction < 1 else None,
            ]
        ),
    )


def frozen_features(
    config: Config, dataset: Dataset, progress: bool
) -> tuple[list[str], np.ndarray]:
    """Paths of the readable images and their features float32 [n, F] in a network as it comes.

    Raises UserError for data that cannot be trained on, and a network without features.
    """
    data = data_from(config, replace(dataset, on_bad_file="skip"))
    data.progress = progress
    data.prepare_data()
    model = classifier_from(config, data)
    if reason := why_whole(model, config.image_size):
        raise UserError(f"model={config.model.target} gives no features: {reason}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = NetworkFeatures(model, config, data, device, progress).of_images()
    return list(data.manifest.table["path"]), features


def _localizes(config: Config, data: RadiographData) -> bool:
    """Whether `loss.localization=auto` adds a head, if the network has a feature map.

    As measured: pretrained weights are fine-tuned, and images of every class are annotated, so
    that the annotated part decides the class.
    """
    model = config.model.plain()
    if config.model.freeze != "none" or not (model.get("pretrained") or model.get("weights")):
        return False
    maps = AnnotationMaps(data.manifest, data.rows("train"), data.preprocess)
    return maps.annotated_classes == set(data.classes)


def classifier_from(
    config: Config, data: RadiographData, *, fetch_weights: bool = True
) -> Classifier:
    """The untrained network for the classes of `data`, which must be set up.

    Random weights come from torch's global generator, unless the config names pretrained ones.
    Where `loss.localization=auto` adds a head, the batches of `data` hold its maps from now on.
    fetch_weights: False where a checkpoint will bring the weights.

    Raises UserError for a model, optimizer, scheduler or loss that cannot be built.
    """
    node, loss = config.model.plain(), config.loss.plain()
    if loss.get("localization") == "auto" and not _localizes(config, data):
        loss["localization"] = 0.0
    model = Classifier(
        model=node if fetch_weights else without_weights(node),
        classes=data.classes,
        optim=config.optim.plain(),
        scheduler=config.scheduler.plain() if config.scheduler else None,
        loss=loss,
        class_weights=data.class_weights(),
        image_size=config.image_size,
        channels_last=config.trainer.channels_last,
    )
    data.localize = model.localization > 0
    return model

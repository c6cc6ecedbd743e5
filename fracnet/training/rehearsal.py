"""The checks of a training that need torch or the data: nothing fails at the first epoch."""

import copy
import json
import math

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from fracnet.config.checks import selecting_metrics
from fracnet.config.fields import POSITIVE_METRICS, split_metric
from fracnet.config.instantiate import locate
from fracnet.config.schema import Config
from fracnet.config.targets import named_targets
from fracnet.data.annotations import AnnotationMaps
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.aggregation import check_by, check_views, level_problems
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.models import features
from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import find_layer
from fracnet.models.localizer import check_method
from fracnet.models.validation import LOGGED, ValidationMetrics
from fracnet.utils import network
from fracnet.utils.errors import UserError
from fracnet.utils.shared import shared
from fracnet.utils.text import counted


def check_targets(config: Config) -> None:
    """Raise UserError for a class that the config names and that cannot be imported.

    Comes before the images are decoded, which can take an hour.
    """
    for key, target, _ in named_targets(config):
        locate(target, key)


def check_devices(config: Config, kind: str) -> None:
    """Raise UserError where this machine lacks the devices of a kind (cpu or gpu)."""
    devices = config.trainer.devices
    if devices == 1 and config.trainer.num_nodes == 1:
        return
    key = f"trainer.devices={devices}"
    if not config.model.by_epochs:
        raise UserError(f"{key}: a model without epochs is fitted on one; allowed: 1.")
    if kind == "cpu":
        return
    n = torch.cuda.device_count()
    needed = max(devices) + 1 if isinstance(devices, list) else devices
    if needed > n:
        raise UserError(f"{key}: this machine has {n} of them; allowed: 1 to {n}.")


def check_localization(config: Config, data: RadiographData) -> None:
    """Raise UserError where there is nothing that the auxiliary head could be trained towards."""
    weight = config.loss.localization
    if weight in (0, "auto"):
        return
    key = f"loss.localization={weight:g}"
    if config.model.fit == "classical":
        raise UserError(f"{key} needs a network; allowed: loss.localization=0.")
    if not AnnotationMaps(data.manifest, data.rows("train"), data.preprocess).annotated:
        raise UserError(
            f"{key} needs polygons or boxes, but no training image of {data.manifest.name} has one "
            "of its own class; allowed: loss.localization=0."
        )


def check_evaluation(config: Config, data: RadiographData) -> None:
    """Raise UserError for evaluation options that do not fit the data."""
    test = data.manifest.table.iloc[data.rows("test")]
    check_by(test, config.evaluation.by, "evaluation.by")
    check_views(config.evaluation.views, len(data.classes), "evaluation.views")


def check_metrics(config: Config, data: RadiographData) -> None:
    """Raise UserError where a metric that chooses cannot be computed on the validation split."""
    targets = data.manifest.targets()[data.rows("val")]
    # Whether a metric is defined depends on the truth alone: these predictions are all right.
    logits = 10.0 * (targets[:, None] == np.arange(len(data.classes)))
    rows = data.manifest.table.iloc[data.rows("val")]
    predictions = Predictions.trusted(assemble(rows, data.classes, logits))
    metrics = ValidationMetrics.requested(config, data)
    chosen, undefined = selecting_metrics(config), []
    for key, name in chosen.items():
        level, base = split_metric(name)
        problem = "" if level == "image" else level_problems(predictions)[level]
        if problem and name not in config.metrics:
            raise UserError(f"{key}={name} cannot be computed on the validation split: {problem}.")
        if base in POSITIVE_METRICS and len(data.classes) > 2 and name not in config.metrics:
            raise UserError(
                f"{key}={name} is a metric of the positive one of two classes; there are "
                f"{len(data.classes)} here. Allowed: macro_auc, kappa and others of all classes."
            )
        if name != "loss" and math.isnan(metrics.value(predictions, name)):
            undefined.append(f"{key}={name}")
    if undefined:
        defined = [n for n in LOGGED if not math.isnan(metrics.value(predictions, n))]
        classes = [data.classes[c] for c in sorted(set(targets.tolist()))]
        raise UserError(
            f"{' and '.join(undefined)} cannot be computed on the validation split, whose "
            f"{counted(len(targets), 'image')} {'is' if len(targets) == 1 else 'are all'} of the "
            f"class {', '.join(classes)}; allowed with it: {', '.join(['loss', *defined])}."
        )


def rehearse(model: Classifier, config: Config) -> None:
    """Build the optimizer and pass two black images through, without training anything.

    Draws no random number from torch's global generator. Raises UserError for a network that cannot
    process images of this size, returns a wrong number of logits or cannot train on the one image
    of a batch, and for arguments that the optimizer or the schedule rejects.
    """
    frozen = config.model.freeze != "none"
    why = _why_not_features(model, config) if frozen else ""
    # What a head is fitted with does not change how the network behaves.
    node = {k: v for k, v in config.model.plain().items() if k not in ("head_C", "head_k")}
    sizes = [config.image_size, *(config.trainer.image_sizes or ())]
    key = json.dumps(
        [node, model.classes, sizes, config.data.batch_size == 1, why, config.trainer.channels_last]
    )
    split = frozen and not why
    why_whole = shared("rehearsal", key, lambda: _try_network(model, config, split))
    if frozen:
        model.why_whole = why or why_whole
        if model.why_whole and not config.model.by_epochs:
            raise UserError(
                f"model.head={config.model.head} is fitted to features of the frozen network, and "
                f"{model.why_whole}. Allowed: model.head=linear, model.head=mlp."
            )
    try:
        model.configure_optimizers()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"optim or scheduler has an argument that it rejects: {network.clause(error)}."
        ) from error


def _try_network(model: Classifier, config: Config, split: bool) -> str:
    """Pass black images through; with `split` returns `why_whole`. Raises as `rehearse` does."""
    n_classes = len(model.classes)
    for size in config.trainer.image_sizes or ():
        _try_size(model, config, size, f"trainer.image_sizes={size}")
    logits = _try_size(model, config, config.image_size, f"image_size={config.image_size}")
    if tuple(logits.shape) != (2, n_classes):
        raise UserError(
            f"the model ({config.model.target}) gives logits of shape {tuple(logits.shape)} for "
            f"two images; allowed: (2, {n_classes}), one logit for each of "
            f"{', '.join(model.classes)}."
        )
    if config.data.batch_size == 1:
        _try_one_image(model, config)
    return features.why_whole(model, config.image_size) if split else ""


def _why_not_features(model: Classifier, config: Config) -> str:
    """The option for which a frozen network runs in every batch; "" where there is none."""
    if foreign := [name for name, node in (config.callbacks.model_extra or {}).items() if node]:
        return f"callbacks.{foreign[0]} may use or change it"
    if config.augment.mixup or config.augment.cutmix:
        return "augment.mixup and augment.cutmix mix the images of a batch"
    if model.localizer is not None:
        return "loss.localization trains a head on its feature map"
    for key in ("limit_train_batches", "overfit_batches"):
        if config.trainer.passed_on.get(key):
            return f"trainer.{key} trains on a few images"
    if config.model.freeze == 1:
        return "one epoch shows each image once"
    if config.trainer.precision not in ("auto", "32-true", "16-mixed", "bf16-mixed"):
        return f"features are float32, unlike trainer.precision={config.trainer.precision}"
    return ""


def _try_size(model: Classifier, config: Config, size: int, key: str) -> torch.Tensor:
    """Logits of two black images. Raises UserError that names `key` where the network fails."""
    was_training = model.training
    try:
        with torch.inference_mode():
            logits: torch.Tensor = model.eval()(torch.zeros(2, 1, size, size, dtype=torch.uint8))
    except UserError:
        raise
    # The network may be the user's own and raise anything.
    except Exception as error:
        raise UserError(
            f"the model ({config.model.target}) fails on images of {key}: {network.clause(error)}."
        ) from error
    finally:
        model.train(was_training)
    return logits


def _try_one_image(model: Classifier, config: Config) -> None:
    """Batch normalization cannot train on a single value per channel."""
    normalized = any(isinstance(layer, _NormBase) for layer in model.backbone.modules())
    if not normalized or config.model.freeze == "backbone":  # keeps the pretrained statistics
        return
    size = config.image_size
    twin = copy.deepcopy(model.backbone).train()  # a pass in training mode changes statistics
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            twin(model.input(torch.zeros(1, 1, size, size, dtype=torch.uint8)))
    except Exception as error:
        raise UserError(
            f"data.batch_size=1: the model ({config.model.target}) has batch normalization and "
            f"cannot train on one image of image_size={size}: {network.clause(error)}. Allowed: "
            "data.batch_size=2 and more, or model.freeze=backbone."
        ) from error


def check_layer(config: Config, model: Classifier, in_sweep: bool) -> None:
    """Raise UserError, before hours of training, for a layer that does not exist."""
    if config.explain is not None and not in_sweep:
        find_layer(model.backbone, config.explain.layer, size=config.image_size)
        check_method(config.explain.method, config.explain.layer, model.localizer)

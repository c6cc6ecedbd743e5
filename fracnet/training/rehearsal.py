"""A model, its optimiser and its schedule tried once: no fault waits for the first epoch."""

import copy
import math

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from fracnet import network
from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.errors import UserError
from fracnet.models.module import Classifier, validation_figures
from fracnet.objects import locate
from fracnet.words import counted


def check_targets(config: Config) -> None:
    """Raise UserError where a class that the config names is not there to be imported.

    Before the images are decoded, which can take an hour.
    """
    nodes = {"model": config.model, "optim": config.optim, "loss": config.loss}
    if config.scheduler is not None:
        nodes["scheduler"] = config.scheduler
    for key, node in nodes.items():
        locate(node.target, key)


def check_figures(config: Config, data: RadiographData) -> None:
    """Raise UserError where a figure that chooses cannot be computed on the validation split."""
    targets = data.manifest.targets()[data.rows("val")]
    # Whether a figure is defined depends on the truth alone.
    level = np.full((len(targets), len(data.classes)), 1 / len(data.classes))
    figures = {"loss": 0.0} | validation_figures(targets, level)
    chosen = {"objective": config.objective}
    if config.model.fit == "gradient":
        chosen["callbacks.best.metric"] = config.callbacks.best.metric
        if config.callbacks.early_stopping is not None:
            chosen["callbacks.early_stopping.metric"] = config.callbacks.early_stopping.metric
    wrong = [f"{key}={name}" for key, name in chosen.items() if math.isnan(figures[name])]
    if wrong:
        defined = [name for name, value in figures.items() if not math.isnan(value)]
        held = [data.classes[c] for c in sorted(set(targets.tolist()))]
        raise UserError(
            f"{' and '.join(wrong)} cannot be computed on the validation split, whose "
            f"{counted(len(targets), 'image')} {'is' if len(targets) == 1 else 'are all'} of the "
            f"class {', '.join(held)}; allowed with it: {', '.join(defined)}."
        )


def rehearse(model: Classifier, config: Config) -> None:
    """Build the optimiser and push two black images through, without learning or drawing anything.

    Raises:
        UserError: a backbone that cannot take images of this size or gives another number of
            logits, or that cannot train on a batch of one image where that is asked for, or
            arguments that the optimiser or the schedule does not take.
    """
    size, wanted = config.image_size, len(model.classes)
    was_training = model.training
    try:
        with torch.inference_mode():
            logits = model.eval()(torch.zeros(2, 1, size, size, dtype=torch.uint8))
    except UserError:
        raise
    # The network may be anybody's, and so may what it raises.
    except Exception as error:
        raise UserError(
            f"the model ({config.model.target}) fails on images of image_size={size}: "
            f"{network.clause(error)}."
        ) from error
    finally:
        model.train(was_training)
    if tuple(logits.shape) != (2, wanted):
        raise UserError(
            f"the model ({config.model.target}) gives logits of shape {tuple(logits.shape)} for "
            f"two images; allowed: (2, {wanted}), one logit for each of {', '.join(model.classes)}."
        )
    if config.data.batch_size == 1:
        _try_one_image(model, config)
    try:
        model.configure_optimizers()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"optim or scheduler has an argument that it does not take: {network.clause(error)}."
        ) from error


def _try_one_image(model: Classifier, config: Config) -> None:
    """Batch normalisation cannot train on one value a channel, which is all it may then see."""
    normalised = any(isinstance(layer, _NormBase) for layer in model.backbone.modules())
    if not normalised or config.model.freeze == "backbone":  # keeps the statistics it came with
        return
    size = config.image_size
    twin = copy.deepcopy(model.backbone).train()  # since a pass in training changes statistics
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            twin(model.input(torch.zeros(1, 1, size, size, dtype=torch.uint8)))
    except Exception as error:
        raise UserError(
            f"data.batch_size=1: the model ({config.model.target}) has batch normalisation and "
            f"cannot train on one image of image_size={size}: {network.clause(error)}. Allowed: "
            "data.batch_size=2 and more, or model.freeze=backbone."
        ) from error

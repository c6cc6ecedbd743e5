"""A model, its optimiser and its schedule tried once: no fault waits for the first epoch."""

import torch

from fracnet import network
from fracnet.config import Config
from fracnet.errors import UserError
from fracnet.models.module import Classifier


def rehearse(model: Classifier, config: Config) -> None:
    """Build the optimiser and push two black images through, without learning or drawing anything.

    Raises:
        UserError: a backbone that cannot take images of this size or gives another number of
            logits, or arguments that the optimiser or the schedule does not take.
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
    try:
        model.configure_optimizers()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"optim or scheduler has an argument that it does not take: {network.clause(error)}."
        ) from error

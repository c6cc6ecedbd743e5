"""Validation metrics that a config names: of images, of studies, or the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torchmetrics import Metric

from fracnet.config.checks import selecting_metrics
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.metric_selection import selection_value
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.utils.errors import UserError

LOGGED = ("accuracy", "macro_sensitivity", "macro_specificity", "macro_auc")
"""Logged in every run, besides the loss; see `fracnet.models.classifier.validation_metrics`."""


@dataclass(frozen=True)
class ValidationMetrics:
    """A function from manifest rows int64 [n] and logits [n, C] to values by name.

    custom: metrics of torchmetrics, called with probabilities float32 [n, C] and targets [n].
    views: how a study's views are combined, `mean` or `max`. Undefined values are NaN.
    """

    names: Sequence[str]
    table: pd.DataFrame
    classes: tuple[str, ...]
    custom: Mapping[str, Metric] = field(default_factory=dict)
    views: str = "mean"

    @classmethod
    def requested(cls, config: Config, data: RadiographData) -> "ValidationMetrics":
        """The metrics that choose something in a run, and all of the user's own."""
        names = dict.fromkeys([*selecting_metrics(config).values(), *config.metrics])
        custom = {name: _custom(node.plain(), name) for name, node in config.metrics.items()}
        wanted = [name for name in names if name != "loss" and name not in LOGGED]
        views = config.evaluation.views
        return cls(wanted, data.manifest.table, data.classes, custom, views)

    def __call__(self, rows: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """All of the metrics by name."""
        predictions = Predictions.trusted(assemble(self.table.iloc[rows], self.classes, logits))
        return {name: self.value(predictions, name) for name in self.names}

    def value(self, predictions: Predictions, name: str) -> float:
        """One metric of predictions."""
        if name not in self.custom:
            return selection_value(predictions, name, self.views)
        metric = self.custom[name]
        metric.reset()
        probability = torch.tensor(predictions.probabilities, dtype=torch.float32)
        try:
            value = metric(probability, torch.tensor(predictions.targets))
            return float(value)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"metrics.{name}: {type(metric).__name__} fails on probabilities of shape "
                f"{tuple(probability.shape)}, or does not give one number: {error}"
            ) from error


def _custom(node: Mapping[str, object], name: str) -> Metric:
    metric = build(node, f"metrics.{name}")
    if not isinstance(metric, Metric):
        raise UserError(f"metrics.{name}._target_={node['_target_']} is not a torchmetrics metric.")
    return metric

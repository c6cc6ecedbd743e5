"""The model against the shortcut baseline on the same rows: a paired difference of two AUCs."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fracnet.evaluation import metrics
from fracnet.evaluation.alignment import align
from fracnet.evaluation.differences import Difference, between_models, judged
from fracnet.evaluation.figure import Figure, Sample
from fracnet.evaluation.levels import to_level
from fracnet.evaluation.predictions import clusters_of, probabilities, targets
from fracnet.evaluation.summary import Estimate, summarise
from fracnet.report.run_content import RunContent

SHORTCUT = "shortcut"
# An AUC and its interval come without resampling.
NONE_NEEDED = 2


@dataclass(frozen=True)
class Against:
    """AUC (`RunContent.area`) of model and baseline at `level`, and the difference.

    `baseline` and `difference` are None where there is no such baseline, or are no test rows.
    """

    level: str
    model: Estimate
    baseline: Estimate | None
    difference: Difference | None


def against(content: RunContent) -> Against:
    """Set the model's AUC beside that of the shortcut baseline; see `Against`."""
    level = content.level
    model = content.area
    theirs = content.baselines.get(SHORTCUT)
    if theirs is None or content.assessment.test is None or math.isnan(model.value):
        return Against(level, model, None, None)
    views = content.assessment.options.views
    tables = {
        "the model": to_level(content.decided, level, views),
        "the baseline": to_level(theirs, level, views),
    }
    tables = align(tables, "test")
    ours, other = tables.values()
    classes = content.classes
    figure = (
        Figure("auc", 2, 1, classes[1]) if content.binary else Figure("macro_auc", len(classes))
    )
    clusters = clusters_of(ours)
    nothing = np.full(NONE_NEEDED, np.nan)
    names = ("the model", "the baseline")
    samples = (_sample(ours), _sample(other))
    found = between_models(figure, names, names, samples, (nothing, nothing), clusters)
    baseline = figure.estimate(summarise(other, resamples=NONE_NEEDED))
    return Against(level, model, baseline, judged([found], clusters, True, None)[0])


def _sample(table: pd.DataFrame) -> Sample:
    prob = probabilities(table)
    return Sample(targets(table), prob, metrics.predict(prob))

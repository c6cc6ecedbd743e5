"""`predict` combines the views of a study as `evaluate` does."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import PAIR, two_class_table

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.inference.image_predictor import by_study


@pytest.mark.parametrize("views", ["mean", "max"])
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_studies_get_the_scores_of_an_evaluation(views: str, scale: float) -> None:
    table = two_class_table(val=0, test=60)
    bare = table.drop(columns=[c for c in table if str(c).startswith(("prob_", "logit_"))])
    rows = Predictions(assemble(bare, PAIR, scale * Predictions(table).logits))
    expected = to_level(rows, "study", views)
    given: dict[str, Any] = {}

    def decide(prob: np.ndarray, score: np.ndarray) -> tuple[None, None, list[str]]:
        given.update(prob=prob, score=score)
        return None, None, [""] * len(prob)

    seen = rows.table.assign(log_odds=rows.scores[:, 1], error="", ood=False)
    broken = seen.iloc[:1].assign(study="s", prob_normal=np.nan, prob_abnormal=np.nan, error="cut")
    seen = pd.concat([seen, broken], ignore_index=True).sample(frac=1, random_state=1)
    studies = by_study(seen, PAIR, views, decide).set_index("study")
    assert studies.loc["s", "views"] == 0
    assert np.isnan(studies.loc["s", "log_odds"])
    studies = studies.loc[expected.table["study"]]
    np.testing.assert_array_equal(studies["prob_abnormal"], expected.probabilities[:, 1])
    np.testing.assert_allclose(studies["log_odds"], expected.scores[:, 1], rtol=1e-12)
    assert len(given["prob"]) == len(expected)


@pytest.mark.parametrize("views", [(0.15, 0.6, 0.75), (0.1, 0.9), (0.05, 0.35, 0.6, 1.0)])
def test_a_study_whose_views_tie_is_exactly_at_one_half(views: tuple[float, ...]) -> None:
    table = two_class_table(val=0, test=3).iloc[: len(views)].assign(
        patient="p", study="s", error="", ood=False, prob_abnormal=views,
        prob_normal=[round(1 - p, 6) for p in views],
    )  # fmt: skip
    scores = []

    def decide(prob: np.ndarray, score: np.ndarray) -> tuple[None, None, list[str]]:
        scores.append((prob[0, 1], score[0, 1]))
        return None, None, [""]

    by_study(table, PAIR, "mean", decide)
    assert scores == [(0.5, 0.0)]

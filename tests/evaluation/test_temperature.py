"""Temperature scaling: the minimum, what it leaves alone, and where there is none."""

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB, draw_scores, make_table
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fracnet.evaluation.decisions import calibrated, fit, logits
from fracnet.evaluation.predictions import assemble, probabilities, targets


def drawn(n: int, true: float, seed: int = 0) -> pd.DataFrame:
    """Labels drawn from the model's own probabilities at temperature `true`."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 6)) * 4
    noise = rng.gumbel(size=scores.shape)
    target = np.argmax(scores / true + noise, axis=1)
    rows = pd.DataFrame({"path": [f"{i}" for i in range(n)], "split": "val"})
    return assemble(rows.assign(label=np.array(UPPER_LIMB)[target]), UPPER_LIMB, scores)


def log_loss(table: pd.DataFrame, temperature: float) -> float:
    scores = log_softmax(logits(table) / temperature, axis=1)
    return float(-scores[np.arange(len(table)), targets(table)].mean())


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_the_labels_were_drawn_at(true: float) -> None:
    found = fit(drawn(20_000, true))
    assert found.value == pytest.approx(true, rel=0.05)
    assert not found.note


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum_of_the_log_loss(seed: int) -> None:
    table = make_table((20, 30, 25), 1.0, seed=seed, split="val")
    best = minimize_scalar(
        lambda log: log_loss(table, float(np.exp(log))), bounds=(-4, 4), method="bounded"
    )
    found = fit(table).value
    assert log_loss(table, found) <= best.fun + 1e-12
    assert found == pytest.approx(np.exp(best.x), rel=1e-3)


def test_the_likeliest_class_stays_and_one_changes_no_digit() -> None:
    table = make_table((20, 30, 25), 1.0)
    for temperature in (0.3, 4.0):
        warm = probabilities(calibrated(table, temperature))
        assert (warm.argmax(axis=1) == probabilities(table).argmax(axis=1)).all()
        assert warm.sum(axis=1) == pytest.approx(1)
    assert calibrated(table, 1.0) is table


def test_logs_of_probabilities_serve_where_there_are_no_logits() -> None:
    table = make_table((20, 30, 25), 1.0, split="val")
    bare = table.drop(columns=[c for c in table if c.startswith("logit_")])
    assert fit(bare).value == pytest.approx(fit(table).value, rel=1e-9)
    warm = probabilities(calibrated(bare, 1.7))
    assert warm == pytest.approx(probabilities(calibrated(table, 1.7)))
    zero = bare.assign(prob_elbow=0.0, prob_fingers=1.0, prob_forearm=0.0)
    assert np.isfinite(logits(zero)).all()


def test_where_there_is_none_it_is_one_and_says_why() -> None:
    right = make_table((10, 10), 60.0, split="val")
    one_class = make_table((10, 0), 1.0, split="val")
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1], 20)
    backwards = assemble(
        one_class.iloc[:1]
        .loc[[0] * 40, ["path", "split"]]
        .assign(label=np.array(UPPER_LIMB)[target]),
        UPPER_LIMB[:2],
        -draw_scores(rng, target, 2, 3.0),
    )
    for table, why in ((right, "right"), (one_class, "one class"), (backwards, "do not go with")):
        found = fit(table)
        assert found.value == 1
        assert why in found.note

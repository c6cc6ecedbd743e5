"""Temperature scaling: the minimum, what it leaves alone, and where there is none."""

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB, draw_scores, make_table
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fracnet.evaluation.decisions import calibrate, fit_temperature
from fracnet.evaluation.predictions import Predictions, assemble


def draw(n: int, true: float, seed: int = 0) -> pd.DataFrame:
    """Labels drawn from the model's own probabilities at temperature `true`."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 6)) * 4
    noise = rng.gumbel(size=scores.shape)
    target = np.argmax(scores / true + noise, axis=1)
    rows = pd.DataFrame({"path": [f"{i}" for i in range(n)], "split": "val"})
    return assemble(rows.assign(label=np.array(UPPER_LIMB)[target]), UPPER_LIMB, scores)


def log_loss(table: pd.DataFrame, temperature: float) -> float:
    scores = log_softmax(Predictions(table).logits / temperature, axis=1)
    return float(-scores[np.arange(len(table)), Predictions(table).targets].mean())


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_the_labels_were_drawn_at(true: float) -> None:
    temperature, note = fit_temperature(Predictions(draw(20_000, true)))
    assert temperature == pytest.approx(true, rel=0.05)
    assert not note


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum_of_the_log_loss(seed: int) -> None:
    table = make_table((20, 30, 25), 1.0, seed=seed, split="val")
    best = minimize_scalar(
        lambda log: log_loss(table, float(np.exp(log))), bounds=(-4, 4), method="bounded"
    )
    temperature, _ = fit_temperature(Predictions(table))
    assert log_loss(table, temperature) <= best.fun + 1e-12
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-3)


def test_the_likeliest_class_stays_and_one_changes_no_digit() -> None:
    table = make_table((20, 30, 25), 1.0)
    for temperature in (0.3, 4.0):
        calibrated = calibrate(Predictions(table), temperature).probabilities
        assert (calibrated.argmax(axis=1) == Predictions(table).probabilities.argmax(axis=1)).all()
        assert calibrated.sum(axis=1) == pytest.approx(1)
    predictions = Predictions(table)
    assert calibrate(predictions, 1.0) is predictions


def test_logs_of_probabilities_serve_where_there_are_no_logits() -> None:
    table = make_table((20, 30, 25), 1.0, split="val")
    bare = table.drop(columns=[c for c in table if c.startswith("logit_")])
    without, full = (fit_temperature(Predictions(t))[0] for t in (bare, table))
    assert without == pytest.approx(full, rel=1e-9)
    calibrated = calibrate(Predictions(bare), 1.7).probabilities
    assert calibrated == pytest.approx(calibrate(Predictions(table), 1.7).probabilities)
    zero = bare.assign(prob_elbow=0.0, prob_fingers=1.0, prob_forearm=0.0)
    assert np.isfinite(Predictions(zero).logits).all()


def test_where_there_is_none_it_is_one_with_a_note() -> None:
    right = make_table((10, 10), 60.0, split="val")
    one_class = make_table((10, 0), 1.0, split="val")
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1], 20)
    backwards = assemble(
        one_class.iloc[:1]
        .loc[[0] * 40, ["path", "split"]]
        .assign(label=np.array(UPPER_LIMB)[target], path=[f"{i}.png" for i in range(40)]),
        UPPER_LIMB[:2],
        -draw_scores(rng, target, 2, 3.0),
    )
    for table, why in ((right, "right"), (one_class, "one class"), (backwards, "do not rise with")):
        temperature, note = fit_temperature(Predictions(table))
        assert temperature == 1
        assert why in note

"""Importance of keys and the Pareto front, on made results."""

import numpy as np

from fracnet.evaluation.sweep_statistics import key_importance, mean_interval, pareto_front


def test_a_key_that_matters_ranks_above_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    rate, decay = 10 ** rng.uniform(-5, -1, 24), 10 ** rng.uniform(-6, -2, 24)
    optimizer = rng.choice(["adam", "sgd"], 24)
    metric = 0.9 - 0.05 * (np.log10(rate) + 3) ** 2 + rng.normal(0, 0.01, 24)
    settings = {
        "decay": [f"{value:g}" for value in decay],
        "optim": list(optimizer),
        "lr": [f"{value:g}" for value in rate],
        "momentum": ["0.9" if name == "sgd" else None for name in optimizer],
    }
    first, *others = key_importance(settings, list(metric))
    assert first.key == "lr"
    assert first.low is not None
    assert first.low > 0.2
    assert all(other.low is not None and other.low < 0.02 for other in others)


def test_importance_is_undefined_for_few_or_equal_jobs() -> None:
    assert key_importance({"lr": ["1", "2"]}, [0.1, 0.2]) == []
    assert key_importance({"lr": [str(n) for n in range(9)]}, [0.5] * 9) == []


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    values = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.4], [0.0, 1.0], [np.nan, 2.0], [0.5, 0.5]])
    assert pareto_front(values) == [0, 1, 3, 5]


def test_equal_values_have_no_interval() -> None:
    assert mean_interval([0.5, 0.5]) == (None, None)
    assert mean_interval([0.5]) == (None, None)

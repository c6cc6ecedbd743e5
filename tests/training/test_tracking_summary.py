"""The flat figures that a finished run leaves in W&B."""

from fracnet.training.tracking.results import summary

ESTIMATE = {"value": 0.7, "low": 0.6, "high": 0.8}
METRICS = {
    "objective": {"name": "macro_auc", "value": 0.9},
    "selected": {"epoch": 3},
    "val": {"metrics": {"accuracy": ESTIMATE}},
    "test": {"metrics": {"accuracy": ESTIMATE}},
    "test_by_level_and_region": [
        {"level": "study", "region": "overall", "n": 9, "kappa": ESTIMATE, "auc": ESTIMATE}
    ],
}


def test_official_figures_of_a_two_class_task_are_there_with_their_limits() -> None:
    found = summary(METRICS, ("val", "test"))
    assert found["test/study/overall/kappa"] == 0.7
    assert found["test/study/overall/kappa_low"] == 0.6
    assert found["test/study/overall/auc_high"] == 0.8


def test_no_test_figure_where_the_test_is_not_to_be_shown() -> None:
    assert not [name for name in summary(METRICS, ("val",)) if name.startswith("test")]

"""The flat metrics that a finished run leaves in W&B."""

import json
from pathlib import Path

from fracnet.training.logged_results import external_summary, public_figures, summary_of

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


def test_official_metrics_of_a_two_class_task_come_with_their_limits() -> None:
    summary = summary_of(METRICS, ("val", "test"))
    assert summary["test/study/overall/kappa"] == 0.7
    assert summary["test/study/overall/kappa_low"] == 0.6
    assert summary["test/study/overall/auc_high"] == 0.8


def test_operating_points_and_temperature_are_logged_and_groups_are_not() -> None:
    figures = {"sensitivity": ESTIMATE, "class": "abnormal", "n": 4}
    levels = [
        {"level": "study", "by": "overall", "value": "overall", "threshold": 0.4},
        {"level": "study", "by": "patient", "value": "a name", "threshold": 0.4},
        {"level": "image", "by": "overall", "value": "overall", "threshold": None},
    ]
    strata = [
        row | {"per_class": [{}, figures], "metrics": {"accuracy": ESTIMATE}} for row in levels
    ]
    decisions = {"temperature": 1.5, "operating_point": {"study": {"threshold": 0.4}}}
    calibration = {"val": {"before": {}, "after": {"log_loss": ESTIMATE}}}
    more = {"test_strata": strata, "decisions": decisions, "calibration": calibration}
    summary = summary_of(METRICS | more, ("val", "test"))
    assert summary["test/operating_point/study/sensitivity_high"] == 0.8
    assert summary["test/calibrated/image/accuracy"] == 0.7
    assert summary["decisions/temperature"] == 1.5
    assert summary["decisions/threshold/study"] == 0.4
    assert summary["val/calibrated/log_loss"] == 0.7
    assert not [name for name in summary if "a name" in name]
    assert not [name for name in summary_of(METRICS | more, ("val",)) if name.startswith("test")]


def test_no_test_metric_where_the_test_is_hidden() -> None:
    assert not [name for name in summary_of(METRICS, ("val",)) if name.startswith("test")]


def test_figures_show_only_the_public_splits(tmp_path: Path) -> None:
    for name in ("curves", "roc_val", "roc_test", "forest_region_test_study"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
        (tmp_path / f"{name}.svg").write_bytes(b"")
    public = public_figures(tmp_path, ("val",))
    assert public == {
        "figures/curves": tmp_path / "curves.png",
        "figures/roc_val": tmp_path / "roc_val.png",
    }
    assert len(public_figures(tmp_path, ("val", "test"))) == 4
    assert public_figures(tmp_path / "none", ("val", "test")) == {}
    # The values of any other column may be names of patients or hospitals.
    (tmp_path / "forest_patient_test.png").write_bytes(b"")
    assert len(public_figures(tmp_path, ("val", "test"))) == 4


def test_an_external_test_is_logged_under_its_name(tmp_path: Path) -> None:
    for name in ("data-fracatlas", "tta-flip"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(METRICS))
    assert external_summary(tmp_path) == {
        "external/fracatlas/accuracy": 0.7,
        "external/fracatlas/accuracy_low": 0.6,
        "external/fracatlas/accuracy_high": 0.8,
    }
    assert external_summary(tmp_path / "none") == {}

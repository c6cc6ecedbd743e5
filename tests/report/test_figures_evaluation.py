"""All figures of an evaluation: their number, their content and their legibility."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.figures import check_pair, has_color, refuse_collisions, text_of
from helpers.predictions import UPPER_LIMB_COUNTS, make_table

from fracnet.config.schema import Evaluation
from fracnet.evaluation.assessment import Assessment, evaluate
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.report import plots
from fracnet.report.run_charts import save_figures

OPTIONS = Evaluation(resamples=100)
POINT = {"threshold": 0.41, "log_odds": -0.364, "sensitivity": 0.87, "specificity": 0.84}
TWO = {
    "temperature": 1.6,
    "rule": {"youden": True},
    "operating_point": {"image": POINT, "study": POINT | {"threshold": 0.45, "log_odds": -0.201}},
}
MANY = {"temperature": 1.4, "rule": {"youden": True}, "operating_point": None}
FIVE = ("confusion_matrix", "roc", "precision_recall", "reliability", "forest_class")


def two_classes(patients: int = 60, regions: int = 7, seed: int = 0) -> pd.DataFrame:
    """A study with one to four views a patient."""
    rng = np.random.default_rng(seed)
    case = rng.random(patients) < 0.5
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    score = 1.5 * (case[patient] - 0.5) + rng.normal(size=patients)[patient] / 2
    score += rng.normal(size=len(patient)) / 2
    rows = pd.DataFrame(
        {
            "path": [f"{i:04d}.png" for i in range(len(patient))],
            "split": "test",
            "label": np.array(["normal", "abnormal"])[case[patient].astype(int)],
            "patient": [f"p{p}" for p in patient],
            "study": [f"p{p}/1" for p in patient],
            "region": [f"region {p % regions}" for p in patient],
        }
    )
    return assemble(rows, ("normal", "abnormal"), np.stack([-2 * score, 2 * score], axis=1))


def assessed(table: pd.DataFrame, decisions: dict[str, Any] | None) -> Assessment:
    return evaluate(Predictions(table.assign(region=table.get("region"))), OPTIONS, decisions)


def draw(table: pd.DataFrame, decisions: dict[str, Any] | None, folder: Path) -> list[Path]:
    return save_figures(assessed(table, decisions), Predictions(table), folder)


def names(paths: list[Path]) -> list[str]:
    """Names of the figures; each exists as both files."""
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    for pair in pairs:
        check_pair(list(pair), pair[0].stem)
    return [png.stem for png, _ in pairs]


def test_figures_of_two_classes_by_level_and_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = refuse_collisions(monkeypatch)
    table = two_classes()
    assessment = assessed(table, TWO)
    assert names(save_figures(assessment, Predictions(table), tmp_path)) == saved
    assert saved == [
        "confusion_matrix_test",
        "confusion_matrix_test_study",
        "roc_test",
        "precision_recall_test",
        "reliability_test",
        "forest_region_test",
        "forest_region_test_study",
    ]
    roc = text_of(tmp_path / "roc_test.svg")
    positive = assessment.strata[0].summary.per_class[1]
    assert f"AUC {positive.auc.value:.3f} ({positive.auc.low:.3f}-{positive.auc.high:.3f})" in roc
    assert f"sensitivity {positive.sensitivity.value:.3f}" in roc
    for phrase in (
        "threshold 0.410 (Youden's index)",
        "threshold 0.450 (Youden's index)",
        "60 studies",
    ):
        assert phrase in roc
    assert "on validation, where chosen: 0.870, 0.840" in roc
    assert "100 resamples by patient" in roc
    curves = text_of(tmp_path / "precision_recall_test.svg")
    assert f"AUC-PR {positive.average_precision.value:.3f}" in curves
    reliability = text_of(tmp_path / "reliability_test.svg")
    assert "before calibration" in reliability
    assert "after (temperature 1.600)" in reliability
    for split in assessment.calibration.values():
        for moment in split.values():
            error = moment["calibration_error"].value
            expected = f"{error:.3f}" if error >= 0.0005 else "not distinguishable from 0"
            assert f"calibration error {expected}" in " ".join(reliability.split())
    forest = text_of(tmp_path / "forest_region_test.svg")
    for region in range(7):
        assert f"region {region}" in forest
    assert "threshold 0.41" in forest


def test_figures_of_six_small_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = refuse_collisions(monkeypatch)
    table = make_table(UPPER_LIMB_COUNTS, 2.2)
    paths = draw(table, MANY, tmp_path)
    assert names(paths) == saved == [f"{name}_test" for name in FIVE]
    roc = text_of(tmp_path / "roc_test.svg")
    for name in ("elbow", "wrist", "6 cases in 83 images (too few)", "the most likely class"):
        assert name in roc
    with check_pair(paths[2:4], "roc_test") as image:
        assert has_color(image, plots.BLUE)
        assert has_color(image, plots.VERMILION)


def test_figures_with_an_absent_class_and_long_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = refuse_collisions(monkeypatch)
    counts = (60, 0, 13, 1, 2)
    table = make_table(counts, classes=[f"class {i} with a long name, $x$ & <y>" for i in range(5)])
    draw(table, MANY, tmp_path)
    assert len(saved) == 5
    for name in ("roc", "precision_recall"):
        text = text_of(tmp_path / f"{name}_test.svg")
        assert text.count("no curve: no cases") == 1
        assert text.count("no band: all cases") == 1  # of the class with one


def test_perfect_classes_have_a_band_and_an_exact_limit(tmp_path: Path) -> None:
    table = make_table((6, 12, 9), 60.0)
    draw(table, MANY | {"temperature": 1.0}, tmp_path)
    roc = text_of(tmp_path / "roc_test.svg")
    for cases in (6, 12, 9):  # each fewer than the others
        assert f"AUC 1.000 ({0.025 ** (1 / cases):.3f}-1.000)" in roc
    assert "95 % band" in roc
    assert "uncalibrated probabilities" in text_of(tmp_path / "reliability_test.svg")


@pytest.mark.parametrize("kind", ["one row", "two patients"])
def test_uninformative_metrics_are_drawn_with_the_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = refuse_collisions(monkeypatch)
    table = two_classes(4, seed=1)
    if kind == "two patients":
        first = [group["patient"].iloc[0] for _, group in table.groupby("label")]
        table = table[table["patient"].isin(first)]
    else:
        table = table[table["label"] == "normal"][:1]
    draw(table, None, tmp_path)
    assert {"roc_test", "precision_recall_test", "reliability_test"} <= set(saved)
    reason = "no band: all cases" if kind == "two patients" else "no curve: no cases"
    assert reason in text_of(tmp_path / "roc_test.svg")
    assert reason in text_of(tmp_path / "precision_recall_test.svg")


def test_figures_of_validation_rows_only(tmp_path: Path) -> None:
    table = make_table((20, 30), 1.0, classes=("normal", "abnormal"), split="val")
    paths = draw(table, TWO, tmp_path)
    assert names(paths) == [f"{name}_val" for name in FIVE[:4]]
    assert "threshold 0.5" in text_of(tmp_path / "roc_val.svg")


def test_same_evaluation_gives_the_same_files(tmp_path: Path) -> None:
    table = make_table((8, 9), 1.0, classes=("normal", "abnormal"))
    first = draw(table, None, tmp_path / "first")
    shuffled = table.sample(frac=1, random_state=1)
    second = draw(shuffled, None, tmp_path / "second")
    assert len(first) == 8
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name


def test_a_column_of_any_name_gives_a_valid_file_name(tmp_path: Path) -> None:
    table = two_classes(8, regions=2).rename(columns={"region": "site/ward a"})
    table[["region", "study", "patient"]] = None
    evaluation = evaluate(Predictions(table), Evaluation(resamples=100, by=["site/ward a"]), None)
    figures = names(save_figures(evaluation, Predictions(table), tmp_path))
    assert "forest_site-ward-a_test" in figures

"""A label that is predictable without the picture is reported, with the measurements that do it."""

import numpy as np
import pytest

from fracnet.data_audit.image_scan import FEATURES
from fracnet.data_audit.shortcuts import (
    FAMILIES,
    FamilyScore,
    check_shortcuts,
    format_score,
    score_families,
)
from fracnet.utils.progress import no_progress


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, len(FEATURES)))


def scores_of(features: np.ndarray, targets: np.ndarray, groups: list[str]) -> list[FamilyScore]:
    n_classes = int(targets.max()) + 1
    scores = score_families(features, targets, groups, "image", n_classes, no_progress)
    assert not isinstance(scores, str), scores
    return scores


@pytest.mark.parametrize("name", ["file size", "marker area", "border"])
def test_the_responsible_family_is_named(name: str) -> None:
    features, targets = noise(160), np.arange(160) % 2
    features[:, FEATURES.index(FAMILIES[name][0])] += 3 * targets
    together, best, *rest = scores_of(features, targets, [str(i) for i in range(160)])
    assert best.name == name
    assert best.low is not None
    assert best.low > 0.75 > max(score.auc for score in rest)
    finding = check_shortcuts([together, best, *rest], 2, "image")
    assert finding.severity == "warning"
    assert f"mostly from {name}, {format_score(best)}" in finding.title


def test_noise_is_no_shortcut() -> None:
    scores = scores_of(noise(300), np.arange(300) % 3, [str(i) for i in range(300)])
    assert scores[0].low is not None
    assert scores[0].high is not None
    assert scores[0].low < 0.5 < scores[0].high
    assert check_shortcuts(scores, 3, "image").severity == "ok"


def test_images_of_a_group_stay_in_one_fold() -> None:
    """Ten images of each of 20 patients; file sizes differ at random."""
    patient = np.repeat(np.arange(20), 10)
    features = noise(200)
    size = FEATURES.index("file_size")
    features[:, size] = 1000 * np.random.default_rng(5).permutation(20)[patient]
    targets = np.repeat(np.arange(20) % 2, 10)

    def by_size(groups: list[str]) -> float:
        scores = scores_of(features, targets, groups)
        return next(score for score in scores if score.name == "file size").auc

    assert by_size([str(i) for i in range(200)]) > 0.95, "the forest memorizes the patient"
    assert by_size([str(p) for p in patient]) < 0.8


def test_too_few_groups_are_reported() -> None:
    reason = score_families(noise(10), np.arange(10) % 2, ["a"] * 10, "patient", 2, no_progress)
    assert isinstance(reason, str)
    assert check_shortcuts(reason, 2, "patient").severity == "hint"
    assert reason in check_shortcuts(reason, 2, "patient").title


def test_every_feature_belongs_to_one_family() -> None:
    names = [name for family in FAMILIES.values() for name in family]
    assert sorted(names) == sorted(FEATURES)


@pytest.mark.parametrize(
    ("low", "high", "severity", "message"),
    [
        (0.45, 0.59, "ok", "can hardly be predicted"),
        (0.45, 0.75, "hint", "too few images to tell"),
        (None, None, "hint", "too few images to tell"),
        (0.62, 0.75, "hint", "The label can be predicted"),
        (0.72, 0.85, "warning", "The label can be predicted"),
    ],
)
def test_a_wide_interval_does_not_rule_out_a_shortcut(
    low: float | None, high: float | None, severity: str, message: str
) -> None:
    finding = check_shortcuts(
        [FamilyScore("all", 0.55, low, high), FamilyScore("border", 0.5, low, high)], 2, "image"
    )
    assert finding.severity == severity
    assert message in finding.title

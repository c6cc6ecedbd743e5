"""A label that is predictable without the picture is reported, with the measurements that do it."""

import numpy as np
import pytest

from fracnet.data_audit.image_scan import FEATURES
from fracnet.data_audit.shortcuts import (
    ALL,
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


@pytest.mark.parametrize("name", ["file size", "corner marks", "histogram"])
def test_the_responsible_family_is_named(name: str) -> None:
    """One of its measurements agrees with the class in 90 %, as far as noise lets it."""
    n = 400
    features, targets = noise(n), np.arange(n) % 2
    agrees = np.random.default_rng(1).random(n) < 0.9
    features[:, FEATURES.index(FAMILIES[name][0])] += 4 * (targets == agrees)
    scores = scores_of(features, targets, [str(i) for i in range(n)])
    score = next(score for score in scores if score.name == name)
    finding = check_shortcuts(scores, 2, "image")
    assert finding.severity == "warning"
    assert f"can be predicted from {name} alone, AUC {format_score(score)}" in finding.title


def test_a_shortcut_that_never_fails_is_a_warning() -> None:
    targets = np.arange(200) % 2
    features = noise(200)
    features[:, FEATURES.index("file_size")] = 1000 + 500 * targets
    scores = scores_of(features, targets, [str(i) for i in range(200)])
    finding = check_shortcuts(scores, 2, "image")
    assert finding.severity == "warning"
    assert "file size alone, AUC 1.000 (0.9" in finding.title


def test_a_family_is_not_diluted_by_the_others() -> None:
    """AUC 0.81 of one family, as of a small letter, where all measurements together say less."""
    telling = FamilyScore("corner marks", 0.81, 0.74, 0.86)
    diluted = FamilyScore(ALL, 0.66, 0.57, 0.74)
    finding = check_shortcuts([telling, diluted], 2, "image")
    assert finding.severity == "warning"
    assert "corner marks alone, AUC 0.810 (0.740-0.860)" in finding.title
    both = [telling, FamilyScore("noise", 0.8, 0.73, 0.85), diluted]
    assert "; also from noise, 0.800 (0.730-0.850)." in check_shortcuts(both, 2, "image").title


def test_intervals_hold_for_all_families_at_once() -> None:
    features, targets = noise(200), np.arange(200) % 2
    score = scores_of(features, targets, [str(i) for i in range(200)])[0]
    assert score.low is not None
    assert score.high is not None
    one = (0.5 - 0.42) * 2  # the width of a single interval from 200 images
    assert score.high - score.low > 1.3 * one


def test_noise_is_no_shortcut() -> None:
    """The smaller set is too small to rule one out, and the audit says so."""
    for n, severity in ((300, "hint"), (1500, "ok")):
        scores = scores_of(noise(n), np.arange(n) % 3, [str(i) for i in range(n)])
        assert all(score.low is not None and score.low < 0.5 for score in scores)
        finding = check_shortcuts(scores, 3, "image")
        assert finding.severity == severity, finding.title
        assert ("too few images to tell" in finding.title) == (n == 300)


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
        (0.62, 0.75, "hint", "The class can be predicted"),
        (0.72, 0.85, "warning", "The class can be predicted"),
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

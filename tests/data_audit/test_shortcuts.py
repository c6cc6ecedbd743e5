"""A label that a file's figures tell without its picture is noticed, and what tells it is named."""

import numpy as np
import pytest

from fracnet.data_audit.image_scan import FEATURES
from fracnet.data_audit.shortcuts import FAMILIES, Reached, figure, finding, reached
from fracnet.utils.progress import no_progress


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, len(FEATURES)))


def looked(features: np.ndarray, targets: np.ndarray, groups: list[str]) -> list[Reached]:
    n_classes = int(targets.max()) + 1
    found = reached(features, targets, groups, "image", n_classes, no_progress)
    assert not isinstance(found, str), found
    return found


@pytest.mark.parametrize("name", ["file size", "marker area", "border"])
def test_the_guilty_family_is_named(name: str) -> None:
    features, targets = noise(160), np.arange(160) % 2
    features[:, FEATURES.index(FAMILIES[name][0])] += 3 * targets
    together, best, *others = looked(features, targets, [str(i) for i in range(160)])
    assert best.name == name
    assert best.low is not None
    assert best.low > 0.75 > max(one.auc for one in others)
    told = finding([together, best, *others], 2, "image")
    assert told.severity == "warning"
    assert f"most by {name}, {figure(best)}" in told.title


def test_noise_is_no_shortcut() -> None:
    found = looked(noise(300), np.arange(300) % 3, [str(i) for i in range(300)])
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low < 0.5 < found[0].high
    assert finding(found, 3, "image").severity == "ok"


def test_images_of_one_group_do_not_tell_of_each_other() -> None:
    """Ten images of each of 20 patients, who differ in file size at random."""
    patient = np.repeat(np.arange(20), 10)
    features = noise(200)
    size = FEATURES.index("file_size")
    features[:, size] = 1000 * np.random.default_rng(5).permutation(20)[patient]
    targets = np.repeat(np.arange(20) % 2, 10)

    def by_size(groups: list[str]) -> float:
        return next(o for o in looked(features, targets, groups) if o.name == "file size").auc

    assert by_size([str(i) for i in range(200)]) > 0.95, "the patient is known by heart"
    assert by_size([str(p) for p in patient]) < 0.8


def test_too_few_groups_are_said_to_be() -> None:
    told = reached(noise(10), np.arange(10) % 2, ["a"] * 10, "patient", 2, no_progress)
    assert isinstance(told, str)
    assert finding(told, 2, "patient").severity == "hint"
    assert told in finding(told, 2, "patient").title


def test_every_feature_belongs_to_one_family() -> None:
    held = [name for family in FAMILIES.values() for name in family]
    assert sorted(held) == sorted(FEATURES)


@pytest.mark.parametrize(
    ("low", "high", "severity", "said"),
    [
        (0.45, 0.59, "ok", "can hardly be told"),
        (0.45, 0.75, "hint", "cannot be said from so few images"),
        (None, None, "hint", "cannot be said from so few images"),
        (0.62, 0.75, "hint", "The label can be told"),
        (0.72, 0.85, "warning", "The label can be told"),
    ],
)
def test_nothing_is_denied_that_the_interval_leaves_open(
    low: float | None, high: float | None, severity: str, said: str
) -> None:
    told = finding([Reached("all", 0.55, low, high), Reached("border", 0.5, low, high)], 2, "image")
    assert told.severity == severity
    assert said in told.title

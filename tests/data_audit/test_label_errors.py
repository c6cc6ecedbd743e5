"""Labels that the other images do not support."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.audited import folder_overrides, run_audit_command, write_set
from helpers.tiny_overrides import USER_CONF

from fracnet.data_audit.label_errors import find_doubts, held_out_probabilities

CLASSES = ("a", "b", "c")


def noisy(n: int = 240, share: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of three classes that overlap little, targets, and which of these are wrong."""
    rng = np.random.default_rng(3)
    truth = np.arange(n) % 3
    features = (5 * np.eye(3, 6)[truth] + rng.normal(size=(n, 6))).astype(np.float32)
    wrong = rng.choice(n, int(share * n), replace=False)
    targets = truth.copy()
    targets[wrong] = (truth[wrong] + rng.integers(1, 3, len(wrong))) % 3
    return features, targets, np.sort(wrong)


def test_planted_label_errors_are_ranked_first() -> None:
    features, targets, wrong = noisy()
    groups = [str(i // 2) for i in range(len(targets))]
    probs = held_out_probabilities(features, targets, groups, 3)
    assert not isinstance(probs, str)
    rows = 1000 + np.arange(len(targets))
    doubts = find_doubts(probs, targets, rows, CLASSES)
    first = {doubt.row - 1000 for doubt in doubts[: len(wrong)]}
    assert len(first & set(wrong)) >= 0.8 * len(wrong)
    assert len(doubts) < 3 * len(wrong)
    margins = [doubt.given_probability - doubt.suggested_probability for doubt in doubts]
    assert margins == sorted(margins)
    assert all(doubt.suggested != CLASSES[targets[doubt.row - 1000]] for doubt in doubts)


def test_a_copy_with_the_same_wrong_label_supports_nothing() -> None:
    features, targets, wrong = noisy()
    row = int(wrong[0])
    features = np.concatenate([features, features[[row] * 5]])
    targets = np.concatenate([targets, targets[[row] * 5]])
    groups = [str(min(i, row) if i >= 240 else i) for i in range(len(targets))]
    probs = held_out_probabilities(features, targets, groups, 3)
    assert not isinstance(probs, str)
    doubts = find_doubts(probs, targets, np.arange(len(targets)), CLASSES)
    assert {row, *range(240, 245)} <= {doubt.row for doubt in doubts}


def test_classes_of_one_group_are_not_judged() -> None:
    features, targets, _ = noisy(30)
    reason = held_out_probabilities(features, targets, ["one" if c else "x" for c in targets], 3)
    assert reason == "that needs at least two groups of images of each class"


def test_the_audit_lists_them_and_similar_images_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "a, b {1}")  # brackets and commas have a meaning to Hydra
    command = ["--config-dir", str(USER_CONF), *folder_overrides(root, tmp_path / "out")]
    result = run_audit_command([*command, "features=tiny_norm"], capsys)
    assert result.code == 0, result.err
    audit = json.loads((tmp_path / "out/audit.json").read_text())
    (finding,) = [finding for finding in audit["findings"] if finding["check"] == "labels"]
    page = (tmp_path / "out/index.html").read_text()
    assert finding["severity"] == "hint"
    assert "may be wrong: the image looks like another class" in finding["title"]
    assert {"path", "suggested", "given_probability"} <= finding["details"][0].keys()
    assert "Labels in doubt" in page

    (finding,) = [each for each in audit["findings"] if each["check"] == "similar images"]
    assert finding["severity"] == "hint"
    assert finding["details"]
    for pair in finding["details"]:
        assert pair["a"]["split"] != pair["b"]["split"]
    assert "Similar images across splits" in page
    assert any(pair["a"]["label"] != pair["b"]["label"] for pair in finding["details"])
    assert ">two labels<" not in page, "that is a fault of copies only"

    result = run_audit_command([*command, "features=resnet81"], capsys)
    assert "features=resnet81 is not a choice of model=" in result.err
    assert "Did you mean 'resnet18'?" in result.err

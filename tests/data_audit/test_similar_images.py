"""Images of two splits that a network's features find similar."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.audited import folder_overrides, run_audit_command

from fracnet.data_audit import similar_images
from fracnet.data_audit.similar_images import SimilarPair, check_similar, similar_across

ROWS = np.array([1, 2, 4, 5, 7])  # 0, 3 and 6 cannot be read
ANGLES = np.radians([0, 5, 120, 128, 240])
FEATURES = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)]).astype(np.float32) + 100
SPLITS = np.array(["train", "train", "test", "test", "train", "val", "test", "val"])
GROUPS = np.array([str(i) for i in range(8)])


def ends(pairs: list[SimilarPair]) -> list[tuple[int, int]]:
    return [(pair.a, pair.b) for pair in pairs]


@pytest.mark.parametrize("block", [2, 512])
def test_similar_pairs_are_of_two_splits_and_two_groups(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(similar_images, "BLOCK", block)
    pairs = similar_across(FEATURES, ROWS, SPLITS, GROUPS)
    assert ends(pairs) == [(1, 2), (4, 5)], "image 7 is the nearest of none"
    assert pairs[0].similarity > 0.99 > pairs[1].similarity > 0.9
    one_patient = np.where(np.isin(GROUPS, ["1", "2"]), "patient", GROUPS)
    assert ends(similar_across(FEATURES, ROWS, SPLITS, one_patient))[0] == (4, 5)
    assert similar_across(FEATURES, ROWS, np.full(8, "train"), GROUPS) == []


def test_only_the_most_similar_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_images, "LISTED", 1)
    assert ends(similar_across(FEATURES, ROWS, SPLITS, GROUPS)) == [(1, 2)]


def test_a_network_that_is_not_a_choice_and_the_key_of_before_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = folder_overrides(tmp_path / "set", tmp_path / "out")
    result = run_audit_command([*command, "features=resnet81"], capsys)
    assert "features=resnet81 is not a choice of model=" in result.err
    result = run_audit_command([*command, "label_errors=resnet18"], capsys)
    assert "The key 'label_errors' is now called 'features'." in result.err


@pytest.mark.parametrize(
    ("patient", "severity", "title"),
    [
        (None, "hint", "1 pair of similar images across splits may show one person."),
        ("p2", "ok", "1 pair of similar images across splits, of different patients by their ids."),
    ],
)
def test_only_images_of_unknown_patients_are_a_hint(
    patient: str | None, severity: str, title: str
) -> None:
    table = pd.DataFrame({"path": ["a.png", "b.png"], "split": ["train", "test"], "label": "x"})
    table["patient"] = ["p1", patient]
    (finding,) = check_similar(table, [SimilarPair(0, 1, 0.9)], "resnet18")
    assert (finding.severity, finding.title) == (severity, title)

"""Copies and patients across splits are leaks; within a split they are less severe."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fracnet.data.manifest import Manifest, with_manifest_types
from fracnet.data_audit.checks import check_copies, check_groups, most_telling_first, pairs_as_json
from fracnet.data_audit.findings import Finding
from fracnet.data_audit.near_duplicates import Pair

ROWS = [  # split, label, patient, study
    ("train", "normal", "p1", "s1"),  # 0
    ("train", "normal", "p1", "s2"),  # 1
    ("train", "fractured", "p2", "s3"),  # 2
    ("val", "normal", "p3", "s4"),  # 3
    ("test", "normal", "p4", "s5"),  # 4
    ("test", "fractured", "p5", "s6"),  # 5
]


def manifest(rows: list[tuple] = ROWS) -> Manifest:
    table = pd.DataFrame(rows, columns=["split", "label", "patient", "study"])
    table["path"] = [f"{patient}/image{i}.png" for i, patient in enumerate(table["patient"])]
    return Manifest(
        table=with_manifest_types(table),
        root=Path("nowhere"),
        classes=("normal", "fractured"),
        task="binary",
        name="set",
        license="none",
        citation="none",
        groups="made up",
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )


def by_check(findings: list[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.check, []).append(finding)
    return groups


def test_no_copies_is_ok() -> None:
    (only,) = check_copies(manifest(), [])
    assert only.severity == "ok"


def test_a_copy_across_splits_is_a_leak_of_the_later_split() -> None:
    findings = by_check(check_copies(manifest(), [Pair(0, 4, "copy", np.eye(2, 3), True, 0.9)]))
    (leak,) = findings["copies across splits"]
    assert leak.severity == "leak"
    assert leak.title.startswith("1 of 2 test images (50.0 %) has a verified copy in train or val")
    assert [item["row"] for item in leak.details] == [4]
    assert "mirrored, score 0.90" in leak.items[0]
    assert "copies within splits" not in findings


def test_copies_in_val_are_reported_for_val() -> None:
    (leak,) = by_check(check_copies(manifest(), [Pair(1, 3, "same bytes")]))["copies across splits"]
    assert leak.title.startswith("1 of 1 val images")
    assert "the choice of the checkpoint" in leak.text


def test_a_copy_of_a_copy_leaks_although_the_pair_is_not_listed() -> None:
    pairs = [Pair(0, 1, "copy", np.eye(2, 3)), Pair(1, 4, "copy", np.eye(2, 3))]
    findings = by_check(check_copies(manifest(), pairs))
    (leak,) = findings["copies across splits"]
    (within,) = findings["copies within splits"]
    assert [item["row"] for item in leak.details] == [4]
    assert within.severity == "hint"
    assert [[image["row"] for image in picture["images"]] for picture in within.details] == [[0, 1]]
    assert within.title.startswith("1 of 3 train images (33.3 %) repeats")


def test_unreadable_images_are_not_counted_among_those_of_a_split() -> None:
    findings = by_check(check_copies(manifest(), [Pair(0, 1, "same pixels")], {2: "cut"}))
    (within,) = findings["copies within splits"]
    assert within.title.startswith("1 of 2 train images (50.0 %) repeats")
    (none,) = check_copies(manifest(), [], {2: "cut"})
    assert none.title.endswith(f"among {len(ROWS) - 1} images.")


def test_copies_within_test_make_intervals_too_narrow() -> None:
    findings = by_check(check_copies(manifest(), [Pair(4, 5, "same pixels")]))
    (within,) = findings["copies within splits"]
    assert within.severity == "warning"
    (mixed,) = findings["two labels"]
    assert mixed.severity == "warning"
    assert mixed.title == "1 picture has copies with different labels."
    assert {item["label"] for item in mixed.details[0]["images"]} == {"normal", "fractured"}


def test_copies_under_two_patients_cast_doubt_on_the_ids() -> None:
    pairs = [Pair(0, 2, "same pixels"), Pair(0, 1, "same pixels")]
    (finding,) = by_check(check_copies(manifest(), pairs))["two patients"]
    assert finding.severity == "warning"
    assert finding.title.startswith("1 picture has copies under different patients (2 in total)")
    assert finding.details[0]["patients"] == ["p1", "p1", "p2"]
    assert "p1" not in " ".join(finding.items), "the page names no patient"
    assert "two patients" not in by_check(check_copies(manifest(), pairs[1:]))
    without_patients = manifest([(split, label, np.nan, np.nan) for split, label, *_ in ROWS])
    assert "two patients" not in by_check(check_copies(without_patients, pairs))


@pytest.mark.parametrize("column", ["patient", "study"])
def test_a_group_in_two_splits_is_a_leak(column: str) -> None:
    whole = manifest()
    table = whole.table.copy()
    if column == "study":
        table["patient"] = np.nan
    table.loc[4, column] = table.loc[0, column]
    finding = check_groups(Manifest(**{**vars(whole), "table": table}))
    assert finding.severity == "leak"
    assert finding.title == f"1 {column} has images in more than one split."
    assert str(table.loc[0, column]) not in " ".join(finding.items), "the page names no patient"
    assert finding.details[0]["group"] == table.loc[0, column]


def test_separate_groups_and_unknown_groups() -> None:
    assert check_groups(manifest()).severity == "ok"
    assert check_groups(manifest()).title.startswith("5 patients and 6 studies")
    without_patients = manifest([(split, label, np.nan, np.nan) for split, label, *_ in ROWS])
    assert check_groups(without_patients).severity == "hint"


def test_informative_pairs_come_first_and_no_cluster_fills_the_list() -> None:
    pairs = [
        Pair(0, 1, "copy", np.eye(2, 3)),
        Pair(0, 2, "same pixels"),
        Pair(0, 4, "copy", np.eye(2, 3)),
        Pair(1, 4, "copy", np.eye(2, 3)),
        Pair(3, 5, "copy", np.eye(2, 3)),
    ]
    order = [(pair.a, pair.b) for pair in most_telling_first(manifest().table, pairs)]
    assert order[0] == (3, 5), "across splits, and with two labels"
    assert order[1:3] == [(0, 4), (1, 4)]
    across = [*pairs[2:4], Pair(3, 4, "copy", np.eye(2, 3))]
    first = most_telling_first(manifest().table, across)[0]
    assert (first.a, first.b) == (0, 4)


def test_json_names_files_and_the_transform() -> None:
    (row,) = pairs_as_json(manifest().table, [Pair(0, 4, "copy", np.eye(2, 3), False, 0.91)])
    assert row["a"] == "p1/image0.png"
    assert row["splits"] == ["train", "test"]
    assert row["transform"] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

"""Copies and patients across splits are leaks; within a split they are something less."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fracnet.data.manifest import Manifest, typed
from fracnet.data_audit.checks import as_json, copies, first_to_show, groups
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
        table=typed(table),
        root=Path("nowhere"),
        classes=("normal", "fractured"),
        task="binary",
        name="set",
        license="none",
        citation="none",
        groups="made up",
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )


def by_check(found: list[Finding]) -> dict[str, list[Finding]]:
    held: dict[str, list[Finding]] = {}
    for finding in found:
        held.setdefault(finding.check, []).append(finding)
    return held


def test_no_copies_is_good_news() -> None:
    (only,) = copies(manifest(), [])
    assert only.severity == "ok"


def test_a_copy_across_splits_is_a_leak_of_the_later_split() -> None:
    found = by_check(copies(manifest(), [Pair(0, 4, "copy", np.eye(2, 3), True, 0.9)]))
    (leak,) = found["copies across splits"]
    assert leak.severity == "leak"
    assert leak.title.startswith("1 of 2 test images (50.0 %) has a verified copy in train or val")
    assert [item["row"] for item in leak.details] == [4]
    assert "mirrored, agreement 0.90" in leak.items[0]
    assert "copies within splits" not in found


def test_copies_in_val_are_told_of_val() -> None:
    (leak,) = by_check(copies(manifest(), [Pair(1, 3, "same bytes")]))["copies across splits"]
    assert leak.title.startswith("1 of 1 val images")
    assert "the choice of the checkpoint" in leak.text


def test_a_copy_of_a_copy_leaks_although_the_pair_was_not_listed() -> None:
    pairs = [Pair(0, 1, "copy", np.eye(2, 3)), Pair(1, 4, "copy", np.eye(2, 3))]
    found = by_check(copies(manifest(), pairs))
    (leak,) = found["copies across splits"]
    (within,) = found["copies within splits"]
    assert [item["row"] for item in leak.details] == [4]
    assert within.severity == "hint"
    assert [[image["row"] for image in one["images"]] for one in within.details] == [[0, 1]]
    assert within.title.startswith("1 of 3 train images (33.3 %) repeats")


def test_copies_within_the_test_narrow_its_intervals() -> None:
    found = by_check(copies(manifest(), [Pair(4, 5, "same pixels")]))
    (within,) = found["copies within splits"]
    assert within.severity == "warning"
    (mixed,) = found["two labels"]
    assert mixed.severity == "warning"
    assert mixed.title == "1 picture has copies with different labels."
    assert {item["label"] for item in mixed.details[0]["images"]} == {"normal", "fractured"}


def test_twins_under_two_patients_put_the_ids_in_doubt() -> None:
    pairs = [Pair(0, 2, "same pixels"), Pair(0, 1, "same pixels")]
    (found,) = by_check(copies(manifest(), pairs))["two patients"]
    assert found.severity == "warning"
    assert found.title.startswith("1 picture has copies under different patients (2 in all)")
    assert found.details[0]["patients"] == ["p1", "p1", "p2"]
    assert "p1" not in " ".join(found.items), "nobody is named on the page"
    assert "two patients" not in by_check(copies(manifest(), pairs[1:]))
    nobody = manifest([(split, label, np.nan, np.nan) for split, label, *_ in ROWS])
    assert "two patients" not in by_check(copies(nobody, pairs))


@pytest.mark.parametrize("column", ["patient", "study"])
def test_a_group_in_two_splits_is_a_leak(column: str) -> None:
    whole = manifest()
    table = whole.table.copy()
    if column == "study":
        table["patient"] = np.nan
    table.loc[4, column] = table.loc[0, column]
    found = groups(Manifest(**{**vars(whole), "table": table}))
    assert found.severity == "leak"
    assert found.title == f"1 {column} has images in more than one split."
    assert str(table.loc[0, column]) not in " ".join(found.items), "nobody is named on the page"
    assert found.details[0]["group"] == table.loc[0, column]


def test_groups_kept_apart_and_unknown_ones() -> None:
    assert groups(manifest()).severity == "ok"
    assert groups(manifest()).title.startswith("5 patients and 6 studies")
    nobody = manifest([(split, label, np.nan, np.nan) for split, label, *_ in ROWS])
    assert groups(nobody).severity == "hint"


def test_pairs_worth_a_look_come_first_and_no_cluster_takes_all_the_room() -> None:
    pairs = [
        Pair(0, 1, "copy", np.eye(2, 3)),
        Pair(0, 2, "same pixels"),
        Pair(0, 4, "copy", np.eye(2, 3)),
        Pair(1, 4, "copy", np.eye(2, 3)),
        Pair(3, 5, "copy", np.eye(2, 3)),
    ]
    shown = [(pair.a, pair.b) for pair in first_to_show(manifest().table, pairs)]
    assert shown[0] == (3, 5), "across splits, and of two labels"
    assert shown[1:3] == [(0, 4), (1, 4)]
    apart = [*pairs[2:4], Pair(3, 4, "copy", np.eye(2, 3))]
    first = first_to_show(manifest().table, apart)[0]
    assert (first.a, first.b) == (0, 4)


def test_json_names_files_and_the_transform() -> None:
    (row,) = as_json(manifest().table, [Pair(0, 4, "copy", np.eye(2, 3), False, 0.91)])
    assert row["a"] == "p1/image0.png"
    assert row["splits"] == ["train", "test"]
    assert row["transform"] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

"""Checks that need no pixels: files, names, classes, left-out images."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import tiny_manifest

from fracnet.data.manifest import Manifest, without_rows
from fracnet.data_audit import checks
from fracnet.data_audit.findings import (
    HEADLINES,
    MAX_LISTED,
    Finding,
    by_severity,
    headline_and_worst,
    image_name,
    verdict,
    worst,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path)


def renamed(manifest: Manifest, paths: list[str]) -> Manifest:
    table = manifest.table.iloc[: len(paths)].assign(path=paths).reset_index(drop=True)
    return replace(manifest, table=table)


def test_the_policy_decides_the_severity_of_unreadable_files(manifest: Manifest) -> None:
    bad = {2: "the file is truncated", 0: "no permission to read it"}
    error = checks.check_readable(manifest, bad, "error")
    assert error.severity == "error"
    assert error.title == "2 of 36 files cannot be read."
    assert [item["reason"] for item in error.details] == [bad[0], bad[2]]
    assert "data.on_bad_file=skip" in error.advice
    assert checks.check_readable(manifest, bad, "skip").severity == "warning"
    assert checks.check_readable(manifest, {}, "error").severity == "ok"


def test_a_dataset_that_training_rejects_is_an_error_with_the_reason(manifest: Manifest) -> None:
    assert checks.check_trainable(manifest) == []
    table = manifest.table[manifest.table["split"] != "val"].reset_index(drop=True)
    (finding,) = checks.check_trainable(replace(manifest, table=table))
    assert finding.severity == "error"
    assert "no labeled image in the split val" in finding.text


def test_names_shared_across_splits_are_a_hint_and_compared_with_the_copies(
    manifest: Manifest,
) -> None:
    first_val = manifest.table["split"].tolist().index("val")
    paths = [f"a/{i}.jpg" for i in range(len(manifest.table))]
    paths[0], paths[first_val] = "a/knee.rf.1.jpg", "b/knee.rf.2.jpg"
    paths[1], paths[first_val + 1] = "a/hip.jpg", "b/hip.png"
    finding = checks.check_stems(renamed(manifest, paths), {(0, first_val)})
    assert finding.severity == "hint"
    assert finding.title == "2 file names are shared across splits."
    assert "Of the 2 pairs" in finding.text
    assert "1 is verified" in finding.text
    assert checks.check_stems(renamed(manifest, paths[:2]), set()).severity == "ok"


def test_names_that_number_the_images_of_a_folder_are_ignored(manifest: Manifest) -> None:
    paths = [f"study{i // 2}/image{i % 2}.png" for i in range(len(manifest.table))]
    finding = checks.check_stems(renamed(manifest, paths), set())
    assert finding.severity == "ok"
    assert "only number" in finding.title


def test_uneven_and_rare_classes(manifest: Manifest) -> None:
    train = (manifest.table["split"] == "train").to_numpy()
    label = manifest.table["label"].where(~train, ["wrist"] + ["elbow"] * 31 + ["forearm"] * 4)
    label[train.nonzero()[0][:3]] = ["wrist", "forearm", "forearm"]
    findings = checks.check_balance(replace(manifest, table=manifest.table.assign(label=label)))
    assert findings[0].severity == "hint"
    assert findings[0].title == "elbow has 18.0 times as many train images as wrist."
    assert "0.857" in findings[0].text
    assert checks.check_balance(manifest)[0].severity == "ok"
    reduced = manifest.table[(manifest.table["label"] != "wrist") | train].reset_index(drop=True)
    few = checks.check_balance(replace(manifest, table=reduced))[-1]
    assert few.severity == "warning"
    assert "wrist: 0 test images" in few.items


def test_left_out_images_are_counted_by_reason(manifest: Manifest) -> None:
    finding = checks.check_excluded(manifest)
    assert finding.title == "2 images are left out before training."
    assert finding.items == ["train: 2 (no label)"]
    none = replace(manifest, excluded=pd.DataFrame(columns=["split", "reason", "n"]))
    assert checks.check_excluded(none).severity == "ok"


def test_the_page_shows_file_names_only_where_patients_are_unknown(
    manifest: Manifest,
) -> None:
    assert image_name(manifest.table, 0) == "train #0 (elbow, 0.png)"
    with_patient = manifest.table.assign(patient="Jane")
    assert image_name(with_patient, 0) == "train #0 (elbow)"


def test_the_verdict_lists_the_worst_first() -> None:
    ok, hint = Finding("a", "ok", "A."), Finding("b", "hint", "B.")
    leak, error = Finding("c", "leak", "C."), Finding("d", "error", "D.")
    assert worst([]) == "ok"
    assert verdict([ok]) == [HEADLINES["ok"]]
    assert verdict([ok, hint]) == [HEADLINES["hint"], "B."]
    assert verdict([hint, leak, ok, error]) == [HEADLINES["error"], "D.", "C."]
    assert headline_and_worst([hint, leak]) == f"{HEADLINES['leak']} C."
    assert [finding.check for finding in by_severity([ok, hint, leak, error])] == [
        "d",
        "c",
        "b",
        "a",
    ]
    assert verdict([leak] * 6)[-1] == "And 2 more."


def test_long_lists_say_how_many_more_items_there_are() -> None:
    finding = Finding("a", "hint", "A.", items=[str(i) for i in range(100)])
    assert finding.listed[-1] == f"and {100 - MAX_LISTED} more in audit.json"
    assert Finding("a", "hint", "A.", items=["x"]).listed == ["x"]


def test_among_equal_severities_the_most_consequential_comes_first() -> None:
    within = Finding("copies within splits", "warning", "Within.")
    shortcut, balance = (
        Finding("shortcuts", "warning", "Shortcut."),
        Finding("balance", "hint", "B"),
    )
    assert verdict([within, balance, shortcut])[1:] == ["Shortcut.", "Within."]
    assert headline_and_worst([within, shortcut]) == f"{HEADLINES['warning']} Shortcut."
    people, pictures = (
        Finding("groups", "leak", "P."),
        Finding("copies across splits", "leak", "C."),
    )
    assert verdict([people, pictures])[1:] == ["C.", "P."]


def test_an_error_does_not_hide_a_leak_from_the_line() -> None:
    error, leak = Finding("files", "error", "F."), Finding("groups", "leak", "L.")
    assert headline_and_worst([leak, error]).endswith(" F. L.")


@pytest.mark.parametrize(("policy", "phrase"), [("error", "stops"), ("skip", "left out")])
def test_unreadable_files_alone_have_their_own_headline(
    manifest: Manifest, policy: str, phrase: str
) -> None:
    unreadable = checks.check_readable(manifest, {2: "truncated"}, policy)
    headline = verdict([unreadable, Finding("balance", "hint", "B.")])[0]
    assert "unreadable" in headline
    assert phrase in headline
    other = Finding("two labels", unreadable.severity, "T.")
    assert verdict([unreadable, other])[0] == HEADLINES[unreadable.severity]


def test_several_classes_have_too_few_images(manifest: Manifest) -> None:
    few = checks.check_balance(manifest)[-1]
    assert few.title == "3 classes have fewer than 10 test images each."


def test_copies_of_a_broken_file_are_detected_by_their_bytes(manifest: Manifest) -> None:
    paths = [manifest.root / path for path in manifest.table["path"]]
    last = len(paths) - 1  # of test
    for row in (0, last):
        paths[row].write_bytes(b"broken")
    for row in (3, 4):
        paths[row].write_bytes(b"")
    bad = dict.fromkeys((0, 3, 4, last), "it is broken")
    (finding,) = checks.check_unreadable_copies(manifest, bad)
    assert finding.severity == "warning"
    assert finding.title == "2 unreadable files are byte-for-byte copies of one another."
    assert "1 of them across splits" in finding.text
    assert [image["row"] for image in finding.details[0]["images"]] == [0, last]
    assert checks.check_unreadable_copies(manifest, {0: "broken", 3: "empty", 4: "empty"}) == []


def test_a_file_that_stops_training_is_not_counted_as_left_out(manifest: Manifest) -> None:
    none = replace(manifest, excluded=pd.DataFrame(columns=["split", "reason", "n"]))
    assert "none is left out" in checks.check_excluded(none).title
    assert "left out" not in checks.check_excluded(none, 1).title
    skipped = checks.check_excluded(without_rows(none, [0], "unreadable file"))
    assert skipped.title == "1 image is left out before training."
    assert skipped.items == ["train: 1 (unreadable file)"]
    assert skipped.text == ""

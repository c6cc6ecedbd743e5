"""Checks that need no pixels: files, names, classes, what is left out."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import tiny_manifest

from fracnet.data.manifest import Manifest, without_rows
from fracnet.data_audit import checks
from fracnet.data_audit.findings import (
    HEADLINES,
    LISTED,
    Finding,
    by_severity,
    called,
    line,
    verdict,
    worst,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path)


def renamed(manifest: Manifest, paths: list[str]) -> Manifest:
    kept = manifest.table.iloc[: len(paths)].assign(path=paths).reset_index(drop=True)
    return replace(manifest, table=kept)


def test_unreadable_files_are_as_grave_as_the_policy_makes_them(manifest: Manifest) -> None:
    bad = {2: "the file is truncated", 0: "no permission to read it"}
    error = checks.unreadable(manifest, bad, "error")
    assert error.severity == "error"
    assert error.title == "2 files of 36 cannot be read."
    assert [item["reason"] for item in error.details] == [bad[0], bad[2]]
    assert "data.on_bad_file=skip" in error.advice
    assert checks.unreadable(manifest, bad, "skip").severity == "warning"
    assert checks.unreadable(manifest, {}, "error").severity == "ok"


def test_a_set_that_training_would_refuse_is_an_error_with_its_reason(manifest: Manifest) -> None:
    assert checks.structure(manifest) == []
    table = manifest.table[manifest.table["split"] != "val"].reset_index(drop=True)
    (found,) = checks.structure(replace(manifest, table=table))
    assert found.severity == "error"
    assert "no labeled image in the split val" in found.text


def test_names_shared_across_splits_are_a_hint_and_set_beside_the_copies(
    manifest: Manifest,
) -> None:
    one = manifest.table["split"].tolist().index("val")
    paths = [f"a/{i}.jpg" for i in range(len(manifest.table))]
    paths[0], paths[one] = "a/knee.rf.1.jpg", "b/knee.rf.2.jpg"
    paths[1], paths[one + 1] = "a/hip.jpg", "b/hip.png"
    found = checks.stems(renamed(manifest, paths), {(0, one)})
    assert found.severity == "hint"
    assert found.title == "2 file names are shared across splits."
    assert "Of the 2 pairs" in found.text
    assert "1 is verified" in found.text
    assert checks.stems(renamed(manifest, paths[:2]), set()).severity == "ok"


def test_names_that_number_the_images_of_a_folder_say_nothing(manifest: Manifest) -> None:
    paths = [f"study{i // 2}/image{i % 2}.png" for i in range(len(manifest.table))]
    found = checks.stems(renamed(manifest, paths), set())
    assert found.severity == "ok"
    assert "only number" in found.title


def test_uneven_and_rare_classes(manifest: Manifest) -> None:
    train = (manifest.table["split"] == "train").to_numpy()
    label = manifest.table["label"].where(~train, ["wrist"] + ["elbow"] * 31 + ["forearm"] * 4)
    label[train.nonzero()[0][:3]] = ["wrist", "forearm", "forearm"]
    found = checks.balance(replace(manifest, table=manifest.table.assign(label=label)))
    assert found[0].severity == "hint"
    assert found[0].title == "elbow has 18.0 times as many train images as wrist."
    assert "0.857" in found[0].text
    assert checks.balance(manifest)[0].severity == "ok"
    gone = manifest.table[(manifest.table["label"] != "wrist") | train].reset_index(drop=True)
    few = checks.balance(replace(manifest, table=gone))[-1]
    assert few.severity == "warning"
    assert "wrist: 0 test images" in few.items


def test_what_is_left_out_is_counted_by_reason(manifest: Manifest) -> None:
    found = checks.left_out(manifest)
    assert found.title == "2 images are left out before training."
    assert found.items == ["train: 2 (no label)"]
    none = replace(manifest, excluded=pd.DataFrame(columns=["split", "reason", "n"]))
    assert checks.left_out(none).severity == "ok"


def test_the_page_calls_an_image_by_its_file_only_where_patients_are_unknown(
    manifest: Manifest,
) -> None:
    assert called(manifest.table, 0) == "train #0 (elbow, 0.png)"
    known = manifest.table.assign(patient="Jane")
    assert called(known, 0) == "train #0 (elbow)"


def test_verdict_says_the_worst_first() -> None:
    ok, hint = Finding("a", "ok", "A."), Finding("b", "hint", "B.")
    leak, error = Finding("c", "leak", "C."), Finding("d", "error", "D.")
    assert worst([]) == "ok"
    assert verdict([ok]) == [HEADLINES["ok"]]
    assert verdict([ok, hint]) == [HEADLINES["hint"], "B."]
    assert verdict([hint, leak, ok, error]) == [HEADLINES["error"], "D.", "C."]
    assert line([hint, leak]) == f"{HEADLINES['leak']} C."
    assert [f.check for f in by_severity([ok, hint, leak, error])] == ["d", "c", "b", "a"]
    assert verdict([leak] * 6)[-1] == "Further: 2 more."


def test_long_lists_say_how_many_more_there_are() -> None:
    found = Finding("a", "hint", "A.", items=[str(i) for i in range(LISTED)], n=100)
    assert found.listed[-1] == f"and {100 - LISTED} more, in audit.json"
    assert Finding("a", "hint", "A.", items=["x"]).listed == ["x"]


def test_of_one_severity_the_most_consequential_comes_first() -> None:
    within = Finding("copies within splits", "warning", "Within.")
    shortcut, labels_ = (
        Finding("shortcuts", "warning", "Shortcut."),
        Finding("balance", "hint", "B"),
    )
    assert verdict([within, labels_, shortcut])[1:] == ["Shortcut.", "Within."]
    assert line([within, shortcut]) == f"{HEADLINES['warning']} Shortcut."
    people, pictures = (
        Finding("groups", "leak", "P."),
        Finding("copies across splits", "leak", "C."),
    )
    assert verdict([people, pictures])[1:] == ["C.", "P."]


def test_an_error_does_not_hide_a_leak_from_the_line() -> None:
    error, leak = Finding("files", "error", "F."), Finding("groups", "leak", "L.")
    assert line([leak, error]).endswith(" F. L.")


@pytest.mark.parametrize(("policy", "word"), [("error", "stops"), ("skip", "left out")])
def test_unreadable_files_alone_have_a_headline_of_their_own(
    manifest: Manifest, policy: str, word: str
) -> None:
    alone = checks.unreadable(manifest, {2: "truncated"}, policy)
    headline = verdict([alone, Finding("balance", "hint", "B.")])[0]
    assert "cannot be read" in headline
    assert word in headline
    other = Finding("two labels", alone.severity, "T.")
    assert verdict([alone, other])[0] == HEADLINES[alone.severity]


def test_each_of_several_classes_has_too_few(manifest: Manifest) -> None:
    few = checks.balance(manifest)[-1]
    assert few.title == "3 classes have fewer than 10 test images each."


def test_copies_of_a_broken_file_are_told_by_their_bytes(manifest: Manifest) -> None:
    paths = [manifest.root / path for path in manifest.table["path"]]
    last = len(paths) - 1  # of test
    for row in (0, last):
        paths[row].write_bytes(b"broken")
    for row in (3, 4):
        paths[row].write_bytes(b"")
    bad = dict.fromkeys((0, 3, 4, last), "it is broken")
    (found,) = checks.unreadable_copies(manifest, bad)
    assert found.severity == "warning"
    assert found.title.startswith("2 of the files that cannot be read are copies")
    assert "1 of them across splits" in found.text
    assert [image["row"] for image in found.details[0]["images"]] == [0, last]
    assert checks.unreadable_copies(manifest, {0: "broken", 3: "empty", 4: "empty"}) == []


def test_where_training_stops_at_a_file_it_is_not_left_out(manifest: Manifest) -> None:
    none = replace(manifest, excluded=pd.DataFrame(columns=["split", "reason", "n"]))
    assert "none is left out" in checks.left_out(none).title
    assert "left out" not in checks.left_out(none, 1).title
    skipped = checks.left_out(without_rows(none, [0], "unreadable file"))
    assert skipped.title == "1 image is left out before training."
    assert skipped.items == ["train: 1 (unreadable file)"]
    assert skipped.text == ""

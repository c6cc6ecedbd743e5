"""Labels of another dataset become the model's classes only by an explicit map."""

from pathlib import Path

import pandas as pd
import pytest

from fracnet.data.class_map import align_labels
from fracnet.data.manifest import Manifest, with_manifest_types
from fracnet.utils.errors import UserError

CLASSES = ("normal", "abnormal")


def manifest(*labels: str) -> Manifest:
    names = tuple(dict.fromkeys(labels))
    rows = [
        {"path": f"{i}.png", "split": "test" if i % 2 else "train", "label": label}
        for i, label in enumerate(labels)
    ]
    return Manifest(
        table=with_manifest_types(pd.DataFrame(rows)),
        root=Path("/nowhere"),
        classes=names,
        task="multiclass",
        name="other",
        license="",
        citation="",
        groups="unknown",
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )


def test_labels_are_renamed_and_classes_ordered_as_in_the_model() -> None:
    original = manifest("broken", "whole", "broken")
    aligned = align_labels(original, CLASSES, {"broken": "abnormal", "whole": "normal"})
    assert list(aligned.table["label"]) == ["abnormal", "normal", "abnormal"]
    assert list(aligned.targets()) == [1, 0, 1]
    assert aligned.task == "binary"
    assert list(original.table["label"]) == ["broken", "whole", "broken"]


def test_classes_can_be_merged_or_left_out_and_counted() -> None:
    original = manifest("a", "b", "c", "c", "a")
    aligned = align_labels(original, CLASSES, {"a": "normal", "b": "abnormal", "c": None})
    assert list(aligned.table["path"]) == ["0.png", "1.png", "4.png"]
    excluded = {tuple(row) for row in aligned.excluded.to_numpy()}
    assert excluded == {("train", "class c left out", 1), ("test", "class c left out", 1)}


def test_the_same_names_in_any_order_need_no_map() -> None:
    aligned = align_labels(manifest("abnormal", "normal"), CLASSES, None)
    assert aligned.classes == CLASSES
    assert list(aligned.targets()) == [1, 0]


@pytest.mark.parametrize(
    ("class_map", "parts"),
    [
        (None, ["broken, whole", "normal, abnormal", "class_map={broken: ..., whole: ...}"]),
        ({"broken": "abnormal"}, ["class whole"]),
        ({"broken": "abnormal", "whole": "norml"}, ["whole=norml", "normal, abnormal or null"]),
        ({"broken": "abnormal", "whole": "normal", "rest": None}, ["no class 'rest'"]),
        ({"broken": None, "whole": None}, ["leaves out all"]),
    ],
)
def test_an_incomplete_or_wrong_map_is_rejected(class_map, parts) -> None:
    with pytest.raises(UserError) as caught:
        align_labels(manifest("broken", "whole"), CLASSES, class_map)
    for part in parts:
        assert part in str(caught.value)

"""Another data set's labels become the model's classes by an explicit map alone."""

from pathlib import Path

import pandas as pd
import pytest

from fracnet.data.class_map import align
from fracnet.data.manifest import Manifest, typed
from fracnet.utils.errors import UserError

CLASSES = ("normal", "abnormal")


def manifest(*labels: str) -> Manifest:
    names = tuple(dict.fromkeys(labels))
    rows = [
        {"path": f"{i}.png", "split": "test" if i % 2 else "train", "label": label}
        for i, label in enumerate(labels)
    ]
    return Manifest(
        table=typed(pd.DataFrame(rows)),
        root=Path("/nowhere"),
        classes=names,
        task="multiclass",
        name="other",
        license="",
        citation="",
        groups="unknown",
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )


def test_labels_are_renamed_and_classes_ordered_as_the_model_has_them() -> None:
    given = manifest("broken", "whole", "broken")
    found = align(given, CLASSES, {"broken": "abnormal", "whole": "normal"})
    assert list(found.table["label"]) == ["abnormal", "normal", "abnormal"]
    assert list(found.targets()) == [1, 0, 1]
    assert found.task == "binary"
    assert list(given.table["label"]) == ["broken", "whole", "broken"]


def test_several_classes_may_become_one_and_others_be_left_out_and_counted() -> None:
    given = manifest("a", "b", "c", "c", "a")
    found = align(given, CLASSES, {"a": "normal", "b": "abnormal", "c": None})
    assert list(found.table["path"]) == ["0.png", "1.png", "4.png"]
    told = found.excluded.to_dict("records")
    assert told == [
        {"split": "train", "reason": "class c left out", "n": 1},
        {"split": "test", "reason": "class c left out", "n": 1},
    ]


def test_the_same_names_need_no_map_whatever_their_order() -> None:
    found = align(manifest("abnormal", "normal"), CLASSES, None)
    assert found.classes == CLASSES
    assert list(found.targets()) == [1, 0]


@pytest.mark.parametrize(
    ("class_map", "words"),
    [
        (None, ["broken, whole", "normal, abnormal", "class_map={"]),
        ({"broken": "abnormal"}, ["class whole"]),
        ({"broken": "abnormal", "whole": "norml"}, ["whole=norml", "normal, abnormal or null"]),
        ({"broken": "abnormal", "whole": "normal", "rest": None}, ["no class 'rest'"]),
        ({"broken": None, "whole": None}, ["leaves out all"]),
    ],
)
def test_what_cannot_be_aligned_is_refused(class_map, words) -> None:
    with pytest.raises(UserError) as caught:
        align(manifest("broken", "whole"), CLASSES, class_map)
    for word in words:
        assert word in str(caught.value)

"""Outlines and masks of annotations in the preprocessed image."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fracnet.data.annotations import (
    AnnotationMaps,
    annotation_outlines,
    negative_classes,
    outline_mask,
)
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess

SIZE = 32
BOX = [{"label": "fracture", "points": [[0.25, 0.5], [0.75, 0.75]]}]


def preprocess(mode: str) -> Preprocess:
    return Preprocess([{"name": "resize", "mode": mode}], SIZE)


def row(width: int | None, height: int | None, **shapes: object) -> pd.Series:
    base_row = {"label": "fracture", "polygons": None, "boxes": None}
    size = {
        "width": pd.NA if width is None else width,
        "height": pd.NA if height is None else height,
    }
    return pd.Series(base_row | size | shapes, dtype=object)


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 100), (32, 32), (16, 20)])
def test_an_annotation_covers_its_object(mode: str, width: int, height: int) -> None:
    image = np.zeros((height, width), np.uint8)
    x0, x1, y0, y1 = width // 4, width // 2, height // 4, 3 * height // 4
    image[y0:y1, x0:x1] = 255
    polygon = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    shares = [[x / width, y / height] for x, y in polygon]
    annotated = row(width, height, polygons=[{"label": "fracture", "points": shares}])
    mask = outline_mask(annotation_outlines(annotated, preprocess(mode)), SIZE)
    displayed = preprocess(mode)(image) > 127
    assert displayed.any()
    edge = np.ones((3, 3), np.uint8)
    assert not (displayed & ~(cv2.dilate(mask.astype(np.uint8), edge) > 0)).any()
    assert not (mask & ~(cv2.dilate(displayed.astype(np.uint8), edge) > 0)).any()
    distance = np.argwhere(mask).mean(axis=0) - np.argwhere(displayed).mean(axis=0)
    assert np.abs(distance).max() <= 0.6  # resizing may round half a pixel away


def test_a_box_on_pixel_borders_is_exact() -> None:
    squashed = outline_mask(
        annotation_outlines(row(100, 50, boxes=BOX), preprocess("squash")), SIZE
    )
    expected = np.zeros((SIZE, SIZE), bool)
    expected[16:24, 8:24] = True
    assert np.array_equal(squashed, expected)
    # 100 x 50 becomes 32 x 16, with 8 black rows above.
    padded = outline_mask(annotation_outlines(row(100, 50, boxes=BOX), preprocess("pad")), SIZE)
    expected[:] = False
    expected[16:20, 8:24] = True
    assert np.array_equal(padded, expected)


def test_annotations_with_another_label_are_ignored() -> None:
    metal = {"label": "metal", "points": [[0.0, 0.0], [0.1, 0.1]]}
    assert len(annotation_outlines(row(64, 64, boxes=[*BOX, metal]), preprocess("squash"))) == 1
    assert annotation_outlines(row(64, 64, boxes=[metal]), preprocess("squash")) == []
    assert annotation_outlines(row(64, 64), preprocess("squash")) == []


def test_an_unknown_size_matters_only_for_padding() -> None:
    unknown = row(None, None, boxes=BOX)
    assert len(annotation_outlines(unknown, preprocess("squash"))) == 1
    assert annotation_outlines(unknown, preprocess("pad")) == []


def test_several_outlines_give_one_mask_and_concave_ones_keep_their_notch() -> None:
    u = np.array([[0, 0], [9, 0], [9, 9], [6, 9], [6, 3], [3, 3], [3, 9], [0, 9]], float)
    mask = outline_mask([u, np.array([[20, 20], [24, 20], [24, 24], [20, 24]], float)], SIZE)
    assert mask.sum() == 9 * 9 - 3 * 6 + 16
    assert not mask[5, 4]
    assert mask[5, 1]


def test_an_outline_between_pixel_centers_is_one_pixel() -> None:
    tiny = np.array([[5.6, 7.6], [5.9, 7.6], [5.9, 7.9]])
    mask = outline_mask([tiny], SIZE)
    assert np.argwhere(mask).tolist() == [[7, 5]]
    corner = np.full((3, 2), float(SIZE))
    assert np.argwhere(outline_mask([corner], SIZE)).tolist() == [[SIZE - 1, SIZE - 1]]


def manifest(classes: tuple[str, ...], rows: list[tuple[str, bool]]) -> Manifest:
    """Images of these labels, annotated by a box or not."""
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(rows))],
            "split": "train",
            "label": [label for label, _ in rows],
            "boxes": [[BOX[0] | {"label": label}] if boxed else None for label, boxed in rows],
            "width": 64,
            "height": 64,
        }
    )
    facts = dict.fromkeys(("name", "license", "citation", "groups"), "tiny")
    table["polygons"] = None
    return Manifest(
        table=table,
        root=Path(),
        classes=classes,
        task="binary" if len(classes) == 2 else "multiclass",
        excluded=pd.DataFrame(),
        **facts,
    )


@pytest.mark.parametrize(
    ("classes", "rows", "known"),
    [
        # Two classes: an image of the first shows nothing, unless that class is annotated.
        (("a", "b"), [("a", False), ("b", False), ("b", True)], [True, False, True]),
        (("a", "b"), [("a", False), ("a", True), ("b", True)], [False, True, True]),
        # Nothing is annotated at all: nobody has looked.
        (("normal", "b"), [("normal", False), ("b", False)], [False, False]),
        # More classes: by the name alone.
        (("a", "b", "c"), [("a", False), ("b", True)], [False, True]),
        (("a", "normal", "c"), [("normal", False), ("c", True)], [True, True]),
    ],
)
def test_an_image_without_annotation_is_negative_only_where_its_label_says_so(
    classes: tuple[str, ...], rows: list[tuple[str, bool]], known: list[bool]
) -> None:
    maps = AnnotationMaps(manifest(classes, rows), np.arange(len(rows)), preprocess("squash"))
    shrunk = [maps.shrink(maps.mask(row)) for row in range(len(rows))]
    assert [bool(each.any()) for each in shrunk] == [boxed for _, boxed in rows]
    assert [maps.is_known(row, each) for row, each in enumerate(shrunk)] == known
    assert negative_classes(manifest(("no_fracture", "b"), [])) == ("no_fracture",)


def test_a_map_keeps_an_annotation_smaller_than_its_cells() -> None:
    tiny = [{"label": "fracture", "points": [[0.5, 0.5], [0.501, 0.501]]}]
    table = manifest(("normal", "fracture"), [("fracture", True)])
    table.table.at[0, "boxes"] = tiny
    maps = AnnotationMaps(table, np.array([0]), Preprocess([{"name": "resize"}], 224))
    shrunk = maps.shrink(maps.mask(0))
    assert shrunk.shape == (56, 56)
    assert shrunk[28, 28] > 0
    assert np.count_nonzero(shrunk) <= 4

"""A manifest rejects faulty data and is restored exactly from a CSV file."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fracnet.data.manifest import COLUMNS, Manifest, read_table, with_manifest_types, write_table
from fracnet.utils.errors import UserError


def rows() -> list[dict[str, object]]:
    return [
        {"path": f"{split}/{label}.png", "split": split, "label": label}
        for split in ("train", "val", "test")
        for label in ("no", "yes")
    ]


def manifest(content: list[dict[str, object]]) -> Manifest:
    return Manifest(
        table=with_manifest_types(pd.DataFrame(content)),
        root=Path("/somewhere"),
        classes=("no", "yes"),
        task="binary",
        name="toy",
        license="none",
        citation="none",
        groups="unknown",
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )


def test_a_valid_manifest_passes_and_gives_class_indices():
    valid = manifest(rows())
    valid.check()
    assert valid.targets().tolist() == [0, 1] * 3
    assert valid.targets().dtype == np.int64
    assert tuple(valid.table.columns) == COLUMNS


def change(row: int, **values: object) -> list[dict[str, object]]:
    content = rows()
    content[row] |= values
    return content


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (change(0, split="valid"), ["train/no.png (valid)", "train, val, test"]),
        (change(1, label="maybe"), ["train/yes.png (maybe)", "no, yes"]),
        (change(1, label=np.nan), ["train/yes.png", "no, yes"]),
        (change(1, path="train/no.png"), ["train/no.png", "twice"]),
        (rows()[:4], ["split test", "train 2, val 2, test 0"]),
        (rows()[2:4], ["split train and test"]),
        (rows()[1:], ["no train image", "class no;"]),
        ([row | {"patient": "007"} for row in rows()], ["patient 007 (train, val, test)"]),
        ([row | {"study": "s1"} for row in rows()], ["study s1 (train, val, test)"]),
    ],
)
def test_check_names_the_fault(content, parts):
    with pytest.raises(UserError) as caught:
        manifest(content).check()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named():
    valid = manifest(rows())
    incomplete = dataclasses.replace(valid, table=valid.table.drop(columns="study"))
    with pytest.raises(UserError, match="lacks the columns study"):
        incomplete.check()


def test_a_long_list_of_faults_is_shortened():
    content = [row | {"path": f"{n}", "split": "later"} for n, row in enumerate(rows() * 5)]
    with pytest.raises(UserError, match="and 20 more"):
        manifest(content).check()


def test_csv_round_trip_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    unusual = [
        "007",
        "NA",
        "nan",
        "None",
        "1e5",
        "a,b",
        'quote"d',
        "ünï",
        "two\nlines",
        np.nan,
        "-0",
    ]
    table = with_manifest_types(
        pd.DataFrame(
            {
                "path": [f"a b/{i}.png" for i in range(n)],
                "split": rng.choice(["train", "val", "test"], n),
                "label": rng.choice(["no", "yes"], n),
                "patient": [unusual[i] for i in rng.integers(0, len(unusual), n)],
                "study": np.nan,
                "polygons": [
                    None
                    if i % 3 == 0
                    else [{"label": "yes", "points": rng.random((3 + i % 4, 2)).tolist()}]
                    for i in range(n)
                ],
                "width": pd.array(
                    [
                        None if i % 7 == 0 else int(v)
                        for i, v in enumerate(rng.integers(1, 9000, n))
                    ],
                    dtype="Int64",
                ),
                "logit_no": rng.standard_normal(n) * 10.0 ** rng.integers(-30, 30, n),
                "prob_yes": np.where(rng.random(n) < 0.1, np.nan, rng.random(n)),
                "row": np.arange(n),
                "view": np.resize(["01", "2", "AP"], n),
                "hardware": rng.random(n) < 0.5,
            }
        )
    )
    write_table(table, tmp_path / "t.csv")
    restored = read_table(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(restored, table, check_exact=True)
    assert restored["polygons"][1] == table["polygons"][1]
    assert restored["boxes"].map(lambda boxes: boxes is None).all()
    assert restored["patient"].dropna().map(lambda value: isinstance(value, str)).all()
    write_table(restored, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()


def test_completely_missing_columns_stay_missing(tmp_path):
    table = with_manifest_types(pd.DataFrame(rows()))
    write_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)


@pytest.mark.parametrize("text", ["nan", "NaN", "1_0", "NA", "infinity", " 1"])
def test_text_that_is_no_plain_number_stays_text(tmp_path, text):
    table = with_manifest_types(
        pd.DataFrame({"path": ["a.png", "b.png"], "label": "x", "device": [text, text]})
    )
    write_table(table, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv")["device"].tolist() == [text, text]

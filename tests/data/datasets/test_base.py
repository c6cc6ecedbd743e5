"""A data set is one small class: what `Source` gives to anyone who writes another."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from helpers.upper_limb_files import jpeg

from fracnet.data.datasets.base import Source, header_sizes
from fracnet.data.manifest import Manifest, read_table, write_table
from fracnet.utils.errors import UserError


@dataclass(kw_only=True)
class Wards(Source):
    """Folders root/split/patient/study/label.jpg."""

    name: ClassVar[str] = "wards"
    classes: ClassVar[tuple[str, ...]] = ("normal", "abnormal")
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "own"
    citation: ClassVar[str] = "none"
    groups: ClassVar[str] = "folders"
    obtain: ClassVar[str] = "Ask the ward for it and put it into {root}."
    phantom: ClassVar[str] = "wards_phantom"

    def prepare(self) -> None:
        if not self.folder.is_dir():
            raise self.missing("nothing there")

    def manifest(self) -> Manifest:
        rows = [
            {
                "path": file.relative_to(self.folder).as_posix(),
                "split": file.parts[-4],
                "label": file.stem,
                "patient": file.parts[-3],
                "study": "/".join(file.parts[-3:-1]),
                "view": "lateral",
            }
            for file in sorted(self.folder.rglob("*.jpg"))
        ]
        return self.build(rows, self.folder, notes=["small"])


def fill(root: Path, patients: dict[str, str]) -> Path:
    for split, patient in patients.items():
        for label in ("normal", "abnormal"):
            path = root / split / patient / "study1" / f"{label}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(size=(9, 4)))
    return root


def test_rows_become_a_manifest_with_sizes_and_further_columns(tmp_path):
    root = fill(tmp_path / "w", {"train": "001", "val": "002", "test": "003"})
    manifest = Wards(root=str(root)).manifest()
    manifest.check()
    assert manifest.targets().tolist() == [1, 0] * 3
    assert set(zip(manifest.table["width"], manifest.table["height"], strict=True)) == {(9, 4)}
    assert set(manifest.table["view"]) == {"lateral"}
    assert manifest.table["region"].isna().all()
    assert manifest.excluded.empty
    write_table(manifest.table, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").equals(manifest.table)


def test_a_patient_in_two_splits_is_refused(tmp_path):
    root = fill(tmp_path / "w", {"train": "001", "val": "002", "test": "001"})
    with pytest.raises(UserError, match=r"patient 001 \(train, test\)"):
        Wards(root=str(root)).manifest().check()


def test_a_folder_without_rows_fails_the_check(tmp_path):
    with pytest.raises(UserError, match="split train and val and test"):
        Wards(root=str(tmp_path)).manifest().check()


def test_missing_data_is_told_in_three_lines(tmp_path):
    with pytest.raises(UserError) as caught:
        Wards(root=str(tmp_path / "w")).prepare()
    assert str(caught.value).splitlines() == [
        f"No wards data: nothing there. Ask the ward for it and put it into {tmp_path / 'w'}.",
        "Or point to a copy: data.root=/path/to/a/copy",
        "Or run on phantoms: data=wards_phantom model.pretrained=false",
    ]


def test_root_must_name_a_folder_and_may_begin_at_home(monkeypatch):
    with pytest.raises(UserError, match=r"data\.root=''"):
        Wards(root="")
    monkeypatch.setenv("HOME", "/somewhere")
    assert Wards(root="~/set").folder == Path("/somewhere/set")


def test_sizes_come_in_order_and_are_missing_where_unreadable(tmp_path):
    paths = []
    for i in range(1, 30):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(jpeg(size=(i, 3)) if i % 10 else b"nothing")
    sizes = header_sizes(paths)
    assert sizes == [(i, 3) if i % 10 else None for i in range(1, 30)]

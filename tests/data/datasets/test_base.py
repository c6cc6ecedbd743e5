"""What `Dataset` provides to anyone who adds a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from helpers.upper_limb_files import jpeg
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.data.datasets.base import Dataset, header_sizes
from fracnet.data.manifest import Manifest, read_table, write_table
from fracnet.runs.build import data_from
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir


@dataclass(kw_only=True)
class Wards(Dataset):
    """Folders root/split/patient/study/label.jpg."""

    name: ClassVar[str] = "wards"
    classes: ClassVar[tuple[str, ...]] = ("normal", "abnormal")
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "own"
    citation: ClassVar[str] = "none"
    groups: ClassVar[str] = "folders"
    how_to_get: ClassVar[str] = "Ask the ward for it and put it into {root}."
    phantom: ClassVar[str] = "wards_phantom"

    def prepare(self) -> None:
        if not self.folder.is_dir():
            raise self.missing_error("nothing there")

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


def test_a_patient_in_two_splits_is_rejected(tmp_path):
    root = fill(tmp_path / "w", {"train": "001", "val": "002", "test": "001"})
    with pytest.raises(UserError, match=r"patient 001 \(train, test\)"):
        Wards(root=str(root)).manifest().check()


def test_a_folder_without_rows_fails_the_check(tmp_path):
    with pytest.raises(UserError, match="split train and val and test"):
        Wards(root=str(tmp_path)).manifest().check()


def test_missing_data_is_reported_in_three_lines(tmp_path):
    with pytest.raises(UserError) as caught:
        Wards(root=str(tmp_path / "w")).prepare()
    assert str(caught.value).splitlines() == [
        f"No wards data: nothing there. Ask the ward for it and put it into {tmp_path / 'w'}.",
        "Or point to a copy: data.root=/path/to/a/copy",
        "Or run on phantoms: data=wards_phantom model.pretrained=false",
    ]


def test_root_must_name_a_folder_and_may_start_at_home(monkeypatch):
    with pytest.raises(UserError, match=r"data\.root=''"):
        Wards(root="")
    monkeypatch.setenv("HOME", "/somewhere")
    assert Wards(root="~/set").folder == Path("/somewhere/set")


def test_sizes_are_in_order_and_missing_if_unreadable(tmp_path):
    paths = []
    for i in range(1, 30):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(jpeg(size=(i, 3)) if i % 10 else b"nothing")
    sizes = header_sizes(paths)
    assert sizes == [(i, 3) if i % 10 else None for i in range(1, 30)]


NEW_FILE = """
from dataclasses import dataclass
from fracnet.data.datasets.base import UnsplitDataset, describe_folder, image_files, subfolders

@dataclass(kw_only=True)
class Clinic(UnsplitDataset):
    name = "clinic"
    classes = ("normal", "abnormal")
    task = "binary"
    license = "own"
    citation = "none"
    how_to_get = "Ask the clinic for it and put it into {root}."

    def prepare(self):
        if not self.folder.is_dir():
            raise self.missing_error(describe_folder(self.folder))

    def manifest(self):
        rows = [
            {"path": file.relative_to(self.folder).as_posix(), "label": folder.name}
            for folder in subfolders(self.folder)
            for file in image_files(folder)[0]
        ]
        return self.build(rows, self.folder)
"""


def test_a_new_dataset_is_one_file_and_one_yaml(tmp_path, monkeypatch):
    (tmp_path / "my_clinic.py").write_text(NEW_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "clinic.yaml").write_text(
        "_target_: my_clinic.Clinic\nroot: ${data_dir}/clinic\n"
    )
    for label in ("normal", "abnormal"):
        (tmp_path / "clinic" / label).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "clinic" / label / f"{i}.jpg").write_bytes(jpeg(grey=10 * i))
    search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    with initialize_config_dir(str(config_dir())):
        node = compose("train", [search, "data=clinic", f"data_dir={tmp_path}"])
    config = check(OmegaConf.to_container(node, resolve=True))
    data = data_from(config)
    data.progress = False
    data.prepare_data()
    assert data.classes == ("normal", "abnormal")
    assert data.manifest.table["split"].value_counts().to_dict() == {
        "train": 14,
        "test": 4,
        "val": 2,
    }
    with pytest.raises(UserError, match="run on phantoms: data=mura_phantom"):
        build(config.data.plain() | {"root": str(tmp_path / "gone")}, "data").prepare()

"""A split is written once, beside the data or in the cache, and obeyed whatever comes."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.mura_files import add_study, write_mura

from fracnet.data import split_file
from fracnet.data.datasets.mura import Mura
from fracnet.utils.errors import UserError

NAME = "fracnet_split.csv"


@pytest.fixture
def base(tmp_path):
    return write_mura(tmp_path / "MURA-v1.1", lists=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read_only(base, monkeypatch):
    """The data's folder refuses files. Not by its mode: tests may run as root."""

    class Lock(split_file.FileLock):  # type: ignore[misc,valid-type]
        def _acquire(self) -> None:
            if Path(self.lock_file).parent == base:
                raise PermissionError(13, "Permission denied")
            super()._acquire()

    monkeypatch.setattr(split_file, "FileLock", Lock)


def splits(base, **options) -> dict[str, str]:
    table = Mura(root=str(base), **options).manifest().table
    return dict(zip(table["path"], table["split"], strict=True))


def error(base, **options) -> str:
    with pytest.raises(UserError) as caught:
        Mura(root=str(base), **options).manifest()
    return str(caught.value)


def test_the_file_names_patients_and_recipe_and_where_it_lies_is_told(base, caplog):
    caplog.set_level(logging.INFO)
    held = splits(base, val_share=0.2, split_seed=7)
    file = base / NAME
    assert str(file) in caplog.text
    lines = file.read_text().splitlines()
    assert lines[1:4] == ["# data.val_share=0.2", "# data.split_seed=7", "patient,split"]
    patients = {path.split("/")[2]: split for path, split in held.items() if split != "test"}
    assert dict(line.split(",") for line in lines[4:]) == patients
    assert sorted(entry.name for entry in base.iterdir()) == [NAME, "train", "valid"]


def test_the_file_is_obeyed_also_where_a_hand_changed_it(base):
    held = splits(base)
    first = min(path for path, split in held.items() if split == "train")
    patient = first.split("/")[2]
    file = base / NAME
    file.write_text(file.read_text().replace(f"{patient},train", f"{patient},val"))
    changed = splits(base)
    assert changed[first] == "val"
    assert {path for path in held if held[path] != changed[path]} == {
        path for path in held if f"/{patient}/" in path
    }


def test_it_is_written_once_only(base):
    splits(base)
    before = (base / NAME).stat()
    splits(base)
    after = (base / NAME).stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_another_copy_of_the_data_gets_the_same_split(base, tmp_path):
    held = splits(base)
    shutil.copytree(base, tmp_path / "copy", ignore=shutil.ignore_patterns(f"*{NAME}*"))
    assert splits(tmp_path / "copy") == held


@pytest.mark.usefixtures("read_only")
def test_read_only_data_have_it_in_the_cache(base, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    held = splits(base)
    assert not (base / NAME).exists()
    (file,) = (tmp_path / "cache" / "splits").glob(f"*/{NAME}")
    assert str(file) in caplog.text
    assert splits(base) == held
    assert "val_share=0.3" in error(base, val_share=0.3)


@pytest.mark.usefixtures("read_only")
def test_nowhere_to_write_is_told(base, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    told = error(base)
    assert f"{base} (Permission denied)" in told
    assert "FRACNET_CACHE" in told


def test_another_recipe_is_refused_naming_both(base):
    splits(base)
    told = error(base, val_share=0.3)
    assert str(base / NAME) in told
    assert "made with data.val_share=0.1, but the config says data.val_share=0.3" in told
    assert "delete the file" in told
    told = error(base, val_share=0.3, split_seed=5)
    assert "data.val_share=0.3 and data.split_seed=5" in told


def test_new_patients_are_refused_and_lost_ones_are_told(base, caplog):
    splits(base)
    added = add_study(base, "train", "WRIST", 900)
    told = error(base)
    assert f"{NAME} says nothing of 1 patient of" in told
    assert "patient00900" in told
    shutil.rmtree(added.parent)
    shutil.rmtree(base / "train" / "XR_FINGER" / "patient00002")
    splits(base)
    assert "names 1 patient that the data lack: patient00002" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("patient,split", "patient;split", "its line 4 is 'patient;split'"),
        ("patient00001,", "patient00002,", "patient00002,"),
        ("patient00001,train", "patient00001,test", "'patient00001,test'"),
        ("patient00001,", ",", "its line 5"),
        ("# data.split_seed=0\n", "", "it lacks the lines # data.val_share=..., # data.split_seed"),
        ("data.val_share=0.1", "data.val_share=much", "it lacks the lines"),
    ],
)
def test_a_damaged_file_is_refused(base, old, new, told):
    splits(base)
    file = base / NAME
    text = file.read_text().replace("patient00001,val", "patient00001,train")
    text = text.replace("patient00002,train", "patient00002,val")
    assert old in text
    file.write_text(text.replace(old, new))
    found = error(base)
    assert f"{file} is no split file" in found
    assert told in found


def test_an_empty_file_is_refused_and_crlf_is_not(base):
    held = splits(base)
    file = base / NAME
    file.write_bytes(file.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    assert splits(base) == held
    file.write_text("")
    assert "it names no group" in error(base)


def test_jobs_that_start_together_have_one_split(base):
    def job(seed: int) -> dict[str, str] | str:
        try:
            return splits(base, split_seed=seed % 2)
        except UserError as refused:
            return str(refused)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(job, range(8)))
    obeyed = [held for held in found if isinstance(held, dict)]
    refused = [told for told in found if isinstance(told, str)]
    assert len(obeyed) == len(refused) == 4
    assert all(held == obeyed[0] for held in obeyed)
    assert all("was made with data.split_seed=" in told for told in refused)

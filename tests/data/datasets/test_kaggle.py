"""The download: told before, whole or not at all, and quick to say that it cannot work."""

import io
import logging
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.upper_limb_files import write_class_folders, write_yolo

from fracnet.data.datasets import download
from fracnet.data.datasets.download import DownloadFailed
from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER as FOLDER
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.utils.errors import UserError


@pytest.fixture
def reachable(monkeypatch):
    """Kaggle answers the question whether it has the data set."""
    monkeypatch.setattr(download, "probe", lambda handle: None)


@pytest.fixture
def fetched(tmp_path, monkeypatch, reachable):
    """kagglehub delivers a small copy of the set; gives the list of its calls."""
    write_yolo(tmp_path / "hub" / "versions" / "4" / FOLDER)
    calls: list[str] = []

    def fetch(handle: str) -> Path:
        calls.append(handle)
        return tmp_path / "hub" / "versions" / "4"

    monkeypatch.setattr(download, "fetch", fetch)
    return calls


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def failure(root: Path, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        UpperLimb(root=str(root), **options).prepare()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "https://www.kaggle.com/datasets/pkdarabi/" in lines[0]
    assert f"{root}/{FOLDER}" in lines[0]
    assert "data.root=/path/to/a/copy" in lines[1]
    assert "data=upper_limb_phantom model.pretrained=false" in lines[2]
    return caught.value


def test_missing_data_is_downloaded_once_and_then_found(tmp_path, fetched, caplog):
    source = UpperLimb(root=str(tmp_path / "data" / "set"))
    with caplog.at_level(logging.WARNING):
        source.prepare()
        source.prepare()
    assert len(fetched) == 1
    assert caplog.text.count("MURA's research-use terms may apply") == 1
    assert len(source.manifest().table) == 21
    visible = [entry.name for entry in source.folder.iterdir() if entry.name[0] != "."]
    assert visible == [FOLDER]
    assert list(source.folder.glob(".*partial")) == []


def test_the_copy_outlives_the_cache_of_kagglehub(tmp_path, fetched):
    source = UpperLimb(root=str(tmp_path / "set"))
    source.prepare()
    shutil.rmtree(tmp_path / "hub")
    assert all(
        (source.folder / FOLDER / path).read_bytes() for path in source.manifest().table["path"]
    )


def test_a_file_system_without_links_gets_copies(tmp_path, fetched, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(download.os, "link", refuse)
    source = UpperLimb(root=str(tmp_path / "set"))
    source.prepare()
    assert len(source.manifest().table) == 21


def test_present_data_needs_nothing(tmp_path, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("asked for a download")

    monkeypatch.setattr(download, "download_kaggle", never)
    UpperLimb(root=str(write_yolo(tmp_path / "a" / FOLDER).parent)).prepare()
    folders = {"train": ["elbow"], "val": ["elbow"], "test": ["elbow"]}
    UpperLimb(root=str(write_class_folders(tmp_path / "b", folders))).prepare()


def test_a_folder_with_other_things_is_left_alone(tmp_path, fetched):
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "pictures").mkdir()
    told = str(failure(tmp_path))
    assert "holds hub/, pictures/, thesis.tex" in told
    assert fetched == []
    file = tmp_path / "thesis.tex"
    assert "is a file, not a folder" in str(failure(file))


def test_download_can_be_forbidden(tmp_path, fetched):
    assert "does not exist" in str(failure(tmp_path / "gone", download=False))
    assert fetched == []
    assert not (tmp_path / "gone").exists()


def test_reading_without_preparing_says_the_same(tmp_path):
    with pytest.raises(UserError, match="data=upper_limb_phantom"):
        UpperLimb(root=str(tmp_path / "gone")).manifest()


def test_a_full_disk_leaves_nothing_that_looks_complete(tmp_path, fetched, monkeypatch):
    real = download._link_or_copy
    done: list[Path] = []

    def fill(source: Path, target: Path) -> None:
        if len(done) == 10:
            raise OSError(28, "No space left on device")
        done.append(target)
        real(source, target)

    monkeypatch.setattr(download, "_link_or_copy", fill)
    error = failure(tmp_path / "set")
    assert "No space left on device" in str(error)
    monkeypatch.setattr(download, "_link_or_copy", real)
    source = UpperLimb(root=str(tmp_path / "set"))
    source.prepare()
    assert len(source.manifest().table) == 21


def test_what_a_killed_run_left_is_replaced(tmp_path, fetched):
    left = tmp_path / "set" / f".{FOLDER}.partial" / "train" / "images"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"\xff\xd8")
    source = UpperLimb(root=str(tmp_path / "set"))
    source.prepare()
    assert not source.manifest().table["path"].str.contains("half").any()


def test_several_jobs_download_once(tmp_path, fetched):
    errors: list[BaseException] = []

    def job() -> None:
        try:
            UpperLimb(root=str(tmp_path / "set")).prepare()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(fetched) == 1


def test_a_failing_kagglehub_is_told_with_its_cause(tmp_path, reachable, monkeypatch):
    cause = RuntimeError("404 Client Error.\n\nResource not found")

    def fail(handle: str) -> Path:
        raise cause

    monkeypatch.setattr(download, "fetch", fail)
    error = failure(tmp_path / "set")
    assert "RuntimeError: 404 Client Error. Resource not found" in str(error)
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is cause


def test_a_download_of_another_layout_is_refused(tmp_path, fetched):
    hub = tmp_path / "hub" / "versions" / "4"
    shutil.rmtree(hub / FOLDER)
    assert "has another layout" in str(failure(tmp_path / "set"))


def test_kagglehub_is_asked_in_its_own_words(tmp_path, monkeypatch):
    class Hub:
        @staticmethod
        def dataset_download(handle: str) -> str:
            return f"/cache/{handle}"

    monkeypatch.setitem(sys.modules, "kagglehub", Hub)
    assert download.fetch("who/what") == Path("/cache/who/what")


def test_no_network_is_told_at_once(tmp_path, monkeypatch, no_proxy):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.perf_counter()
    error = failure(tmp_path / "set")
    assert time.perf_counter() - start < 5
    assert "Kaggle cannot be reached" in str(error)
    assert isinstance(error.__cause__, DownloadFailed)
    assert not (tmp_path / "set").exists()


def test_a_name_service_that_hangs_is_given_up_within_ten_seconds(tmp_path, monkeypatch, no_proxy):
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(60)
        raise OSError("released")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.perf_counter()
    try:
        error = failure(tmp_path / "set")
    finally:
        release.set()
    assert time.perf_counter() - start < 10
    assert "no answer within 6 seconds" in str(error)
    for thread in threading.enumerate():
        if thread.name == "fracnet-probe":
            thread.join(10)


def test_an_answer_of_not_found_is_told(monkeypatch):
    import requests

    asked: list[str] = []

    def get(url: str, **options: object) -> requests.Response:
        asked.append(url)
        answer = requests.Response()
        answer.status_code, answer.reason, answer.url = 404, "Not Found", url
        answer.raw = io.BytesIO()
        return answer

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DownloadFailed, match="404 Client Error: Not Found"):
        download.probe("who/what")
    assert asked[0].endswith("/who/what")

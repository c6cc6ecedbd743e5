"""Downloads from figshare and Kaggle: checked, complete or not at all, and quickly refused."""

import hashlib
import io
import json
import logging
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from helpers.fracture_files import write_fracatlas
from helpers.upper_limb_files import write_class_folders, write_yolo

from fracnet.data.datasets import download
from fracnet.data.datasets.download import DownloadFailed
from fracnet.data.datasets.fracatlas import ARTICLE, FILE, FracAtlas
from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.utils.errors import UserError


class Site:
    """A local figshare: responses by path, and the requested paths."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.requests: list[str] = []
        self.responses: dict[str, bytes] = {}
        self.status = 200
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                response = site.responses.get(self.path)
                self.send_response(404 if response is None else site.status)
                self.end_headers()
                self.wfile.write(response or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.list_file()

    def list_file(self, version: int | None = None, **changes: object) -> None:
        """List the archive in the newest state of the article, or only in a version."""
        entry = {
            "id": FILE,
            "size": len(self.archive),
            "download_url": f"{self.url}/file",
            "computed_md5": hashlib.md5(self.archive).hexdigest(),
        } | changes
        article = f"/articles/{ARTICLE}"
        listing = json.dumps({"files": [{"id": 1}, entry]}).encode()
        self.responses = {article: listing, "/file": self.archive}
        if version is not None:
            self.responses[article] = json.dumps({"files": [{"id": 1}]}).encode()
            versions = [{"version": n} for n in range(1, 4)]
            self.responses[f"{article}/versions"] = json.dumps(versions).encode()
            for n in range(1, 4):
                self.responses[f"{article}/versions/{n}"] = self.responses[article]
            self.responses[f"{article}/versions/{version}"] = listing


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    base = write_fracatlas(tmp_path / "packed" / "FracAtlas")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted(base.rglob("*")):
            packed.write(path, path.relative_to(base.parent))
    local = Site(buffer.getvalue())
    monkeypatch.setattr(download, "FIGSHARE", local.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield local
    local.server.shutdown()
    local.server.server_close()


def figshare_error(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        FracAtlas(root=str(root), **options).prepare()  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) == 3
    remaining = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    assert set(remaining) <= {".download.lock"}, "a refused download leaves nothing"
    return message


@pytest.mark.parametrize("version", [None, 2])
def test_figshare_downloads_once_and_then_reads(tmp_path, site, caplog, version):
    site.list_file(version)
    dataset = FracAtlas(root=str(tmp_path / "data" / "set"))
    with caplog.at_level(logging.WARNING):
        dataset.prepare()
        dataset.prepare()
    assert site.requests.count("/file") == 1
    assert "340 MB" in caplog.text
    assert len(dataset.manifest().table) == 24
    visible = [entry.name for entry in dataset.folder.iterdir() if entry.name[0] != "."]
    assert visible == ["FracAtlas"]
    assert not (dataset.folder / ".download.partial").exists()


def test_figshare_discards_a_file_with_the_wrong_checksum(tmp_path, site):
    site.responses["/file"] = site.archive[:-1] + b"?"
    message = figshare_error(tmp_path / "set")
    assert "the downloaded file is not the expected one" in message
    assert hashlib.md5(site.archive).hexdigest() in message
    site.responses["/file"] = site.archive * 2
    assert "the downloaded file is not the expected one" in figshare_error(tmp_path / "set")
    site.responses["/file"] = site.archive
    FracAtlas(root=str(tmp_path / "set")).prepare()


def test_figshare_rejects_a_missing_checksum_a_missing_file_and_an_unexpected_layout(
    tmp_path, site
):
    site.list_file(computed_md5="", supplied_md5=None)
    assert "states no MD5" in figshare_error(tmp_path / "set")
    assert "/file" not in site.requests
    site.list_file(2, id=5)
    assert f"no longer lists the file {FILE}" in figshare_error(tmp_path / "set")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("readme.txt", "nothing here")
    site.archive = buffer.getvalue()
    site.list_file()
    assert "unexpected layout" in figshare_error(tmp_path / "set")
    site.archive = b"no archive at all"
    site.list_file()
    assert "BadZipFile" in figshare_error(tmp_path / "set")


def test_figshare_reports_an_http_error(tmp_path, site):
    site.status = 202
    assert "answered 202 instead of the file" in figshare_error(tmp_path / "set")
    del site.responses[f"/articles/{ARTICLE}"]
    assert "figshare cannot be reached (HTTPError: 404" in figshare_error(tmp_path / "set")


def test_figshare_does_not_unpack_a_huge_archive(tmp_path, site, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNPACKED", 1000)
    assert "bytes unpacked are more than 1000" in figshare_error(tmp_path / "set")


def test_figshare_leaves_nothing_on_a_full_disk(tmp_path, site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    assert "No space left on device" in figshare_error(tmp_path / "set")


def prepare_in_threads(dataset) -> None:
    """Prepare it in four threads at once; raises their first error."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(dataset.prepare) for _ in range(4)]:
            done.result()


def test_figshare_downloads_once_for_several_jobs(tmp_path, site):
    prepare_in_threads(FracAtlas(root=str(tmp_path / "set")))
    assert site.requests.count("/file") == 1


def test_figshare_can_be_disabled_and_keeps_other_files(tmp_path, site):
    assert "does not exist" in figshare_error(tmp_path / "gone", download=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        FracAtlas(root=str(tmp_path / "mine")).prepare()
    assert site.requests == []


@pytest.fixture
def reachable(monkeypatch):
    """Kaggle confirms that it has the dataset."""
    monkeypatch.setattr(download, "probe_kaggle", lambda handle: None)


@pytest.fixture
def fetched(tmp_path, monkeypatch, reachable):
    """kagglehub delivers a small copy of the dataset; the fixture lists the calls."""
    write_yolo(tmp_path / "hub" / "versions" / "4" / UPPER_LIMB_FOLDER)
    calls: list[str] = []

    def fetch(handle: str) -> Path:
        calls.append(handle)
        return tmp_path / "hub" / "versions" / "4"

    monkeypatch.setattr(download, "fetch_from_kaggle", fetch)
    return calls


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def kaggle_error(root: Path, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        UpperLimb(root=str(root), **options).prepare()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "https://www.kaggle.com/datasets/pkdarabi/" in lines[0]
    assert f"{root}/{UPPER_LIMB_FOLDER}" in lines[0]
    assert "data.root=/path/to/a/copy" in lines[1]
    assert "data=upper_limb_phantom model.pretrained=false" in lines[2]
    return caught.value


def test_kaggle_downloads_once_and_then_reads(tmp_path, fetched, caplog):
    dataset = UpperLimb(root=str(tmp_path / "data" / "set"))
    with caplog.at_level(logging.WARNING):
        dataset.prepare()
        dataset.prepare()
    assert len(fetched) == 1
    assert caplog.text.count("MURA's research-use terms may apply") == 1
    assert len(dataset.manifest().table) == 21
    visible = [entry.name for entry in dataset.folder.iterdir() if entry.name[0] != "."]
    assert visible == [UPPER_LIMB_FOLDER]
    assert list(dataset.folder.glob(".*part")) == []


def test_the_kaggle_copy_survives_clearing_the_kagglehub_cache(tmp_path, fetched):
    dataset = UpperLimb(root=str(tmp_path / "set"))
    dataset.prepare()
    shutil.rmtree(tmp_path / "hub")
    assert all(
        (dataset.folder / UPPER_LIMB_FOLDER / path).read_bytes()
        for path in dataset.manifest().table["path"]
    )


def test_kaggle_copies_if_the_file_system_has_no_links(tmp_path, fetched, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(download.os, "link", refuse)
    dataset = UpperLimb(root=str(tmp_path / "set"))
    dataset.prepare()
    assert len(dataset.manifest().table) == 21


def test_kaggle_is_not_used_if_the_data_exist(tmp_path, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(download, "download_kaggle", never)
    UpperLimb(root=str(write_yolo(tmp_path / "a" / UPPER_LIMB_FOLDER).parent)).prepare()
    folders = {"train": ["elbow"], "val": ["elbow"], "test": ["elbow"]}
    UpperLimb(root=str(write_class_folders(tmp_path / "b", folders))).prepare()


def test_kaggle_keeps_a_folder_with_other_files(tmp_path, fetched):
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "pictures").mkdir()
    message = str(kaggle_error(tmp_path))
    assert "holds hub/, pictures/, thesis.tex" in message
    assert fetched == []
    file = tmp_path / "thesis.tex"
    assert "is a file, not a folder" in str(kaggle_error(file))


def test_kaggle_can_be_disabled(tmp_path, fetched):
    assert "does not exist" in str(kaggle_error(tmp_path / "gone", download=False))
    assert fetched == []
    assert not (tmp_path / "gone").exists()


def test_reading_missing_data_raises_the_same_error(tmp_path):
    with pytest.raises(UserError, match="data=upper_limb_phantom"):
        UpperLimb(root=str(tmp_path / "gone")).manifest()


def test_kaggle_leaves_nothing_that_looks_complete_on_a_full_disk(tmp_path, fetched, monkeypatch):
    real = download._link_or_copy
    copied: list[Path] = []

    def fill(path: Path, target: Path) -> None:
        if len(copied) == 10:
            raise OSError(28, "No space left on device")
        copied.append(target)
        real(path, target)

    monkeypatch.setattr(download, "_link_or_copy", fill)
    error = kaggle_error(tmp_path / "set")
    assert "No space left on device" in str(error)
    monkeypatch.setattr(download, "_link_or_copy", real)
    dataset = UpperLimb(root=str(tmp_path / "set"))
    dataset.prepare()
    assert len(dataset.manifest().table) == 21


def test_files_that_appear_during_the_download_are_kept(tmp_path, fetched, monkeypatch):
    real, own = download._link_or_copy, tmp_path / "set" / UPPER_LIMB_FOLDER / "own.txt"

    def copy(path: Path, target: Path) -> None:
        real(path, target)
        own.parent.mkdir(exist_ok=True)
        own.write_text("mine")

    monkeypatch.setattr(download, "_link_or_copy", copy)
    assert "appeared during the download" in str(kaggle_error(tmp_path / "set"))
    assert own.read_text() == "mine"


def test_kaggle_replaces_the_remains_of_a_killed_run(tmp_path, fetched):
    partial = tmp_path / "set" / f".{UPPER_LIMB_FOLDER}.0123456789abcdef.part" / "train" / "images"
    partial.mkdir(parents=True)
    (partial / "half.jpg").write_bytes(b"\xff\xd8")
    dataset = UpperLimb(root=str(tmp_path / "set"))
    dataset.prepare()
    assert not partial.exists()
    assert not dataset.manifest().table["path"].str.contains("half").any()


def test_kaggle_downloads_once_for_several_jobs(tmp_path, fetched):
    prepare_in_threads(UpperLimb(root=str(tmp_path / "set")))
    assert len(fetched) == 1


def test_a_failing_kagglehub_is_reported_with_its_cause(tmp_path, reachable, monkeypatch):
    cause = RuntimeError("404 Client Error.\n\nResource not found")

    def fail(handle: str) -> Path:
        raise cause

    monkeypatch.setattr(download, "fetch_from_kaggle", fail)
    error = kaggle_error(tmp_path / "set")
    assert "RuntimeError: 404 Client Error. Resource not found" in str(error)
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is cause


def test_kaggle_rejects_an_unexpected_layout(tmp_path, fetched):
    hub = tmp_path / "hub" / "versions" / "4"
    shutil.rmtree(hub / UPPER_LIMB_FOLDER)
    assert "has an unexpected layout" in str(kaggle_error(tmp_path / "set"))


def test_kagglehub_is_called_with_the_handle(tmp_path, monkeypatch):
    class Hub:
        @staticmethod
        def dataset_download(handle: str) -> str:
            return f"/cache/{handle}"

    monkeypatch.setattr(download, "kagglehub", Hub)
    assert download.fetch_from_kaggle("owner/name") == Path("/cache/owner/name")


def test_a_missing_network_is_reported_at_once(tmp_path, monkeypatch, no_proxy):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.perf_counter()
    error = kaggle_error(tmp_path / "set")
    assert time.perf_counter() - start < 5
    assert "Kaggle cannot be reached" in str(error)
    assert isinstance(error.__cause__, DownloadFailed)
    assert not (tmp_path / "set").exists()


def test_a_hanging_name_service_times_out_within_ten_seconds(tmp_path, monkeypatch, no_proxy):
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(60)
        raise OSError("released")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.perf_counter()
    try:
        error = kaggle_error(tmp_path / "set")
    finally:
        release.set()
    assert time.perf_counter() - start < 10
    assert "no answer within 6 seconds" in str(error)
    for thread in threading.enumerate():
        if thread.name == "fracnet-probe":
            thread.join(10)


def test_a_missing_dataset_on_kaggle_is_reported(monkeypatch):
    urls: list[str] = []

    def get(url: str, **options: object) -> requests.Response:
        urls.append(url)
        response = requests.Response()
        response.status_code, response.reason, response.url = 404, "Not Found", url
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DownloadFailed, match="404 Client Error: Not Found"):
        download.probe_kaggle("owner/name")
    assert urls[0].endswith("/owner/name")

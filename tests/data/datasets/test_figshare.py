"""The download of FracAtlas: in any version, checked, whole or not at all, quickly refused."""

import hashlib
import io
import json
import logging
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.fracture_files import write_fracatlas

from fracnet.data.datasets import download
from fracnet.data.datasets.fracatlas import ARTICLE, FILE, FracAtlas
from fracnet.utils.errors import UserError


class Site:
    """A figshare on this machine: answers by path, and the paths that were asked for."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.asked: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.status = 200
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                found = site.answers.get(self.path)
                self.send_response(404 if found is None else site.status)
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.list_file()

    def list_file(self, version: int | None = None, **changes: object) -> None:
        """The article lists the archive: in its newest state, or in a version only."""
        entry = {
            "id": FILE,
            "size": len(self.archive),
            "download_url": f"{self.url}/file",
            "computed_md5": hashlib.md5(self.archive).hexdigest(),
        } | changes
        article = f"/articles/{ARTICLE}"
        listing = json.dumps({"files": [{"id": 1}, entry]}).encode()
        self.answers = {article: listing, "/file": self.archive}
        if version is not None:
            self.answers[article] = json.dumps({"files": [{"id": 1}]}).encode()
            versions = [{"version": n} for n in range(1, 4)]
            self.answers[f"{article}/versions"] = json.dumps(versions).encode()
            for n in range(1, 4):
                self.answers[f"{article}/versions/{n}"] = self.answers[article]
            self.answers[f"{article}/versions/{version}"] = listing


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    base = write_fracatlas(tmp_path / "packed" / "FracAtlas")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted(base.rglob("*")):
            packed.write(path, path.relative_to(base.parent))
    made = Site(buffer.getvalue())
    monkeypatch.setattr(download, "API", made.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield made
    made.server.shutdown()
    made.server.server_close()


def failure(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        FracAtlas(root=str(root), **options).prepare()  # type: ignore[arg-type]
    told = str(caught.value)
    assert len(told.splitlines()) == 3
    left = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    assert set(left) <= {".download.lock"}, "a refused download leaves nothing behind"
    return told


@pytest.mark.parametrize("version", [None, 2])
def test_it_is_found_fetched_once_and_then_read(tmp_path, site, caplog, version):
    site.list_file(version)
    source = FracAtlas(root=str(tmp_path / "data" / "set"))
    with caplog.at_level(logging.WARNING):
        source.prepare()
        source.prepare()
    assert site.asked.count("/file") == 1
    assert "340 MB" in caplog.text
    assert len(source.manifest().table) == 24
    visible = [entry.name for entry in source.folder.iterdir() if entry.name[0] != "."]
    assert visible == ["FracAtlas"]
    assert not (source.folder / ".download.partial").exists()


def test_what_does_not_match_the_checksum_is_thrown_away(tmp_path, site):
    site.answers["/file"] = site.archive[:-1] + b"?"
    told = failure(tmp_path / "set")
    assert "what arrived is not the file" in told
    assert hashlib.md5(site.archive).hexdigest() in told
    site.answers["/file"] = site.archive * 2
    assert "what arrived is not the file" in failure(tmp_path / "set")
    site.answers["/file"] = site.archive
    FracAtlas(root=str(tmp_path / "set")).prepare()


def test_no_checksum_no_file_and_another_layout_are_refused(tmp_path, site):
    site.list_file(computed_md5="", supplied_md5=None)
    assert "states no MD5" in failure(tmp_path / "set")
    assert "/file" not in site.asked
    site.list_file(2, id=5)
    assert f"lists no file {FILE}" in failure(tmp_path / "set")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("readme.txt", "nothing here")
    site.archive = buffer.getvalue()
    site.list_file()
    assert "another layout" in failure(tmp_path / "set")
    site.archive = b"no archive at all"
    site.list_file()
    assert "BadZipFile" in failure(tmp_path / "set")


def test_an_answer_that_is_no_file_is_told(tmp_path, site):
    site.status = 202
    assert "answered 202 instead of the file" in failure(tmp_path / "set")
    del site.answers[f"/articles/{ARTICLE}"]
    assert "figshare cannot be reached (HTTPError: 404" in failure(tmp_path / "set")


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path, site, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNPACKED", 1000)
    assert "bytes unpacked are more than 1000" in failure(tmp_path / "set")


def test_a_full_disk_leaves_nothing_behind(tmp_path, site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    assert "No space left on device" in failure(tmp_path / "set")


def test_several_jobs_fetch_once(tmp_path, site):
    errors: list[BaseException] = []

    def job() -> None:
        try:
            FracAtlas(root=str(tmp_path / "set")).prepare()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert site.asked.count("/file") == 1


def test_it_can_be_forbidden_and_keeps_off_other_things(tmp_path, site):
    assert "does not exist" in failure(tmp_path / "gone", download=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        FracAtlas(root=str(tmp_path / "mine")).prepare()
    assert site.asked == []

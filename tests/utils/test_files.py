"""Writing files: whole or not at all, never through a link, and one sentence on a full disk."""

import ast
import errno
import io
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

import fracnet
from fracnet.config import hydra_cli
from fracnet.utils import files
from fracnet.utils.errors import UserError
from fracnet.utils.files import (
    CannotWrite,
    append_to,
    atomic_file,
    atomic_folder,
    cannot_write,
    explain_disk_fault,
    remove_drafts,
    write_atomically,
)

PACKAGE = Path(fracnet.__file__).parent
WRITING = """
import sys, time
from pathlib import Path
from fracnet.utils.files import atomic_file, atomic_folder
with atomic_file(Path("a.bin")) as file, atomic_folder(Path("f")) as folder:
    file.write(b"half"), file.flush()
    (folder / "x").touch()
    print("writing", flush=True)
    time.sleep(600)
"""


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_text_and_bytes_are_written_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep/a.txt"
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_atomically(path, b"\0")
    assert path.read_bytes() == b"\0"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_name_that_is_not_utf8_does_not_stop_a_report(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "image caf\udce9.png")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == r"image caf\xe9.png"


def test_links_are_replaced_and_never_followed(tmp_path: Path) -> None:
    target = tmp_path / "private.txt"
    target.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("metrics.json", "metrics.json.part", ".metrics.json.part"):
        (run / name).symlink_to(target)
    write_atomically(run / "metrics.json", "new")
    assert target.read_text() == "mine"
    assert not (run / "metrics.json").is_symlink()
    assert (run / "metrics.json").read_text() == "new"


def test_a_draft_with_a_name_that_exists_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "private.txt"
    target.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / f".a.txt.{'0' * 16}.part").symlink_to(target)
    with pytest.raises(CannotWrite, match=r"a\.txt: File exists"):
        write_atomically(tmp_path / "a.txt", "new")
    assert target.read_text() == "mine"


def test_appending_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private.csv").write_text("mine\n")
    (tmp_path / "metrics.csv").symlink_to(tmp_path / "private.csv")
    with pytest.raises(CannotWrite, match=r"Cannot write .*metrics\.csv"):
        append_to(tmp_path / "metrics.csv")
    assert (tmp_path / "private.csv").read_text() == "mine\n"


def test_a_folder_is_replaced_as_a_whole_and_a_link_to_one_is_not_followed(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "keep").touch()
    (tmp_path / "explain").symlink_to(private)
    with atomic_folder(tmp_path / "explain") as folder:
        (folder / "a").touch()
    assert os.listdir(private) == ["keep"]
    assert not (tmp_path / "explain").is_symlink()
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "explain") as folder:
        (folder / "missing/b").touch()
    assert os.listdir(tmp_path / "explain") == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["explain", "private"]


def test_a_folder_that_may_not_be_overwritten_keeps_what_appears_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        out.mkdir()  # an empty one may be
        with suppress(CannotWrite), atomic_folder(out, overwrite=False) as folder:
            (folder / name).touch()
            if name == "second":
                (out / "theirs").touch()
        assert os.listdir(out) == ["theirs" if name == "second" else name]
        assert os.listdir(tmp_path) == ["out"]
        shutil.rmtree(out)


def test_a_file_size_limit_gives_one_sentence_and_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, "before")
    with file_size_limit(1000), pytest.raises(UserError) as caught:
        write_atomically(path, "x" * 5000)
    message = str(caught.value)
    assert re.fullmatch(
        rf"Cannot write {path}: File too large; [\d.,]+ MB are free in {tmp_path}, and .*\.",
        message,
    )
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_full_disk_under_a_database_is_a_sentence(tmp_path: Path) -> None:
    with file_size_limit(1000), closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        with pytest.raises(sqlite3.OperationalError) as caught:
            database.execute("CREATE TABLE trials (number INTEGER)")
        sentence = "Cannot write a database, such as optuna.db of a search: disk I/O error."
        assert explain_disk_fault(caught.value) == sentence
        with pytest.raises(sqlite3.OperationalError) as caught:
            database.execute("SELECT nothing")
        assert explain_disk_fault(caught.value) is None, "a mistake"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_every_disk_error_is_explained_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match=f"a.json: {os.strerror(code)}") as caught:
        write_atomically(tmp_path / "a.json", "{}")
    assert caught.value.errno == code, "callers that catch OSError can still tell"
    assert ("MB are free" in str(caught.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_block_keeps_its_type_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a.npz"):
        (tmp_path / "missing").read_bytes()
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a.npz"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_drafts_of_killed_processes_are_removed_and_those_in_use_stay(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    drafts = sorted(os.listdir(folder))
    assert len(drafts) == 2
    remove_drafts(tmp_path, recursive=True)
    assert sorted(os.listdir(folder)) == drafts, "their process is alive"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (folder / "mine.part").touch()
    remove_drafts(tmp_path, recursive=True)
    assert os.listdir(folder) == ["mine.part"], "other files stay"


def test_errors_of_libraries_are_explained_too(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a.ckpt"))
    assert re.match(
        rf"Cannot write {tmp_path}/a\.ckpt: No space.*MB", explain_disk_fault(full) or ""
    )
    unnamed = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    full_text = os.strerror(errno.ENOSPC)  # and nothing about a folder that it may not be in
    assert explain_disk_fault(unnamed) == f"Cannot write a file: {full_text}."
    denied = PermissionError(errno.EACCES, "Permission denied", "a.csv")
    assert explain_disk_fault(denied) == "Cannot use a.csv: Permission denied."
    assert explain_disk_fault(cannot_write("b", denied)) == "Cannot write b: Permission denied."
    assert explain_disk_fault(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert explain_disk_fault(ValueError("x")) is None


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_text_files_are_read_and_written_as_utf8_in_any_locale(path: Path) -> None:
    for call in (n for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        keywords = {keyword.arg for keyword in call.keywords}
        if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
            assert "encoding" in keywords, ast.unparse(call)
        if name in ("open", "fdopen", "NamedTemporaryFile"):
            modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
            text = any(set(str(m)) <= set("rwax+t") and m for m in modes)
            assert not text or "encoding" in keywords, ast.unparse(call)


def test_a_locale_that_lacks_characters_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
        monkeypatch.setattr(sys, name, stream)
    hydra_cli.print_any_character()
    print("\u2265 0.9, caf\udce9.png")
    output = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert output == b"\\u2265 0.9, caf\\udce9.png\n"


def test_names_lead_to_their_files_in_an_ascii_locale(tmp_path: Path) -> None:
    (tmp_path / "Br\u00fcche.png").touch()
    (tmp_path / os.fsdecode(b"\xe9.png")).touch()
    code = (
        "import os, sys\n"
        "from fracnet.utils.files import path_from_text, path_text\n"
        "names = [path_text(name) for name in os.listdir(sys.argv[1])]\n"
        "assert all(path_from_text(sys.argv[1], name).is_file() for name in names)\n"
        "print(ascii(sorted(names)), sys.getfilesystemencoding())\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.check_output(command, env=os.environ | ascii_only, text=True)
    assert out == "['Br\\xfcche.png', '\\\\xe9.png'] ascii\n"

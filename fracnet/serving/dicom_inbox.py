"""The folder of the DICOM node: images as received, answers, and what was delivered of them.

    node.json                         the salt of the names below
    studies/<study>/images/<image>.dcm
    studies/<study>/answers/<n>/      the objects and answer.json of the n-th answer
    studies/<study>/answers/<n>/sent.txt   a line for each object that a destination has stored
    studies/<study>/answers/<n>/done  empty: every destination has everything

What has a name is complete and would survive a crash of the machine. Names are keyed hashes of the
UIDs: no client chooses a path, and a name tells nothing about a patient.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from fracnet.runs.run_folder import read_mapping, with_format, write_json
from fracnet.utils.files import CannotWrite, append_to, remove_drafts, sync_folder, write_atomically

NODE, ANSWER, SENT, DONE = "node.json", "answer.json", "sent.txt", "done"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Full(Exception):
    """No room for another image."""


class Answer:
    """The objects of one answer, and which of them each destination has stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        self.study: str = content["study"]
        self.version: int = content["version"]
        self.images: list[str] = content["images"]
        self.id: str = content["id"]
        self.tables: dict[str, str] = content["tables"]
        self.objects = sorted(folder.glob("*.dcm"))
        sent = folder / SENT
        self._sent = set(sent.read_text(encoding="utf-8").split("\n")[:-1] if sent.exists() else [])

    @property
    def title(self) -> str:
        """The answer in the log."""
        return f"answer {self.version} on study {self.study[:12]}"

    @property
    def done(self) -> bool:
        """Whether every destination had everything."""
        return (self.folder / DONE).exists()

    def has(self, destination: str, item: str) -> bool:
        """Whether the destination has stored an item."""
        return f"{item} {destination}" in self._sent

    def record(self, destination: str, item: str) -> None:
        """Write down that the destination has stored an item."""
        line = f"{item} {destination}"
        descriptor = append_to(self.folder / SENT)
        try:
            os.write(descriptor, f"{line}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sent.add(line)

    def finish(self) -> None:
        """Write down that every destination has everything."""
        write_atomically(self.folder / DONE, b"")
        sync_folder(self.folder)


class Inbox:
    """Studies on disk. Safe for several threads of one process.

    waiting: answers that some destination lacks, oldest first.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        """Open or create the folder; `limit` is of the bytes in it that let another image in."""
        self._studies, self._limit = folder / "studies", limit
        self._studies.mkdir(parents=True, exist_ok=True)
        if not (folder / NODE).exists():
            write_json(folder / NODE, with_format({"salt": secrets.token_hex(16)}))
            sync_folder(folder)
        self._salt = str(read_mapping(folder / NODE)["salt"]).encode()
        self._lock = threading.Lock()
        self._changed: dict[str, float] = {}  # studies with unanswered images: last arrival
        self.waiting: list[Answer] = []
        remove_drafts(folder, recursive=True)
        for gone in self._studies.glob(".*"):
            shutil.rmtree(gone, ignore_errors=True)
        self._used = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        for study in self._folders():
            # The time of the last arrival is not known: its sender may have been cut off as well.
            if self._unanswered(study.name):
                self._changed[study.name] = time.monotonic()
            self.waiting += [answer for answer in self.answers(study.name) if not answer.done]
        self.waiting.sort(key=lambda answer: (answer.folder / ANSWER).stat().st_mtime)

    def _folders(self) -> list[Path]:
        """Of all studies."""
        return sorted(path for path in self._studies.glob("[!.]*") if path.is_dir())

    @property
    def open_studies(self) -> int:
        """Studies with unanswered images."""
        return len(self._changed)

    def name(self, *uids: str) -> str:
        """A name for what the UIDs identify, 32 hex digits."""
        text = "\0".join(uids).encode(errors="surrogateescape")
        return hashlib.blake2b(text, key=self._salt, digest_size=16).hexdigest()

    def add(self, data: bytes, patient: str, study: str, instance: str) -> bool:
        """Store the file of an image; False where it has been stored before.

        Images of one study UID but different patient ids are different studies, as in prediction.
        On return, the image is on disk. Raises Full, and OSError for other faults of the disk.
        """
        folder = self._studies / self.name(patient, study)
        path = folder / "images" / f"{self.name(instance)}.dcm"
        with self._lock:
            if folder.name in self._changed:
                self._changed[folder.name] = time.monotonic()
            if path.exists():
                for part in (path.parent, folder, self._studies):
                    sync_folder(part)  # the first time that may have failed
                if folder.name not in self._changed and self._unanswered(folder.name):
                    self._changed[folder.name] = time.monotonic()
                return False
            if self._used + len(data) > self._limit:
                raise Full
            try:
                write_atomically(path, data)
                for part in (path.parent, folder, self._studies):
                    sync_folder(part)
            except CannotWrite as error:
                if error.errno in NO_SPACE:
                    raise Full from error
                raise
            self._used += len(data)
            self._changed[folder.name] = time.monotonic()
        return True

    def quiet(self, seconds: float) -> list[str]:
        """Names of the studies with unanswered images, the last of which came so long ago."""
        with self._lock:
            now = time.monotonic()
            return [name for name, last in self._changed.items() if now - last >= seconds]

    def images(self, study: str) -> list[Path]:
        """All images of a study."""
        return sorted((self._studies / study / "images").glob("*.dcm"))

    def answers(self, study: str) -> list[Answer]:
        """All answers on a study, the latest last."""
        folder = self._studies / study / "answers"
        numbers = (int(path.name) for path in folder.glob("[0-9]*"))
        return [Answer(folder / str(number)) for number in sorted(numbers)]

    def _unanswered(self, study: str) -> bool:
        names = {path.name for path in self.images(study)}
        return not names <= {name for answer in self.answers(study)[-1:] for name in answer.images}

    def draft(self, study: str) -> tuple[int, Path]:
        """The number of the next answer on a study, and an empty folder for its objects."""
        number = 1 + max((answer.version for answer in self.answers(study)), default=0)
        folder = self._studies / study / "answers" / f".{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return number, folder

    def commit(
        self, draft: Path, images: Iterable[Path], tables: Mapping[str, str], identity: str
    ) -> Answer:
        """Make a draft the answer on these images of its study.

        tables: csv texts by name. identity: of the answer.
        """
        final = draft.with_name(draft.name.removeprefix("."))
        study = final.parent.parent
        content = {
            "study": study.name, "version": int(final.name), "id": identity,
            "images": [path.name for path in images], "tables": dict(tables),
        }  # fmt: skip
        write_atomically(draft / ANSWER, json.dumps(content))
        sync_folder(draft)
        os.rename(draft, final)
        for folder in (final.parent, study):
            sync_folder(folder)
        answer = Answer(final)
        with self._lock:
            self._used += sum(path.stat().st_size for path in final.iterdir())
            self.waiting.append(answer)
            if not self._unanswered(study.name):
                self._changed.pop(study.name, None)
        return answer

    def forget(self, hours: float) -> int:
        """Remove studies whose answers were all delivered so long ago; their number."""
        end, number = time.time() - 3600 * hours, 0
        for folder in self._folders():
            with self._lock:
                answers = self.answers(folder.name)
                if folder.name in self._changed or not all(answer.done for answer in answers):
                    continue
                if max(((a.folder / DONE).stat().st_mtime for a in answers), default=end) >= end:
                    continue
                gone = folder.with_name(f".{folder.name}")
                os.rename(folder, gone)
                self._used -= sum(p.stat().st_size for p in gone.rglob("*") if p.is_file())
            shutil.rmtree(gone, ignore_errors=True)  # what is left goes at the next start
            number += 1
        return number

"""Where the answers of the DICOM node go, and how they get there, whatever fails.

An object is recorded as delivered after the receiver has stored it. Where the node is killed in
between, the same file goes again: with the same UIDs, which tell the receiver that it has it.
"""

import os
import re
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
)

from fracnet.config.commands import AE_TITLE
from fracnet.serving.dicom_inbox import Answer, Inbox
from fracnet.utils.errors import UserError
from fracnet.utils.files import sync_folder, write_atomically
from fracnet.utils.text import counted

FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
"""Seconds between two attempts: the first, doubled up to the longest."""
POLL = 0.25
DUPLICATES = (0x0111, 45070)
"""Status, or reason of a failure, for an object that the receiver has already: of the standard, and
of Azure's DICOM service.
"""
TAIL = 1 << 24
"""Bytes at the end of a table that hold the rows of the latest answer."""


class Undelivered(Exception):
    """The message says why. down: nothing else can be delivered there now."""

    def __init__(self, reason: str, down: bool = True) -> None:
        super().__init__(reason)
        self.down = down


class Destination(ABC):
    """A place for answers. name: without spaces; what is recorded as delivered."""

    name: str

    def lacks(self, answer: Answer) -> list[Path]:
        """The objects of the answer that are not recorded as delivered."""
        return [file for file in answer.objects if not answer.has(self.name, file.name)]

    @abstractmethod
    def send(self, answer: Answer) -> int:
        """Deliver what the destination lacks and record it; the number of objects.

        Raises Undelivered, for what was not recorded.
        """


class Table(Destination):
    """The csv files of the node's folder, one of images and one of studies for each model."""

    name = "table"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lacks(self, answer: Answer) -> list[Path]:
        """The tables that lack the answer's rows."""
        names = (name for name in answer.tables if not answer.has(self.name, name))
        return [self.folder / f"{name}.csv" for name in names]

    def send(self, answer: Answer) -> int:
        """Append the answer's rows, unless they are there."""
        for path in self.lacks(answer):
            self._append(path, answer.tables[path.stem], answer.id)
            answer.record(self.name, path.stem)
        return 0

    def _append(self, path: Path, text: str, identity: str) -> None:
        header, _, rows = text.partition("\n")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            before = max(0, os.fstat(descriptor).st_size - TAIL)
            file.seek(before)
            tail = file.read()
            # Killed while it wrote: rows of this answer may be the last ones, the last in part.
            start = tail.rfind(b"\n") + 1
            while start:
                line = tail.rfind(b"\n", 0, start - 1) + 1
                if not tail.startswith(f"{identity},".encode(), line):
                    break
                start = line
            file.truncate(before + start)
            file.write(((header + "\n" if not before + start else "") + rows).encode())
            file.flush()
            os.fsync(descriptor)
        sync_folder(self.folder)


class Folder(Destination):
    """A folder with a folder per study."""

    def __init__(self, path: Path) -> None:
        """Create the folder; UserError where that is not possible."""
        self.path, self.name, self.place = path, "folder", str(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder={path} cannot be created: {error.strerror}.") from error

    def send(self, answer: Answer) -> int:
        """Write the objects, named by their UIDs."""
        files = self.lacks(answer)
        for file in files:
            header = dcmread(file, specific_tags=["StudyInstanceUID"])
            place = self.path / str(header.StudyInstanceUID)
            uid = header.file_meta.MediaStorageSOPInstanceUID
            write_atomically(place / f"{uid}.dcm", file.read_bytes())
            sync_folder(place)
            sync_folder(self.path)
            answer.record(self.name, file.name)
        return len(files)


class Receiver(Destination):
    """A DICOM storage service, such as a PACS."""

    def __init__(self, address: str, own_title: str) -> None:
        """address: AET@host:port. Raises UserError for any other text."""
        title, _, place = address.partition("@")
        host, _, port = place.rpartition(":")
        valid = re.fullmatch(AE_TITLE, title) and len(title) <= 16
        if not (valid and host and port.isdecimal() and int(port) < 65536):
            raise UserError(
                f"send_to={address} is no receiver; allowed: AET@host:port, e.g. PACS@10.0.0.5:104."
            )
        self.name = address.replace(" ", "_")
        self.title, self.host, self.port = title, host.strip("[]"), int(port)
        self.ae = AE(own_title)
        self.ae.connection_timeout = self.ae.acse_timeout = 15
        self.ae.dimse_timeout = self.ae.network_timeout = 60
        for sop_class in (SecondaryCaptureImageStorage, ComprehensiveSRStorage):
            self.ae.add_requested_context(sop_class)

    def send(self, answer: Answer) -> int:
        """Send the objects in one association."""
        files = self.lacks(answer)
        association = self.ae.associate(self.host, self.port, ae_title=self.title)
        if not association.is_established:
            rejected = association.is_rejected
            raise Undelivered("it rejects the association" if rejected else "no association")
        refused = ""
        try:
            for file in files:
                try:
                    status = association.send_c_store(dcmread(file)).get("Status")
                except ValueError:  # no accepted presentation context
                    refused = "it does not accept a kind of object"
                    continue
                except RuntimeError as error:
                    raise Undelivered("the association ended") from error
                if status is None:
                    raise Undelivered("the association ended")
                # A warning means stored; so does "duplicate SOP instance", after a crash of ours.
                if status not in (0, *DUPLICATES) and status & 0xF000 != 0xB000:
                    refused = f"it answers with status 0x{status:04X}"
                    if status & 0xFF00 == 0xA700:
                        raise Undelivered(refused)
                    continue
                answer.record(self.name, file.name)
        finally:
            if association.is_established:
                association.release()
        if refused:
            raise Undelivered(refused, down=False)
        return len(files)


class Stow(Destination):
    """A DICOMweb service (STOW-RS)."""

    def __init__(self, url: str) -> None:
        """Raises UserError for a text that is no address."""
        self.name = re.sub("//[^/@]*@", "//", url)  # without a password, since it is logged
        try:
            # Each object as one request with its length, which every server understands.
            self.client = DICOMwebClient(url, chunk_size=1 << 40)
        except ValueError as error:
            raise UserError(
                f"stow={self.name} is no address; allowed: e.g. http://127.0.0.1:8042/dicom-web."
            ) from error
        self.client.set_http_retry_params(retry=False)  # `deliver_all` tries again

    def send(self, answer: Answer) -> int:
        """Send the objects in one request each."""
        files = self.lacks(answer)
        refused = ""
        for file in files:
            try:
                stored = self.client.store_instances([dcmread(file)])
                refusal = "it refuses an object" if stored.get("FailedSOPSequence") else ""
            except requests.HTTPError as error:
                code = error.response.status_code if error.response is not None else 0
                refusal = f"it answers with status {code}"
                if code >= 500:
                    raise Undelivered(refusal) from error
                stored = _stow_response(error.response)
            except requests.RequestException as error:
                raise Undelivered(type(error).__name__) from error
            failures = [item.get("FailureReason") for item in stored.get("FailedSOPSequence") or ()]
            if refusal and not (failures and all(reason in DUPLICATES for reason in failures)):
                refused = refusal
                continue
            answer.record(self.name, file.name)
        if refused:
            raise Undelivered(refused, down=False)
        return len(files)


def _stow_response(response: requests.Response | None) -> Dataset:
    """What a service that refuses objects says about them; empty where it does not."""
    try:
        content = response.json() if response is not None else {}
        return Dataset.from_json(content[0] if isinstance(content, list) else content)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Dataset()


class Backoff:
    """When what failed may be tried again: after a second, then after twice as long each time."""

    def __init__(self) -> None:
        self._waits: dict[Any, tuple[float, float]] = {}

    def ready(self, key: Any) -> bool:
        """Whether it may be tried now."""
        return self._waits.get(key, (0.0, 0.0))[0] <= time.monotonic()

    def failed(self, key: Any) -> float:
        """Note a failure; the seconds until the next attempt."""
        wait = min(LONGEST_WAIT, 2 * self._waits.get(key, (0.0, FIRST_WAIT / 2))[1])
        self._waits[key] = (time.monotonic() + wait, wait)
        return wait

    def succeeded(self, key: Any) -> None:
        """Note a success."""
        self._waits.pop(key, None)


def deliver_all(
    inbox: Inbox,
    destinations: Sequence[Destination],
    stop: threading.Event,
    log: Callable[[str], None],
) -> None:
    """Deliver waiting answers until `stop`; what fails is tried again, ever more rarely."""
    backoff = Backoff()
    while not stop.is_set():
        for answer in list(inbox.waiting):
            complete = True
            for destination in destinations:
                if not destination.lacks(answer):
                    continue
                one = (destination.name, answer.id)
                if stop.is_set() or not (backoff.ready(destination.name) and backoff.ready(one)):
                    complete = False
                    continue
                what = answer.title
                try:
                    if number := destination.send(answer):
                        log(f"{destination.name}: sent {counted(number, 'object')} of {what}")
                    backoff.succeeded(destination.name)
                except Exception as error:  # of any library: none may end the deliveries
                    complete = False
                    down, reason = True, kind_of(error)
                    if isinstance(error, Undelivered):
                        down, reason = error.down, str(error)
                    wait = backoff.failed(destination.name if down else one)
                    log(f"{destination.name}: {reason}; {what} is tried again in {wait:g} s")
            if complete:
                try:
                    answer.finish()
                except OSError as error:
                    log(f"{answer.title} cannot be recorded as delivered: {kind_of(error)}")
                inbox.waiting.remove(answer)
        stop.wait(POLL)


def kind_of(error: BaseException | None) -> str:
    """The kind and place of an error: its message may quote a patient's data."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    frames = traceback.extract_tb(error.__traceback__) if error else []
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"

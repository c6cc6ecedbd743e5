"""The DICOM node of `python -m fracnet.node`: receives images, predicts quiet studies, delivers.

Three parts work at the same time: threads of pynetdicom receive, the main thread predicts, one
thread delivers. What they share lies on disk (`dicom_inbox`), so that each continues after a crash.
"""

import io
import logging
import re
import signal
import ssl
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    Verification,
)
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from fracnet.data.dicom import COMPRESSED_SYNTAXES, read_ids
from fracnet.data.image_io import BadImage, decode_grey
from fracnet.inference.image_predictor import ImagePredictor
from fracnet.inference.inputs import InputFile
from fracnet.serving.dicom_delivery import Backoff, Destination, deliver_all, kind_of
from fracnet.serving.dicom_inbox import Full, Inbox
from fracnet.serving.dicom_results import AnswerObjects, is_result, read_header
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted, plain_cell

IMAGE_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    *COMPRESSED_SYNTAXES,
]
SUCCESS, FULL, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""Status of C-STORE (PS3.4, B.2.3)."""
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
ASSOCIATIONS, THREADS = 10, 100
"""Associations at a time; and threads, of which a connection takes one or two, whatever it does."""
MAX_PDU = 1 << 18
MAX_REQUEST = 1 << 20
"""Bytes of an association request: 128 contexts with all their syntaxes take a tenth."""
PATIENCE = 30.0
"""Seconds for a whole PDU, a TLS handshake, or the next request."""
FORGET_EVERY = 600.0


class Rejected(Exception):
    """An object that is not stored: its status, and a comment without patient data."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status, self.comment = status, comment


@dataclass(frozen=True)
class Settings:
    """The node's own: see conf/node.yaml. callers: None lets everybody in."""

    aet: str
    callers: Sequence[str] | None
    quiet: float
    max_bytes: float
    keep_hours: float


def log(text: str) -> None:
    """A line with the time. No patient data: studies and images by the inbox's names alone."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def tls_context(cert: str | None, key: str | None, ca: str | None) -> ssl.SSLContext | None:
    """The server's side of TLS, None without a certificate.

    ca: of the certificates that callers must show; None asks for none. Raises UserError for files
    that cannot be used.
    """
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None:
        raise UserError("TLS needs both: tls.cert=server.crt tls.key=server.key.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(Path(cert).expanduser(), Path(key).expanduser())
        if ca is not None:
            context.load_verify_locations(Path(ca).expanduser())
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # also ssl.SSLError
        files = f"tls.cert={cert} tls.key={key}" + (f" tls.ca={ca}" if ca else "")
        raise UserError(f"{files} cannot be used: {error.strerror or error}.") from error
    return context


class _Handler(RequestHandler):
    """Bounds what a connection may make the node hold in memory, and for how long."""

    server: "_Server"

    def _create_association(self) -> Association:
        association = super()._create_association()
        connection: Any = association.dul.socket

        def receive(number: int) -> bytearray:
            message: Any = association.dimse.message
            held = message.data_set.tell() + message.encoded_command_set.tell() if message else 0
            limit = MAX_PDU + 6 if association.is_established else MAX_REQUEST
            if number > limit or held + number > self.server.max_bytes:
                raise OSError("too much data")
            if association.dimse.msg_queue.qsize() > 1:
                raise OSError("too many requests at once")
            end, data = time.monotonic() + PATIENCE, bytearray()
            while len(data) < number:
                if time.monotonic() > end or connection.socket is None:
                    raise OSError("too slow")
                part = connection.socket.recv(min(number - len(data), 1 << 16))
                if not part:
                    break
                data += part
            return data

        connection.recv = receive
        return association


class _Server(ThreadedAssociationServer):
    """Accepts connections without waiting for any of them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, *args: Any, tls: ssl.SSLContext | None, max_bytes: float, **more: Any
    ) -> None:
        self.tls, self.max_bytes = tls, max_bytes
        super().__init__(*args, **(more | {"request_handler": _Handler}))

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() < THREADS

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In a thread of its own: pynetdicom would shake hands in the one that accepts.
        request.settimeout(PATIENCE)
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log(f"a connection failed: {kind_of(sys.exc_info()[1])}")


def keep_quiet() -> None:
    """Silence what the libraries say of headers, which would quote patients' data."""
    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom", "highdicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="(pydicom|highdicom|pynetdicom|dicomweb_client)")
    threading.excepthook = lambda failed: log(f"a thread failed: {kind_of(failed.exc_value)}")


class Node:
    """Receives into an inbox, predicts, and delivers; see `run`."""

    def __init__(
        self,
        settings: Settings,
        predictor: ImagePredictor,
        inbox: Inbox,
        destinations: Sequence[Destination],
        *,
        objects: bool = True,
    ) -> None:
        """objects: make captures and reports; else the tables alone."""
        self.settings, self.predictor, self.inbox = settings, predictor, inbox
        self.destinations, self.objects = destinations, objects
        self.stop = threading.Event()
        self._backoff = Backoff()
        self._forgotten = time.monotonic()

    def serve(self, listening: tuple[str, int], tls: ssl.SSLContext | None) -> _Server:
        """Start to receive at an address. Raises UserError where that is not possible."""
        ae = AE(self.settings.aet)
        ae.require_called_aet = True
        ae.require_calling_aet = list(self.settings.callers or [])
        ae.maximum_associations, ae.maximum_pdu_size = ASSOCIATIONS, MAX_PDU
        ae.acse_timeout = ae.dimse_timeout = PATIENCE
        ae.network_timeout = 2 * PATIENCE
        ae.add_supported_context(Verification)
        for sop_class in IMAGE_CLASSES:
            ae.add_supported_context(sop_class, SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REJECTED, self._note_rejection),
        ]
        try:
            server = ae.make_server(
                listening, evt_handlers=handlers, server_class=_Server, tls=tls,
                max_bytes=self.settings.max_bytes,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            host, port = listening
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"host={host} port={port}: {reason}; choose another port=.") from error
        assert isinstance(server, _Server)
        ae._servers.append(server)
        threading.Thread(target=server.serve_forever, name="AcceptorServer", daemon=True).start()
        return server

    def run(self) -> None:
        """Predict and deliver until `stop`."""
        arguments = (self.inbox, self.destinations, self.stop, log)
        delivery = threading.Thread(
            target=deliver_all, args=arguments, name="delivery", daemon=True
        )
        delivery.start()
        try:
            while not self.stop.wait(min(0.25, self.settings.quiet / 4)):
                for study in self.inbox.quiet(self.settings.quiet):
                    if not self.stop.is_set() and self._backoff.ready(study):
                        self._answer(study)
                if time.monotonic() - self._forgotten > FORGET_EVERY:
                    self._forgotten = time.monotonic()
                    self._forget()
        finally:
            self.stop.set()
            delivery.join()

    def _forget(self) -> None:
        try:
            if number := self.inbox.forget(self.settings.keep_hours):
                log(f"removed {counted(number, 'study')}, delivered long ago")
        except OSError as error:  # it is tried again
            log(f"old studies cannot be removed: {kind_of(error)}")

    def _store(self, event: evt.Event) -> Dataset | int:
        """Answer a C-STORE request: success only once the image is on disk."""
        try:
            self._receive(event)
            return SUCCESS
        except Rejected as reason:
            status, comment = reason.status, reason.comment
        except (OSError, MemoryError) as error:
            status, comment = FULL, kind_of(error)
        except Exception as error:  # whatever a broken object makes a library raise
            status, comment = CANNOT_UNDERSTAND, f"it cannot be read ({type(error).__name__})"
        log(f"refused an image with status 0x{status:04X}")
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = comment.encode("ascii", "replace").decode()[:64]
        return answer

    def _receive(self, event: evt.Event) -> None:
        data = event.encoded_dataset()
        request: Any = event.request
        header = dcmread(io.BytesIO(data), stop_before_pixels=True)
        uids = {
            key: str(header.get(key) or "")
            for key in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
        }
        for key, uid in uids.items():
            if len(uid) > 64 or not UID.fullmatch(uid):
                raise Rejected(CANNOT_UNDERSTAND, f"{key} is missing or no UID")
        named = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID)
        if (header.get("SOPClassUID"), uids["SOPInstanceUID"]) != named:
            raise Rejected(MISMATCH, "the request names another object")
        if is_result(header):  # a PACS that forwards everything would make the node answer itself
            return
        try:
            decode_grey(data, Path("object"))
            patient, study = read_ids(io.BytesIO(data))
        except BadImage as error:
            raise Rejected(CANNOT_UNDERSTAND, error.reason) from error
        except UserError as error:  # no decoder
            raise Rejected(CANNOT_UNDERSTAND, "its compression is not supported") from error
        assert study is not None
        try:
            self.inbox.add(data, patient or "", study, uids["SOPInstanceUID"])
        except Full as error:
            raise Rejected(FULL, "the disk limit is reached") from error

    @staticmethod
    def _note_rejection(event: evt.Event) -> None:
        address = event.assoc.requestor.address_info
        log(f"refused an association from {address.address if address else 'somebody'}")

    def _answer(self, study: str) -> None:
        """Predict a study and store the answer; a failure is tried again later."""
        try:
            number, count = self._make_answer(study)
        except Exception as error:  # of any library: none may end the node
            wait = self._backoff.failed(study)
            log(f"study {study[:12]} cannot be answered: {kind_of(error)}; again in {wait:g} s")
            return
        self._backoff.succeeded(study)
        log(f"study {study[:12]}: predicted {counted(count, 'image')}, answer {number}")

    def _make_answer(self, study: str) -> tuple[int, int]:
        paths = self.inbox.images(study)
        headers = {path: read_header(path) for path in paths}
        paths.sort(key=lambda path: _order(headers[path]))
        number, draft = self.inbox.draft(study)
        objects = AnswerObjects(self.predictor, [headers[path] for path in paths], number, draft)
        tables, place = [], 0
        files = [InputFile(path) for path in paths]
        for batch in self.predictor.batches(files, originals=self.objects):
            heats: Iterable[np.ndarray | None] = repeat(None)
            if self.objects and not self.predictor.why_no_heatmaps:
                heats = self.predictor.heatmaps(batch)
            pictures = zip(batch.originals, heats, strict=False)
            for _, row in batch.table.iterrows():
                if self.objects and not row["error"]:
                    objects.add_capture(place, row, *next(pictures))
                place += 1
            tables.append(batch.table)
        table = pd.concat(tables, ignore_index=True)
        studies = self.predictor.studies(table)
        if self.objects:
            objects.add_report(table, studies)
        table["path"] = objects.uids
        csv = {
            f"{name}_{objects.sha256[:8]}": _csv(rows, objects)
            for name, rows in (("predictions", table), ("studies", studies))
        }
        self.inbox.commit(draft, paths, csv, objects.id)
        return number, len(paths)


def _order(header: Dataset) -> tuple[int, int, str]:
    """Images in the order of the study."""
    numbers = [header.get(key) for key in ("SeriesNumber", "InstanceNumber")]
    series, instance = (int(n) if isinstance(n, int) else 0 for n in numbers)
    return series, instance, str(header.SOPInstanceUID)


def _csv(rows: pd.DataFrame, objects: AnswerObjects) -> str:
    """The rows of an answer, without the patient's id."""
    rows = rows.drop(columns="patient").rename(columns={"path": "image"})
    rows.insert(0, "answer", objects.id)
    rows.insert(1, "number", objects.number)
    rows.insert(2, "time", objects.time.isoformat(timespec="seconds"))
    return str(rows.map(plain_cell).to_csv(index=False, lineterminator="\n"))


def stop_on_signals(stop: threading.Event) -> None:
    """Let Ctrl-C and SIGTERM set `stop`; a second Ctrl-C interrupts."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)

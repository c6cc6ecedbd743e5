"""The DICOM node with its peers: what comes in, what goes back, and what is refused."""

import http.server
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import requests
from helpers.command import run_command
from helpers.dicom_files import compressed, rle
from helpers.dicom_peers import (
    NAME,
    PATIENT,
    free_port,
    orthanc,
    program,
    radiograph,
    storescp,
    storescu,
    wait_for,
)
from helpers.warm import Warm
from highdicom import sr
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.decoders import JPEGLSLosslessDecoder
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
)

from fracnet.data.image_io import read_grey
from fracnet.inference.predictor import Predictor
from fracnet.node import node
from fracnet.serving.dicom_delivery import (
    Destination,
    Folder,
    Receiver,
    Stow,
    Table,
    Undelivered,
)
from fracnet.serving.dicom_inbox import ANSWER, Answer, Inbox
from fracnet.serving.dicom_node import Node, Settings, tls_context

pytestmark = [
    pytest.mark.filterwarnings("ignore:::pydicom", "ignore:::highdicom"),
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SETTINGS = Settings(aet="FRACNET", callers=None, quiet=0.5, max_bytes=1e7, keep_hours=1)
STUDY = "1.2.826.0.1.77"


@pytest.fixture
def pixels(views: Path) -> list[np.ndarray]:
    """Two views of one patient."""
    return [read_grey(path) for path in sorted((views / "test").glob("00_*.png"))]


@pytest.fixture
def scans(pixels: list[np.ndarray], tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.dcm" for i in (1, 2)]
    for i, file in enumerate(files):
        file.write_bytes(radiograph(pixels[i], STUDY, i + 1))
    return files


class Running:
    """A node in this process. port: where it listens."""

    def __init__(self, node: Node, spool: Path, port: int) -> None:
        self.node, self.spool, self.port = node, spool, port

    def images(self) -> list[Path]:
        return sorted(self.spool.glob("studies/*/images/*.dcm"))

    def table(self, name: str) -> pd.DataFrame:
        (path,) = self.spool.glob(f"{name}_*.csv")
        return pd.read_csv(path, keep_default_na=False)

    def answered(self, number: int = 1) -> list[Path]:
        """The objects, once all of so many answers are delivered."""
        wait_for(lambda: len(list(self.spool.glob("studies/*/answers/*/done"))) == number)
        return sorted(self.spool.glob("studies/*/answers/*/*.dcm"))


@contextmanager
def running(
    predictor: Predictor,
    spool: Path,
    destinations: Sequence[Destination] = (),
    settings: Settings = SETTINGS,
    limit: float = 1e9,
    tls: tuple[str, str, str] | None = None,
    objects: bool = True,
) -> Iterator[Running]:
    inbox = Inbox(spool, limit)
    node = Node(settings, predictor, inbox, [Table(spool), *destinations], objects=objects)
    server = node.serve(("127.0.0.1", 0), tls_context(*tls) if tls else None)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield Running(node, spool, server.server_address[1])
    finally:
        node.stop.set()
        thread.join()
        server.ae.shutdown()


@contextmanager
def receiver(store: Callable[[evt.Event], int], *kinds: str) -> Iterator[int]:
    """The port of a receiver named PACS. store: takes an object and returns the status."""
    peer = AE("PACS")
    for kind in kinds:
        peer.add_supported_context(kind)
    handlers = [(evt.EVT_C_STORE, store)]
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def by_modality(files: Sequence[Path]) -> dict[str, list[Dataset]]:
    result: dict[str, list[Dataset]] = {}
    for file in files:
        header = dcmread(file)
        result.setdefault(header.Modality, []).append(header)
    return result


def numbers(report: Dataset) -> list[dict[str, float]]:
    """The measurements of each group, by name."""
    content = sr.ComprehensiveSR.from_dataset(report).content
    groups = content.get_image_measurement_groups()
    return [{m.name.meaning: float(m.value) for m in g.get_measurements()} for g in groups]


def test_a_study_comes_back_with_captures_and_a_report(
    predictor: Predictor, scans: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port, received = free_port(), tmp_path / "received"
    echo = [program("echoscu"), "-aec", "FRACNET", "127.0.0.1"]
    with running(
        predictor, tmp_path / "spool", [Receiver(f"STORE@127.0.0.1:{port}", "FRACNET")]
    ) as r:
        assert subprocess.run([*echo, str(r.port)]).returncode == 0
        sent = storescu(r.port, scans)
        assert sent.returncode == 0, sent.stderr
        assert len(r.images()) == 2, "on disk once acknowledged"
        # The receiver is down at first.
        wait_for(lambda: list(r.spool.glob("studies/*/answers/1")))
        with storescp(port, received):
            r.answered()
            storescu(r.port, scans)  # nothing new
            results = by_modality(list(received.iterdir()))
        table = predictor.predict(scans)
        assert (r.table("predictions")["prob_abnormal"] == table["prob_abnormal"]).all()
        (study,) = r.table("studies").to_dict("records")
    assert {kind: len(objects) for kind, objects in results.items()} == {"OT": 2, "SR": 1}
    (report,) = results["SR"]
    images, (views,) = table.to_dict("records"), predictor.studies(table).to_dict("records")
    assert study["prob_abnormal"] == views["prob_abnormal"]
    for group, row in zip(numbers(report), [*images, views], strict=True):
        for name in predictor.classes:
            assert group[f"Probability of {name}"] == pytest.approx(row[f"prob_{name}"], abs=1e-13)
    text = report.to_json()
    assert predictor.checkpoint_sha256 in text
    assert predictor.decisions["sha256"] in text
    assert "Research use only" in text
    source = dcmread(scans[0])
    for result in (*results["OT"], report):
        assert "research use only" in result.SeriesDescription
        assert result.SeriesInstanceUID not in (source.SeriesInstanceUID, "")
        for key in ("StudyInstanceUID", "PatientName", "PatientID", "PatientSex", "StudyDate",
                    "AccessionNumber", "StudyID", "StudyDescription"):  # fmt: skip
            assert result[key].value == source[key].value, key
    assert {r.ImageType[0] for r in results["OT"]} == {"DERIVED"}
    assert len({r.SeriesInstanceUID for r in results["OT"]}) == 1
    printed = capfd.readouterr()
    for word in (*NAME.split("^"), PATIENT, STUDY, "Wrist"):
        assert word not in printed.out + printed.err, "no patient data in the log"


def test_results_break_no_rule_of_dicom(
    predictor: Predictor, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    """Not even where the image does."""
    check = program("dciodvfy")
    broken = {"PatientSex": "woman", "PatientBirthDate": "2.1.1970", "PatientName": None}
    files = [tmp_path / "good.dcm", tmp_path / "bad.dcm"]
    files[0].write_bytes(radiograph(pixels[0], STUDY))
    files[1].write_bytes(radiograph(pixels[1], "1.2.3", **broken))
    with running(predictor, tmp_path / "spool") as r:
        assert storescu(r.port, files).returncode == 0
        objects = r.answered(2)
    assert len(objects) == 4
    for file in objects:
        told = subprocess.run([check, file], capture_output=True, text=True).stderr
        assert "Error" not in told, told


def test_orthanc_gets_the_results_into_its_study(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    port = free_port()
    target = Receiver(f"PACS@127.0.0.1:{port}", "FRACNET")
    with (
        running(predictor, tmp_path / "spool", [target]) as r,
        orthanc(tmp_path, port, r.port) as pacs,
    ):
        for scan in scans:
            pacs.send("/instances", scan.read_bytes())
        (study,) = pacs.get("/studies")
        pacs.send("/modalities/node/store", study)
        r.answered()
        assert pacs.get("/studies") == [study]
        series = {pacs.get(f"/series/{name}")["MainDicomTags"]["Modality"]: name
                  for name in pacs.get(f"/studies/{study}")["Series"]}  # fmt: skip
        assert set(series) == {"CR", "OT", "SR"}
        (name,) = pacs.get(f"/series/{series['SR']}")["Instances"]
        report = dcmread(io.BytesIO(pacs.download(f"/instances/{name}/file")))
        assert len(numbers(report)) == 3
        capture = pacs.get(f"/series/{series['OT']}")["Instances"][0]
        picture = dcmread(io.BytesIO(pacs.download(f"/instances/{capture}/file"))).pixel_array
        assert picture.shape[2] == 3
        # A PACS that forwards everything does not make the node answer its own answers.
        pacs.send("/modalities/node/store", capture)
        assert len(r.images()) == 2
        assert r.node.inbox.open_studies == 0


def test_later_images_get_a_new_answer(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    target = Folder(tmp_path / "results")
    with running(predictor, tmp_path / "spool", [target]) as r:
        storescu(r.port, scans[:1])
        r.answered()
        storescu(r.port, scans)
        r.answered(2)
        table = r.table("predictions")
    assert table["number"].tolist() == [1, 2, 2]
    results = by_modality(list((tmp_path / "results").rglob("*.dcm")))
    assert (len(results["OT"]), len(results["SR"])) == (3, 2)
    assert len({r.SOPInstanceUID for objects in results.values() for r in objects}) == 5
    with running(predictor, tmp_path / "spool") as r:  # a restart repeats nothing
        assert (r.node.inbox.open_studies, r.node.inbox.waiting) == (0, [])
        assert r.node.inbox.forget(hours=1) == 0
        assert r.node.inbox.forget(hours=0) == 1
        assert r.images() == []
        assert len(r.table("predictions")) == 3


def test_silent_writes_the_tables_alone(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    with running(predictor, tmp_path / "spool", objects=False) as r:
        storescu(r.port, scans)
        assert r.answered() == []
        assert (
            r.table("predictions")["prob_normal"] == predictor.predict(scans)["prob_normal"]
        ).all()


def test_a_row_that_was_written_in_part_is_written_again(tmp_path: Path) -> None:
    table = Table(tmp_path)
    for _ in range(2):
        table._append(tmp_path / "t.csv", "answer,x\na,1\n", "a")
        table._append(tmp_path / "t.csv", "answer,x\nb,1\nb,2\n", "b")
        whole = (tmp_path / "t.csv").read_text()
        assert whole == "answer,x\na,1\nb,1\nb,2\n"
        (tmp_path / "t.csv").write_text(whole[:-3])
        table._append(tmp_path / "t.csv", "answer,x\nb,1\nb,2\n", "b")
        assert (tmp_path / "t.csv").read_text() == whole
        (tmp_path / "t.csv").unlink()


def test_an_answer_that_comes_again_leaves_the_rows_of_others(tmp_path: Path) -> None:
    """As where a study has been removed from the spool and is sent again."""
    table, path = Table(tmp_path), tmp_path / "t.csv"
    for name in ("a", "b", "a"):
        table._append(path, f"answer,x\n{name},1\n", name)
    assert path.read_text() == "answer,x\na,1\nb,1\na,1\n"


def test_a_refused_object_does_not_hold_back_the_others(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    """The peer takes reports alone, and says that it has had them before."""
    received: list[str] = []

    def store(event: evt.Event) -> int:
        received.append(event.request.AffectedSOPClassUID)
        return 0x0111

    with receiver(store, ComprehensiveSRStorage) as port:
        target = Receiver(f"PACS@127.0.0.1:{port}", "FRACNET")
        with running(predictor, tmp_path / "spool", [target]) as r:
            storescu(r.port, scans)
            wait_for(lambda: received)
            time.sleep(3)  # the captures are tried again, the report is not
    assert received == [ComprehensiveSRStorage]


def test_strangers_are_refused(predictor: Predictor, scans: list[Path], tmp_path: Path) -> None:
    settings = replace(SETTINGS, callers=["CR1"])
    with running(predictor, tmp_path / "spool", settings=settings) as r:
        assert "Calling AE Title" in storescu(r.port, scans).stderr
        assert "Called AE Title" in storescu(r.port, scans, "-aet", "CR1", called="X").stderr
        assert r.images() == []
        assert storescu(r.port, scans, "-aet", "CR1").returncode == 0
        assert len(r.images()) == 2


def test_what_is_no_single_grey_image_is_refused(
    predictor: Predictor, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    image, code = pixels[0], {}
    objects = {
        "good": (radiograph(image, STUDY), "Success"),
        "rle": (rle(image, StudyInstanceUID=STUDY, SeriesInstanceUID=STUDY), "Success"),
        "path": (radiograph(image, STUDY, StudyInstanceUID="../../../tmp/x"), "CannotUnderstand"),
        "instance": (radiograph(image, STUDY, SOPInstanceUID="../x"), "CannotUnderstand"),
        "dots": (radiograph(image, STUDY, StudyInstanceUID=".."), "CannotUnderstand"),
        "no_study": (radiograph(image, STUDY, StudyInstanceUID=None), "CannotUnderstand"),
        "short": (radiograph(image, STUDY, PixelData=b"12"), "CannotUnderstand"),
        "frames": (radiograph(image, STUDY, NumberOfFrames=2), "CannotUnderstand"),
        "ct": (radiograph(image, STUDY, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "context"),
    }
    with running(predictor, tmp_path / "spool", settings=replace(SETTINGS, quiet=60)) as r:
        for name, (data, _) in objects.items():
            file = tmp_path / f"{name}.dcm"
            file.write_bytes(data)
            code[name] = storescu(r.port, [file], "-xr" if name == "rle" else "-x=").stderr
        stored = len(r.images())
    assert not list(tmp_path.parent.glob("x*"))
    for name, (_, expected) in objects.items():
        assert expected.lower() in code[name].lower().replace(" ", ""), name
    assert stored == 2


def test_the_disk_is_bounded(predictor: Predictor, scans: list[Path], tmp_path: Path) -> None:
    with running(predictor, tmp_path / "spool", limit=scans[0].stat().st_size + 1000) as r:
        answers = [storescu(r.port, [scan]).stderr for scan in scans]
    assert "(Success)" in answers[0]
    assert "OutOfResources" in answers[1].replace(" ", "")
    assert len(r.images()) == 1


def test_a_full_disk_is_no_success(
    predictor: Predictor, scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with running(predictor, tmp_path / "spool") as r:
        monkeypatch.setattr(os, "fsync", full)
        assert "OutOfResources" in storescu(r.port, scans).stderr.replace(" ", "")
        monkeypatch.undo()
        assert r.images() == []


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[str, str, str]:
    """Certificate, key, and the certificate again, which has signed itself."""
    cert, key = str(tmp_path / "node.crt"), str(tmp_path / "node.key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]
    subprocess.run(
        [*command, "/CN=127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert, key, cert


def test_tls_needs_a_known_certificate(
    predictor: Predictor,
    scans: list[Path],
    tmp_path: Path,
    certificates: tuple[str, str, str],
) -> None:
    cert, key, _ = certificates
    with running(predictor, tmp_path / "spool", tls=certificates) as r:
        # A handshake that never comes holds up nobody.
        with socket.create_connection(("127.0.0.1", r.port)):
            known = storescu(r.port, scans, "+tls", key, cert, "+cf", cert)
        assert known.returncode == 0, known.stderr
        assert len(r.images()) == 2
        assert storescu(r.port, scans).returncode != 0
        assert storescu(r.port, scans, "+tla", "+cf", cert).returncode != 0


def test_hostile_connections_end_and_others_are_served(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    contexts = b"".join(
        struct.pack(">BxHBxxxBxH3sBxH3s", 0x20, 15, 1, 0x30, 3, b"1.2", 0x40, 3, b"1.2")[:19]
        for _ in range(5000)
    )
    body = struct.pack(">Hxx16s16s32x", 1, b"FRACNET", b"EVIL") + contexts
    garbage = np.random.default_rng(0).bytes(5000)
    attacks = [
        b"GET / HTTP/1.1\r\n\r\n",
        garbage,
        b"\x01\x00",  # half of a header, and then nothing
        b"\x01\x00\xff\xff\xff\xff" + garbage,  # a request of 4 GB
        b"\x04\x00\xff\xff\xff\xff" + garbage,  # data without an association
        struct.pack(">BxI", 1, len(body)) + body,
        struct.pack(">BxI", 1, len(garbage)) + garbage,
    ]
    with running(predictor, tmp_path / "spool") as r:
        sockets = []
        for attack in attacks:
            sockets.append(socket.create_connection(("127.0.0.1", r.port)))
            with suppress(OSError):  # closed already
                sockets[-1].sendall(attack)
        assert storescu(r.port, scans).returncode == 0
        for one in sockets:
            one.close()
        assert len(r.images()) == 2


def test_too_much_data_in_one_object_ends_the_association(
    predictor: Predictor, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    large = tmp_path / "large.dcm"
    large.write_bytes(radiograph(np.tile(pixels[0], (40, 40)), STUDY))
    assert large.stat().st_size > 1e6
    settings = replace(SETTINGS, max_bytes=1e6)
    with running(predictor, tmp_path / "spool", settings=settings) as r:
        assert storescu(r.port, [large]).returncode != 0
        assert r.images() == []


def test_a_damaged_object_never_reaches_the_decoders_of_pydicom(
    predictor: Predictor, pixels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of plugins, such as highdicom's pyjpegls, may end the process."""

    def crash(*_: object, **__: object) -> None:
        os._exit(9)

    plugins = JPEGLSLosslessDecoder._available
    assert "pyjpegls" in plugins
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", dict.fromkeys(plugins, crash))
    monkeypatch.setattr(Dataset, "pixel_array", property(crash))
    coded = imagecodecs.jpegls_encode(pixels[0])
    damaged = bytearray(coded)
    damaged[len(coded) // 2 :: 7] = bytes(len(damaged[len(coded) // 2 :: 7]))
    syntax = "1.2.840.10008.1.2.4.80"
    ids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": STUDY}
    file = tmp_path / "damaged.dcm"
    with running(predictor, tmp_path / "spool") as r:
        for data in (coded, bytes(damaged), coded[:50]):
            file.write_bytes(compressed(pixels[0], data, syntax, **ids))
            told = storescu(r.port, [file], "-xt").stderr
            assert "Received Store Response" in told, told
        r.answered()


def start_node(run: Path, folder: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """`python -m fracnet.node` in a process of its own, once it listens; and its port."""
    port = free_port()
    keys = [f"run={run}", f"port={port}", "folder=results", "spool=spool", *options]
    process = Warm(
        [sys.executable, "-m", "fracnet.node", *keys],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "Research use only" in line:
            return process, port
    raise AssertionError("it did not start")


@pytest.mark.slow
def test_killed_it_loses_nothing_and_repeats_the_object_on_its_way_alone(
    predictor: Predictor, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    """Killed after it has received, and between the storage of an object and the status."""
    files = [tmp_path / f"{n}.dcm" for n in range(8)]
    for n, file in enumerate(files):
        file.write_bytes(radiograph(pixels[n % 2], f"{STUDY}.{n // 2}", n + 1))
    received: list[bytes] = []

    def store(event: evt.Event) -> int:
        received.append(event.encoded_dataset())
        if len(received) == 2:
            process.kill()
            process.wait()
        return 0

    run = predictor.folder.path
    with receiver(store, SecondaryCaptureImageStorage, ComprehensiveSRStorage) as port:
        target = f"send_to=PACS@127.0.0.1:{port}"
        process, own = start_node(run, tmp_path, target, "quiet=60")
        assert storescu(own, files).stderr.count("(Success)") == 8
        process.kill()
        process.communicate()
        process, own = start_node(run, tmp_path, target, "quiet=1")
        storescu(own, files[:4])  # nothing new
        process.communicate(timeout=60)
        assert len(received) == 2
        process, own = start_node(run, tmp_path, target, "quiet=1")
        done = tmp_path / "spool" / "studies"
        wait_for(lambda: len(list(done.glob("*/answers/*/done"))) == 4)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped" in out
    assert PATIENT not in out
    assert received.pop(2) == received[1], "the same object, byte by byte"
    objects = [dcmread(io.BytesIO(data)) for data in received]
    assert Counter(each.Modality for each in objects) == {"OT": 8, "SR": 4}
    uids = {each.SOPInstanceUID for each in objects}
    assert len(uids) == len(objects)
    assert {file.stem for file in (tmp_path / "results").rglob("*.dcm")} == uids
    (table,) = (tmp_path / "spool").glob("predictions_*.csv")
    assert len(pd.read_csv(table)) == 8


class _Web(http.server.BaseHTTPRequestHandler):
    """A STOW-RS service that is busy at first."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        first = not self.bodies
        self.bodies.append(body)
        self.send_response(503 if first else 200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_dicomweb_gets_each_object_once_it_is_up(
    predictor: Predictor, scans: list[Path], tmp_path: Path
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = Stow(f"http://name:password@127.0.0.1:{server.server_port}/dicom-web")
    assert "password" not in target.name
    with running(predictor, tmp_path / "spool", [target]) as r:
        storescu(r.port, scans)
        objects = r.answered()
    server.shutdown()
    server.server_close()
    assert len(_Web.bodies) == len(objects) + 1
    for file in objects:
        uid = dcmread(file).SOPInstanceUID.encode()
        assert sum(uid in body for body in _Web.bodies[1:]) >= 1


@pytest.mark.parametrize(
    ("reason", "stored"), [(0x0111, True), (45070, True), (0x0110, False), (None, False)]
)
def test_dicomweb_that_has_an_object_already_need_not_get_it_again(
    reason: int | None, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may answer a repeated object with a conflict, and say why."""
    failure = Dataset()
    failure.FailureReason = reason
    said = Dataset()
    said.FailedSOPSequence = [failure]
    response = requests.Response()
    response.status_code = 409
    response._content = said.to_json().encode() if reason else b"no JSON"

    def refuse(*_: object) -> Dataset:
        raise requests.HTTPError(response=response)

    target = Stow("http://127.0.0.1:1/dicom-web")
    monkeypatch.setattr(target.client, "store_instances", refuse)
    content = {"study": "s", "version": 1, "images": [], "id": "a", "tables": {}}
    (tmp_path / ANSWER).write_text(json.dumps(content))
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path / "0.dcm")
    answer = Answer(tmp_path)
    if stored:
        assert target.send(answer) == 1
        assert target.lacks(answer) == []
    else:
        with pytest.raises(Undelivered, match="409"):
            target.send(answer)
        assert len(target.lacks(answer)) == 1


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "name where results go"),
        (["send_to=PACS", "folder=x"], "AET@host:port"),
        (["host=0.0.0.0", "folder=x"], "name who may send"),
        (["tls.cert=none.crt", "folder=x"], "tls.key"),
        (["tls.cert=none.crt", "tls.key=none.key", "folder=x"], "none.crt"),
        (["aet=much-too-long-title", "folder=x"], "aet"),
        (["folder=file"], "folder="),
        (["folder=x", "spool=file"], "spool="),
        (["send_to=back\\\\slash@127.0.0.1:104"], "AET@host:port"),
    ],
)
def test_mistakes_are_named(
    keys: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = run_command(node, "node", ["run=none", *keys], capsys)
    assert (result.code, reason in result.err) == (1, True), result.err

"""DICOM senders and receivers of other makers, from Debian's packages: dcmtk and Orthanc."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from helpers.dicom_files import dataset, file_bytes
from pydicom.uid import UID, ComputedRadiographyImageStorage

NAME, PATIENT = "SECRETNAME^PLANTED", "SECRETID"


def program(name: str) -> str:
    """The program's path; skips the test where it is not installed."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What the condition returns once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return value


def radiograph(pixels: np.ndarray, study: str, number: int = 1, **header: Any) -> bytes:
    """A file of a Computed Radiography image of a planted patient."""
    uid = header.pop("SOPInstanceUID", f"{study}.1.{number}")
    elements = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "PatientName": NAME,
        "PatientID": PATIENT,
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20260102",
        "StudyTime": "101500",
        "StudyID": "7",
        "AccessionNumber": "A7",
        "StudyDescription": "Wrist",
        "ReferringPhysicianName": "Who^Doctor",
        "Modality": "CR",
        "SeriesNumber": 1,
        "InstanceNumber": number,
    }
    image = dataset(pixels, **(elements | header))
    image.file_meta.MediaStorageSOPClassUID = UID(image.SOPClassUID)
    image.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return file_bytes(image)


def storescu(
    port: int, files: Sequence[Path], *options: str, called: str = "FRACNET"
) -> subprocess.CompletedProcess[str]:
    """Send files; -nh: go on after a failure."""
    command = [program("storescu"), "-v", "-nh", *options, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True)


@contextmanager
def storescp(port: int, folder: Path) -> Iterator[None]:
    """A receiver named STORE, which keeps what it gets; each repeated object as a further file."""
    folder.mkdir(exist_ok=True)
    command = [program("storescp"), "-aet", "STORE", "--unique-filenames", "-od", str(folder)]
    with subprocess.Popen([*command, str(port)]) as process:
        try:
            yield
        finally:
            process.kill()


class Orthanc:
    """A PACS with its REST interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=20).json()

    def download(self, path: str) -> bytes:
        return requests.get(self.url + path, timeout=20).content

    def send(self, path: str, data: Any) -> Any:
        answer = requests.post(self.url + path, data=data, timeout=60)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def orthanc(folder: Path, dicom_port: int, node_port: int) -> Iterator[Orthanc]:
    """A PACS named PACS, which knows the node as a modality named node."""
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"),
        "HttpPort": port, "DicomPort": dicom_port, "DicomAet": "PACS", "Plugins": [],
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomModalities": {"node": ["FRACNET", "127.0.0.1", node_port]},
        "DicomAlwaysAllowStore": True,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with subprocess.Popen(
        [program("Orthanc"), str(folder / "orthanc.json")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            pacs = Orthanc(port)

            def answers() -> bool:
                try:
                    return bool(pacs.get("/system"))
                except requests.ConnectionError:
                    return False

            wait_for(answers)
            yield pacs
        finally:
            process.kill()

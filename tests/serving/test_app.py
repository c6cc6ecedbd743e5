"""The page's server: the same numbers as `fracnet.predict`, and what it refuses."""

import base64
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.browser import Browser
from helpers.dicom_files import dicom
from starlette.testclient import TestClient

from fracnet.data.image_io import read_grey
from fracnet.inference.predictor import Predictor
from fracnet.serving import app as server
from fracnet.serving.app import Limits, make_app
from fracnet.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Using .httpx. with")
LIMITS = Limits(megabytes=2, files=40, seconds=60)
LOCAL = "http://127.0.0.1:8080"


@pytest.fixture
def client(predictor: Predictor) -> TestClient:
    return TestClient(make_app(predictor, LIMITS), base_url=LOCAL)


@pytest.fixture
def scans(views: Path, tmp_path: Path) -> Path:
    """Four images, two DICOM files of one study, a cut file and a text."""
    folder = tmp_path / "scans"
    folder.mkdir()
    images = sorted((views / "test").glob("*.png"))[:4]
    for image in images:
        (folder / image.name).write_bytes(image.read_bytes())
    pixels = read_grey(images[0])
    for n in range(2):
        header = {"PatientID": "p7", "StudyInstanceUID": "1.2.3"}
        (folder / f"view{n}.dcm").write_bytes(dicom(pixels[:, ::-1] if n else pixels, **header))
    (folder / "cut.png").write_bytes(images[0].read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    return folder


def send(client: TestClient, *files: Path, **fields: str) -> Any:
    parts = [("files", (file.name, file.read_bytes())) for file in files]
    answer = client.post("/api/predict", files=parts, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_answers_repeat_the_numbers_of_predict(
    client: TestClient, predictor: Predictor, scans: Path
) -> None:
    files = sorted(scans.iterdir())
    answer = send(client, *files)
    table = predictor.predict(files)
    assert [image["path"] for image in answer["images"]] == [file.name for file in files]
    for image, (_, row) in zip(answer["images"], table.iterrows(), strict=True):
        assert (image["error"] == "") == (row["error"] == "")
        assert str(scans.parent) not in image["error"]
        if row["error"]:
            assert image["probabilities"] is None
            continue
        for name in predictor.classes:
            assert image["probabilities"][name] == row[f"prob_{name}"]
        for key in ("decision", "uncertain", "reason", "ood_score", "ood", "log_odds", "study"):
            assert image[key] == row[key] or (image[key] is None and row[key] is None), key
    (study,) = answer["studies"]
    (_, expected), *_ = predictor.studies(table).iterrows()
    assert study["decision"] == expected["decision"]
    assert study["probabilities"] == {name: expected[f"prob_{name}"] for name in predictor.classes}


def test_studies_can_be_decided_from_single_answers(client: TestClient, scans: Path) -> None:
    files = [scans / "view0.dcm", scans / "view1.dcm"]
    together = send(client, *files, heatmaps="false")
    single = [send(client, file)["images"][0] for file in files]
    later = client.post("/api/studies", json={"images": single})
    assert later.json()["studies"] == together["studies"]
    numbered = [single[0] | {"study": 5}, single[1] | {"study": None}]
    (study,) = client.post("/api/studies", json={"images": numbered}).json()["studies"]
    assert repr(study["study"]) == "5"
    wrong = client.post("/api/studies", json={"images": [{"path": "a"}]})
    assert wrong.status_code == 422


def test_pictures_have_the_size_of_the_file(client: TestClient, scans: Path) -> None:
    wide = np.tile(np.arange(200, dtype=np.uint8), (50, 1))
    (scans / "wide.png").write_bytes(cv2.imencode(".png", wide)[1].tobytes())
    (image,) = send(client, scans / "wide.png")["images"]
    for kind in ("image", "heatmap"):
        data = base64.b64decode(image[kind].partition(",")[2])
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels.shape == wide.shape
        assert kind == "heatmap" or (pixels == wide).all()
    assert "image" not in send(client, scans / "wide.png", heatmaps="false")["images"][0]


def test_what_is_too_large_or_too_much_is_refused(client: TestClient, scans: Path) -> None:
    large = client.post("/api/predict", files={"files": ("a.png", bytes(4_000_000))})
    assert (large.status_code, "2 MB" in large.json()["error"]) == (413, True)
    chunks = client.post(
        "/api/predict",
        content=(bytes(100_000) for _ in range(50)),  # names no length
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert chunks.status_code in (400, 413)
    many = [("files", (f"{i}.png", b"x")) for i in range(LIMITS.files + 1)]
    assert client.post("/api/predict", files=many).status_code == 400
    assert client.post("/api/predict", data={"other": "x"}).status_code == 422


def test_requests_end_in_time(predictor: Predictor, scans: Path) -> None:
    quick = TestClient(make_app(predictor, Limits(2, 40, 0.0)), base_url=LOCAL)
    answer = quick.post("/api/predict", files={"files": (scans / "view0.dcm").read_bytes()})
    assert (answer.status_code, "time limit" in answer.json()["error"]) == (503, True)


def test_only_this_machine_is_answered_without_a_token(predictor: Predictor) -> None:
    app = make_app(predictor, LIMITS)
    for host in (LOCAL, "http://localhost:9", "http://[::1]:9"):
        assert TestClient(app, base_url=host).get("/api/model").status_code == 200, host
    assert TestClient(app, base_url="http://evil.example").get("/").status_code == 421
    crossed = TestClient(app, base_url=LOCAL).get("/", headers={"Origin": "http://evil.example"})
    assert crossed.status_code == 403


def test_other_machines_need_the_token(predictor: Predictor) -> None:
    app = make_app(predictor, LIMITS, token="secret-token")
    client = TestClient(app, base_url="http://hospital:80")
    for path in ("/", "/page.js", "/api/model", "/openapi.json", "/?token=wrong&token="):
        assert client.get(path).status_code == 401, path
    bearer = {"Authorization": "Bearer secret-token"}
    assert client.get("/api/model", headers=bearer).status_code == 200
    opened = client.get("/?token=secret-token&token=", follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200  # by its cookie


def test_every_answer_forbids_other_sources(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/", "/page.js", "/page.css", "/api/model", "/nothing", "/..%2fapp.py"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/nothing").json()["error"]
    assert client.get("/app.py").status_code == 404
    (tmp_path / "page.js~").touch()
    monkeypatch.setattr(server, "PAGE", tmp_path)
    assert client.get("/page.js~").status_code == 404
    assert "/api/predict" in client.get("/openapi.json").json()["paths"]


def test_nothing_is_stored(
    client: TestClient, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scans.parent / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    send(client, *scans.iterdir())
    assert os.listdir(place) == []


def test_a_port_in_use_is_named() -> None:
    first = server.listen("127.0.0.1", 0)
    with first, pytest.raises(UserError, match=r"port=.*another port="):
        server.listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(UserError, match=r"host=no\.such\.invalid"):
        server.listen("no.such.invalid", 0)


@pytest.fixture
def address(predictor: Predictor) -> Iterator[str]:
    listening = server.listen("127.0.0.1", 0)
    running = server.make_server(make_app(predictor, LIMITS))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield server.address(listening, "127.0.0.1", None)
    running.should_exit = True
    thread.join()


PREDICTED = """new Promise((resolve) => {
  const watch = setInterval(() => {
    const text = document.getElementById("status").textContent;
    if (text.includes("predicted")) { clearInterval(watch); resolve(text); }
  }, 50);
})"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_the_numbers_of_predict(
    width: int, scheme: str, chromium: Browser, address: str, predictor: Predictor, scans: Path
) -> None:
    with (scans / "huge.png").open("wb") as file:
        file.truncate(400_000_000)
    readable = [*sorted(scans.glob("[0-9]*.png")), *sorted(scans.glob("*.dcm"))]
    chromium.open(address, width, scheme)
    chromium.choose_files("#files", [*readable, *(scans / n for n in ("cut.png", "huge.png"))])
    assert chromium.value(PREDICTED) == f"{len(readable)} images predicted, 1 unreadable."
    if shots := os.environ.get("FRACNET_SHOTS"):
        chromium.picture(Path(shots) / f"serve_{width}.png")
    assert chromium.faults == []
    assert "huge.png is 400 MB; the limit is 2 MB" in chromium.value("document.body.innerText")
    shown = """[...document.querySelectorAll(".card:has(canvas)")].map((card) => [
      card.querySelector("h3").textContent,
      ...[...card.querySelectorAll(".classes [title]")].map((number) => number.title),
    ])"""
    found = {name: list(map(float, values)) for name, *values in chromium.value(shown)}
    table = predictor.predict(readable)
    expected = table[[f"prob_{name}" for name in predictor.classes]].to_numpy().tolist()
    assert found == dict(zip((file.name for file in readable), expected, strict=True))
    study = "document.querySelector('.group').innerText"
    assert "Study 1.2.3" in chromium.value(study)
    # A file that was chosen but not predicted may be a view of the study.
    assert "1 file not predicted: a view may be missing" in chromium.value(study)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    cards = chromium.value("document.querySelectorAll('.card').length")
    chromium.choose_files("#files", readable)
    assert chromium.value(PREDICTED) == f"{len(readable)} images predicted, 1 unreadable."
    assert chromium.value("document.querySelectorAll('.card').length") == cards
    assert f"{len(readable)} files already shown" in chromium.value("document.body.innerText")

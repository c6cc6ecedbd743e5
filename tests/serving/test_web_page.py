"""The page without a server: `python -m fracnet.export target=web`."""

import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from helpers.browser import Browser
from helpers.command import run_command
from helpers.dicom_files import compressed, dicom, rle
from helpers.exported import other_weights, rewritten
from helpers.pictures import color, encoded, picture
from PIL import Image
from pydicom import uid
from scipy.special import softmax

import fracnet
from fracnet.evaluation.conformal import NEVER, Limits, limit_evidence
from fracnet.export import export
from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.serving import web_page
from fracnet.serving.app import study_rows, table_of
from fracnet.utils.errors import UserError
from fracnet.utils.text import MAX_NAMES

SOURCES = Path(web_page.__file__).parent / "web/src"
DEEP = np.asarray(picture()).astype(np.uint16) * 13 + 200
GREY = np.asarray(picture())
TWELVE = {"BitsStored": 12}
built = pytest.mark.skipif(
    not (web_page.BUILT / "engine.js").is_file(), reason="the page is not built: make web"
)


@pytest.fixture(scope="module")
def web(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    web_page.write_web_page(OnnxPredictor(exported, error=None), folder)
    return folder / "web"


@pytest.fixture
def served(web: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder on a plain server: its address, and the requests that it gets."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            requests.append(str(arguments[0]))

    handler = functools.partial(Handler, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", requests
        server.shutdown()
        thread.join()


def images() -> dict[str, bytes]:
    """Radiographs of every kind that the page reads."""
    alpha = Image.fromarray(np.dstack([np.asarray(color()), GREY]))
    lossless = imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12)
    jpeg2000 = imagecodecs.jpeg2k_encode(DEEP, level=0, reversible=True, codecformat="j2k")
    near = imagecodecs.jpegls_encode(DEEP, level=2)
    study = {"PatientID": "p7", "StudyInstanceUID": "1.2.3", **TWELVE}
    window = {"WindowCenter": 1500, "WindowWidth": 2000, **TWELVE}
    return {
        "color.jpg": encoded(color(), "JPEG", quality=80),
        "=grey,1.jpg": encoded(picture(), "JPEG", progressive=True),  # as a spreadsheet's formula
        "turned.jpg": encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"
                              b"\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        "grey.png": encoded(picture(), "PNG"),
        "deep.png": encoded(Image.fromarray(DEEP), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.png": encoded(color().quantize(60), "PNG", transparency=bytes(range(60))),
        "inverse.dcm": dicom(DEEP, PhotometricInterpretation="MONOCHROME1", **window),
        "view0.dcm": dicom(DEEP, **study),
        "view1.dcm": dicom(np.ascontiguousarray(DEEP[:, ::-1]), **study),
        "signed.dcm": dicom(DEEP.astype(np.int16) - 1000, RescaleSlope="0.5"),
        "rle.dcm": rle(DEEP, **TWELVE),
        "overlay.dcm": dicom(DEEP | np.uint16([[0x9000], [0]] * 25), **TWELVE),
        "lossless.dcm": compressed(DEEP, lossless, uid.JPEGLosslessSV1, **window),
        "jpeg-ls.dcm": compressed(DEEP, near, uid.JPEGLSNearLossless, **TWELVE),
        "jpeg2000.dcm": compressed(DEEP, jpeg2000, uid.JPEG2000Lossless, **TWELVE),
        "baseline.dcm": compressed(GREY, imagecodecs.jpeg8_encode(GREY), uid.JPEGBaseline8Bit),
    }  # fmt: skip


def refused() -> dict[str, tuple[bytes, str]]:
    """Files that are no picture, or half of one, and what the page says."""
    files = images()
    lossless = b"\xff\xd8" + files["lossless.dcm"].partition(b"\xff\xd8")[2][:900] + b"\xff\xd9"
    cut = compressed(DEEP, lossless, uid.JPEGLosslessSV1, **TWELVE)
    return {
        "notes.txt": (b"no image", "it is not a JPEG, PNG or DICOM image"),
        "old.tif": (encoded(picture(), "TIFF"), "TIFF images are not supported by this page"),
        "cut.jpg": (files["color.jpg"][:-300], "its JPEG data are damaged"),
        "cut_end.jpg": (files["color.jpg"][:-300] + b"\xff\xd9", "its JPEG data are damaged"),
        "cut.png": (files["deep.png"][:-300], "the PNG file is truncated"),
        "cut.dcm": (
            files["view0.dcm"][:-300],
            "the file is truncated: 6700 of 7000 bytes of pixels",
        ),
        "cut_lossless.dcm": (cut, "its lossless JPEG data are damaged or truncated"),
        "bright.dcm": (
            dicom(DEEP + np.uint16(4200 - DEEP.max()), **TWELVE),
            "its pixels have values of more than the 12 bits",
        ),
        "color.dcm": (dicom(GREY, PhotometricInterpretation="RGB"), "it is a color image (RGB"),
    }


def wait_until(chromium: Browser, condition: str) -> str:
    """The page's status once the condition holds."""
    return str(
        chromium.value(f"""new Promise((resolve) => {{
          const watch = setInterval(() => {{
            if (!({condition})) return;
            clearInterval(watch);
            resolve(document.getElementById("status").textContent);
          }}, 30);
        }})""")
    )


def saved_table(chromium: Browser) -> pd.DataFrame:
    """What the button saves."""
    text = chromium.value("""new Promise((resolve) => {
      URL.createObjectURL = (blob) => { blob.text().then(resolve); return "#"; };
      document.getElementById("save").click();
    })""")
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


FAILED = 'document.getElementById("status").className'


@built
@pytest.mark.parametrize(
    ("place", "width", "scheme"), [("server", 1280, "light"), ("folder", 390, "dark")]
)
def test_the_page_gives_the_numbers_of_predict_and_sends_nothing(
    place: str, width: int, scheme: str, chromium: Browser, served: tuple[str, list[str]],
    web: Path, exported: Path, tmp_path: Path,
) -> None:  # fmt: skip
    address, requests = served
    for name, data in images().items():
        (tmp_path / name).write_bytes(data)
    for name, (data, _) in refused().items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(400_000_000)
    good, bad = ([tmp_path / name for name in kind()] for kind in (images, refused))
    chromium.open(address if place == "server" else web / "index.html", width, scheme)
    chromium.choose_files("#files", [*good, *bad, tmp_path / "huge.png"])
    status = wait_until(
        chromium, 'document.getElementById("status").textContent.includes("predicted")'
    )
    assert status == f"{len(good)} images predicted, {len(bad)} unreadable."
    if shots := os.environ.get("FRACNET_SHOTS"):
        chromium.picture(Path(shots) / f"web_{width}.png")
    page = chromium.value("document.body.innerText")
    assert re.search(r"answers its 17 golden cases as the run does .* no decision differs", page)
    assert "Research use only" in page
    assert "huge.png is 400 MB; the limit is 200 MB" in page
    for name, (_, reason) in refused().items():
        assert re.search(rf"{name}\s+unreadable\s+.*{re.escape(reason)}", page), name
    assert "Images stay on this device" in page
    assert chromium.value("document.getElementById('opacity-label').hidden") is False
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.faults == []

    model = fracnet.load(exported)
    expected = model.predict(good)
    table = saved_table(chromium)
    assert list(table) == list(expected)
    table["path"] = table["path"].str.removeprefix("'")
    assert set(table["path"]) == {file.name for file in [*good, *bad]}
    expected["path"] = [file.name for file in good]
    both = [t.set_index("path").loc[expected["path"]] for t in (table, expected)]
    for name in expected.columns[1:]:
        if expected[name].dtype == float:
            np.testing.assert_allclose(both[0][name], both[1][name], atol=1e-5, err_msg=name)
        else:
            text = [t[name].fillna("").astype(str).tolist() for t in both]
            assert text[0] == text[1], name
    # Of the same study: its reason says that a view is missing.
    (study,) = model.studies(model.predict([*good, tmp_path / "cut.dcm"])).to_dict("records")
    words = chromium.value("document.querySelector('.group > header').innerText")
    assert words.split("\n")[:4] == [
        "Study 1.2.3", "3 images", study["decision"],
        f"{study['prob_' + study['decision']]:.3f}",
    ]  # fmt: skip
    assert study["reason"] in words

    root = address if place == "server" else web.as_uri() + "/"
    own = {root + name for name in ("index.html", "page.css", "page.js", "engine.js", "model.js")}
    own |= {root} if place == "server" else set()
    assert {url for url in chromium.requests if not url.startswith(("blob:", "data:"))} <= own
    assert all(request.startswith("GET ") for request in requests)
    before = len(requests)
    outcome = chromium.value(f"""Promise.allSettled([
      fetch("{address}x"), fetch("{address}x", {{ method: "POST", body: "pixels" }}),
      fetch("https://example.org/"), new Promise((resolve, reject) => {{
        const image = new Image(); image.onload = resolve; image.onerror = reject;
        image.src = "{address}x?pixels";
      }}),
    ]).then((all) => all.map(({{ status }}) => status))""")
    assert outcome == ["rejected"] * 4
    assert len(requests) == before
    assert all("Content Security Policy" in fault for fault in chromium.faults)


@built
@pytest.mark.parametrize(
    ("change", "reason"),
    [("byte", "was changed after it was exported"), ("weights", "computes other answers")],
)
def test_a_changed_model_predicts_nothing(
    change: str, reason: str, chromium: Browser, web: Path, exported: Path, tmp_path: Path
) -> None:
    if change == "byte":
        folder = Path(shutil.copytree(web, tmp_path / "web"))
        script = (folder / "model.js").read_text()
        place = script.index('"', script.index("parts:")) + 20_000
        other = "A" if script[place] != "A" else "B"
        (folder / "model.js").write_text(script[:place] + other + script[place + 1 :])
    else:
        changed = rewritten(exported, tmp_path / "model.onnx", other_weights)
        web_page.write_web_page(OnnxPredictor(changed, error=None), tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG"))
    chromium.open(tmp_path / "web/index.html", 390, "light")
    chromium.choose_files("#files", [tmp_path / "a.png"])
    assert reason in wait_until(chromium, FAILED)
    assert chromium.value("document.querySelectorAll('.card').length") == 0
    assert chromium.value("document.getElementById('drop').hidden") is True


def test_the_command_says_how_to_build_the_page(
    exported_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(web_page, "BUILT", tmp_path)
    result = run_command(export, "export", [f"run={exported_run}", "target=web"], capsys)
    assert (result.code, "make web" in result.err) == (1, True)


def test_a_model_too_large_for_a_browser_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_page, "MAX_MODEL", 1000)
    with pytest.raises(UserError, match=r"browsers load at most .* target=onnx"):
        web_page.write_web_page(OnnxPredictor(exported, error=None), tmp_path)


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js here")
def test_decisions_and_reasons_are_those_of_python() -> None:
    rng = np.random.default_rng(0)
    questions, expected = [], []
    for n in (2, 2, 3, 5, 12) * 40:
        classes = tuple("abcdefghijkl"[:n])
        prob = rng.dirichlet(np.ones(n))
        never = 0.2 if n < 12 else 0.7  # of so many some are not named
        values = np.where(rng.random(n) < never, NEVER, rng.uniform(0, 0.6, n))
        limits = Limits(classes, 0.05, tuple(values), (0.05,) * n, (20,) * n)
        cut = float(rng.normal()) if n == 2 else None
        odds = float(np.log(prob[1]) - np.log(prob[0])) if n == 2 else None
        questions.append([prob.tolist(), odds, cut, values.tolist(), classes])
        predictor = _Decider(classes, cut, limits)
        score = np.array([[0.0, odds or 0.0]])
        (decision,), (uncertain,), (reason,) = predictor._decided("image", prob[None], score)
        choice = classes.index(decision)
        why = limit_evidence(prob, choice, limits)
        expected.append([choice, bool(uncertain), reason, why])
    found = _run_script(f"""{json.dumps(questions)}.map(([prob, odds, cut, values, classes]) => {{
      const limits = {{ values, classes }};
      const {{ choice, uncertain, reason }} = decided(prob, odds, {{ cut, limits }});
      return [choice, uncertain, reason, evidence(prob, choice, limits)];
    }})""")
    assert found == expected
    assert any(" more for a limit" in why for *_, why in expected)
    assert not any(" more to rule" in reason for *_, reason, _ in expected)
    assert _run_script("MAX_NAMES") == MAX_NAMES


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js here")
@pytest.mark.parametrize(("n", "views"), [(2, "mean"), (2, "max"), (4, "mean")])
def test_studies_are_decided_as_in_python(n: int, views: str) -> None:
    rng = np.random.default_rng(n)
    classes = tuple("abcd"[:n])
    limits = Limits(classes, 0.05, (0.3,) * n, (0.05,) * n, (20,) * n)
    cut = 0.1 if n == 2 else None
    answers = []
    for _ in range(80):
        logits = rng.normal(size=n) * rng.choice([1, 400])  # some probabilities are 0 as floats
        prob = softmax(logits)
        error = rng.choice(["", "broken"], p=[0.8, 0.2])
        answers.append({
            "patient": rng.choice(["p", "q"]), "study": f"s{rng.integers(12)}", "error": str(error),
            "probabilities": None if error else dict(zip(classes, prob.tolist(), strict=True)),
            "log_odds": float(logits[1] - logits[0]) if n == 2 and not error else None,
            "ood": None if error else bool(rng.random() < 0.2),
        })  # fmt: skip
    predictor = _Decider(classes, cut, limits)
    predictor.decisions = {"views": views}
    expected = study_rows(predictor, table_of(predictor, [a | {"path": "x"} for a in answers]))
    model = {"classes": classes, "decisions": predictor.decisions, "ood": {}}
    model["levels"] = {"study": {"cut": cut, "limits": {"values": [0.3] * n, "classes": classes}}}
    found = _run_script(f"studyRows({json.dumps(answers)}, {json.dumps(model)})")
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        numbers, others = (
            [*(r["probabilities"] or {}).values(), r.get("log_odds") or 0] for r in (row, other)
        )
        assert numbers == pytest.approx(others, rel=1e-9, abs=1e-300)
        for key in ("study", "patient", "views", "decision", "uncertain", "reason", "ood"):
            assert row[key] == other[key], key


def _run_script(expression: str) -> Any:
    """The value of a JavaScript expression on decide.js."""
    module = (SOURCES / "decide.js").as_uri()
    script = f"""import {{ MAX_NAMES, decided, evidence, studyRows }} from {json.dumps(module)};
      console.log(JSON.stringify({expression}));"""
    command = ["node", "--no-warnings", "--input-type=module", "-e", script]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class _Decider(OnnxPredictor):
    def __init__(self, classes: tuple[str, ...], cut: float | None, limits: Limits) -> None:
        self.classes = classes
        level = {"cut": cut, "limits": limits}
        self.levels = {"image": level, "study": level}

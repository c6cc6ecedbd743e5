"""The page's files, what it must know of the model, and the page that needs no server.

That one is a static folder, which runs an exported model in the browser.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fracnet.evaluation.summary import plain
from fracnet.inference import CAUTION
from fracnet.inference.batch_predict import COLUMNS
from fracnet.inference.image_predictor import ImagePredictor
from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.inference.prediction_page import decision_rules
from fracnet.models.ood import MEANING, NO_REFERENCE
from fracnet.saliency.drawing import COLORS, OPACITY
from fracnet.utils.errors import UserError

PAGE = files("fracnet.serving") / "page"
"""index.html, page.css, page.js, and engine.js, which asks the server."""
COLORS_OF_PAGES = files("fracnet.report") / "templates" / "colors.css"
BUILT = files("fracnet.serving") / "web/dist"
"""What `make web` writes: engine.js and licenses.txt."""
MEGABYTES, FILES = 200, 200
"""Limits of one file and of files at once, the defaults of `python -m fracnet.serve`."""
MAX_MODEL = 350_000_000
"""Bytes of model.onnx: browsers refuse texts of more than about 500 MB."""
PART = 3 << 20
"""Bytes of the model per line of text, a multiple of 3."""
POLICY = (
    # Scripts of the folder and WebAssembly; no connection, form or picture to anywhere.
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src blob:; "
    "style-src 'self'; img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
)
HEAD = '<meta charset="utf-8">'


def page_file(name: str) -> bytes:
    """A file of the page; the style sheet begins with the colors that all pages share."""
    content = (PAGE / name).read_bytes()
    return COLORS_OF_PAGES.read_bytes() + content if name == "page.css" else content


def describe_model(
    predictor: ImagePredictor, run: str, formats: str, limits: Mapping[str, Any]
) -> dict[str, Any]:
    """The model, its operating point and limits, and what its answers mean.

    run: its name. formats: of files, in words. limits: `megabytes` of a file, `files` at once.
    """
    level = predictor.levels["image"]
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLORS)[:, 0, ::-1]
    return dict(plain({
        "caution": CAUTION,
        "fracnet": version("fracnet"),
        "run": run,
        "classes": list(predictor.classes),
        "temperature": predictor.decisions["temperature"],
        "threshold": level["threshold"],
        "decisions_sha256": predictor.decisions["sha256"],
        "rules": decision_rules(predictor),
        "views": predictor.decisions["views"],
        "study_decisions": "study" in predictor.levels,
        "heatmaps": not predictor.why_no_heatmaps,
        "ood": predictor.ood_description,
        "ood_score": MEANING,
        "ood_unknown": "" if predictor.ood_description else NO_REFERENCE,
        "notes": [note for note in [level["limits"].note] if note],
        "columns": COLUMNS,
        "table": list(predictor.predict([]).columns),
        "formats": formats,
        "limits": limits,
        "colors": colors.tolist(),
        "opacity": OPACITY,
    }))  # fmt: skip


def check_built() -> None:
    """Raise UserError where the scripts of the page have not been built."""
    if not (BUILT / "engine.js").is_file():
        raise UserError(
            "target=web: the scripts of the page are not built. In a checkout, run: make web "
            "(needs Node.js and npm)."
        )


def write_web_page(exported: OnnxPredictor, folder: Path) -> None:
    """Write `folder`/web with everything that a browser needs, index.html and the model as text.

    Raises UserError for a model that is too large for a browser.
    """
    size = exported.path.stat().st_size
    if size > MAX_MODEL:
        raise UserError(
            f"target=web: the model has {size / 1e6:.0f} MB, and browsers load at most "
            f"{MAX_MODEL / 1e6:.0f} MB; choose a smaller network, or target=onnx."
        )
    web = folder / "web"
    web.mkdir()
    page = page_file("index.html").decode()
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    assert page.count(HEAD) == 1
    (web / "index.html").write_text(page.replace(HEAD, f"{HEAD}\n{policy}"), encoding="utf-8")
    for name in ("page.css", "page.js"):
        (web / name).write_bytes(page_file(name))
    for name in ("engine.js", "licenses.txt"):
        (web / name).write_bytes((BUILT / name).read_bytes())
    with (web / "model.js").open("w", encoding="ascii") as file:
        file.writelines(_model_script(exported))


def _model_script(exported: OnnxPredictor) -> Iterator[str]:
    """The model's bytes and what the page must know of it, as a script.

    A script loads from a folder and under a policy without connections, where a file does not.
    """
    run, limits = exported.model.metadata["run"], {"megabytes": MEGABYTES, "files": FILES}
    description = describe_model(exported, run, "JPEG, PNG or DICOM", limits)
    yield f"window.fracnetModel = {{description: {json.dumps(description)}, parts: [\n"
    with exported.path.open("rb") as model:
        while part := model.read(PART):
            yield f'"{base64.b64encode(part).decode()}",\n'
    yield "]};\n"

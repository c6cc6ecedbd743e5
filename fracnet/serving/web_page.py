"""The page without a server: a static folder that runs an exported model in the browser."""

import base64
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.serving.description import PAGE, describe_model
from fracnet.utils.errors import UserError

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
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    assert page.count(HEAD) == 1
    (web / "index.html").write_text(page.replace(HEAD, f"{HEAD}\n{policy}"), encoding="utf-8")
    for source in (
        PAGE / "page.css",
        PAGE / "page.js",
        BUILT / "engine.js",
        BUILT / "licenses.txt",
    ):
        (web / source.name).write_bytes(source.read_bytes())
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

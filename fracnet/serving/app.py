"""The page, the JSON endpoints and the server of `python -m fracnet.serve`.

Nothing is kept: an uploaded file lives in a temporary folder until its answer is sent. One request
is computed at a time; others wait, up to a limit.
"""

import base64
import hmac
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pandas as pd
import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fracnet.evaluation.conformal import limit_evidence
from fracnet.evaluation.predictions import PROB
from fracnet.evaluation.summary import plain
from fracnet.inference import CAUTION
from fracnet.inference.image_predictor import LOG_ODDS, Batch, ImagePredictor
from fracnet.inference.inputs import InputFile
from fracnet.inference.overlays import EMPTY, heat_on_original
from fracnet.serving.web_page import PAGE, describe_model, page_file
from fracnet.utils.errors import UserError
from fracnet.utils.network import is_loopback
from fracnet.utils.text import counted

COOKIE = "fracnet_token"
FORMATS = "JPEG, PNG, TIFF, BMP or DICOM"
CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    # No script, picture or connection from or to anywhere else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FORM_MARGIN = 1 << 20
"""Bytes that a form needs besides its files."""
FIELDS = {
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
    "heatmaps": {"type": "boolean", "default": True},
}
FORM = {"schema": {"type": "object", "properties": FIELDS, "required": ["files"]}}


@dataclass(frozen=True)
class Limits:
    """What one request may cost: megabytes in all, files, and seconds including the wait."""

    megabytes: int
    files: int
    seconds: float


def make_app(predictor: ImagePredictor, limits: Limits, token: str | None = None) -> FastAPI:
    """The application.

    token: required of every request, as `Authorization: Bearer`, as `?token=` of the page's address
    or in the cookie that this sets. None only for a server that this machine alone can reach; it
    then answers to the names of this machine alone.
    """
    app = FastAPI(
        title="fracnet",
        version=version("fracnet"),
        summary="Predicts radiographs with a trained model. Research use only.",
        description=CAUTION,
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
    )
    busy = threading.Lock()

    @app.exception_handler(StarletteHTTPException)
    async def failed(_: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.get("/api/model", summary="The model, its limits, and what its answers mean")
    def model() -> dict[str, Any]:
        return describe_model(predictor, predictor.path.name, FORMATS, asdict(limits))

    @app.post(
        "/api/predict",
        summary=f"Predict radiographs: {FORMATS}",
        description="A form with one or several `files`; `heatmaps=false` leaves the pictures out. "
        "The images of a study belong in one request, or their answers into `/api/studies`.",
        openapi_extra={"requestBody": {"content": {"multipart/form-data": FORM}}},
    )
    async def predict(request: Request) -> dict[str, Any]:
        async with request.form(max_files=limits.files, max_fields=10) as form:
            uploads = [item for item in form.getlist("files") if isinstance(item, UploadFile)]
            if not uploads:
                raise HTTPException(422, "The form has no file under the name 'files'.")
            pictures = str(form.get("heatmaps", "true")).lower() != "false"
            return await run_in_threadpool(answer, uploads, pictures)

    def answer(uploads: Sequence[UploadFile], pictures: bool) -> dict[str, Any]:
        end = time.monotonic() + limits.seconds
        if not busy.acquire(timeout=limits.seconds):
            raise HTTPException(503, "The server is busy; try again.")
        try:
            with tempfile.TemporaryDirectory(prefix="fracnet_") as folder:
                inputs = [_saved(upload, Path(folder), i) for i, upload in enumerate(uploads)]
                return predict_files(predictor, inputs, pictures, end)
        finally:
            busy.release()

    @app.post("/api/studies", summary="Decisions on studies, from the answers on their images")
    def studies(images: Annotated[list[dict[str, Any]], Body(embed=True)]) -> dict[str, Any]:
        try:
            return {"studies": study_rows(predictor, table_of(predictor, images))}
        except (KeyError, TypeError, ValueError) as error:
            raise HTTPException(
                422, "'images' must be a list of images as /api/predict returns them."
            ) from error

    @app.get("/{name:path}", include_in_schema=False)
    def page(name: str) -> Response:
        file = name or "index.html"
        content_type = CONTENT_TYPES.get(Path(file).suffix)
        if content_type is None or file not in {each.name for each in PAGE.iterdir()}:
            raise HTTPException(404, f"There is no page /{name}.")
        return Response(page_file(file), media_type=content_type)

    app.add_middleware(_Gate, limit=limits.megabytes * 1_000_000 + FORM_MARGIN, token=token)
    return app


class _Gate:
    """Refuses strangers and requests that are too large, before anything of them is read."""

    def __init__(self, app: ASGIApp, limit: int, token: str | None) -> None:
        self.app, self.limit, self.token = app, limit, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *named]
            await send(message)

        request = HTTPConnection(scope)
        refusal = self._refusal(request)
        if refusal is None and any(request.query_params.getlist("token")):
            # The token leaves the address of the page.
            refusal = Response(status_code=303, headers={"Location": "/"})
            refusal.set_cookie(COOKIE, self.token or "", httponly=True, samesite="lax")
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:  # a request that does not name its length
                raise HTTPException(413, self._too_large())
            return message

        await self.app(scope, receive_within_limit, send_with_headers)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        host = request.headers.get("host", "")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            # Another name for this machine, which a page of a stranger may have made up.
            return _error(421, "This server answers only to 127.0.0.1 and localhost.")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _error(403, "Requests from pages of other servers are refused.")
        if self.token is not None:
            kind, _, bearer = request.headers.get("authorization", "").partition(" ")
            given = [bearer.strip() if kind.lower() == "bearer" else ""]
            given += [*request.query_params.getlist("token"), request.cookies.get(COOKIE, "")]
            if not any(hmac.compare_digest(t.encode(), self.token.encode()) for t in given):
                return _error(401, "The token is missing or wrong; open the address that it is in.")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limit:
            return _error(413, self._too_large())
        return None

    def _too_large(self) -> str:
        megabytes = (self.limit - FORM_MARGIN) // 1_000_000
        return f"The request is larger than {megabytes} MB, the limit of one request."


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, headers={"Connection": "close"})


def _saved(upload: UploadFile, folder: Path, number: int) -> tuple[InputFile, str]:
    """The upload as a file, whose name no client chooses, and its name for the answer."""
    path = folder / f"{number}"
    with path.open("wb") as file:
        while part := upload.file.read(1 << 20):
            file.write(part)
    return InputFile(path), upload.filename or f"file {number + 1}"


def predict_files(
    predictor: ImagePredictor, inputs: Sequence[tuple[InputFile, str]], pictures: bool, end: float
) -> dict[str, Any]:
    """Answers on the files, in their order, and on their studies; see COLUMNS for the values.

    pictures: add `image`, a PNG of at most 1024 pixels a side, and `heatmap`, a PNG of the same
    size whose grey levels are 0 to 255 times the heatmap of the decided class, both as data URLs.
    end: of `time.monotonic`. Raises HTTPException when it has passed.
    """
    names = {str(file.path): name for file, name in inputs}
    images: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for batch in predictor.batches([file for file, _ in inputs], originals=pictures):
        if time.monotonic() > end:
            done = f"{len(images)} of {counted(len(inputs), 'image')}"
            raise HTTPException(503, f"The time limit of one request has passed after {done}.")
        batch.table["path"] = [names[path] for path in batch.table["path"]]
        # Without the temporary folder, which means nothing to a reader.
        batch.table["error"] = [
            "the file cannot be read" if tempfile.gettempdir() in error else error
            for error in batch.table["error"]
        ]
        tables.append(batch.table)
        images += batch_answers(predictor, batch, pictures)
    studies = study_rows(predictor, pd.concat(tables, ignore_index=True))
    return {"caution": CAUTION, "images": images, "studies": studies}


def batch_answers(predictor: ImagePredictor, batch: Batch, pictures: bool) -> list[dict[str, Any]]:
    """An answer for each row of the batch's table."""
    rows = [_answer(predictor, row) for _, row in batch.table.iterrows()]
    if not pictures or not len(batch.images):
        return rows
    readable = [row for row in rows if not row["error"]]
    heats: Sequence[np.ndarray | None] = [None] * len(readable)
    if not predictor.why_no_heatmaps:
        heats = predictor.heatmaps(batch)
    for row, original, heat in zip(readable, batch.originals, heats, strict=True):
        row["image"] = _data_url(original.pixels)
        if heat is not None:
            values = np.clip(heat_on_original(heat, original), 0, 1)
            row["heatmap"] = _data_url(np.rint(255 * values).astype(np.uint8))
            row["heatmap_note"] = "" if heat.any() else EMPTY
    return rows


def _answer(predictor: ImagePredictor, row: pd.Series) -> dict[str, Any]:
    answer: dict[str, Any] = {
        str(key): None if pd.isna(value) else value
        for key, value in row.items()
        if not str(key).startswith(PROB)
    }
    if row["error"]:
        return dict(plain(answer | {"probabilities": None, "why": row["error"]}))
    prob = np.array([float(row[f"{PROB}{name}"]) for name in predictor.classes])
    choice = predictor.classes.index(row["decision"])
    why = limit_evidence(prob, choice, predictor.levels["image"]["limits"])
    answer["probabilities"] = dict(zip(predictor.classes, prob.tolist(), strict=True))
    return dict(plain(answer | {"why": why}))


def table_of(predictor: ImagePredictor, images: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows of `Predictor.predict` that these answers were made of, for `studies`."""
    rows = []
    for image in images:
        row = {key: image[key] for key in ("path", "patient", "study", "error")}
        row["ood"] = image.get("ood")
        readable = not image["error"]
        for name in predictor.classes:
            row[f"{PROB}{name}"] = float(image["probabilities"][name]) if readable else np.nan
        if len(predictor.classes) == 2:
            row[LOG_ODDS] = float(image[LOG_ODDS]) if readable else np.nan
        rows.append(row)
    # As objects: pandas would make floats of numbers beside a missing one, as in a study's name.
    table = pd.DataFrame(rows, dtype=object)
    numbers = [name for name in map(str, table) if name.startswith(PROB) or name == LOG_ODDS]
    return table.astype(dict.fromkeys(numbers, float))


def study_rows(predictor: ImagePredictor, table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each study that the images name."""
    if not len(table) or table["study"].isna().all():
        return []
    rows = []
    for row in predictor.studies(table).to_dict("records"):
        probabilities = {name: row.pop(f"{PROB}{name}") for name in predictor.classes}
        clean = {str(key): None if pd.isna(value) else value for key, value in row.items()}
        known = not pd.isna(list(probabilities.values())).any()
        rows.append(dict(plain(clean | {"probabilities": probabilities if known else None})))
    return rows


def _data_url(pixels: np.ndarray) -> str:
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, before a model is loaded for it; port 0 is any free one.

    Raises UserError for a port in use and for an address that this machine does not have.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UserError(
            f"host={host} is not an address of this machine; allowed: 127.0.0.1 (this machine "
            "only), 0.0.0.0 (all of its addresses), or one of them."
        ) from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(
            f"host={host} port={port}: {error.strerror or error}; choose another port=, or 0 for "
            "any free one."
        ) from error
    return listening


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """The address to open in a browser."""
    name = host if host not in ("0.0.0.0", "::") else socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")


def make_server(app: FastAPI) -> uvicorn.Server:
    """The server, which answers until Ctrl-C or SIGTERM. No request is logged."""
    # The log of requests would hold the token.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, http="h11", ws="none", lifespan="off",
        server_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    return uvicorn.Server(config)

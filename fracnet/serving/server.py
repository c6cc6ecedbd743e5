"""The socket and the loop of `python -m fracnet.serve`."""

import socket

import uvicorn
from fastapi import FastAPI

from fracnet.utils.errors import UserError


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

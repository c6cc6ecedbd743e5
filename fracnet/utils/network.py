"""Whether an address answers, within seconds and even without a network; or is this machine's."""

import ipaddress
import threading

import requests

from fracnet.utils.text import as_clause

# Seconds for the whole question, name resolution included.
PROBE_SECONDS = 6.0


class Unreachable(Exception):
    """Why an address cannot be reached, in one clause."""


def probe(url: str) -> None:
    """Raise Unreachable within PROBE_SECONDS unless `url` answers without an error.

    Name resolution has no time limit of its own, hence a thread that can be abandoned. Only the
    headers are read; the environment's proxies are used.
    """
    outcome: list[Exception | None] = []

    def request() -> None:
        try:
            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
                response.raise_for_status()
        except Exception as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=request, name="fracnet-probe", daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if not outcome:
        raise Unreachable(f"no answer within {PROBE_SECONDS:g} seconds")
    if (error := outcome[0]) is not None:
        raise Unreachable(clause(error)) from error


def clause(error: Exception) -> str:
    """The error in one line of at most 160 characters, with its type."""
    text = as_clause(error)
    text = text if len(text) <= 160 else text[:157] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

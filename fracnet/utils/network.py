"""Whether an address answers, asked so that a network that is cut off costs seconds."""

import threading

# Seconds for the whole question, name resolution included.
PROBE_SECONDS = 6.0


class Unreachable(Exception):
    """Why an address cannot be used, in one clause."""


def probe(url: str) -> None:
    """Raise Unreachable within PROBE_SECONDS unless `url` answers without an error.

    Name resolution knows no time limit of its own: hence a thread that can be left behind. Only
    headers are read; proxies of the environment are obeyed.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            import requests

            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as answer:
                answer.raise_for_status()
        except Exception as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=ask, name="fracnet-probe", daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if not outcome:
        raise Unreachable(f"no answer within {PROBE_SECONDS:g} seconds")
    if (error := outcome[0]) is not None:
        raise Unreachable(clause(error)) from error


def clause(error: Exception) -> str:
    """The error in one line of bounded length."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 160 else text[:157] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

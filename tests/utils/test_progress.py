"""Long work shows a bar on a terminal and a line now and then in a log file."""

import itertools

import pytest

from fracnet.utils import progress


def test_without_a_terminal_a_line_is_printed_every_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count(0, 25)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    assert list(progress.progress_bar(range(10), 10, "decoding")) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "decoding: 2 of 10 (0.0267/s, about 5 min left)",
        "decoding: 5 of 10 (0.0333/s, about 2 min left)",
        "decoding: 8 of 10 (0.0356/s, about 56 s left)",
    ]


def test_quick_and_hidden_work_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress.progress_bar(range(1000), 1000, "decoding")) == list(range(1000))
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    assert list(progress.progress_bar(range(10), 10, "decoding", visible=False)) == list(range(10))
    assert list(progress.no_progress(range(3), 3, "decoding")) == [0, 1, 2]
    assert capsys.readouterr().err == ""

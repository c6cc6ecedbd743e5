"""Processes that draw: what they print, raise, and say when they die."""

import importlib
import os
from pathlib import Path

import pytest

from fracnet.data.phantoms.workers import write_images

DRAWING = """
import os

class Fault(Exception):
    def __init__(self, number, bone):
        super().__init__(f"no {bone}")

def talkative(image):
    print("a line", flush=True)
    os.system("echo a line of another program")
    return image + 1

def unsendable(image):
    raise Fault(image, "elbow")

def dying(image):
    os.write(2, b"cannot go on")
    os._exit(3)
"""


def test_prints_are_no_answers_and_a_death_is_reported_with_output_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_of_test.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    drawing = importlib.import_module("drawing_of_test")
    images = list(range(16))
    assert write_images(images, drawing.talkative, 2, False) == list(range(1, 17))
    with pytest.raises(RuntimeError, match=r"died \(exit code 3\): cannot go on"):
        write_images(images, drawing.dying, 2, False)
    # An exception that cannot be unpickled: its arguments are not those of its class.
    with pytest.raises(RuntimeError, match=r"(?s)died \(exit code 1\): .*Fault: no elbow"):
        write_images(images, drawing.unsendable, 2, False)

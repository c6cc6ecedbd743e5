"""Checks of figures: two valid files, and no overlapping texts."""

import html
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fracnet.report import plots


def check_pair(paths: list[Path], name: str) -> Image.Image:
    """Check that both files exist and are valid; returns the PNG's pixels."""
    assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    with Image.open(paths[0]) as image:
        assert image.info["dpi"][0] == pytest.approx(150, abs=0.1)
        return image.convert("RGB")


def has_color(image: Image.Image, color: str) -> bool:
    """Whether more than the edge of a letter has this color."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(image) == rgb).all(axis=2).sum()) > 40


def text_of(path: Path) -> str:
    """The text of an SVG: letters are drawn as shapes, and comments hold the text."""
    content = path.read_text(encoding="utf-8")
    return html.unescape("\n".join(re.findall(r"<!-- (.*?) -->", content, re.DOTALL)))


def refuse_collisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make saving fail if texts of a figure overlap; returns the names of saved figures."""
    compose, saved = plots.compose, list[str]()

    @contextmanager
    def checked(figure: plots.Figure) -> Iterator[Any]:
        with compose(figure) as rendered:
            yield rendered
            rendered.draw_without_rendering()
            assert not collisions(rendered), f"{figure.name}: {collisions(rendered)}"
        saved.append(figure.name)

    monkeypatch.setattr(plots, "compose", checked)
    return saved


def collisions(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts of a rendered figure that overlap by more than the edges of lines."""
    from matplotlib.axes import Axes
    from matplotlib.text import Text

    # Labels of ticks beyond the ends of an axis are there and not drawn.
    unseen = {
        id(label)
        for axes in figure.findobj(Axes)
        for axis in (axes.xaxis, axes.yaxis)
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
        if not min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
    }
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text.get_rotation() in (0, 90)
        if id(text) not in unseen
    ]
    return [
        (left, right)
        for (left, a), (right, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1
        and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.25 * min(a.height, b.height)
    ]

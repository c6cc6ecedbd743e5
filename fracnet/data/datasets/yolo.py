"""YOLO labels: the class names of data.yaml and the lines of a label file.

A line is a class id followed by a polygon (three or more x,y pairs) or a box (center x, center y,
width, height), all in shares of the image's width and height.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fracnet.utils.errors import DataFault
from fracnet.utils.text import are, counted

FORMAT = (
    "A line is a class id and a polygon (three or more x,y pairs) or a box (center x, center y, "
    "width, height), in shares from 0 to 1."
)
MAX_FAULTS = 20
"""Damaged files that an error names."""
TOLERANCE = 0.01
"""How far outside the image a coordinate may lie by rounding; it is then moved onto the edge."""


@dataclass(frozen=True)
class Mark:
    """One line: class id and corner points; a box has two, the upper left and lower right."""

    class_id: int
    points: tuple[tuple[float, float], ...]
    is_box: bool


def shapes(
    marks: Iterable[Mark], labels: Mapping[int, str], *, boxes: bool
) -> list[dict[str, Any]] | None:
    """The boxes or the polygons as a manifest holds them; None if there are none.

    labels: class id -> label. Marks of other classes are left out.
    """
    return [
        {"label": labels[mark.class_id], "points": [list(point) for point in mark.points]}
        for mark in marks
        if mark.is_box == boxes and mark.class_id in labels
    ] or None


def read_names(path: Path) -> dict[int, str]:
    """Class id -> raw name from `names`, a list or a mapping. Raises DataFault."""
    try:
        # BaseLoader keeps text: a class may be called no, null or 1.0.
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise DataFault(f"{path}{line}: this is not YAML.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list) and names:
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict) and names and all(str(key).isdecimal() for key in names):
        return {int(key): str(name) for key, name in names.items()}
    raise DataFault(
        f"{path}: names={names!r}; it must be a list of class names or a mapping from class id "
        "to name."
    )


def read_marks(path: Path, names: Mapping[int, str]) -> list[Mark]:
    """The lines of a label file in order; empty if it has none.

    Raises DataFault with file, line number and line unless every line is a class id of `names`
    and a polygon or box inside the image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFault(f"{path}: this is not a text file of YOLO labels.") from error
    return [
        _parse(line.strip(), f"{path}, line {number}", names)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


@dataclass
class LabelFiles:
    """Reads label files, and collects the faults of all of them for one error.

    names: class id -> name. faults: the first fault of each damaged file.
    """

    names: Mapping[int, str]
    faults: list[str] = field(default_factory=list)

    def read(self, path: Path) -> list[Mark]:
        """The marks of a file; none if it is damaged, which `check` reports."""
        try:
            return read_marks(path, self.names)
        except DataFault as fault:
            self.faults.append(str(fault))
            return []

    def check(self) -> None:
        """Raise DataFault that lists the damaged files, if there are any."""
        if not self.faults:
            return
        n = len(self.faults)
        if n == 1:
            raise DataFault(self.faults[0])
        shown = [fault.removesuffix(f" {FORMAT}") for fault in self.faults[:MAX_FAULTS]]
        more = [f"and {n - len(shown)} more"] if n > len(shown) else []
        raise DataFault(
            "\n".join([f"{counted(n, 'label file')} {are(n)} damaged:", *shown, *more, FORMAT])
        )


def _parse(line: str, position: str, names: Mapping[int, str]) -> Mark:
    excerpt = line if len(line) <= 80 else line[:77] + "..."

    def fault(why: str) -> DataFault:
        return DataFault(f"{position}: {why}: {excerpt!r}. {FORMAT}")

    try:
        number, *numbers = map(float, line.split())
    except ValueError as error:
        raise fault("not all values are numbers") from error
    if not all(map(math.isfinite, (number, *numbers))):
        raise fault("a number is not finite")
    class_id = int(number)  # some tools write 1.0
    if class_id != number:
        raise fault(f"{number:g} is not a class id")
    n = len(numbers)
    if n < 4:
        raise fault(f"{counted(n, 'coordinate')} {are(n)} too few")
    if n % 2:
        raise fault(f"{n} coordinates do not make x,y pairs")
    if class_id not in names:
        known = ", ".join(f"{key} {name}" for key, name in names.items())
        raise DataFault(f"{position}: class id {class_id} is not among the names ({known}).")
    is_box = n == 4
    if is_box:
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise fault("a box needs a width and a height above 0")
        numbers = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
        raise fault("a coordinate lies outside the image")
    inside = [min(max(number, 0.0), 1.0) for number in numbers]
    return Mark(class_id, tuple(zip(inside[::2], inside[1::2], strict=True)), is_box)

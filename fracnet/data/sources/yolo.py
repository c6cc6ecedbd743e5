"""YOLO labels: the class names of data.yaml and the lines of a label file.

A line is a class id and either a polygon, three or more x,y pairs, or a box, centre x, centre y,
width and height; all in shares of the image's width and height.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from fracnet.errors import DataFault
from fracnet.words import are, counted

# How far outside the image a coordinate may lie by rounding; it is then moved onto the edge.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Mark:
    """One line: class id and corner points; a box has two, the upper left and lower right."""

    class_id: int
    points: tuple[tuple[float, float], ...]
    is_box: bool


def read_names(path: Path) -> dict[int, str]:
    """Class id -> raw name from `names`, a list or a mapping; DataFault naming file and fault."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise DataFault(f"{path}{line}: this is not YAML.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list) and names:
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict) and names and all(str(key).isdecimal() for key in names):
        return {int(key): str(name) for key, name in names.items()}
    raise DataFault(
        f"{path}: names={names!r}; it must be a list of class names, or a mapping from class id "
        "to name."
    )


def read_marks(path: Path, names: Mapping[int, str]) -> list[Mark]:
    """The lines of a label file in their order; empty if it has none.

    DataFault with file, line number and line for a line that is not a class id of `names` and a
    polygon or a box inside the image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataFault(f"{path}: this is not a text file of YOLO labels.") from error
    return [
        _mark(line, f"{path}, line {number}", names)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _mark(line: str, where: str, names: Mapping[int, str]) -> Mark:
    shown = line.strip() if len(line.strip()) <= 80 else line.strip()[:77] + "..."

    def broken(why: str) -> DataFault:
        return DataFault(
            f"{where}: {why}: {shown!r}. A line is a class id and a polygon (three or more x,y "
            "pairs) or a box (centre x, centre y, width, height), in shares from 0 to 1."
        )

    first, *rest = line.split()
    try:
        class_id = int(first)
    except ValueError as error:
        raise broken(f"{first!r} is not a class id") from error
    try:
        numbers = [float(word) for word in rest]
    except ValueError as error:
        raise broken("not all coordinates are numbers") from error
    if len(numbers) < 4:
        raise broken(f"{counted(len(numbers), 'coordinate')} {are(len(numbers))} too few")
    if len(numbers) % 2:
        raise broken(f"{len(numbers)} coordinates do not make x,y pairs")
    if not all(math.isfinite(number) for number in numbers):
        raise broken("a coordinate is not finite")
    if class_id not in names:
        known = ", ".join(f"{key} {name}" for key, name in names.items())
        raise DataFault(f"{where}: class id {class_id} is not among the names ({known}).")
    is_box = len(numbers) == 4
    if is_box:
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise broken("a box needs a width and a height above 0")
        numbers = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
        raise broken("a coordinate lies outside the image")
    inside = [min(max(number, 0.0), 1.0) for number in numbers]
    return Mark(class_id, tuple(zip(inside[::2], inside[1::2], strict=True)), is_box)

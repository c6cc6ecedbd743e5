"""FracAtlas: radiographs of limbs, hip and shoulder, with or without a fracture."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image

from fracnet.data.datasets import download
from fracnet.data.datasets.base import OwnSplit, contents, image_files
from fracnet.data.datasets.csv_table import read_csv
from fracnet.data.datasets.download import fetch_if_absent
from fracnet.data.datasets.upper_limb import read_marks
from fracnet.data.manifest import Manifest, listed
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.files import sha256_of

FOLDER = "FracAtlas"
ARTICLE, FILE = 22363012, 43283628
LABELS = {"Fractured": "fracture", "Non_fractured": "no_fracture"}
REGIONS = ("hand", "leg", "hip", "shoulder")
EXTRAS = ("hardware", "multiscan", "frontal", "lateral", "oblique", "fracture_count")
ORIENTATION = 0x0112  # EXIF

GROUP_NOTE = (
    "fracatlas: it has no patient ids, so one person may be in train and in test, and test figures "
    "may be too good. Byte-identical files are kept in one split."
)
SPLIT_NOTE = (
    "fracatlas: Utilities/Fracture Split is not used, as it covers the fractured images only."
)
SHORTCUT_NOTE = (
    "fracatlas: hardware, such as plates and screws, is commoner in fractured images (the "
    "column hardware says where); a model may learn that instead."
)
DOWNLOAD_NOTE = (
    "fracatlas: about 340 MB are fetched from figshare (CC BY 4.0; Abedeen et al. must be cited)."
)


@dataclass(kw_only=True)
class FracAtlas(OwnSplit):
    """Reads FracAtlas in `root` or root/FracAtlas: images, dataset.csv and YOLO boxes.

    The manifest keeps the columns hardware, multiscan, frontal, lateral, oblique and
    fracture_count of dataset.csv. download: whether `prepare` may fetch a missing set.
    """

    download: bool = True

    name: ClassVar[str] = "fracatlas"
    classes: ClassVar[tuple[str, ...]] = ("no_fracture", "fracture")
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Abedeen et al., FracAtlas: A Dataset for Fracture Classification, Localization and "
        "Segmentation of Musculoskeletal Radiographs, Scientific Data 10, 521 (2023)"
    )
    groups: ClassVar[str] = "unknown"
    obtain: ClassVar[str] = (
        f"Get it from https://figshare.com/articles/dataset/The_dataset/{ARTICLE} and unpack it "
        "so that {root}/FracAtlas/images/Fractured exists."
    )
    phantom: ClassVar[str] = "mura_phantom"
    notes: ClassVar[tuple[str, ...]] = (GROUP_NOTE, SPLIT_NOTE, SHORTCUT_NOTE)

    def prepare(self) -> None:
        """Download the set if it is not there; never into a folder that holds something else."""

        def fetch() -> None:
            target = self.folder / FOLDER
            download.download_figshare(ARTICLE, FILE, target, find=find_base, note=DOWNLOAD_NOTE)

        fetch_if_absent(self, find_base, fetch, allowed=self.download)

    def manifest(self) -> Manifest:
        """The images that dataset.csv lists; makes and writes down the split where there is none.

        An image whose folder and line in dataset.csv disagree is left out and counted.
        """
        base = find_base(self.folder)
        if base is None:
            raise self.missing(contents(self.folder))
        notes = list(self.notes)
        described = _read_table(base / "dataset.csv")
        excluded: Counter[str] = Counter()
        rows: list[dict[str, Any]] = []
        turned = 0
        for folder, label in LABELS.items():
            images, others = image_files(base / "images" / folder)
            if others:
                notes.append(f"{base / 'images' / folder}: {others} files are no images; left out.")
            for image in images:
                known = described.get(image.stem)
                if known is None:
                    excluded["not in dataset.csv"] += 1
                elif known["label"] != label:
                    excluded["folder and dataset.csv disagree"] += 1
                else:
                    row = {**known, "path": image.relative_to(base).as_posix()}
                    marks = base / "Annotations" / "YOLO" / f"{image.stem}.txt"
                    if label == "fracture" and marks.is_file():
                        row["boxes"] = _boxes(marks)
                        if row["boxes"] and _is_turned(image):
                            row["boxes"], turned = None, turned + 1
                    rows.append(row)
        if not rows:
            raise DataFault(f"{base}: none of its images is in dataset.csv, with the same label.")
        if turned:
            notes.append(
                f"fracatlas: the boxes of {turned} images with an orientation tag are left out: "
                "they are drawn on the turned image, while fracnet reads pixels as they lie."
            )
        if lost := sorted(set(described) - {Path(row["path"]).stem for row in rows}):
            notes.append(
                f"fracatlas: of the images in dataset.csv, {len(lost)} are not there or left out "
                f"({listed(lost, len(lost), 3)})."
            )
        split = self.split(rows, base, together=lambda path: sha256_of(base / path))
        return self.build(
            split.rows,
            base,
            excluded=[{"split": "none", "reason": why, "n": n} for why, n in excluded.items()],
            notes=[*notes, *split.notes],
            **split.facts,
        )


def find_base(folder: Path) -> Path | None:
    """The folder that holds images/Fractured and images/Non_fractured; None if neither does."""
    for base in (folder / FOLDER, folder):
        if all((base / "images" / name).is_dir() for name in LABELS):
            return base
    return None


def _read_table(path: Path) -> dict[str, dict[str, Any]]:
    """Stem of the image -> label, region and the columns that are kept."""
    if not path.is_file():
        raise UserError(f"{path} is not there: it tells regions, views and hardware.")
    table = read_csv(path)
    columns = ("fractured", *REGIONS, "mixed", *EXTRAS[:-1])
    table.require(("image_id", *columns, EXTRAS[-1]))
    flags = {column: table.flags(column) for column in columns}
    counts = [row["fracture_count"] for row in table.rows]
    table.refuse([i for i, n in enumerate(counts) if not n.isdecimal()], EXTRAS[-1], "a number")
    described: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(table.rows):
        parts = [region for region in REGIONS if flags[region][i]]
        described[Path(row["image_id"]).stem] = {
            "label": "fracture" if flags["fractured"][i] else "no_fracture",
            "region": _region(parts, bool(flags["mixed"][i])),
            **{column: flags[column][i] for column in EXTRAS[:-1]},
            "fracture_count": int(counts[i]),
        }
    return described


def _region(parts: list[str], mixed: bool) -> str | None:
    if mixed or len(parts) > 1:
        return "mixed"
    return parts[0] if parts else None


def _boxes(marks: Path) -> list[Mapping[str, Any]] | None:
    return [
        {"label": "fracture", "points": [list(point) for point in mark.points]}
        for mark in read_marks(marks, {0: "fracture"})
        if mark.is_box
    ] or None


def _is_turned(image: Path) -> bool:
    try:
        with Image.open(image) as opened:
            return opened.getexif().get(ORIENTATION, 1) != 1
    # Broken files raise nearly anything; they are judged when their pixels are read.
    except Exception:
        return False

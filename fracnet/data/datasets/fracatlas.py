"""FracAtlas: radiographs of limbs, hip and shoulder, with or without a fracture."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fracnet.data.datasets import download
from fracnet.data.datasets.base import UnsplitDataset, describe_folder, image_files, skipped_note
from fracnet.data.datasets.yolo import LabelFiles, shapes
from fracnet.data.manifest import Manifest
from fracnet.utils.csv_table import read_csv
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.files import path_text, sha256_of
from fracnet.utils.text import are, counted, list_some

FOLDER = "FracAtlas"
ARTICLE, FILE = 22363012, 43283628
LABELS = {"Fractured": "fracture", "Non_fractured": "no_fracture"}
REGIONS = ("hand", "leg", "hip", "shoulder")
EXTRA_FLAGS = ("hardware", "multiscan", "frontal", "lateral", "oblique")
ORIENTATION = 0x0112  # EXIF

GROUP_NOTE = (
    "fracatlas: it has no patient ids, so one person may be in train and in test, and test metrics "
    "may be too good. Byte-identical files stay in one split."
)
SPLIT_NOTE = (
    "fracatlas: Utilities/Fracture Split is not used because it covers only the fractured images."
)
SHORTCUT_NOTE = (
    "fracatlas: hardware, such as plates and screws, is more common in fractured images (see the "
    "column hardware); a model may learn that instead."
)
DOWNLOAD_NOTE = (
    "fracatlas: downloading about 340 MB from figshare (CC BY 4.0; cite Abedeen et al.)."
)


@dataclass(kw_only=True)
class FracAtlas(UnsplitDataset):
    """Reads FracAtlas in `root` or root/FracAtlas: images, dataset.csv and YOLO boxes.

    The manifest keeps the columns EXTRA_FLAGS and fracture_count of dataset.csv.
    download: whether `prepare` may download a missing dataset.
    """

    download: bool = True

    name = "fracatlas"
    classes = ("no_fracture", "fracture")
    task = "binary"
    license = "CC BY 4.0"
    citation = (
        "Abedeen et al., FracAtlas: A Dataset for Fracture Classification, Localization and "
        "Segmentation of Musculoskeletal Radiographs, Scientific Data 10, 521 (2023)"
    )
    how_to_get = (
        f"Get it from https://figshare.com/articles/dataset/The_dataset/{ARTICLE} and unpack it "
        "so that {root}/FracAtlas/images/Fractured exists."
    )
    notes = (GROUP_NOTE, SPLIT_NOTE, SHORTCUT_NOTE)

    def prepare(self) -> None:
        """Download a missing dataset, but never into a folder that holds anything else."""

        def fetch() -> None:
            target = self.folder / FOLDER
            download.download_figshare(ARTICLE, FILE, target, find=find_base, note=DOWNLOAD_NOTE)

        download.download_if_missing(self, find_base, fetch, allowed=self.download)

    def manifest(self) -> Manifest:
        """The images that dataset.csv lists, with a split that is created once and reused.

        Images whose folder contradicts dataset.csv are excluded and counted.
        """
        base = find_base(self.folder)
        if base is None:
            raise self.missing_error(describe_folder(self.folder))
        notes = list(self.notes)
        described = _read_table(base / "dataset.csv")
        excluded: Counter[tuple[str, str]] = Counter()
        rows: list[dict[str, Any]] = []
        n_rotated = 0
        label_files = LabelFiles({0: "fracture"})
        stems: set[str] = set()
        for folder, label in LABELS.items():
            images, others = image_files(base / "images" / folder)
            notes += skipped_note(base / "images" / folder, others)
            stems.update(image.stem for image in images)
            for image in images:
                facts = described.get(image.stem)
                if facts is None:
                    excluded["none", "not in dataset.csv"] += 1
                elif facts["label"] != label:
                    excluded["none", "folder and dataset.csv disagree"] += 1
                else:
                    row = {**facts, "path": path_text(image.relative_to(base).as_posix())}
                    marks = base / "Annotations" / "YOLO" / f"{image.stem}.txt"
                    if label == "fracture" and marks.is_file():
                        held = label_files.read(marks)
                        row["boxes"] = shapes(held, label_files.names, boxes=True)
                        if row["boxes"] and _is_rotated(image):
                            row["boxes"], n_rotated = None, n_rotated + 1
                    rows.append(row)
        missing = ""
        if absent := sorted(set(described) - stems):
            n = len(absent)
            missing = (
                f"fracatlas: {n} of the {counted(len(described), 'image')} in dataset.csv {are(n)} "
                f"missing ({list_some(absent, n, 3)})."
            )
            notes.append(missing)
        if not rows:
            raise DataFault(
                f"{missing} {base}: dataset.csv lists none of its images with the label of their "
                "folder.".strip()
            )
        label_files.check()
        if n_rotated:
            notes.append(
                f"fracatlas: dropped the boxes of {n_rotated} images with an orientation tag: they "
                "refer to the rotated image, but fracnet reads pixels without rotating them."
            )
        return self.build(rows, base, excluded=excluded, notes=notes, missing=missing)

    def group_key(self, file: Path) -> str:
        """Byte-identical files stay in one split."""
        return sha256_of(file)


def find_base(folder: Path) -> Path | None:
    """The folder that holds images/Fractured and images/Non_fractured, or None."""
    for base in (folder / FOLDER, folder):
        if all((base / "images" / name).is_dir() for name in LABELS):
            return base
    return None


def _read_table(path: Path) -> dict[str, dict[str, Any]]:
    """Stem of the image -> label, region and the extra columns."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; fracnet needs it for regions, views and hardware.")
    table = read_csv(path)
    columns = ("fractured", *REGIONS, "mixed", *EXTRA_FLAGS)
    table.require(("image_id", *columns, "fracture_count"))
    flags = {column: table.flags(column) for column in columns}
    counts = [row["fracture_count"] for row in table.rows]
    wrong = [i for i, n in enumerate(counts) if not n.isdecimal()]
    table.reject(wrong, "fracture_count", "a number")
    described: dict[str, dict[str, Any]] = {}
    contradicting = []
    for i, row in enumerate(table.rows):
        regions = [region for region in REGIONS if flags[region][i]]
        if flags["mixed"][i] or len(regions) > 1:
            regions = ["mixed"]
        facts = {
            "label": "fracture" if flags["fractured"][i] else "no_fracture",
            "region": regions[0] if regions else None,
            **{column: flags[column][i] for column in EXTRA_FLAGS},
            "fracture_count": int(counts[i]),
        }
        if described.setdefault(Path(row["image_id"]).stem, facts) != facts:
            contradicting.append(i)
    table.reject(contradicting, "image_id", "no other values than in an earlier line of the image")
    return described


def _is_rotated(image: Path) -> bool:
    try:
        with Image.open(image) as opened:
            return opened.getexif().get(ORIENTATION, 1) != 1
    # Broken files raise almost any exception; reading the pixels reports them.
    except Exception:
        return False

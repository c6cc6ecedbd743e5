"""Small stand-ins for MURA on disk: its folders, real PNGs, and its lists in any of their forms."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

REGIONS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
FIRST = "train/XR_ELBOW/patient00001/study1_positive"  # of what `write_mura` writes


def png(grey: int = 90, size: tuple[int, int] = (8, 8)) -> bytes:
    """The bytes of a small grey PNG of (width, height)."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0]), grey, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def add_study(
    base: Path,
    part: str,
    region: str,
    patient: int,
    study: str = "study1_positive",
    views: int = 1,
    image: bytes | None = None,
) -> Path:
    """One study of `views` images; gives its folder."""
    folder = base / part / f"XR_{region}" / f"patient{patient:05d}" / study
    folder.mkdir(parents=True)
    for view in range(1, views + 1):
        (folder / f"image{view}.png").write_bytes(png() if image is None else image)
    return folder


def write_mura(base: Path, *, train: int = 28, valid: int = 14, lists: bool = True) -> Path:
    """Write patients with one study each, every fourth with two; returns base.

    Regions take turns, both labels come in each, studies have one to three views: with the
    defaults 71 images in train and 38 in valid.
    """
    patient = 0
    for part, n in (("train", train), ("valid", valid)):
        for i in range(n):
            patient += 1
            for study in range(1, 3 if i % 4 == 0 else 2):
                ending = "positive" if (i // 7 + i % 7 + study) % 2 else "negative"
                region = REGIONS[(i + 3 * (study - 1)) % 7]
                grey = 160 if ending == "positive" else 80
                add_study(
                    base,
                    part,
                    region,
                    patient,
                    f"study{study}_{ending}",
                    views=1 + (i + study) % 3,
                    image=png(grey, (10 + i % 3, 9)),
                )
    if lists:
        write_lists(base)
    return base


def write_lists(
    base: Path,
    *,
    prefix: str = "MURA-v1.1/",
    header: tuple[str, str] | None = None,
    slash: str = "/",
    comma: str = "",
    newline: str = "\n",
    index: bool = False,
    start: str = "",
    separator: str = "/",
) -> None:
    """The four lists of what the folders hold, as official copies or mended ones write them."""
    for part in ("train", "valid"):
        images = sorted((base / part).glob("XR_*/patient*/study*/image*.png"))
        paths = [f"{prefix}{file.relative_to(base).as_posix()}" for file in images]
        studies = sorted({file.parent for file in images})
        labels = [
            f"{prefix}{study.relative_to(base).as_posix()}{slash},{int('positive' in study.name)}"
            for study in studies
        ]
        for kind, lines in (("image_paths", paths), ("labeled_studies", labels)):
            lines = [line.replace("/", separator) for line in lines]
            if index:
                lines = [f"{number},{line}" for number, line in enumerate(lines)]
            if header:
                lines = [",".join(header[: 1 + (kind != "image_paths")]), *lines]
            text = "".join(f"{line}{comma}{newline}" for line in lines)
            (base / f"{part}_{kind}.csv").write_bytes((start + text).encode())

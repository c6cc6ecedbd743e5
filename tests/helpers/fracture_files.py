"""Small stand-ins for FracAtlas and GRAZPEDWRI-DX on disk, in the layouts of the real ones."""

import io
from pathlib import Path

import numpy as np
from helpers.pictures import encoded, picture
from PIL import Image

FRACATLAS_HEADER = (
    "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,"
    "lateral,oblique"
)
GRAZPED_HEADER = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,"
    "ao_classification,cast,diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,"
    "device_manufacturer"
)


def write_fracatlas(base: Path, n: int = 24) -> Path:
    """`n` different JPEGs, every third fractured, with its table and boxes; gives base."""
    lines = [FRACATLAS_HEADER]
    (base / "Annotations" / "YOLO").mkdir(parents=True)
    for i in range(n):
        fractured = i % 3 == 0
        folder = base / "images" / ("Fractured" if fractured else "Non_fractured")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"IMG{i:07d}.jpg").write_bytes(encoded(picture(i), "JPEG"))
        marks = "0 0.5 0.5 0.2 0.4\n" if fractured else ""
        (base / "Annotations" / "YOLO" / f"IMG{i:07d}.txt").write_text(marks)
        hand, f = i % 2, int(fractured)
        lines.append(f"IMG{i:07d}.jpg,{hand},{1 - hand},0,0,0,{f},0,{f},{f},1,0,0")
    (base / "dataset.csv").write_text("\n".join(lines) + "\n")
    return base


def png16(seed: int) -> bytes:
    """A 16-bit grey PNG that uses 12 of its bits."""
    values = np.asarray(picture(seed)).astype(np.uint16) * 13 + 200
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write_grazped(root: Path, patients: int = 12) -> Path:
    """Two studies of two views for every patient, in two image folders; returns root."""
    lines = [GRAZPED_HEADER]
    labels = root / "folder_structure" / "yolov5" / "labels"
    labels.mkdir(parents=True)
    number = 0
    for patient in range(1, patients + 1):
        for study in (1, 2):
            for view in (1, 2):
                number += 1
                stem = f"{patient:04d}_{number:010d}_0{study}_WRI-L{view}_M012"
                folder = root / f"images_part{1 + patient % 2}"
                folder.mkdir(exist_ok=True)
                (folder / f"{stem}.png").write_bytes(png16(number))
                seen = "1" if patient % 2 and view == 1 else ""
                marks = "8 0.1 0.1 0.05 0.05\n" + ("3 0.5 0.5 0.2 0.4\n" if seen else "")
                (labels / f"{stem}.txt").write_text(marks)
                lines.append(
                    f"{stem},{patient},{study},{number},M,12.5,L,{view},1,,1,,,{seen},,0.144,Siemens"
                )
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    return root


def write_folders(root: Path, *folders: str, n: int = 6, suffix: str = ".png") -> Path:
    """`n` pictures in each of the folders; gives root."""
    for place, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            kind = {".png": "PNG", ".jpg": "JPEG"}[suffix]
            path = root / folder / f"{i}{suffix}"
            path.write_bytes(encoded(picture(100 * place + i), kind))
    return root

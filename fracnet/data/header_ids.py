"""Patient and study from the headers of DICOM files, where a data set does not name them itself."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fracnet.data import dicom
from fracnet.data.reading import BadImage, read_ids

Row = Mapping[str, Any]


def with_header_ids(
    rows: Sequence[Row], folder: Path
) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """The rows with patient and study from DICOM headers, notes, and `groups` where ids are theirs.

    rows: with path, relative to `folder`. A column that any row has stays as it is: names of two
    origins would hide that two images are of one patient. An id that all of several files share is
    what anonymisers write, and is left out.
    """
    filled = [dict(row) for row in rows]
    lacking = [key for key in ("patient", "study") if not any(key in row for row in filled)]
    of_dicom = [row for row in filled if dicom.may_be_dicom(row["path"])] if lacking else []
    if not of_dicom:
        return filled, [], {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        ids = list(pool.map(_ids, [folder / row["path"] for row in of_dicom]))
    notes, used = [], []
    for key in lacking:
        found = [of_file[key] for of_file in ids]
        n = sum(value is not None for value in found)
        if n > 1 and len(set(found) - {None}) == 1:
            notes.append(
                f"All {n} DICOM files have one {key} id, as anonymised files do; it is not used."
            )
        elif n:
            used.append(key)
            for row, value in zip(of_dicom, found, strict=True):
                row[key] = value
    if not used:
        return filled, notes, {}
    notes.append(
        f"The {' and '.join(used)} ids of {len(of_dicom)} images are those of their DICOM headers. "
        "They go into the run's tables as they are: be sure that they name nobody."
    )
    return filled, notes, {"groups": "DICOM headers"}


def _ids(path: Path) -> dict[str, str | None]:
    try:
        return dict(zip(("patient", "study"), read_ids(path), strict=True))
    except BadImage:
        # The policy for bad files applies when the pixels are read, where they are all listed.
        return {"patient": None, "study": None}

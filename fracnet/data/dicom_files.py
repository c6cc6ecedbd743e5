"""Which files are DICOM, by their name and first bytes, and the ids in a header.

`dicom` reads them; few data sets need it, and pydicom takes 0.1 s to import.
"""

import os
from pathlib import Path
from typing import NamedTuple

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
HEADER_LENGTH = 132  # bytes that identify DICOM: a preamble of 128, then "DICM"


class Ids(NamedTuple):
    """Ids from a header as text, None where it has none."""

    patient: str | None
    study: str | None


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these bytes is DICOM."""
    return head[128:HEADER_LENGTH] == b"DICM"


def may_be_dicom(path: Path | str) -> bool:
    """Whether the name suits a DICOM file: suffix .dcm, none, or the end of a UID."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in SUFFIXES or suffix[1:].isdecimal() or suffix in ("", ".")

"""Which files are DICOM, by their name and first bytes, and the ids in a header.

`dicom` reads them; few data sets need it, and pydicom takes 0.1 s to import.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")  # kinds of elements whose length stands further on
HEADER_LENGTH = 132  # bytes that identify DICOM: a preamble of 128, then "DICM"


class Ids(NamedTuple):
    """Ids from a header as text, None where it has none."""

    patient: str | None
    study: str | None


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these bytes is DICOM."""
    return header_start(head) is not None


def header_start(head: bytes) -> int | None:
    """Where the header begins in a DICOM file that starts with these bytes; None for other files.

    Behind the preamble, or at 0 in a file without one, which must start with two elements of the
    groups that a header starts with, in order.
    """
    if head[128:HEADER_LENGTH] == b"DICM":
        return HEADER_LENGTH
    place, last = 0, (0, 0)
    for _ in range(2):
        group, element, length = struct.unpack("<HHI", head[place : place + 8].ljust(8, b"\0"))
        if group not in (2, 8) or (group, element) <= last:
            return None
        last = group, element
        if (kind := head[place + 4 : place + 6]).isalpha():  # explicit, of two letters
            further = int.from_bytes(head[place + 8 : place + 12], "little")
            length = further + 4 if kind in _LONG else length >> 16
        place += 8 + length
    return 0


def may_be_dicom(path: Path | str) -> bool:
    """Whether the name suits a DICOM file: suffix .dcm, none, or the end of a UID."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in SUFFIXES or suffix[1:].isdecimal() or suffix in ("", ".")

"""Decode and enhance all images of a data set, in parallel threads, into one folder."""

import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fracnet.data.cachefolder import write_meta
from fracnet.data.enhance import Enhance
from fracnet.data.reading import BadImage, read_grey
from fracnet.data.shortcuts import FEATURE_NAMES, shortcut_features
from fracnet.data.threads import single_threaded
from fracnet.errors import UserError
from fracnet.progress import shown


def build(
    part: Path,
    name: str,
    files: Sequence[Path],
    sizes: Sequence[int],
    enhance: Enhance,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write images.uint8, features.npy and meta.json of `files` (of `sizes` bytes) into `part`.

    Unreadable files are left out and told in the description. Whatever goes wrong, `part` is
    removed. Raises OSError where it cannot be written, UserError where no file can be read.
    """
    start = time.perf_counter()
    if progress:
        print(f"Decoding and enhancing {len(files)} images of {name}, once", file=sys.stderr)
    part.mkdir()
    try:
        bad, features = _write_images(
            part / "images.uint8", files, sizes, enhance, workers, progress
        )
        if len(bad) == len(files):
            raise UserError(f"None of the {len(files)} images of {name} can be read: {bad[0]}.")
        good = [row for row in range(len(files)) if row not in bad]
        packed = io.BytesIO()
        np.save(packed, features[good])
        (part / "features.npy").write_bytes(packed.getvalue())
        content = {
            "name": name,
            "images": len(good),
            "image_size": enhance.image_size,
            "pipeline": enhance.key(),
            "bad": {str(row): reason for row, reason in sorted(bad.items())},
            "features_sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
        }
        write_meta(part, content)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if progress:
        seconds = time.perf_counter() - start
        rate = len(files) / seconds
        print(f"{len(good)} images in {seconds:.1f} s ({rate:.0f} a second)", file=sys.stderr)


def _write_images(
    target: Path,
    files: Sequence[Path],
    sizes: Sequence[int],
    enhance: Enhance,
    workers: int | None,
    progress: bool,
) -> tuple[dict[int, str], np.ndarray]:
    """Fill `target` with the good images, one after the other; (bad rows, features of all)."""
    n_pixels = enhance.image_size**2
    features = np.full((len(files), len(FEATURE_NAMES)), np.nan)
    bad: dict[int, str] = {}
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def one(row: int) -> None:
        try:
            image = read_grey(files[row])
        except BadImage as error:
            bad[row] = error.reason
            return
        features[row] = shortcut_features(image, sizes[row])
        _write(handle, enhance(image), row * n_pixels)

    try:
        # Reserved before any work: a full disk is told at once, and not by a bus error later.
        os.posix_fallocate(handle, 0, len(files) * n_pixels)
        single_threaded()
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            done = pool.map(one, range(len(files)))
            for _ in shown(done, len(files), "enhance", visible=progress):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        _close_gaps(handle, bad, len(files), n_pixels)
        os.fsync(handle)
    finally:
        os.close(handle)
    return bad, features


def _write(handle: int, image: np.ndarray, offset: int) -> None:
    """Write all of it at a place of its own; threads need no lock."""
    data = image.data.cast("B")
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def _close_gaps(handle: int, bad: dict[int, str], n_files: int, n_pixels: int) -> None:
    """Move the images behind a bad one up, so that the good ones stand in a row."""
    if not bad:
        return
    place = min(bad)
    for row in range(place, n_files):
        if row not in bad:
            image = os.pread(handle, n_pixels, row * n_pixels)
            _write(handle, np.frombuffer(image, np.uint8), place * n_pixels)
            place += 1
    os.ftruncate(handle, place * n_pixels)

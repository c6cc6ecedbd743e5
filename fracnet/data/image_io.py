"""Read an image file as grey uint8 pixels: complete and correct, or a `BadImage` naming the file.

Decoders run at strict settings while files are read, whatever the process has set.
"""

import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fracnet.data import dicom, dicom_files
from fracnet.data.codestreams import ends_early
from fracnet.utils.errors import UserError

Grey = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "GIF", "TIFF", "BMP")
# Pillow's own limit for errors. The largest stitched long-leg radiographs have about 40 million.
MAX_PIXELS = 178_956_970
MAX_BYTES = 1 << 30  # 16-bit color of that many pixels; also of a file
WORKING_MEMORY = 2 << 30  # bytes that all threads together decode with, unless one needs more
BYTES_PER_PIXEL = 14  # at most: Pillow's or OpenCV's pixels, one copy and the result
STRIP = 1 << 20  # pixels converted at a time


class BadImage(UserError):
    """A file that cannot be read as a whole image. Has `path` and `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"Cannot read the image {path}: {reason}.")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class _Strict:
    """Keeps Pillow's process-wide settings strict while any thread decodes.

    `ImageFile.LOAD_TRUNCATED_IMAGES` fills missing parts with grey. It and Python's warning filters
    belong to the whole process: the first thread to enter sets them, the last to leave restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._lenient = False
        self._stack = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                self._lenient = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                self._stack.enter_context(warnings.catch_warnings())
                # What Pillow warns about (odd metadata, size) is harmless or rejected here.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.filterwarnings("ignore", module=r"pydicom\.")
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._stack.close()
                ImageFile.LOAD_TRUNCATED_IMAGES = self._lenient


strict_decoding = _Strict()


class ByteBudget:
    """Bytes that threads may use together; what exceeds the limit alone waits for all others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, n_bytes: int) -> Iterator[None]:
        """Wait until `n_bytes` are free, and hold them during the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + n_bytes <= self._limit)
            self._used += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used -= n_bytes
                self._changed.notify_all()


decoding_memory = ByteBudget(WORKING_MEMORY)


def read_grey(path: Path | str) -> Grey:
    """Decode JPEG, PNG, GIF, TIFF, BMP or DICOM to grey, uint8 [H, W], C-contiguous.

    The content determines the format, not the file name.

    - Color becomes luma by ITU-R 601; alpha and transparent palette entries are put on black.
    - More than 8 bits per sample (16-bit grey or color, 32-bit, float) map linearly from the
      image's own minimum..maximum to 0..255: detectors use 10 to 14 of the 16 bits, so the full
      range of the file type would leave most radiographs black. A constant image keeps its
      position in the full 16-bit range. Signed 8 bits map from -128..127.
    - The EXIF orientation tag is not applied, so pixels, header size and labels agree; that of
      TIFF, which belongs to the image itself, is applied to both.
    - DICOM is displayed as its header says (`dicom.display_pixels`).
    - Of an animated GIF or PNG, the first frame is read. A DICOM file with
      several frames and a TIFF with several pages are rejected.

    Raises BadImage for anything but a complete image: missing, a folder, empty, not an image,
    truncated (a baseline JPEG even if an end marker follows the cut; in a progressive one a cut
    shows only as blur), broken, over `MAX_PIXELS` or `MAX_BYTES` (file, or pixels x channels x
    depth). Threads wait for each other rather than use more than `WORKING_MEMORY`. Raises
    `dicom.NoDecoder` if a compressed DICOM file needs a package that is not installed.
    """
    path = Path(path)
    try:
        _check_is_file(path)
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(path, _reason_of(error)) from error
    return decode_grey(data, path)


def decode_grey(data: bytes, path: Path) -> Grey:
    """As `read_grey`, from the bytes of a file; `path` is for messages."""
    with strict_decoding:
        try:
            if dicom_files.is_dicom(data[: dicom_files.HEADER_LENGTH]):
                return dicom.decode(data, path, _memory_for)
            with _open(path, io.BytesIO(data)) as image, _memory_for(path, *image.size):
                _check_tiff(image)
                deep = _is_deep(image)  # known only before the pixels are decoded
                image.load()
                if image.format in ("JPEG", "MPO") and _ends_early(image, data):
                    raise BadImage(path, "the file is truncated: its lower part is missing")
                return _to_grey(image, data, deep)
        except UserError:
            raise
        # Decoders raise almost anything for broken data: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            reason = _unsupported_tiff(data) if isinstance(error, UnidentifiedImageError) else None
            raise BadImage(path, reason or _reason_of(error, data[:8])) from error


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels, from the header only; BadImage if there is none."""
    path = Path(path)
    with _header(path) as (file, is_dicom):
        if not is_dicom:
            with _open(path, file) as image:
                return image.size
        width, height = dicom.read_size(file)
        _check_size(path, width, height)
        return width, height


def read_ids(path: Path | str) -> dicom_files.Ids:
    """(patient, study) from a DICOM header, None where missing and for other formats.

    Works even if the pixels are broken; BadImage if the header cannot be read.
    """
    with _header(Path(path)) as (file, is_dicom):
        return dicom.read_ids(file) if is_dicom else dicom_files.Ids(None, None)


def class_without_image(path: Path | str) -> str | None:
    """Name of the DICOM class of a file that holds no image, such as "Basic Text SR Storage".

    None for images, also broken ones, and for files that are not DICOM or cannot be read.
    """
    if not dicom_files.may_be_dicom(path):
        return None
    # Whatever reads its pixels reports a broken one.
    with suppress(BadImage), _header(Path(path)) as (file, is_dicom):
        return dicom.class_without_image(file) if is_dicom else None
    return None


@contextmanager
def _header(path: Path) -> Iterator[tuple[io.BufferedReader, bool]]:
    """The open file and whether it is DICOM; errors inside become BadImage."""
    with strict_decoding:
        try:
            _check_is_file(path)
            with path.open("rb") as file:
                is_dicom = dicom_files.is_dicom(file.read(dicom_files.HEADER_LENGTH))
                file.seek(0)
                yield file, is_dicom
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(path, _reason_of(error)) from error


def _check_is_file(path: Path) -> None:
    """Reading a pipe or a device could block or never end; a folder raises when it is opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise BadImage(path, "it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise BadImage(path, f"its {status.st_size} bytes exceed the limit of {MAX_BYTES}")


def _open(path: Path, file: io.BytesIO | io.BufferedReader) -> ImageFile.ImageFile:
    if not file.read(1):
        raise BadImage(path, "the file is empty (0 bytes)")
    image = Image.open(file, formats=FORMATS)
    depth = 4 if image.mode in ("I", "F") else 2 if _is_deep(image) else 1
    _check_size(path, *image.size, len(image.getbands()) * depth)
    return image


def _check_tiff(image: ImageFile.ImageFile) -> None:
    """Raise ValueError for a TIFF that Pillow would read in part or wrongly.

    Several pages are several images, unless they are smaller copies or masks of the first.
    """
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    if tags.get(284) == 2 and len(image.getbands()) > 1 and max(tags.get(258, (1,))) > 8:
        raise ValueError("deep color in separate planes is not supported")
    first_is_derived, pages, originals = _is_derived(image), 1, 0
    with suppress(Exception):  # garbage may follow the only page, and raises almost anything
        while not originals:
            image.seek(pages)
            pages += 1
            originals += not _is_derived(image)
    if first_is_derived and pages > 1:
        raise ValueError("its first page is a smaller copy or a mask of an image")
    if originals:
        raise ValueError("it has several pages; only single images are supported")
    image.seek(0)


def _is_derived(page: ImageFile.ImageFile) -> bool:
    tags = getattr(page, "tag_v2", {})
    return bool(tags.get(254, 0) & 0b101) or tags.get(255) == 2


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits per sample; unknown once the pixels are decoded."""
    return any(";16" in str(tile.args) for tile in image.tile)


def _memory_for(path: Path, width: int, height: int) -> AbstractContextManager[None]:
    _check_size(path, width, height)
    return decoding_memory.reserve(BYTES_PER_PIXEL * width * height)


def _check_size(path: Path, width: int, height: int, bytes_per_pixel: int = 1) -> None:
    if width < 1 or height < 1:
        raise BadImage(path, f"it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise BadImage(path, f"its {width}x{height} pixels exceed the limit of {MAX_PIXELS}")
    if (n_bytes := width * height * bytes_per_pixel) > MAX_BYTES:
        raise BadImage(
            path,
            f"its {width}x{height} pixels of {bytes_per_pixel} bytes need {n_bytes} bytes, more "
            f"than the limit of {MAX_BYTES}",
        )


def _ends_early(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG's end marker comes before its last block.

    libjpeg silently paints missing blocks mid-grey, so only images whose last block is mid-grey are
    decoded twice.
    """
    last_block = (image.width - 1) // 8 * 8, (image.height - 1) // 8 * 8, *image.size
    values = np.asarray(image.crop(last_block).convert("L"))
    # A channel of 128 is 127 in inverted CMYK, whose four channels make a darker grey.
    if np.ptp(values) > 2 or (image.mode != "CMYK" and abs(int(values[0, 0]) - 128) > 2):
        return False

    def decode(coded: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(coded), formats=FORMATS) as longer:
            return np.asarray(longer)

    return ends_early(data, np.asarray(image), decode)


def _to_grey(image: ImageFile.ImageFile, data: bytes, deep: bool) -> Grey:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if _sample_type(image) == "uint32":  # Pillow's own 32 bits are signed
            pixels = pixels.view(np.uint32)
        # TIFF's "0 is white": Pillow inverts it only for 8 bits.
        inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
        if isinstance(key := image.info.get("transparency"), int):
            pixels = np.where(pixels == key, 0, pixels)
        if not inverted:
            return stretch_to_uint8(pixels)
        white = np.float64(pixels.max())
        return _stretch(pixels, lambda strip: white - strip.astype(np.float64))
    if _sample_type(image) == "int8":  # Pillow's own 8 bits are unsigned
        if image.mode != "L":
            raise ValueError("its type, int8 in several channels, is not supported")
        return np.asarray(image) ^ np.uint8(128)
    if deep and image.mode in ("RGB", "RGBA", "LA"):
        return _deep_color(image, data)
    if image.has_transparency_data:
        # Via RGBA, the only conversion that handles every kind of transparency.
        grey = np.empty((image.height, image.width), np.uint8)
        for rows in _strips(grey):
            strip = image.crop((0, rows.start, image.width, rows.stop))
            pair = np.asarray(strip.convert("RGBA").convert("LA"), dtype=np.uint16)
            grey[rows] = (pair[..., 0] * pair[..., 1] + 127) // 255
        return grey
    if image.mode not in ("1", "L", "P", "RGB"):
        return np.array(image.convert("RGB").convert("L"), order="C")
    return np.array(image.convert("L"), order="C")


def _sample_type(image: Image.Image) -> str | None:
    """The type of a TIFF's samples, such as int8 or float64; None for other formats."""
    if image.format != "TIFF":
        return None
    return _type_of_tags(getattr(image, "tag_v2", {}))


def _type_of_tags(tags: Mapping[int, Any]) -> str:
    kind = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex float"}
    formats, bits = tags.get(339, (1,)), tags.get(258, (1,))
    return f"{kind.get(formats[0], 'unknown')}{bits[0]}"


def _unsupported_tiff(data: bytes) -> str | None:
    """The type of a TIFF that Pillow does not know; None for other files and broken TIFFs."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        kind, photometric, samples = _type_of_tags(tags), tags.get(262), tags.get(277, 1)
    # Broken tags raise almost anything; the file is then reported as no complete image.
    except Exception:
        return None
    return (
        f"a TIFF of {kind} samples (PhotometricInterpretation {photometric}, SamplesPerPixel "
        f"{samples}) is not supported"
    )


def _deep_color(image: ImageFile.ImageFile, data: bytes) -> Grey:
    """16-bit color, read by OpenCV; Pillow keeps only the upper eight bits."""
    tags = getattr(image, "tag_v2", {})
    # Of four channels the last one is alpha, unless the file leaves its meaning open.
    has_alpha = image.mode in ("RGBA", "LA") and tags.get(338, (2,))[0] != 1  # 1: multiplied in
    size, key = image.size, image.info.get("transparency")
    image.close()  # its pixels are not needed, and are many
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint16:
        raise ValueError("its 16-bit color cannot be decoded")
    if pixels.shape[1::-1] != size:
        raise ValueError("16-bit color with an orientation tag is not supported")
    if isinstance(key, tuple):  # the color that is transparent, in a PNG
        pixels[(pixels[..., 2::-1] == key).all(axis=-1)] = 0
    return _stretch(pixels if has_alpha else pixels[..., :3], _luma)


def _luma(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Luma of 16-bit color on black, float64 [H, W]."""
    luma = pixels[..., :3].astype(np.float64) @ np.array([0.114, 0.587, 0.299])  # B, G, R
    return luma * (pixels[..., 3] / 65535) if pixels.shape[2] == 4 else luma


def stretch_to_uint8(pixels: np.ndarray) -> Grey:
    """Map numbers [H, W] from their own minimum..maximum to 0..255; ValueError if not finite."""
    return _stretch(pixels, lambda strip: strip.astype(np.float64))


def _stretch(
    pixels: np.ndarray, to_values: Callable[[np.ndarray], npt.NDArray[np.float64]]
) -> Grey:
    """`stretch_to_uint8` of `to_values` of the pixels, in strips: float64 takes much memory."""
    grey = np.empty(pixels.shape[:2], np.uint8)
    low, high = np.inf, -np.inf
    for rows in _strips(grey):
        values = to_values(pixels[rows])
        if not np.isfinite(values).all():
            raise ValueError("it contains values that are not finite")
        low, high = min(low, values.min()), max(high, values.max())
    if high == low:
        grey[:] = np.clip(np.rint(low / 257), 0, 255)
        return grey
    for rows in _strips(grey):
        grey[rows] = np.rint((to_values(pixels[rows]) - low) * (255 / (high - low)))
    return grey


def _strips(image: np.ndarray) -> Iterator[slice]:
    """Slices of rows with about `STRIP` pixels each."""
    height, width = image.shape
    step = max(1, STRIP // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _reason_of(error: Exception, first_bytes: bytes | None = None) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        start = f" (first bytes {first_bytes!r})" if first_bytes is not None else ""
        return f"it is not a complete {', '.join(FORMATS)} or DICOM image{start}"
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def limit_opencv_threads() -> None:
    """Keep OpenCV from splitting one image over threads: the work is parallel over images.

    Call it before loader workers are forked: they inherit the setting. A worker that changes it
    itself waits forever for threads that did not survive the fork.
    """
    cv2.setNumThreads(1)

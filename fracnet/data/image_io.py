"""From an image file to grey uint8 pixels: whole and right, or a `BadImage` that names the file.

Decoders held at strict settings while files are read, whatever the process has set.

Threads of OpenCV; apart from `preprocess`, so that who only decodes images waits for no torch.
"""

import io
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from fracnet.data import dicom
from fracnet.utils.errors import UserError


class _Strict:
    """Holds Pillow's process-wide switches at strict values while any thread decodes.

    `ImageFile.LOAD_TRUNCATED_IMAGES` fills what is missing with grey, and both it and Python's
    warning filters belong to the whole process: the first thread in sets, the last out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._lenient = False
        self._stack = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._lenient = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                self._stack.enter_context(warnings.catch_warnings())
                # What Pillow warns of (odd metadata, size) is either harmless or refused here.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.filterwarnings("ignore", module=r"pydicom\.")
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stack.close()
                ImageFile.LOAD_TRUNCATED_IMAGES = self._lenient


strict = _Strict()

Grey = npt.NDArray[np.uint8]
Found = TypeVar("Found")

FORMATS = ("JPEG", "PNG", "GIF", "TIFF", "BMP")

# Pillow's own refusal limit. The largest stitched long-leg radiographs have about 40 million.
MAX_PIXELS = 178_956_970

# 16-bit color of that many pixels.
MAX_BYTES = 1 << 30

_NO_MORE_DATA = b"\xff\xd9"

# Entropy-coded bytes without a marker; any will do that are not all alike.
_FILLER = bytes((37 * i + 11) % 251 for i in range(4096))


class BadImage(UserError):
    """A file that cannot be read as a whole image. Has `path` and `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"Cannot read the image {path}: {reason}.")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


def read_grey(path: Path | str) -> Grey:
    """Decode JPEG, PNG, GIF (first frame), TIFF, BMP or DICOM to grey, uint8 [H, W], C-contiguous.

    The bytes tell which of them it is, not the file's name.

    - Color becomes luma by ITU-R 601; alpha and transparent palette entries lie over black.
    - More than 8 bits a sample (16-bit grey or color, 32-bit, float) map linearly from the
      image's own minimum..maximum to 0..255: detectors use 10 to 14 of the 16 bits, so that the
      file type's full range would leave most radiographs black. One constant value keeps its
      place in the full 16-bit range.
    - The orientation tag of EXIF is not applied, so pixels, header size and labels agree.
    - DICOM is shown as its header says (`voi.shown`).

    Raises BadImage for whatever is not a whole image: missing, a folder, empty, not an image,
    truncated (a baseline JPEG also where an end marker was put behind the cut; of a progressive
    one that only shows as blur), broken, over `MAX_PIXELS` or `MAX_BYTES`. Raises
    `dicom.NoDecoder` where a compressed DICOM file needs a package that is not installed.
    """
    path = Path(path)
    try:
        _refuse_what_is_no_file(path)
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(path, _reason_of(error)) from error
    with strict:
        try:
            if dicom.is_dicom(data[: dicom.HEAD]):
                return dicom.decode(data, path, MAX_PIXELS)
            with _open(path, io.BytesIO(data)) as image:
                # Known before the pixels are decoded only.
                deep = any(";16" in str(tile.args) for tile in image.tile)
                image.load()
                if image.format in ("JPEG", "MPO") and _ends_early(image, data):
                    raise BadImage(path, "the file is truncated, its lower part is missing")
                return _to_grey(image, data, deep)
        except UserError:
            raise
        # Decoders of broken bytes raise nearly anything: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            raise BadImage(path, _reason_of(error, data[:8])) from error


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels, from the header only; BadImage where there is none."""
    path = Path(path)

    def size(file: io.BufferedReader, of_dicom: bool) -> tuple[int, int]:
        if of_dicom:
            found = dicom.read_size(file)
            _check_size(path, *found)
            return found
        with _open(path, file) as image:
            return image.size

    return _of_header(path, size)


def read_ids(path: Path | str) -> dicom.Ids:
    """(patient, study) that a DICOM header names, None for what it does not, and other formats.

    Also of a file whose pixels are broken; BadImage where its header cannot be read.
    """

    def ids(file: io.BufferedReader, of_dicom: bool) -> dicom.Ids:
        return dicom.read_ids(file) if of_dicom else dicom.Ids(None, None)

    return _of_header(Path(path), ids)


def _of_header(path: Path, read: Callable[[io.BufferedReader, bool], Found]) -> Found:
    """What `read` finds in the open file, which it is told to be DICOM or not."""
    with strict:
        try:
            _refuse_what_is_no_file(path)
            with path.open("rb") as file:
                of_dicom = dicom.is_dicom(file.read(dicom.HEAD))
                file.seek(0)
                return read(file, of_dicom)
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(path, _reason_of(error)) from error


def _refuse_what_is_no_file(path: Path) -> None:
    """A pipe or a device would be waited for, or read without end; a folder says so itself."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise BadImage(path, "it is no regular file")
    if found.st_size > MAX_BYTES:
        raise BadImage(path, f"its {found.st_size} bytes are more than the allowed {MAX_BYTES}")


def _open(path: Path, file: io.BytesIO | io.BufferedReader) -> ImageFile.ImageFile:
    if not file.read(1):
        raise BadImage(path, "the file is empty (0 bytes)")
    image = Image.open(file, formats=FORMATS)
    _check_size(path, *image.size)
    return image


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(path, f"it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise BadImage(path, f"{width}x{height} pixels are more than the allowed {MAX_PIXELS}")


def _ends_early(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG's end marker stands before its last block.

    libjpeg paints the missing blocks mid-grey without a complaint. Such a file, and only such a
    file, changes when more coded data is put before the end marker. Decoding twice is kept for
    pictures whose last block is mid-grey.
    """
    last_block = (image.width - 1) // 8 * 8, (image.height - 1) // 8 * 8, *image.size
    values = np.asarray(image.crop(last_block).convert("L"))
    # A channel of 128 is 127 in inverted CMYK, whose four channels make a darker grey.
    if np.ptp(values) > 2 or (image.mode != "CMYK" and abs(int(values[0, 0]) - 128) > 2):
        return False
    end = data.rfind(_NO_MORE_DATA)
    if end < 0:
        return False
    try:
        with Image.open(io.BytesIO(data[:end] + _FILLER + data[end:]), formats=FORMATS) as longer:
            return longer.tobytes() != image.tobytes()
    except (OSError, SyntaxError):
        return True


def _to_grey(image: ImageFile.ImageFile, data: bytes, deep: bool) -> Grey:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.float64)
        # TIFF's "0 is white": Pillow turns it round for 8 bits only.
        inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
        return stretched(pixels.max() - pixels if inverted else pixels)
    if deep and image.mode in ("RGB", "RGBA", "LA"):
        return stretched(_deep_luma(data))
    if image.has_transparency_data:
        # By way of RGBA: the one conversion that knows every kind of transparency.
        pair = np.asarray(image.convert("RGBA").convert("LA"), dtype=np.uint16)
        return ((pair[..., 0] * pair[..., 1] + 127) // 255).astype(np.uint8)
    if image.mode not in ("1", "L", "P", "RGB"):
        return np.array(image.convert("RGB").convert("L"), order="C")
    return np.array(image.convert("L"), order="C")


def _deep_luma(data: bytes) -> npt.NDArray[np.float64]:
    """Luma of 16-bit color, of which Pillow keeps only the upper eight bits. float64 [H, W]."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise ValueError("its 16-bit color cannot be decoded")
    luma = pixels[..., :3].astype(np.float64) @ np.array([0.114, 0.587, 0.299])  # B, G, R
    return luma * (pixels[..., 3] / 65535) if pixels.shape[2] == 4 else luma


def stretched(pixels: npt.NDArray[np.float64]) -> Grey:
    """float64 [H, W] from its own minimum..maximum to 0..255, rounded; ValueError if not finite."""
    if not np.isfinite(pixels).all():
        raise ValueError("it holds values that are not finite")
    low, high = pixels.min(), pixels.max()
    if high == low:
        return np.full(pixels.shape, np.clip(np.rint(low / 257), 0, 255), dtype=np.uint8)
    return np.rint((pixels - low) * (255 / (high - low))).astype(np.uint8)


def _reason_of(error: Exception, first_bytes: bytes | None = None) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        seen = f" (first bytes {first_bytes!r})" if first_bytes is not None else ""
        return f"it is not a whole {', '.join(FORMATS)} or DICOM image{seen}"
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def single_threaded() -> None:
    """Keep OpenCV from splitting one image over threads: the work is parallel over images.

    Call it before loader workers are forked. They inherit the setting; a worker that changed it
    itself would wait for ever for threads that did not survive the fork.
    """
    cv2.setNumThreads(1)

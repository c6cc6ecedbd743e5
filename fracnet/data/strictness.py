"""Decoders held at strict settings while files are read, whatever the process has set."""

import threading
import warnings
from contextlib import ExitStack
from types import TracebackType

from PIL import Image, ImageFile


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

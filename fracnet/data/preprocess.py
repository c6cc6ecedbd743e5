"""Deterministic preprocessing of a radiograph, done once per image and then cached.

A pipeline is a list of steps in any order, exactly one of them a resize. Nothing here is random:
the same pixels, steps and library versions give the same bytes, in any thread or process.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import PIL

from fracnet.utils.errors import UserError
from fracnet.utils.text import as_typed, near_miss

Image = np.ndarray
"""One grey image, uint8 [H, W]."""


@dataclass(frozen=True)
class Parameter:
    """One of `names`, or a number from `low` to `high`, whole where the default is."""

    default: str | float
    low: float = 0
    high: float = 0
    odd: bool = False
    names: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether it may have this value."""
        if self.names or isinstance(value, bool) or not isinstance(value, int | float):
            return value in self.names
        whole = not isinstance(self.default, int) or value % 1 == 0
        return self.low <= value <= self.high and whole and (not self.odd or value % 2 == 1)

    def __str__(self) -> str:
        whole = "a whole number" if isinstance(self.default, int) else "a number"
        kind = "an odd number" if self.odd else whole
        return " or ".join(self.names) or f"{kind} from {self.low:g} to {self.high:g}"


STEPS = {
    "resize": {"mode": Parameter("squash", names=("squash", "pad"))},
    "clahe": {"clip_limit": Parameter(2.0, 1, 100), "tiles": Parameter(8, 1, 64)},
    "median": {"size": Parameter(3, 3, 31, odd=True)},
    "gaussian": {"size": Parameter(3, 3, 31, odd=True), "sigma": Parameter(0.0, 0, 20)},
    "bilateral": {
        "diameter": Parameter(5, 2, 25),
        "sigma_color": Parameter(50.0, 0.1, 255),
        "sigma_space": Parameter(50.0, 0.1, 255),
    },
}


class Preprocess:
    """A pipeline of preprocessing steps that turns any grey image into one of `image_size` squared.

    Call it with uint8 [H, W]; it returns uint8 [S, S]. Threads may share it.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], image_size: int) -> None:
        """steps: mappings as in the config, each with `name` and parameters of that step (`STEPS`).

        Raises UserError for an unknown step or key, a value outside its range, or any number of
        resize steps other than one.
        """
        self.steps = _check_steps(steps)
        self.image_size = image_size
        self._functions = [_step_function(step, image_size) for step in self.steps]

    def __call__(self, image: Image) -> Image:
        """Preprocess one grey image, uint8 [H, W] -> uint8 [S, S]."""
        assert image.ndim == 2, image.shape
        assert image.dtype == np.uint8, image.dtype
        for function in self._functions:
            image = function(image)
        assert image.shape == (self.image_size, self.image_size), image.shape
        return np.ascontiguousarray(image)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Position of a file of this size in the preprocessed image: left, top, width, height.

        In pixels; the outer corner of the first one is (0, 0), that of the last one (S, S). A point
        at the shares (x, y) of the file maps to (left + x * width, top + y * height).
        """
        (resize,) = (step for step in self.steps if step["name"] == "resize")
        if resize["mode"] == "squash":
            return 0.0, 0.0, float(self.image_size), float(self.image_size)
        top, left, new_height, new_width = padded_frame(height, width, self.image_size)
        return float(left), float(top), float(new_width), float(new_height)

    def key(self) -> str:
        """Canonical JSON of everything that affects the pixels: steps, size, library versions."""
        libraries = {"opencv": cv2.__version__, "pillow": PIL.__version__}
        content = {"steps": self.steps, "image_size": self.image_size, "libraries": libraries}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def __reduce__(self) -> tuple[Any, ...]:
        return Preprocess, (self.steps, self.image_size)


def _check_steps(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps with all defaults filled in."""
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise UserError(
            f"preprocess.steps={steps!r} is not a list of steps such as {{name: clahe}}."
        )
    checked = []
    for i, step in enumerate(steps):
        where = f"preprocess.steps[{i}]"
        if not isinstance(step, Mapping):
            raise UserError(f"{where}={step!r} is not a mapping such as {{name: clahe}}.")
        name = step.get("name")
        if name not in STEPS:
            raise UserError(
                f"{where}.name={name!r} is not a step; allowed: {', '.join(STEPS)}."
                f"{near_miss(str(name), STEPS)}"
            )
        allowed = STEPS[name]
        for key, value in step.items():
            if key == "name":
                continue
            if key not in allowed:
                raise UserError(
                    f"{where}.{key} is not a key of {name}; allowed: {', '.join(allowed)}."
                    f"{near_miss(str(key), allowed)}"
                )
            if not allowed[key].accepts(value):
                raise UserError(
                    f"{where}.{key}={as_typed(value)} is not allowed; give {allowed[key]}."
                )
        # In the type of the default, so that 2 and 2.0 give the same pipeline.
        values = {key: type(p.default)(step.get(key, p.default)) for key, p in allowed.items()}
        checked.append({"name": str(name), **values})
    resizes = sum(step["name"] == "resize" for step in checked)
    if resizes != 1:
        raise UserError(
            f"preprocess.steps has {resizes} resize steps; it needs exactly one, such as "
            "{name: resize, mode: squash}."
        )
    return checked


def _step_function(step: Mapping[str, Any], image_size: int) -> Callable[[Image], Image]:
    """The step as a function of one image."""
    match step["name"]:
        case "resize":
            return partial(squash if step["mode"] == "squash" else pad, image_size=image_size)
        case "clahe":
            return partial(clahe, clip_limit=step["clip_limit"], tiles=step["tiles"])
        case "median":
            return partial(cv2.medianBlur, ksize=step["size"])
        case "gaussian":
            kernel = gaussian_kernel(step["size"], step["sigma"])
            return partial(cv2.sepFilter2D, ddepth=-1, kernelX=kernel, kernelY=kernel)
        case "bilateral":
            return partial(
                cv2.bilateralFilter,
                d=step["diameter"],
                sigmaColor=step["sigma_color"],
                sigmaSpace=step["sigma_space"],
            )
    raise AssertionError(step)


def clahe(image: Image, clip_limit: float, tiles: int) -> Image:
    """Equalize the histogram of each tile with limited contrast: uint8 [H, W]."""
    # One object per call: it has a buffer, and threads share the pipeline.
    equalized = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles)).apply(image)
    return np.asarray(equalized, np.uint8)


def gaussian_kernel(size: int, sigma: float) -> np.ndarray:
    """float64 [size], with the sum 1; sigma 0 is OpenCV's rule for a kernel of this size."""
    sigma = sigma or 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def squash(image: Image, image_size: int) -> Image:
    """Resize uint8 [H, W] to [S, S] without keeping the aspect ratio, as the published work does.

    A shrinking side is averaged over areas, a growing one is interpolated linearly.
    """
    height, width = image.shape
    shrunk = (min(width, image_size), min(height, image_size))
    if shrunk != (width, height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (image_size, image_size):
        image = cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
    return image


def pad(image: Image, image_size: int) -> Image:
    """Resize the longer side of uint8 [H, W] to S and center the image on black: uint8 [S, S]."""
    height, width = image.shape
    top, left, new_height, new_width = padded_frame(height, width, image_size)
    if (new_height, new_width) != (height, width):
        method = cv2.INTER_AREA if image_size < max(height, width) else cv2.INTER_LINEAR
        image = cv2.resize(image, (new_width, new_height), interpolation=method)
    canvas = np.zeros((image_size, image_size), np.uint8)
    canvas[top : top + new_height, left : left + new_width] = image
    return canvas


def padded_frame(height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
    """Top, left, height and width, in pixels, of the image on the canvas of `pad`."""
    scale = image_size / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    return (image_size - new_height) // 2, (image_size - new_width) // 2, new_height, new_width

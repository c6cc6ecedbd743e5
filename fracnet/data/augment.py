"""Random augmentation that is a pure function of (seed, epoch, row, copy).

albumentations seeds every transform of a pipeline with the same number, so two flips with p = 0.5
always coincide, and it ignores loader workers, so all of them repeat the same draws. Here all
transforms share one random stream that is reseeded for each image from (seed, epoch, row, copy),
where `copy` distinguishes the draws of one row in one epoch: which worker runs and which images
came before do not matter.

Affine and flips run without albumentations' overhead (a second matrix for boxes, six matrix
products, argument checks for every image), which takes more than half of the time of the published
recipe. The same numbers are drawn from the same stream in the same order and go directly to OpenCV.
"""

import hashlib
import inspect
import math
import random
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.composition import BaseCompose
from albumentations.core.transforms_interface import BasicTransform
from pydantic import ValidationError

from fracnet.config.instantiate import locate, not_an_argument
from fracnet.utils.errors import UserError

Image = np.ndarray
Pair = tuple[Image, Image | None]
"""An image uint8 [H, W] and, where one is asked for, the mask uint8 [H, W] of its annotations."""
Step = Callable[[Image, Image | None, random.Random], Pair]
"""From image, mask and the random stream to both; must not write to its arguments."""

_FLIP_CODES = {A.HorizontalFlip: 1, A.VerticalFlip: 0}
_IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_STREAM = 0xA06  # separates this random stream from others with the same seed
_DRAW = struct.Struct("<5q")


def opencv_step(transform: Any) -> Step | None:
    """A flip or Affine as an OpenCV step; None for any other transform, subclasses included."""
    kind = type(transform)
    if kind in _FLIP_CODES:
        code = _FLIP_CODES[kind]
        return _with_probability(transform.p, lambda image, mask, _: _flip(image, mask, code))
    if kind is A.Affine and not transform.fit_output and isinstance(transform.fill, int | float):
        return _with_probability(transform.p, _affine_step(transform))
    return None


def _flip(image: Image, mask: Image | None, code: int) -> Pair:
    return cv2.flip(image, code), None if mask is None else cv2.flip(mask, code)


def _with_probability(p: float, step: Step) -> Step:
    """Apply the step with probability p; draws only if p is neither 0 nor 1."""

    def apply(image: Image, mask: Image | None, stream: random.Random) -> Pair:
        done = p >= 1 or (p > 0 and stream.random() < p)
        return step(image, mask, stream) if done else (image, mask)

    return apply


def _affine_step(transform: A.Affine) -> Step:
    options = {
        "flags": transform.interpolation,
        "borderMode": transform.border_mode,
        "borderValue": transform.fill,
    }
    # Linear whatever the transform says: edges of a mask are shares of pixels.
    mask_options = options | {"flags": cv2.INTER_LINEAR, "borderValue": 0}

    def warp(image: Image, mask: Image | None, stream: random.Random) -> Pair:
        height, width = image.shape
        # The same order of draws as in albumentations.
        transform.py_random = stream
        shift = transform._get_translate_params((height, width))
        shear = transform._get_shear_params()
        scale = transform._get_scale(
            transform.scale, transform.keep_ratio, transform.balanced_scale, stream
        )
        angle = stream.uniform(*transform.rotate)
        transform.params = {"rotate": angle, "scale": scale, "shear": shear, "translate": shift}
        matrix = affine_matrix((height, width), shift, shear, scale, angle)
        if np.array_equal(matrix, _IDENTITY):
            return image, mask
        if mask is not None:
            mask = cv2.warpAffine(mask, matrix, (width, height), **mask_options)
        return cv2.warpAffine(image, matrix, (width, height), **options), mask

    return warp


def affine_matrix(
    shape: tuple[int, int],
    translate: dict[str, int],
    shear: dict[str, float],
    scale: dict[str, float],
    rotate: float,
) -> np.ndarray:
    """Affine map of the pixels of an image of `shape` (height, width), float64 [2, 3].

    Around the center, in this order: scale, rotate by `rotate` degrees (counterclockwise as
    displayed), shear by degrees, translate by pixels; scale, shear and translate per axis.
    """
    angle = math.radians(rotate)
    cos, sin = math.cos(angle), math.sin(angle)
    along_x, along_y = math.tan(math.radians(shear["x"])), math.tan(math.radians(shear["y"]))
    # Shear times rotation times scale.
    a, b = (cos - along_x * sin) * scale["x"], (sin + along_x * cos) * scale["y"]
    c, d = (along_y * cos - sin) * scale["x"], (along_y * sin + cos) * scale["y"]
    x, y = shape[1] / 2 - 0.5, shape[0] / 2 - 0.5
    return np.array(
        [[a, b, x + translate["x"] - a * x - b * y], [c, d, y + translate["y"] - c * x - d * y]]
    )


class Augment:
    """Applies albumentations transforms to one grey image; an empty list changes nothing."""

    def __init__(
        self, transforms: Sequence[BasicTransform | BaseCompose], key: str = "augment.transforms"
    ) -> None:
        """`key`: config key of the transforms, for messages."""
        self.transforms = tuple(transforms)
        self.key = key
        # Initializes the transforms, including nested ones. It is never called: a call costs as
        # much as a transform.
        self._compose = A.Compose(list(transforms), is_check_shapes=False)
        self._steps = [opencv_step(transform) for transform in transforms]
        self._stream = random.Random(0)

    def __call__(
        self, image: np.ndarray, *, seed: int, epoch: int, row: int, copy: int = 0
    ) -> np.ndarray:
        """Augment uint8 [H, W] -> uint8 [H, W], a function of the arguments alone.

        Does not write to `image`. Raises UserError if a transform changes its shape or type.
        """
        return self.with_mask(image, None, seed=seed, epoch=epoch, row=row, copy=copy)[0]

    def with_mask(
        self, image: Image, mask: Image | None, *, seed: int, epoch: int, row: int, copy: int = 0
    ) -> Pair:
        """The same augmentation of an image and of the mask of its annotations, uint8 [H, W] each.

        What moves the image moves the mask; what only changes grey levels leaves the mask.
        """
        if not self.transforms:
            return image, mask
        # A hash takes microseconds; numpy takes thirty times as long to mix a seed of 128 bits.
        draw = _DRAW.pack(_STREAM, seed, epoch, row, copy)
        state = int.from_bytes(hashlib.blake2b(draw, digest_size=16).digest(), "little")
        self._stream.seed(state)
        if None in self._steps:
            self._compose.set_random_state(np.random.default_rng(state), self._stream)
        result = image
        for transform, step in zip(self.transforms, self._steps, strict=True):
            if step is not None:
                result, mask = step(result, mask, self._stream)
            else:
                # Copied because a transform may write to its argument, which may be the cache.
                result = np.array(result) if result is image else result
                if mask is None:
                    result = transform(image=result)["image"]
                else:
                    both = transform(image=result, mask=mask)
                    result, mask = both["image"], both["mask"]
        if result.shape != image.shape or result.dtype != image.dtype:
            raise UserError(
                f"{self.key} turn an image of {image.dtype} {list(image.shape)} into "
                f"{result.dtype} {list(result.shape)}; they must keep size and type. Scaling, "
                "cropping to a size and normalization belong in preprocess and in the model."
            )
        return result, mask

    def __reduce__(self) -> tuple[Any, ...]:
        return Augment, (self.transforms, self.key)

    def check(self, image_size: int) -> None:
        """Try the pipeline, so that an error appears before training and not in a worker.

        Raises UserError if a transform fails on a grey image of `image_size` squared, changes its
        shape or type, or uses randomness of its own.
        """
        image = np.random.default_rng(0).integers(0, 256, (image_size, image_size), np.uint8)
        for row in range(8):
            try:
                first = self(image, seed=0, epoch=0, row=row)
                second = self(image, seed=0, epoch=0, row=row)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"{self.key} fail on a grey image of {image_size}x{image_size}: {error}"
                ) from error
            if not np.array_equal(first, second):
                raise UserError(
                    f"{self.key} give different results for the same seed, epoch and row: a custom "
                    "transform must draw only from self.py_random or self.random_generator."
                )


def build_augment(transforms: Sequence[Any] | None, key: str = "augment.transforms") -> Augment:
    """Build the pipeline from mappings such as {_target_: albumentations.HorizontalFlip, p: 0.5}.

    Transform objects are used unchanged; `key` is the config key of the list. Raises UserError for
    a target that cannot be imported or is not an albumentations transform, and for unknown or
    rejected arguments.
    """
    if isinstance(transforms, str | Mapping) or not isinstance(transforms, Sequence | None):
        raise UserError(f"{key}={transforms!r} is not a list of transforms.")
    built = []
    for i, item in enumerate(transforms or ()):
        where = f"{key}[{i}]"
        if isinstance(item, Mapping) and "_target_" in item:
            item = _instantiate(item, where)
        if not isinstance(item, BasicTransform | BaseCompose):
            raise UserError(
                f"{where}={item!r} is not a transform; give a mapping such as "
                "{_target_: albumentations.HorizontalFlip, p: 0.5}."
            )
        built.append(item)
    return Augment(built, key)


def _instantiate(node: Any, where: str) -> Any:
    """Copy plain containers, replacing each mapping that has a `_target_` by its transform.

    Hydra's `instantiate` is not used because only transforms are allowed here.
    """
    if isinstance(node, Mapping):
        values = {str(key): _instantiate(value, where) for key, value in node.items()}
        target = values.pop("_target_", None)
        return values if target is None else _build_transform(str(target), values, where)
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_instantiate(value, where) for value in node]
    return node


def _build_transform(target: str, arguments: dict[str, Any], where: str) -> Any:
    cls = locate(target, where)
    if not isinstance(cls, type) or not issubclass(cls, BasicTransform | BaseCompose):
        raise UserError(
            f"{where}._target_={target} is not an albumentations transform; use one from "
            "albumentations or a subclass of albumentations.ImageOnlyTransform or "
            "albumentations.DualTransform."
        )
    parameters = inspect.signature(cls).parameters
    any_key = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key, value in arguments.items():
        if key not in parameters and not any_key:
            raise UserError(not_an_argument(f"{where}.{key}", value, target, list(parameters)))
    # albumentations only warns about an argument that it ignores or changes: make it an error.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return cls(**arguments)
        except (ValueError, TypeError, UserWarning) as error:
            raise UserError(f"{where} ({target}) was rejected: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The reason in one line, where pydantic prints a page."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    faults = {f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in cause.errors()}
    return "; ".join(sorted(faults)) + "."

"""Random augmentation that is a pure function of (seed, epoch, row, copy).

albumentations seeds every transform of a pipeline with the same number, so that two flips of
p = 0.5 always fall together, and it knows nothing of loader workers, so that all of them repeat
the same draws. Here all transforms share one stream, and that stream is set anew for each image
from (seed, epoch, row, copy), where `copy` tells apart the draws of one row in one epoch: the
worker that happens to work and the images before it do not matter.

Affine and flips as albumentations draws them, without detours that cost more than the pixels.

albumentations makes a second matrix for boxes, multiplies six matrices and checks its arguments
for each image; of the published recipe that is more than half of the time. Here the same numbers
are drawn from the same stream in the same order, and go straight to OpenCV.
"""

import hashlib
import inspect
import math
import random
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.composition import BaseCompose
from albumentations.core.transforms_interface import BasicTransform
from pydantic import ValidationError

from fracnet.config.instantiate import near_miss
from fracnet.utils.errors import UserError

Image = np.ndarray
Step = Callable[[Image, random.Random], Image]
"""uint8 [H, W] and the stream -> uint8 [H, W]; the argument is not written to."""

_FLIPS = {A.HorizontalFlip: 1, A.VerticalFlip: 0}


def direct(transform: Any) -> Step | None:
    """The transform as a step, or None for one that is not known here. Subclasses are not."""
    kind = type(transform)
    if kind in _FLIPS:
        return _sometimes(transform.p, _flip(_FLIPS[kind]))
    if kind is A.Affine and not transform.fit_output and isinstance(transform.fill, int | float):
        return _sometimes(transform.p, _affine(transform))
    return None


def _sometimes(p: float, step: Step) -> Step:
    """With probability p; the stream is asked only where p leaves a choice."""

    def perhaps(image: Image, stream: random.Random) -> Image:
        return step(image, stream) if p >= 1 or (p > 0 and stream.random() < p) else image

    return perhaps


def _flip(code: int) -> Step:
    return lambda image, stream: cv2.flip(image, code)


def _affine(transform: A.Affine) -> Step:
    how = {
        "flags": transform.interpolation,
        "borderMode": transform.border_mode,
        "borderValue": transform.fill,
    }

    def warp(image: Image, stream: random.Random) -> Image:
        height, width = image.shape
        # The order of the draws is that of albumentations.
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
            return image
        return cv2.warpAffine(image, matrix, (width, height), **how)

    return warp


_IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def affine_matrix(
    shape: tuple[int, int],
    translate: dict[str, int],
    shear: dict[str, float],
    scale: dict[str, float],
    rotate: float,
) -> np.ndarray:
    """Where a pixel of an image of `shape` (height, width) goes, float64 [2, 3].

    About the center: first scaled, then turned by `rotate` degrees counter-clockwise as one sees
    it, then sheared by degrees, at last moved by pixels; each with its part for x and y.
    """
    turn = math.radians(rotate)
    cos, sin = math.cos(turn), math.sin(turn)
    along_x, along_y = math.tan(math.radians(shear["x"])), math.tan(math.radians(shear["y"]))
    # Shear times rotation times scale.
    a, b = (cos - along_x * sin) * scale["x"], (sin + along_x * cos) * scale["y"]
    c, d = (along_y * cos - sin) * scale["x"], (along_y * sin + cos) * scale["y"]
    x, y = shape[1] / 2 - 0.5, shape[0] / 2 - 0.5
    return np.array(
        [
            [a, b, x + translate["x"] - a * x - b * y],
            [c, d, y + translate["y"] - c * x - d * y],
        ]
    )


_STREAM = 0xA06  # keeps this stream apart from others that start from the same seed
_PLACE = struct.Struct("<5q")


class Augment:
    """Applies albumentations transforms to one grey image; an empty list leaves it as it is."""

    def __init__(
        self, transforms: Sequence[BasicTransform | BaseCompose], key: str = "augment.transforms"
    ) -> None:
        """`key`: where the transforms stand in the configuration, for messages."""
        self.transforms = tuple(transforms)
        self.key = key
        # Readies the transforms, nested ones too; to call it would cost as much as a transform.
        self._compose = A.Compose(list(transforms), is_check_shapes=False)
        self._direct = [direct(transform) for transform in transforms]
        self._all_direct = None not in self._direct
        self._python = random.Random(0)

    def __call__(
        self, image: np.ndarray, *, seed: int, epoch: int, row: int, copy: int = 0
    ) -> np.ndarray:
        """Augment uint8 [H, W] -> uint8 [H, W], a function of the arguments alone.

        `image` is not written to. Raises UserError where a transform changes shape or type.
        """
        if not self.transforms:
            return image
        # 128 bits of a hash, in microseconds; numpy takes thirty times as long to mix as many.
        place = _PLACE.pack(_STREAM, seed, epoch, row, copy)
        drawn = int.from_bytes(hashlib.blake2b(place, digest_size=16).digest(), "little")
        self._python.seed(drawn)
        if not self._all_direct:
            self._compose.set_random_state(np.random.default_rng(drawn), self._python)
        result = image
        for transform, step in zip(self.transforms, self._direct, strict=True):
            if step is not None:
                result = step(result, self._python)
            else:
                # A copy, because a transform may write to its argument, which may be the cache.
                result = np.array(result) if result is image else result
                result = transform(image=result)["image"]
        if result.shape != image.shape or result.dtype != image.dtype:
            raise UserError(
                f"{self.key} turn an image of {image.dtype} {list(image.shape)} into "
                f"{result.dtype} {list(result.shape)}; size and type must stay. Scaling, cropping "
                "to a size and normalization belong to preprocess and to the model."
            )
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Augment, (self.transforms, self.key)

    def check(self, image_size: int) -> None:
        """Try the pipeline, so that a faulty one is named before training and not in a worker.

        Raises UserError where a transform fails on a grey image of `image_size` squared, changes
        its shape or type, or draws from randomness of its own.
        """
        image = np.random.default_rng(0).integers(0, 256, (image_size, image_size), np.uint8)
        for row in range(8):
            try:
                first = self(image, seed=0, epoch=0, row=row)
                again = self(image, seed=0, epoch=0, row=row)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"{self.key} fail on a grey image of {image_size}x{image_size}: {error}"
                ) from error
            if not np.array_equal(first, again):
                raise UserError(
                    f"{self.key} give two results for the same seed, epoch and row: a "
                    "transform of your own must draw from self.py_random or "
                    "self.random_generator alone."
                )


def build_augment(transforms: Sequence[Any] | None, key: str = "augment.transforms") -> Augment:
    """Build the pipeline from mappings such as {_target_: albumentations.HorizontalFlip, p: 0.5}.

    Ready transforms are taken as they are; `key` is where the list stands. Raises UserError for a
    target that cannot be imported or is no albumentations transform, and for unknown or refused
    arguments.
    """
    if isinstance(transforms, str | Mapping) or not isinstance(transforms, Sequence | None):
        raise UserError(f"{key}={transforms!r} is not a list of transforms.")
    return Augment([_build(item, f"{key}[{i}]") for i, item in enumerate(transforms or ())], key)


def _build(item: Any, where: str) -> BasicTransform | BaseCompose:
    if isinstance(item, Mapping) and "_target_" in item:
        item = _instantiated(item, where)
    if not isinstance(item, BasicTransform | BaseCompose):
        raise UserError(
            f"{where}={item!r} is no transform; give a mapping such as "
            "{_target_: albumentations.HorizontalFlip, p: 0.5}."
        )
    return item


def _instantiated(node: Any, where: str) -> Any:
    """Plain containers, with every mapping that has a `_target_` made the transform it names.

    Not Hydra's `instantiate`, because a configuration may name transforms here and nothing else.
    """
    if isinstance(node, Mapping):
        values = {str(key): _instantiated(value, where) for key, value in node.items()}
        target = values.pop("_target_", None)
        return values if target is None else _transform(str(target), values, where)
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_instantiated(value, where) for value in node]
    return node


def _transform(target: str, arguments: dict[str, Any], where: str) -> Any:
    cls = _class(target, where)
    parameters = inspect.signature(cls).parameters
    free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key in arguments:
        if key not in parameters and not free:
            raise UserError(
                f"{where}.{key} is no argument of {target}; allowed: {', '.join(parameters)}."
                f"{near_miss(key, parameters)}"
            )
    # albumentations warns of an argument that it ignores or changes: the user must know.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return cls(**arguments)
        except (ValueError, TypeError, UserWarning) as error:
            raise UserError(f"{where} ({target}) is refused: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line, where pydantic gives a page."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    faults = {f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in cause.errors()}
    return "; ".join(sorted(faults)) + "."


def _class(target: str, where: str) -> type:
    try:
        found = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        module, _, name = target.rpartition(".")
        meant = near_miss(name, dir(A)) if module == "albumentations" else ""
        raise UserError(f"{where}._target_={target} cannot be imported.{meant}") from error
    if not isinstance(found, type) or not issubclass(found, BasicTransform | BaseCompose):
        raise UserError(
            f"{where}._target_={target} is no albumentations transform; give one of "
            "albumentations' or a class derived from albumentations.ImageOnlyTransform or "
            "albumentations.DualTransform."
        )
    return found

"""A baseline without deep learning: histograms of oriented gradients, logistic regression."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from fracnet.config.fields import Fixed, Size
from fracnet.models.logistic import Logits, fit_logistic
from fracnet.models.ood import UNREADABLE
from fracnet.utils.errors import UserError
from fracnet.utils.files import atomic_file
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import as_clause

Features = npt.NDArray[np.float32]
Cell = Annotated[int, Field(ge=4, le=256)]
Bins = Annotated[int, Field(ge=2, le=36)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# The constants of Dalal and Triggs, "Histograms of oriented gradients", CVPR 2005, sections 6.3
# and 6.4, as in OpenCV: blocks of 2x2 cells, one cell apart, weighted by a Gaussian that falls
# towards the border, scaled to length 1, clipped and scaled again (L2-Hys). No gamma.
BLOCK, CLIP = 2, 0.2


class _Settings(Fixed):
    """Of a fitted model, in its file."""

    image_size: Size
    cell: Cell
    bins: Bins


class HogLogistic:
    """Maps grey images, uint8 [N, S, S], to logits, float64 [N, num_classes].

    The features are histograms of gradient orientations (`bins` from 0 to 180 degrees) in cells of
    `cell` pixels. Where these do not divide S, up to `cell` - 1 pixels at the border are left out.
    A multinomial logistic regression with a quadratic penalty is fitted to the standardized
    features.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        cell: Cell = 16,
        bins: Bins = 9,
        C: Annotated[Sequence[Positive], Field(min_length=1)] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    ) -> None:
        """`C`: candidates for the inverse penalty weight."""
        if image_size < BLOCK * cell:
            raise UserError(
                f"model.cell={cell} is too large for image_size={image_size}: a block is {BLOCK} "
                f"cells wide; allowed: at most {image_size // BLOCK}."
            )
        self.image_size, self.cell, self.bins = image_size, cell, bins
        self.candidates = sorted(set(C))
        side = image_size // cell * cell
        self._window = slice((image_size - side) // 2, (image_size - side) // 2 + side)
        self._hog = cv2.HOGDescriptor(
            (side, side),
            (BLOCK * cell, BLOCK * cell),
            (cell, cell),
            (cell, cell),
            bins,
            1,  # aperture of the derivative, which OpenCV ignores
            -1.0,  # sigma of a block's Gaussian: an eighth of its width and height together
            cv2.HOGDescriptor_L2Hys,
            CLIP,
            False,  # gamma
        )
        self.n_features = int(self._hog.getDescriptorSize())
        self.weights = np.zeros((num_classes, self.n_features))
        self.bias = np.zeros(num_classes)

    def describe(self) -> str:
        """The model in one clause."""
        return (
            f"{self.n_features} HOG features (cells of {self.cell} pixels, {self.bins} "
            f"orientations), logistic regression, {self.weights.size + self.bias.size} parameters"
        )

    def features(
        self, images: np.ndarray, rows: np.ndarray, progress: Progress[Any] = no_progress
    ) -> Features:
        """HOG of `rows` int64 [n] of `images` uint8 [N, S, S]: float32 [n, n_features].

        The order is OpenCV's: blocks column by column, in each block cells column by column.
        """
        features = np.empty((len(rows), self.n_features), np.float32)

        def describe_row(i: int) -> None:
            image = np.ascontiguousarray(images[rows[i], self._window, self._window])
            features[i] = np.ravel(self._hog.compute(image))

        with ThreadPoolExecutor() as pool:
            for _ in progress(pool.map(describe_row, range(len(rows))), len(rows), "HOG"):
                pass
        return features

    def fit(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        train: np.ndarray,
        val: np.ndarray,
        class_weights: Sequence[float] | None = None,
        progress: Progress[Any] = no_progress,
    ) -> dict[str, Any]:
        """Fit once for each C and keep the fit with the lowest validation log loss.

        images: uint8 [N, S, S]. targets: int64 [N]; every class occurs in train. train: int64 rows
        to fit. val: int64 rows that choose C. class_weights: one factor per class for the loss of
        its training images.

        Returns what was chosen, by which metric, and all candidates; plain values.
        """
        fit = fit_logistic(
            self.features(images, train, progress),
            targets[train],
            self.features(images, val, progress),
            targets[val],
            self.candidates,
            class_weights,
            progress,
            key="model.C",
        )
        self.weights, self.bias = fit.weights, fit.bias
        return fit.selected

    def logits(
        self, images: np.ndarray, rows: np.ndarray, progress: Progress[Any] = no_progress
    ) -> Logits:
        """float64 [n, num_classes] of `rows` int64 [n] of `images` uint8 [N, S, S]."""
        return self.features(images, rows, progress) @ self.weights.T + self.bias

    def save(self, path: Path) -> None:
        """Write coefficients and settings as .npz, without pickle."""
        with atomic_file(path) as file:
            np.savez(
                file,
                weights=self.weights,
                bias=self.bias,
                image_size=self.image_size,
                cell=self.cell,
                bins=self.bins,
            )

    @classmethod
    def load(cls, path: Path) -> "HogLogistic":
        """Read what `save` wrote. Raises UserError for a damaged file."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if damaged := stored.zip.testzip():
                    raise BadZipFile(f"{damaged} has another checksum")
                settings = _Settings(**{k: int(stored[k]) for k in _Settings.model_fields})
                model = cls(len(stored["bias"]), **settings.model_dump())
                expected = model.weights.shape, model.bias.shape
                model.weights, model.bias = stored["weights"], stored["bias"]
            if (model.weights.shape, model.bias.shape) != expected:
                raise ValueError("its coefficients do not fit its settings")
            if not all(np.isfinite(part).all() for part in (model.weights, model.bias)):
                raise ValueError("it holds coefficients that are not finite")
        except UNREADABLE as error:
            allowed = not isinstance(error, ValidationError)
            reason = as_clause(error) if allowed else "its settings are not allowed"
            raise UserError(f"{path} cannot be read: {reason}.") from error
        return model

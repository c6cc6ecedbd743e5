"""Out-of-distribution detection: whether an image is unlike those that a model was trained on.

Two distances, each standardized by the validation images:

- appearance: Mahalanobis distance, with Ledoit and Wolf's shrinkage (2004, J Multivar Anal 88:365),
  of a few dozen image statistics (`fracnet.data.image_features`) to those of the training images;
- features: distance to the K-th nearest training image in the input of the model's head, each
  scaled to length 1 (Y. Sun et al. 2022, Out-of-distribution detection with deep nearest
  neighbors, ICML).

The larger one counts. The limit is a tolerance limit: with confidence `CONFIDENCE`, at most a share
`CONTENT` of new images lies above it, provided that validation's patients were sampled like new
ones. It is the higher of two. One assumes that the logarithms of the distances, above their
medians, are normally distributed; its factor comes from a simulation of exactly this estimate
(`limit_factor`). The other assumes no distribution but needs 45 patients (`order_limit`): with
fewer, the promise rests on the assumption. Several images of a patient count as one, so both are
higher the fewer patients there are. The limit concerns single images and detects only what these
two distances detect: the model may still fail on an image that is not flagged.

ood.npz stores a `Reference`, which belongs to exactly one checkpoint.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import scipy
from sklearn.covariance import LedoitWolf

from fracnet.data.image_features import APPEARANCE_NAMES, appearance_features
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.text import as_clause

NEIGHBOR = 5
CONTENT, CONFIDENCE = 0.05, 0.9
MAX_TRAIN = 2000  # training images stored for comparison
MIN_UNITS, MIN_TRAIN = 8, 20
ORDER_UNITS = 45  # the fewest for `order_limit`: 0.95 to their power is at most 0.1
SIMULATIONS, MAX_UNITS = 2000, 400

# A statistic that hardly varies in training (no white pixel anywhere) must not decide.
MIN_SCALE = 0.005
TINY = 1e-6
DIGITS = 9  # decimals of the stored limits
UNITS = "patients (where these are unknown, studies or images)"
NO_REFERENCE = (
    "It is unknown which images are out of distribution: the run has no ood.npz, which takes "
    f"{MIN_TRAIN} train images and, for validation, {MIN_UNITS} {UNITS}."
)
MEANING = (
    "distance from the training images: 0 for an image as near as the nearer half of validation, "
    "1 at the limit"
)


@dataclass(frozen=True)
class Reference:
    """A summary of the training images, and the limit.

    mean, scale: float32 [A] of the statistics. precision: float32 [A, A] of the standardized ones.
    features: float16 [n, F], each of length 1, or None for a model without them. middle, spread:
    float64 [1 or 2], of the logarithms of validation's distances. counts: images of train stored
    for comparison, images of val, its independent units, and how many images of val and test are
    flagged.
    """

    mean: np.ndarray
    scale: np.ndarray
    precision: np.ndarray
    features: np.ndarray | None
    middle: np.ndarray
    spread: np.ndarray
    limit: float
    counts: dict[str, int]

    def scores(self, images: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """float64 [n], 0 or more; above 1 is out of distribution.

        images: uint8 [n, S, S], as the model sees them. features: float32 [n, F].
        """
        return self.scores_of(appearance_features(images), features)

    def scores_of(self, appearance: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """As `scores`, from image statistics float32 [n, A]."""
        logs = self.distances(appearance, features)
        standard = (logs - self.middle) / self.spread
        return np.asarray(np.maximum(standard.max(axis=1), 0) / self.limit)

    def distances(self, appearance: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Logarithms float64 [n, 1 or 2] of the distances."""
        z = ((appearance - self.mean) / self.scale).astype(np.float64)
        squared = np.einsum("na,ab,nb->n", z, self.precision.astype(np.float64), z)
        columns = [np.log(np.sqrt(np.maximum(squared, 0)) + TINY)]
        if self.features is not None:
            assert features is not None, "the reference has features"
            columns.append(np.log(_to_neighbor(_unit(features), self.features) + TINY))
        return np.column_stack(columns)

    def describe(self) -> dict[str, Any]:
        """Plain values that explain what it flags."""
        by = "appearance and the model's features" if self.features is not None else "appearance"
        promise = f"at most {CONTENT:g} of images like validation's, with confidence {CONFIDENCE:g}"
        if self.counts.get("val_units", 0) < ORDER_UNITS:
            promise += f", if distances are log-normal: validation has under {ORDER_UNITS} {UNITS}"
        return {"by": by, "limit": promise, **self.counts}


@dataclass(frozen=True)
class Sample:
    """Images of one split. appearance: float32 [n, A]; features: float32 [n, F] or None."""

    appearance: np.ndarray
    features: np.ndarray | None


def fit_reference(train: Sample, val: Sample, units: int) -> Reference:
    """The reference of training images, with a limit from validation images.

    units: number of independent units in validation, patients where they are known.
    """
    assert len(train.appearance) >= MIN_TRAIN, len(train.appearance)
    assert units >= MIN_UNITS, units
    mean = train.appearance.mean(axis=0)
    scale = np.maximum(train.appearance.std(axis=0), MIN_SCALE)
    # Centered already, by the mean that also centers later images.
    # In float64, and rounded below: the order of sums in linear algebra differs from run to run.
    standardized = ((train.appearance - mean) / scale).astype(np.float64)
    shrunk = LedoitWolf(assume_centered=True).fit(standardized)
    features = None
    if train.features is not None:
        features = _unit(train.features).astype(np.float16)
    bare = Reference(
        mean, scale, shrunk.precision_.astype(np.float32), features,
        middle=np.zeros(1), spread=np.ones(1), limit=1.0, counts={},
    )  # fmt: skip
    logs = bare.distances(val.appearance, val.features)
    middle, spread = (np.round(values, DIGITS) for values in _upper(logs))
    standard = ((logs - middle) / spread).max(axis=1)
    (center,), (width,) = _upper(standard[:, None])
    normal = float(center + limit_factor(units, logs.shape[1]) * width)
    limit = round(max(normal, order_limit(standard, units)), DIGITS)
    return Reference(
        mean, scale, bare.precision, features, middle, spread, limit,
        counts={"train": len(train.appearance), "val": len(val.appearance), "val_units": units},
    )  # fmt: skip


def _upper(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread of the upper half, along the first axis.

    The lower half has its own tail and says nothing about large distances.
    """
    middle = np.median(values, axis=0)
    above = np.maximum(values - middle, 0)
    squared = (above**2).sum(axis=0) / np.maximum((above > 0).sum(axis=0), 1)
    return middle, np.sqrt(np.maximum(squared, TINY))


def order_limit(distances: np.ndarray, units: int) -> float:
    """The order statistic of float64 [n] that is a tolerance limit of any distribution.

    As many of `units` independent units lie above it as at most a tenth of all samples would have
    if a share `CONTENT` of all lay above (S. S. Wilks 1941, Ann Math Stat 12:91); the same share of
    the n images does. -inf where there are too few units for that.
    """
    if units < ORDER_UNITS:
        return -np.inf
    above = np.arange(units + 1)
    allowed = int((scipy.stats.binom.cdf(above, units, CONTENT) <= 1 - CONFIDENCE).sum()) - 1
    return float(np.sort(distances)[-1 - allowed * len(distances) // units])


@lru_cache
def limit_factor(units: int, columns: int) -> float:
    """How many spreads the limit lies above the middle of the larger of `columns` distances.

    Repeats `fit_reference` `SIMULATIONS` times on `units` rows of independent standard normal
    distances. Each time the share of new rows above a limit is known, and so is the factor that
    leaves exactly `CONTENT` of them; the result is the `CONFIDENCE` quantile of these factors.
    More than `MAX_UNITS` units count as `MAX_UNITS`, which errs towards a higher limit.
    """
    rng = np.random.default_rng(0)  # always the same limit
    drawn = rng.standard_normal((min(units, MAX_UNITS), columns, SIMULATIONS))
    middle, spread = _upper(drawn)
    center, width = _upper(((drawn - middle) / spread).max(axis=1))
    low, high = np.full(SIMULATIONS, -1e3), np.full(SIMULATIONS, 1e3)
    for _ in range(50):
        limit = (low + high) / 2
        above = 1 - scipy.stats.norm.cdf(middle + spread * limit).prod(axis=0)
        low, high = np.where(above > CONTENT, limit, low), np.where(above > CONTENT, high, limit)
    return float(np.quantile((high - center) / width, CONFIDENCE))


def _unit(features: np.ndarray) -> np.ndarray:
    """float32 [n, F], each row of length 1; a row of zeros stays zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, TINY), dtype=np.float32)


def _to_neighbor(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance float64 [n] of each row to its K-th nearest among `others`."""
    features, stored = features.astype(np.float64), others.astype(np.float64)
    squared = (features**2).sum(axis=1)[:, None] + (stored**2).sum(axis=1) - 2 * features @ stored.T
    k = min(NEIGHBOR, len(stored)) - 1
    return np.asarray(np.sqrt(np.maximum(np.partition(squared, k, axis=1)[:, k], 0)))


FeatureFunction = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def sample_images(
    images: np.ndarray, rows: np.ndarray, predict: FeatureFunction | None, batch_size: int
) -> Sample:
    """Appearance and, given `predict`, features of rows int64 [n] of uint8 [N, S, S]."""
    appearance = appearance_features(images, rows)
    if predict is None or not len(rows):
        return Sample(appearance, None)
    starts = range(0, len(rows), batch_size)
    parts = [predict(np.asarray(images[rows[s : s + batch_size]]))[1] for s in starts]
    if any(part is None for part in parts):
        return Sample(appearance, None)
    return Sample(appearance, np.concatenate([part for part in parts if part is not None]))


FORMAT = 2
ARRAYS = ("mean", "scale", "precision", "middle", "spread")
# A damaged zip, a damaged stream in it, a missing name, values that are not numbers.
# RuntimeError: a damaged flag says that a file is encrypted.
UNREADABLE = (
    BadZipFile, zlib.error, LookupError, ValueError, TypeError, RuntimeError, OSError, EOFError,
)  # fmt: skip
ADVICE = "restore the file that the run wrote, or remove it to predict without OOD detection"


def save_reference(reference: Reference, file: BinaryIO, checkpoint: Path) -> None:
    """Write the reference without pickle, with the SHA-256 of the model's file."""
    features = {} if reference.features is None else {"features": reference.features}
    np.savez(
        file,
        format=FORMAT,
        checkpoint=sha256_of(checkpoint),
        **{name: getattr(reference, name) for name in ARRAYS},
        limit=reference.limit,
        counted=np.array(list(reference.counts)),
        counts=np.array(list(reference.counts.values())),
        allow_pickle=False,
        **features,
    )


def load_reference(path: Path, checkpoint: Path) -> Reference:
    """Read what `save_reference` wrote for this checkpoint.

    Raises UserError for a damaged file, or one of another version or checkpoint.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if damaged := stored.zip.testzip():  # before NumPy reads the header of an array
                raise BadZipFile(f"{damaged} has another checksum")
            held = {name: stored[name] for name in stored.files}
        written = int(held["format"])
        if written == FORMAT:
            reference, digest = _reference_from(held), str(held["checkpoint"])
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({as_clause(error)}); {ADVICE}.") from error
    if written != FORMAT:
        raise UserError(
            f"{path} was written by another version of fracnet (format {written}, here {FORMAT}); "
            "remove it to predict without OOD detection, or train the run again."
        )
    if digest != (now := sha256_of(checkpoint)):
        raise UserError(
            f"{path} belongs to another checkpoint (SHA-256 {digest[:12]}...) than "
            f"{checkpoint.name} next to it ({now[:12]}...); {ADVICE}."
        )
    return reference


def _reference_from(held: Mapping[str, np.ndarray]) -> Reference:
    """Raises ValueError or KeyError where an array is not what `fit_reference` makes."""
    n = len(APPEARANCE_NAMES)
    features = held.get("features")
    columns = 1 if features is None else 2
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (n,), "scale": (n,), "precision": (n, n), "middle": (columns,),
        "spread": (columns,), "limit": (),
    }  # fmt: skip
    if features is not None:
        if features.ndim != 2 or not features.size:
            given = list(features.shape)
            raise ValueError(f"features has the shape {given} instead of [n, width], both above 0")
        shapes["features"] = features.shape
    for name, shape in shapes.items():
        values = held[name]
        if values.shape != shape:
            raise ValueError(f"{name} has the shape {list(values.shape)} instead of {list(shape)}")
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError(f"{name} holds a value that is not a finite number")
        if name in ("scale", "spread", "limit") and not (values > 0).all():
            raise ValueError(f"{name} is not above 0")
    counts = zip(held["counted"].tolist(), held["counts"].tolist(), strict=True)
    return Reference(
        **{name: held[name] for name in ARRAYS},
        features=features,
        limit=float(held["limit"]),
        counts={str(name): int(number) for name, number in counts},
    )

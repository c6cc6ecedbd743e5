"""Whether an image is unlike those that a model was trained on.

Two distances, each put on the scale of validation's:

- appearance: Mahalanobis distance, with Ledoit and Wolf's shrinkage (2004, J Multivar Anal 88:365),
  of a few dozen plain statistics of the image (`data.appearance`) to those of the training images;
- features: distance to the K-th nearest training image in the input of the model's head, each
  scaled to length 1 (Y. Sun et al. 2022, Out-of-distribution detection with deep nearest
  neighbors, ICML).

The larger one counts. The limit is a tolerance limit: with the confidence `CONFIDENCE`, at most
`CONTENT` of new images lie above it, were validation's patients drawn like new ones and the
logarithms of the distances, above their medians, those of a normal distribution. Its factor comes
from a simulation of just this estimate (`factor`), so it lies the higher the fewer patients there
are; of a patient's several images it counts one. It speaks of single images, and sees what these
two distances see, no more: an image that is not flagged may still be one on which the model fails.

novelty.npz: a `novelty.Reference` in a file, which goes with one checkpoint and no other.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy import stats

from fracnet.data.image_features import NAMES, appearance
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of

NEIGHBOR = 5
CONTENT, CONFIDENCE = 0.05, 0.9
MOST = 2000  # training images that are kept for comparison
FEWEST_UNITS, FEWEST_TRAIN = 8, 20
SIMULATED, MOST_UNITS = 2000, 400

# A statistic that hardly varies in training (no white pixel anywhere) must not decide by a hair.
LEAST_SCALE = 0.005
TINY = 1e-6
MEANING = (
    "distance from the training images: 0 as near as half of the validation images or nearer, 1 at "
    "the limit"
)


@dataclass(frozen=True)
class Reference:
    """The training images in short, and the limit.

    mean, scale: float32 [A] of the statistics. precision: float32 [A, A] of the standardized ones.
    features: float16 [n, F], each of length 1, or None where there are none. middle, spread:
    float64 [1 or 2], of the distances' logarithms on validation. counts: images of train that are
    compared with, of val, its independent units, and how many of val and test (of so many) are
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
        """float64 [n], 0 or more; above 1 is unlike. images: uint8 [n, S, S], as the model sees
        them; features: float32 [n, F]."""
        return self.of(appearance(images), features)

    def of(self, looks: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """As `scores`, of `appearance` float32 [n, A]."""
        logs = self.distances(looks, features)
        standard = (logs - self.middle) / self.spread
        return np.asarray(np.maximum(standard.max(axis=1), 0) / self.limit)

    def distances(self, looks: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Logarithms float64 [n, 1 or 2] of the distances."""
        z = ((looks - self.mean) / self.scale).astype(np.float64)
        squared = np.einsum("na,ab,nb->n", z, self.precision.astype(np.float64), z)
        columns = [np.log(np.sqrt(np.maximum(squared, 0)) + TINY)]
        if self.features is not None:
            assert features is not None, "this model has given features before"
            columns.append(np.log(_to_neighbor(_unit(features), self.features) + TINY))
        return np.column_stack(columns)

    def about(self) -> dict[str, Any]:
        """In words and numbers, for whoever reads what it has flagged."""
        by = "appearance and the model's features" if self.features is not None else "appearance"
        return {
            "by": by,
            "limit": f"meant for at most {CONTENT:g} of images like validation's",
            **self.counts,
        }


@dataclass(frozen=True)
class Sample:
    """Images of one split. looks: float32 [n, A]; features: float32 [n, F] or None."""

    looks: np.ndarray
    features: np.ndarray | None


def fit(train: Sample, val: Sample, units: int) -> Reference:
    """The reference of training images, and the limit by those of validation.

    units: how many independent ones validation has, patients where they are known.
    """
    from sklearn.covariance import LedoitWolf

    assert len(train.looks) >= FEWEST_TRAIN, len(train.looks)
    assert units >= FEWEST_UNITS, units
    mean = train.looks.mean(axis=0)
    scale = np.maximum(train.looks.std(axis=0), LEAST_SCALE)
    # Centered already, by the mean that later images are centered by.
    shrunk = LedoitWolf(assume_centered=True).fit((train.looks - mean) / scale)
    features = None
    if train.features is not None:
        features = _unit(train.features).astype(np.float16)
    bare = Reference(
        mean, scale, shrunk.precision_.astype(np.float32), features,
        middle=np.zeros(1), spread=np.ones(1), limit=1.0, counts={},
    )  # fmt: skip
    logs = bare.distances(val.looks, val.features)
    middle, spread = _upper(logs)
    standard = ((logs - middle) / spread).max(axis=1)
    (center,), (width,) = _upper(standard[:, None])
    limit = float(center + factor(units, logs.shape[1]) * width)
    return Reference(
        mean, scale, bare.precision, features, middle, spread, limit,
        counts={"train": len(train.looks), "val": len(val.looks), "val_units": units},
    )  # fmt: skip


def _upper(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread of the upper half, along the first axis: the lower half says nothing of
    what is far away, and has a tail of its own."""
    middle = np.median(values, axis=0)
    above = np.maximum(values - middle, 0)
    squared = (above**2).sum(axis=0) / np.maximum((above > 0).sum(axis=0), 1)
    return middle, np.sqrt(np.maximum(squared, TINY))


@lru_cache
def factor(units: int, columns: int) -> float:
    """By how many spreads the limit lies above the middle of the larger of `columns` distances.

    What `fit` does, done `SIMULATED` times on `units` rows of independent standard normal
    distances: each time the share of new rows above a limit is known, hence the factor that just
    leaves `CONTENT` of them; the `CONFIDENCE` quantile of these factors. More than `MOST_UNITS`
    count as so many, which errs to a higher limit.
    """
    rng = np.random.default_rng(0)  # the same limit whenever it is asked for
    drawn = rng.standard_normal((min(units, MOST_UNITS), columns, SIMULATED))
    middle, spread = _upper(drawn)
    center, width = _upper(((drawn - middle) / spread).max(axis=1))
    low, high = np.full(SIMULATED, -1e3), np.full(SIMULATED, 1e3)
    for _ in range(50):
        limit = (low + high) / 2
        above = 1 - stats.norm.cdf(middle + spread * limit).prod(axis=0)
        low, high = np.where(above > CONTENT, limit, low), np.where(above > CONTENT, high, limit)
    return float(np.quantile((high - center) / width, CONFIDENCE))


def _unit(features: np.ndarray) -> np.ndarray:
    """float32 [n, F], each row of length 1; a row of zeros stays one."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, TINY), dtype=np.float32)


def _to_neighbor(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance float32 [n] of each row to its K-th nearest among `others`."""
    kept = others.astype(np.float32)
    squared = (features**2).sum(axis=1)[:, None] + (kept**2).sum(axis=1) - 2 * features @ kept.T
    k = min(NEIGHBOR, len(kept)) - 1
    return np.asarray(np.sqrt(np.maximum(np.partition(squared, k, axis=1)[:, k], 0)))


Look = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def sample(images: np.ndarray, rows: np.ndarray, look: Look | None, batch_size: int) -> Sample:
    """Looks and features of rows int64 [n] of uint8 [N, S, S]; `look` None: no features."""
    looks = appearance(images, rows)
    if look is None or not len(rows):
        return Sample(looks, None)
    starts = range(0, len(rows), batch_size)
    parts = [look(np.asarray(images[rows[s : s + batch_size]]))[1] for s in starts]
    if any(part is None for part in parts):
        return Sample(looks, None)
    return Sample(looks, np.concatenate([part for part in parts if part is not None]))


FORMAT = 2
WAY_OUT = "bring it back as the run has left it, or remove it to predict without"


def save(found: Reference, path: Path, checkpoint: Path) -> None:
    """Write it without pickle, with the SHA-256 of the file that holds the model."""
    held = {} if found.features is None else {"features": found.features}
    np.savez_compressed(
        path,
        format=FORMAT,
        checkpoint=sha256_of(checkpoint),
        mean=found.mean,
        scale=found.scale,
        precision=found.precision,
        middle=found.middle,
        spread=found.spread,
        limit=found.limit,
        counted=np.array(list(found.counts)),
        counts=np.array(list(found.counts.values())),
        allow_pickle=False,
        **held,
    )


def load(path: Path, checkpoint: Path) -> Reference:
    """Read what `save` wrote beside this checkpoint.

    Raises UserError for another file, one that is not whole, and one of another checkpoint.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            held = {name: stored[name] for name in stored.files}
        written = int(held["format"])
        if written == FORMAT:
            found, of = _checked(held), str(held["checkpoint"])
    # A damaged zip, a damaged stream in it, a name that is missing, numbers that are none.
    except (BadZipFile, zlib.error, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({why}); {WAY_OUT}.") from error
    if written != FORMAT:
        raise UserError(
            f"{path} was written by another version of fracnet (format {written}, here {FORMAT}); "
            "remove it to predict without, or train the run again."
        )
    if of != (now := sha256_of(checkpoint)):
        raise UserError(
            f"{path} goes with another checkpoint (SHA-256 {of[:12]}...) than {checkpoint.name} "
            f"beside it ({now[:12]}...); {WAY_OUT}."
        )
    return found


def _checked(held: Mapping[str, np.ndarray]) -> Reference:
    """ValueError, or KeyError, where an array is not what `novelty.fit` makes."""
    n = len(NAMES)
    features = held.get("features")
    columns = 1 if features is None else 2
    shapes = {
        "mean": (n,), "scale": (n,), "precision": (n, n), "middle": (columns,),
        "spread": (columns,), "limit": (), "checkpoint": (),
    }  # fmt: skip
    if features is not None:
        if features.ndim != 2 or not features.size:
            raise ValueError(f"features has the shape {list(features.shape)}")
        shapes["features"] = features.shape
    for name, shape in shapes.items():
        if held[name].shape != shape:
            raise ValueError(
                f"{name} has the shape {list(held[name].shape)} in place of {list(shape)}"
            )
        if name == "checkpoint":
            continue
        if held[name].dtype.kind != "f" or not np.isfinite(held[name]).all():
            raise ValueError(f"{name} holds what is no finite number")
    for name in ("scale", "spread", "limit"):
        if not (held[name] > 0).all():
            raise ValueError(f"{name} is not above 0")
    counts = zip(held["counted"].tolist(), held["counts"].tolist(), strict=True)
    return Reference(
        **{name: held[name] for name in ("mean", "scale", "precision", "middle", "spread")},
        features=features,
        limit=float(held["limit"]),
        counts={str(name): int(number) for name, number in counts},
    )

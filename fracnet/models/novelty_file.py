"""novelty.npz: a `novelty.Reference` in a file, which goes with one checkpoint and no other."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fracnet.data.appearance import NAMES
from fracnet.errors import UserError
from fracnet.hashes import sha256_of
from fracnet.models.novelty import Reference

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

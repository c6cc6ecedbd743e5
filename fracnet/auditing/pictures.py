"""Small pictures for the page, as text that an `<img>` takes: nothing is loaded from elsewhere."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fracnet.auditing.duplicates import Pair
from fracnet.auditing.findings import called
from fracnet.auditing.pairs import in_words
from fracnet.data.manifest import Manifest
from fracnet.data.reading import Grey, read_grey

SIDE = 240  # pixels of the longest side
QUALITY = 72


def shown_pairs(manifest: Manifest, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """What the page shows of each pair: two pictures, and the second one laid over the first.

    The third is None where the pixels are the same. Reads the files again.
    """
    table = manifest.table
    result = []
    for pair in pairs:
        a, b = (read_grey(manifest.root / table["path"].iloc[row]) for row in (pair.a, pair.b))
        names = [called(table, row) for row in (pair.a, pair.b)]
        pictures = [
            {"src": as_source(a), "alt": f"Radiograph {names[0]}", "caption": names[0]},
            {"src": as_source(b), "alt": f"Radiograph {names[1]}", "caption": names[1]},
        ]
        if pair.transform is not None:
            laid = laid_over(a, b, pair)
            caption = "the second one brought into the place of the first"
            alt = f"Radiograph {names[1]}, brought into the place of {names[0]}"
            pictures.append({"src": as_source(laid), "alt": alt, "caption": caption})
        splits = [str(table["split"].iloc[row]) for row in (pair.a, pair.b)]
        labels = [str(table["label"].iloc[row]) for row in (pair.a, pair.b)]
        result.append(
            {
                "words": in_words(pair),
                "where": " and ".join(dict.fromkeys(splits)),
                "parted": splits[0] != splits[1],
                "mixed": labels[0] != labels[1],
                "pictures": pictures,
            }
        )
    return result


def laid_over(a: Grey, b: Grey, pair: Pair) -> Grey:
    """The pixels of b where those of a are, uint8 of a's shape; black where b shows nothing."""
    assert pair.transform is not None
    matrix = np.asarray(pair.transform, np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(b, matrix, (a.shape[1], a.shape[0]), flags=flags).astype(np.uint8)


def as_source(image: Grey) -> str:
    """A JPEG of at most `SIDE` pixels, as a data URL."""
    height, width = image.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")

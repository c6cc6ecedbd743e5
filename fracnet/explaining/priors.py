"""Maps that know nothing of the network: what a heatmap must beat to have found anything."""

from collections.abc import Iterator

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

# Of the side: two thirds of the prior lie within the middle half of the image, each way.
CENTRE_SPREAD = 0.25
# Of the side: about the width of a cell of the coarse maps, 7 by 7, that most networks give.
EDGE_SPREAD = 1 / 28


def centre_prior(size: int) -> np.ndarray:
    """Whoever takes a radiograph centres it on what hurts: a Gaussian, float32 [S, S].

    Its standard deviation is a quarter of the side; its highest value is 1.
    """
    place = (np.arange(size) + 0.5) / size - 0.5
    along = np.exp(-(place**2) / (2 * CENTRE_SPREAD**2))
    heat = np.outer(along, along)
    return np.asarray(heat / heat.max(), dtype=np.float32)


def centre_maps(n: int, size: int) -> Iterator[np.ndarray]:
    """The centre prior n times, float32 [1, S, S] each."""
    prior = centre_prior(size)[None]
    for _ in range(n):
        yield prior


def edge_map(image: np.ndarray) -> np.ndarray:
    """Where an image uint8 [S, S] has edges, float32 [S, S] of 0 to 1; 0 everywhere if it is flat.

    The gradient's magnitude (Sobel), smoothed to the coarseness of a network's map, for a single
    pixel's sharp edge is no place.
    """
    across, down = (cv2.Sobel(image, cv2.CV_16S, dx, 1 - dx) for dx in (1, 0))
    # In doubles by scipy: OpenCV's floats round differently from one call to the next.
    steep = np.hypot(across.astype(np.float64), down.astype(np.float64))
    smooth = gaussian_filter(steep, EDGE_SPREAD * image.shape[-1])
    highest = smooth.max()
    return np.asarray(smooth / highest if highest > 0 else smooth, dtype=np.float32)


def edge_maps(images: np.ndarray) -> Iterator[np.ndarray]:
    """`edge_map` of each of the images uint8 [n, S, S], float32 [1, S, S] each."""
    for image in images:
        yield edge_map(image)[None]
